"""Stable Diffusion 1.x and 2.x, noise and v-prediction, from any folder in diffusers' layout.

Axes: N network inputs, B images, h w latent height and width, L tokens, D text width, T timesteps.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from scaledreamer.constraints import PositiveInt
from scaledreamer.cuda_graph import GraphedFunction, GraphedGradient
from scaledreamer.errors import UserError
from scaledreamer.priors import locate
from scaledreamer.priors.base import TextEncoding
from scaledreamer.priors.clip_text import ClipText, too_long, warn_of_cut
from scaledreamer.priors.compiled import Compiled
from scaledreamer.priors.layout import Configs
from scaledreamer.priors.parametrisation import alphas_cumprod, as_noise
from scaledreamer.priors.weights import Weights

Speedup = Literal["none", "cuda_graph", "compile", "auto"]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class StableDiffusion:
    """A frozen Stable Diffusion; a :class:`scaledreamer.priors.base.Prior` of one view.

    The constructor touches no file. Sizes are read from the folder's JSON files when first asked for;
    :meth:`prepare` downloads what is missing; :meth:`setup` loads the weights.

    Args:
        path: a folder in diffusers' layout; ``sd21``, ``sd15`` or ``tiny`` once fetched; a hub name; ``random:tiny``
            or ``random:sd21`` for random weights (see :mod:`scaledreamer.priors.locate`).
        negative_prompt: the text of the unconditional prediction.
        dtype: of weights and computation; ``auto`` is the one given to :meth:`setup`, else half on a GPU and float32
            elsewhere. Latents and noise estimates are float32 always.
        image_size: side in pixels of the images to encode, a multiple of the VAE's factor (8); None for the size the
            UNet was trained at.
        speedup: on a GPU; no effect elsewhere. ``none`` runs diffusers' modules as they are. ``cuda_graph`` puts
            fused kernels into UNet and VAE (:mod:`scaledreamer.priors.fused`), records both once per shape and
            replays them. ``compile`` has torch.compile make the UNet's kernels instead (a minute or two at the start
            of the first run; later ones find them on the disk), or warns and goes on as ``cuda_graph``. ``auto`` is
            ``cuda_graph``, which keeps nobody waiting.
    """

    views = 1
    base_path: str | None = None
    """Where the parts come from that ``path`` has not; None where it has all."""

    def __init__(
        self,
        *,
        path: str,
        negative_prompt: str = "",
        dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto",
        image_size: PositiveInt | None = None,
        speedup: Speedup = "auto",
    ) -> None:
        self.path, self.negative_prompt = path, negative_prompt
        self._dtype_name, self._image_size, self._speedup = dtype, image_size, speedup
        self._device = torch.device("cpu")
        self._dtype: torch.dtype | None = None  # known after setup
        self._text: ClipText | None = None
        self._tokenizer = None
        self._warned: set[str] = set()
        self._unet: nn.Module
        self._vae: nn.Module
        self.alphas_cumprod: Tensor  # [T] float32, after setup

    # -- sizes -------------------------------------------------------------------------------------------------

    @cached_property
    def weights(self) -> Weights:
        """Where the parts come from.

        Raises:
            UserError: they are not on this machine, incomplete or of another kind of model.
        """
        return self._of_these_views(locate.open_weights(self.path, self.base_path))

    @property
    def configs(self) -> Configs:
        """The configurations of the parts."""
        return self.weights.configs

    @property
    def image_size(self) -> int:
        """Side in pixels of the images to encode."""
        factor = self.configs.vae_factor
        size = self._image_size or self.configs.latent_size * factor
        if size % factor:
            raise UserError(f"guidance.prior.image_size={size} is not a multiple of {factor}, the VAE's factor.")
        return size

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, h, w)."""
        side = self.image_size // self.configs.vae_factor
        return int(self.configs.unet["in_channels"]), side, side

    @property
    def text_dim(self) -> int:
        """D."""
        return self.configs.text_dim

    @property
    def text_length(self) -> int:
        """L."""
        return self.configs.text_length

    @property
    def num_timesteps(self) -> int:
        """T."""
        return self.configs.num_timesteps

    @property
    def fingerprint(self) -> str:
        """Names the text encoder's weights and tokenizer."""
        return self.weights.fingerprint

    # -- weights -----------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Have the files on this machine and checked: download a hub name once. Call it before anything else.

        Raises:
            UserError: the weights cannot be had; the message says how to get some.
        """
        self.__dict__["weights"] = self._of_these_views(locate.prepare(self.path, self.base_path))

    def _of_these_views(self, weights: Weights) -> Weights:
        views = weights.configs.views
        if views != self.views:
            raise UserError(
                f"the prior '{self.path}' denoises {views} views of an object together, {type(self).__name__} "
                f"{self.views}; use it with guidance/prior={'sd21' if views == 1 else 'mvdream'}, or another path here."
            )
        return weights

    def setup(self, device: torch.device, dtype: torch.dtype | None = None) -> None:
        """Load UNet and VAE encoder, frozen, in eval mode.

        Args:
            device: where they run.
            dtype: for ``dtype="auto"``; None for half on a GPU and float32 elsewhere.

        Raises:
            UserError: the weights are not there or do not fit.
        """
        self._device, self._dtype = torch.device(device), self._resolve(torch.device(device), dtype)
        # Convolutions run fastest with the channels innermost; on a CPU only the UNet's, which are many and small.
        self._unet = self._frozen(self.weights.unet(self._device), torch.channels_last)
        vae = self.weights.vae(self._device)
        del vae.decoder, vae.post_quant_conv  # only encoding is needed
        on_gpu = self._device.type == "cuda"
        self._vae = self._frozen(vae, torch.channels_last if on_gpu else torch.preserve_format)
        self._denoise: Callable[..., Tensor] = self._unet_output
        self._encode: Callable[..., Tensor] = self._latents
        if on_gpu and self._speedup != "none":
            self._speed_up()
        self.alphas_cumprod = alphas_cumprod(self.configs).to(self._device)

    def _speed_up(self) -> None:
        def fused() -> Callable[..., Tensor]:
            if fusible:
                fuse(self._unet)
            return self._unet_output

        from scaledreamer.priors.fused import can_fuse, fuse

        fusible = can_fuse(self._device)
        if fusible:
            fuse(self._vae)
        compiles = self._speedup == "compile"
        self._denoise = GraphedFunction(Compiled(self._unet_output, otherwise=fused) if compiles else fused())
        self._encode = GraphedGradient(self._latents)

    def _resolve(self, device: torch.device, dtype: torch.dtype | None) -> torch.dtype:
        if self._dtype_name != "auto":
            return DTYPES[self._dtype_name]
        return dtype or (torch.float16 if device.type == "cuda" else torch.float32)

    def _frozen(self, model: nn.Module, layout: torch.memory_format) -> nn.Module:
        # diffusers' own `to` warns of modules to be kept in float32, of which these models have none.
        return nn.Module.to(
            model.eval().requires_grad_(False), device=self._device, dtype=self._dtype, memory_format=layout
        )  # pyright: ignore[reportCallIssue]

    # -- text --------------------------------------------------------------------------------------------------

    def encode_text(self, prompts: Sequence[str], device: torch.device | None = None) -> TextEncoding:
        """Embed texts in batches: pooled [N, D] and tokens [N, L, D]; cut at L tokens, end token kept.

        The text encoder loads at first use and stays until :meth:`release_text_encoder`. Texts that are cut are
        counted in one warning, unless :meth:`report_cut` has already told of them.

        Args:
            prompts: N texts.
            device: where to run; None for that of :meth:`setup`, or the CPU before it.
        """
        device = torch.device(device) if device is not None else self._device
        if self._text is None:
            encoder = self.weights.text_encoder()
            self._text = ClipText(
                tokenizer=self._get_tokenizer(), encoder=encoder, length=self.text_length, width=self.text_dim
            )
        self.report_cut(prompts)
        return self._text.to(device, self._dtype or self._resolve(device, None)).encode(prompts)

    def report_cut(self, prompts: Sequence[str]) -> list[str]:
        """Those of the texts that are longer than L tokens; one warning counts the ones not told of before."""
        cut = too_long(self._get_tokenizer(), prompts, self.text_length)
        warn_of_cut([text for text in cut if text not in self._warned], len(prompts), self.text_length)
        self._warned.update(cut)
        return cut

    def _get_tokenizer(self):
        if self._tokenizer is None:
            self._tokenizer = self.weights.tokenizer()
        return self._tokenizer

    def release_text_encoder(self) -> None:
        """Free the text encoder's memory."""
        self._text = None
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    # -- images ------------------------------------------------------------------------------------------------

    def encode_images(self, images: Tensor, noise: Tensor) -> Tensor:
        """Scaled latents [B, *latent_shape], float32, of images [B, 3, image_size, image_size] in [-1, 1].

        z = factor * (mean(x) + std(x) * noise), differentiable with respect to the images.
        """
        with torch.autocast(self._device.type, enabled=False):
            return self._encode(images, noise)

    def _latents(self, images: Tensor, noise: Tensor) -> Tensor:
        posterior = self._vae.encode(images.to(self._dtype)).latent_dist  # type: ignore[operator]
        return self.configs.scaling_factor * (posterior.mean.float() + posterior.std.float() * noise.float())

    @torch.no_grad()
    def predict_noise(self, latents: Tensor, timesteps: Tensor, tokens: Tensor, c2w: Tensor | None = None) -> Tensor:
        """Noise estimates [N, *latent_shape], float32.

        Args:
            latents: noisy latents [N, *latent_shape].
            timesteps: [N] int64 in [0, T).
            tokens: [N, L, D].
            c2w: unused; the model knows nothing of cameras.
        """
        return self._predict_noise(latents, timesteps, tokens)

    def _predict_noise(self, latents: Tensor, timesteps: Tensor, tokens: Tensor, *more: Tensor) -> Tensor:
        # The weights are in the prior's own type; the trainer's autocast would cast them again at every step.
        with torch.autocast(self._device.type, enabled=False):
            output = self._denoise(latents.to(self._dtype), timesteps, tokens.to(self._dtype), *more)
        return as_noise(output.float(), latents.float(), self.alphas_cumprod[timesteps], self.configs.prediction_type)

    def _unet_output(self, latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        return self._unet(latents, timesteps, encoder_hidden_states=tokens, return_dict=False)[0]
