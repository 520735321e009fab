"""The toybox's multi-view denoiser: four pictures of a toy at once, each told its camera.

Its text encoder, VAE and noise schedule are those of ``toy``, which stay as they are. The timestep is one for all views
of a toy, as in distillation.

Axes: O toys of a batch, V views of each, B = O * V latents, L tokens, D text width.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from scaledreamer.toybox.training.denoiser import UNCAPTIONED, UNET
from scaledreamer.toybox.training.latents import SCHEDULER, Latents
from scaledreamer.toybox.training.loop import Plan, fit
from scaledreamer.toybox.training.pictures import Pictures
from scaledreamer.toybox.vocabulary import every_toy

VIEWS = 4
SIZES: dict[str, Any] = {**UNET, "block_out_channels": [64, 112, 128], "attention_head_dim": [2, 7, 4], "views": VIEWS}
"""Smaller than ``toy``'s, so that all bundled weights stay below 40 MB; heads of 16 or 32 channels."""

BATCH = 128
"""Toys per step."""


def train_multiview(
    pictures: Pictures, base: Path, folder: Path, plan: Plan, *, batch: int = BATCH, compiled: bool = True
) -> bool:
    """Train, and save ``folder``'s ``unet``; False if ``plan.minutes`` were over before.

    Args:
        pictures: each :data:`VIEWS` consecutive ones of a toy, from a ring of cameras.
        base: folder of ``toy``, whose text encoder and VAE it reads.
        folder: where to write.
        plan: how it is trained.
        batch: toys per step.
        compiled: compile the UNet.
    """
    from scaledreamer.priors.multiview_unet import MultiViewUNet

    device = pictures.rgba.device
    tokens, empty = plain_tokens(base, device)
    latents = Latents(pictures, base, seed=plan.seed, together=VIEWS)
    torch.manual_seed(plan.seed)
    model = MultiViewUNet.from_config(SIZES).to(device)
    if compiled:
        model.unet.compile(dynamic=False)
    view = torch.arange(VIEWS, device=device)

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        def uniform() -> Tensor:
            return torch.rand(batch, generator=generator, device=device)

        group = (uniform() * (len(latents) // VIEWS)).long()
        index = (group[:, None] * VIEWS + view).flatten()  # [B]
        shown = index % len(pictures)
        captioned = (uniform() >= UNCAPTIONED).repeat_interleave(VIEWS)
        words = torch.where(captioned[:, None, None], tokens[pictures.toy[shown]], empty)
        t = (uniform() * SCHEDULER["num_train_timesteps"]).long().repeat_interleave(VIEWS)
        noisy = latents.noisy(index, t, generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            predicted = model(noisy.latents, t, words, pictures.c2w[shown])
        return {"velocity": F.mse_loss(predicted.float(), noisy.velocity)}

    done = fit(model, loss, plan, state=folder / "state")
    model.half().save_pretrained(folder / "unet")
    return done


def plain_tokens(base: Path, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens of all toys' prompts [T, L, D] and of the empty one [L, D], float32, by the text encoder of ``base``."""
    from scaledreamer.priors.stable_diffusion import StableDiffusion

    prior = StableDiffusion(path=str(base), dtype="float32")
    encoded = prior.encode_text([*(toy.prompt for toy in every_toy()), ""], device).tokens
    prior.release_text_encoder()
    return encoded[:-1], encoded[-1]
