"""Multi-view diffusion: MVDream (arXiv 2308.16512) and models like it, from any folder in our layout or its checkpoint.

Axes: M objects, V views of each, N = M * V network inputs (views of an object consecutive), h w latent height and
width, L tokens, D text width.
"""

from typing import Literal

import torch
from torch import Tensor

from scaledreamer.constraints import PositiveInt
from scaledreamer.priors.stable_diffusion import Speedup, StableDiffusion


class MultiViewDiffusion(StableDiffusion):
    """A frozen multi-view diffusion model: 4 views of an object are denoised together, each told its camera.

    All but the UNet is a Stable Diffusion's; see :class:`scaledreamer.priors.stable_diffusion.StableDiffusion`.

    Args:
        path: ``mvdream`` once fetched; the file ``sd-v2.1-base-4view.pt``, which is converted once; a folder with a
            multi-view UNet, or a hub name of one; ``random:tiny_mv`` or ``random:mvdream`` for random weights.
        base_path: a Stable Diffusion (a folder, a name that was fetched, a hub name) for the parts that ``path`` has
            not: MVDream's text encoder, tokenizer and scheduler are those of 2.1-base.
        negative_prompt: the text of the unconditional prediction.
        dtype, image_size, speedup: as of Stable Diffusion.
    """

    views = 4

    def __init__(
        self,
        *,
        path: str,
        base_path: str = "sd21",
        negative_prompt: str = "",
        dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto",
        image_size: PositiveInt | None = None,
        speedup: Speedup = "auto",
    ) -> None:
        super().__init__(
            path=path, negative_prompt=negative_prompt, dtype=dtype, image_size=image_size, speedup=speedup
        )
        self.base_path = base_path

    @torch.no_grad()
    def predict_noise(self, latents: Tensor, timesteps: Tensor, tokens: Tensor, c2w: Tensor | None = None) -> Tensor:
        """Noise estimates [N, *latent_shape], float32; the views of an object are consecutive.

        Args:
            latents: noisy latents [N, *latent_shape].
            timesteps: [N] int64 in [0, T), the same for the views of an object.
            tokens: [N, L, D].
            c2w: cameras [N, 4, 4], at any distance.
        """
        if c2w is None:
            raise ValueError("a multi-view prior needs c2w, the cameras of its inputs")
        return self._predict_noise(latents, timesteps, tokens, c2w)

    def _unet_output(self, *inputs: Tensor) -> Tensor:
        return self._unet(*inputs)
