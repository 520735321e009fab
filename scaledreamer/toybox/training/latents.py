"""Latents of the pictures that denoisers are trained on, and what noise makes of them.

Axes: N pictures, B latents of a batch, [C, h, w] latents, V views of a toy.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scaledreamer.toybox.training.pictures import Pictures

SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "v_prediction",
}
BACKGROUNDS = 4  # that each picture is encoded on


@dataclass(frozen=True)
class Noisy:
    """Noisy latents and what a denoiser is asked of them."""

    latents: Tensor  # [B, C, h, w]  x_t
    velocity: Tensor  # [B, C, h, w]  sqrt(abar) eps - sqrt(1 - abar) x_0


class Latents:
    """Scaled latents of all pictures, each on :data:`BACKGROUNDS` backgrounds: N first, then N again, and so on.

    Args:
        pictures: N.
        folder: holds the VAE, ``vae``.
        seed: of the backgrounds.
        together: consecutive pictures that share their background in half of the cases.
    """

    @torch.no_grad()
    def __init__(self, pictures: Pictures, folder: Path, *, seed: int, together: int = 1) -> None:
        from diffusers import AutoencoderKL, DDPMScheduler

        self.device = device = pictures.rgba.device
        vae: Any = AutoencoderKL.from_pretrained(str(folder / "vae"))
        vae.float().to(device)
        generator = torch.Generator(device).manual_seed(seed)
        factor = vae.config["scaling_factor"]
        means, deviations = [], []
        for turn in range(BACKGROUNDS):
            for index in torch.arange(len(pictures), device=device).split(512):
                images = pictures.batch(index, generator, together=1 if turn % 2 else together)
                posterior = vae.encode(images).latent_dist
                means.append((factor * posterior.mean).half())
                deviations.append((factor * posterior.std).half())
        self._mean, self._std = torch.cat(means), torch.cat(deviations)  # [BACKGROUNDS * N, C, h, w]
        fields = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
        self._alphas = DDPMScheduler(**{k: SCHEDULER[k] for k in fields}).alphas_cumprod.to(device)

    def __len__(self) -> int:
        return len(self._mean)

    def noisy(self, index: Tensor, t: Tensor, generator: torch.Generator) -> Noisy:
        """Draws of the latents ``index`` [B] with the noise of timesteps ``t`` [B]."""

        def normal() -> Tensor:
            return torch.randn(len(index), *self._mean.shape[1:], generator=generator, device=self.device)

        z = self._mean[index] + self._std[index] * normal()
        a = self._alphas[t].view(-1, 1, 1, 1)
        noise = normal()
        return Noisy(a.sqrt() * z + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * z)
