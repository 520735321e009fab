"""The seam between guidance and a frozen denoiser.

A prior is a plain object, not an ``nn.Module``: its weights must stay out of checkpoints, of ``parameters()`` and
of DDP. Its constructor reads nothing; weights load in :meth:`Prior.setup`.

Axes: N network inputs, B images, h w latent height and width, L tokens, D text width, T timesteps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class TextEncoding:
    """What a prior's text encoder says of N texts."""

    pooled: Tensor  # [N, D]  the "global" embedding (pooler output)
    tokens: Tensor  # [N, L, D]  the "local" embeddings (last hidden state)


class Prior(Protocol):
    """A frozen text-to-image (or multi-view) diffusion model."""

    views: int
    """Images that are denoised together: 1, or 4 for MVDream."""
    negative_prompt: str
    """The text of the unconditional prediction."""
    alphas_cumprod: Tensor
    """[T] float32 on the device, after setup."""

    @property
    def image_size(self) -> int:
        """Side in pixels of the images it encodes; renders are resized to it."""
        ...

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, h, w)."""
        ...

    @property
    def text_dim(self) -> int:
        """D."""
        ...

    @property
    def text_length(self) -> int:
        """L."""
        ...

    @property
    def num_timesteps(self) -> int:
        """T."""
        ...

    @property
    def fingerprint(self) -> str:
        """Names the text encoder's weights and tokenizer; stored embeddings are keyed by it."""
        ...

    def prepare(self) -> None:
        """Have the weights' files on this machine and checked, before any time is spent on them."""
        ...

    def setup(self, device: torch.device, dtype: torch.dtype | None = None) -> None:
        """Load the denoiser and image encoder; frozen, in eval mode; ``dtype`` None lets the prior choose."""
        ...

    def encode_text(self, prompts: Sequence[str], device: torch.device | None = None) -> TextEncoding:
        """Embed texts in batches, cut at L tokens, end token kept; on ``device``, or where the prior is set up.

        Loads the text encoder at first use; :meth:`release_text_encoder` frees it.
        """
        ...

    def report_cut(self, prompts: Sequence[str]) -> list[str]:
        """Those of the texts that are longer than L tokens, with one warning for all of them."""
        ...

    def release_text_encoder(self) -> None:
        """Free the text encoder's memory; a later :meth:`encode_text` loads it again."""
        ...

    def encode_images(self, images: Tensor, noise: Tensor) -> Tensor:
        """Images [B, 3, image_size, image_size] in [-1, 1] -> scaled latents [B, *latent_shape], differentiable.

        ``noise`` [B, *latent_shape] is the standard normal draw of the encoder's posterior.
        """
        ...

    def predict_noise(self, latents: Tensor, timesteps: Tensor, tokens: Tensor, c2w: Tensor | None = None) -> Tensor:
        """Noise estimates [N, *latent_shape] for noisy latents [N, *latent_shape], timesteps [N], tokens [N, L, D].

        ``c2w`` [N, 4, 4] is for multi-view priors, whose N counts views of one object consecutively.
        Other parametrisations (v-prediction) are converted to noise here.
        """
        ...
