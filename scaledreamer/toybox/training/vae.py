"""The toy prior's image autoencoder: 64 x 64 pictures <-> 4 x 16 x 16 latents.

Axes: B pictures, [C, h, w] latents, H W pixels.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from scaledreamer.toybox.training.loop import Plan, fit
from scaledreamer.toybox.training.pictures import Pictures

log = logging.getLogger(__name__)

CONFIG: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": [24, 48, 96],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
}
KL_WEIGHT = 3e-4
BATCH = 256
DISTURBED = 0.25  # share of pictures that are blurred, so that half-formed renders are encoded sensibly as well


def state_folder(folder: Path) -> Path:
    """Where an unfinished training of the VAE of ``folder`` is kept."""
    return folder / "state" / "vae"


def train_vae(pictures: Pictures, folder: Path, plan: Plan, *, batch: int = BATCH, compiled: bool = True) -> bool:
    """Train, and save to ``folder`` in diffusers' layout; False if ``plan.minutes`` were over before."""
    from diffusers import AutoencoderKL

    torch.manual_seed(plan.seed)
    device = pictures.rgba.device
    vae: Any = AutoencoderKL(**CONFIG)
    vae.to(device)
    encode, decode = vae.encode, vae.decode
    if compiled:
        vae.encoder.compile(dynamic=False)
        vae.decoder.compile(dynamic=False)

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        index = torch.randint(len(pictures), (batch,), generator=generator, device=device)
        images = disturb(pictures.batch(index, generator), generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            posterior = encode(images).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator, device=device)
            restored = decode(posterior.mean + posterior.std * noise).sample.float()
        kl = 0.5 * (posterior.mean.float().square() + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        return {
            "l1": F.l1_loss(restored, images),
            "mse": 4 * F.mse_loss(restored, images),
            "kl": KL_WEIGHT * kl,
        }

    done = fit(vae, loss, plan, state=state_folder(folder))
    vae.register_to_config(scaling_factor=scaling_factor(vae, pictures))
    vae.half().save_pretrained(str(folder / "vae"))
    log.info("vae: PSNR %.2f dB, scaling factor %.4f", psnr(vae.float(), pictures), vae.config["scaling_factor"])
    return done


def tune_decoder(pictures: Pictures, folder: Path, plan: Plan, *, batch: int = BATCH, compiled: bool = True) -> bool:
    """Train the decoder of ``folder``'s VAE further and save it; False if ``plan.minutes`` were over before.

    The encoder stays as it is, and with it all latents and the denoiser that was trained on them.
    """
    from diffusers import AutoencoderKL

    device = pictures.rgba.device
    stored: Any = AutoencoderKL.from_pretrained(str(folder / "vae"))
    vae: Any = AutoencoderKL(**CONFIG, scaling_factor=stored.config["scaling_factor"])  # which knows of no folder
    vae.load_state_dict(stored.state_dict())
    vae.float().to(device).requires_grad_(False)
    for module in (vae.decoder, vae.post_quant_conv):
        module.requires_grad_(True)
    if compiled:
        vae.decoder.compile(dynamic=False)

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        index = torch.randint(len(pictures), (batch,), generator=generator, device=device)
        images = pictures.batch(index, generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            latents = vae.encode(images).latent_dist.mean
            restored = vae.decode(latents).sample.float()
        return {"l1": 0.2 * F.l1_loss(restored, images), "mse": 4 * F.mse_loss(restored, images)}

    done = fit(vae, loss, plan, state=folder / "state" / "decoder")
    vae.half().save_pretrained(str(folder / "vae"))
    log.info("vae: PSNR %.2f dB", psnr(vae.float(), pictures))
    return done


def disturb(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blur a share of images [B, 3, H, W]: to a half or a quarter of their size and back."""
    device = images.device
    kind = torch.rand(len(images), 1, 1, 1, generator=generator, device=device)
    size = images.shape[-2:]
    halved, quartered = (
        F.interpolate(F.avg_pool2d(images, k), size, mode="bilinear", align_corners=False) for k in (2, 4)
    )
    return torch.where(kind < DISTURBED / 3, quartered, torch.where(kind < DISTURBED, halved, images))


@torch.no_grad()
def scaling_factor(vae: Any, pictures: Pictures, *, count: int = 4096) -> float:
    """One over the standard deviation of latents."""
    parts = [vae.encode(images).latent_dist.sample() for images in _some(pictures, count)]
    return 1 / float(torch.cat(parts).std())


@torch.no_grad()
def psnr(vae: Any, pictures: Pictures, *, count: int = 4096) -> float:
    """Mean peak signal-to-noise ratio of restored pictures, dB, of values in [0, 1]."""
    found = []
    for images in _some(pictures, count):
        restored = vae.decode(vae.encode(images).latent_dist.mean).sample.clamp(-1, 1)
        found.append(-10 * torch.log10(((restored - images) / 2).square().mean(dim=(1, 2, 3))))
    return float(torch.cat(found).mean())


def _some(pictures: Pictures, count: int) -> list[Tensor]:
    device = pictures.rgba.device
    generator = torch.Generator(device).manual_seed(0)
    index = torch.arange(min(count, len(pictures)), device=device)
    return [pictures.batch(part, generator) for part in index.split(256)]
