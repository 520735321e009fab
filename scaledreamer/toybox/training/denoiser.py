"""The toy prior's text encoder and denoiser, trained together on latents of captioned pictures.

The text encoder also learns to tell each word of a caption from its pooled embedding, by linear heads that are thrown
away: the pooled embedding is what a generator sees of a prompt.

Axes: B pictures, [C, h, w] latents, T toys, W view words, L tokens, D text width.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scaledreamer.priors.random_weights import write_index
from scaledreamer.toybox.training.loop import Plan, fit
from scaledreamer.toybox.training.pictures import Pictures
from scaledreamer.toybox.training.words import (
    LENGTH,
    PLAIN,
    captions,
    read_tokenizer,
    token_table,
    view_words,
    write_tokenizer,
)
from scaledreamer.toybox.vocabulary import COLOURS, HATS, KINDS, STANDS, every_toy

log = logging.getLogger(__name__)

TEXT: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "hidden_act": "gelu",
    "projection_dim": 128,
    "max_position_embeddings": LENGTH,
}
UNET: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [64, 128, 160],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": 128,
    "attention_head_dim": [2, 4, 5],
    "norm_num_groups": 16,
    "use_linear_projection": True,
}
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
BATCH = 512
BACKGROUNDS = 4  # that each picture is encoded on
UNCAPTIONED, VIEWLESS = 0.1, 0.4  # shares of captions that are empty, and that do not tell the view


class Denoiser(nn.Module):
    """Text encoder, UNet and the heads that only training needs."""

    def __init__(self, vocabulary: int, start: int, end: int) -> None:
        super().__init__()
        from diffusers import UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        special: dict[str, Any] = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": end}
        self.text = CLIPTextModel(CLIPTextConfig(vocab_size=vocabulary, **TEXT, **special))
        self.unet = UNet2DConditionModel(**UNET)
        words = (len(KINDS), len(COLOURS), len(HATS) + 1, len(STANDS) + 1)
        self.heads = nn.ModuleList(nn.Linear(TEXT["hidden_size"], n) for n in words)


def train_denoiser(pictures: Pictures, folder: Path, plan: Plan, *, batch: int = BATCH, compiled: bool = True) -> bool:
    """Train on latents of ``folder``'s VAE, and save beside it a whole pipeline in diffusers' layout."""
    from diffusers import AutoencoderKL, DDPMScheduler

    device = pictures.rgba.device
    toys = every_toy()
    write_tokenizer(folder / "tokenizer", [text for row in captions(toys) for text in row])
    tokenizer = read_tokenizer(folder / "tokenizer")
    ids = token_table(tokenizer, toys).to(device)
    empty = torch.full((LENGTH,), tokenizer.eos_token_id, device=device)
    empty[0] = tokenizer.bos_token_id
    attributes = torch.tensor(
        [
            [
                KINDS.index(toy.kind),
                COLOURS.index(toy.colour),
                HATS.index(toy.hat) + 1 if toy.hat else 0,
                STANDS.index(toy.stand) + 1 if toy.stand else 0,
            ]
            for toy in toys
        ],
        device=device,
    )
    vae: Any = AutoencoderKL.from_pretrained(str(folder / "vae"))
    vae.float().to(device)
    mean, std = latent_moments(vae, pictures, plan.seed)
    views = view_words(pictures.azimuth, pictures.elevation)
    fields = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
    alphas = DDPMScheduler(**{k: SCHEDULER[k] for k in fields}).alphas_cumprod.to(device)
    torch.manual_seed(plan.seed)
    model = Denoiser(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id).to(device)
    if compiled:
        model.unet.compile(dynamic=False)

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=device)

        def normal() -> Tensor:
            return torch.randn(batch, *mean.shape[1:], generator=generator, device=device)

        index = (uniform(batch) * len(mean)).long()
        shown = index % len(pictures)
        toy = pictures.toy[shown]
        words = torch.where(uniform(batch) < VIEWLESS, PLAIN, views[shown])
        captioned = uniform(batch) >= UNCAPTIONED
        tokens = torch.where(captioned[:, None], ids[toy, words], empty)
        z = mean[index] + std[index] * normal()
        t = (uniform(batch) * 1000).long()
        a = alphas[t].view(-1, 1, 1, 1)
        noise = normal()
        noisy, velocity = a.sqrt() * z + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * z
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            text = model.text(input_ids=tokens)
            predicted = model.unet(noisy, t, encoder_hidden_states=text.last_hidden_state, return_dict=False)[0]
            told = [head(text.pooler_output) for head in model.heads]
        spelled = sum(
            (F.cross_entropy(logits.float(), attributes[toy, i], reduction="none") * captioned).mean()
            for i, logits in enumerate(told)
        )
        return {"velocity": F.mse_loss(predicted.float(), velocity), "words": 0.02 * torch.as_tensor(spelled)}

    done = fit(model, loss, plan, state=folder / "state" / "denoiser")
    save_pipeline(model, folder)
    return done


@torch.no_grad()
def latent_moments(vae: Any, pictures: Pictures, seed: int) -> tuple[Tensor, Tensor]:
    """Means and deviations [:data:`BACKGROUNDS` * N, C, h, w] of the scaled latents of all pictures, in that order."""
    device = pictures.rgba.device
    generator = torch.Generator(device).manual_seed(seed)
    factor = vae.config["scaling_factor"]
    means, deviations = [], []
    for index in torch.arange(len(pictures), device=device).repeat(BACKGROUNDS).split(512):
        posterior = vae.encode(pictures.batch(index, generator)).latent_dist
        means.append((factor * posterior.mean).half())
        deviations.append((factor * posterior.std).half())
    return torch.cat(means), torch.cat(deviations)


def save_pipeline(model: Denoiser, folder: Path) -> None:
    """Write text encoder, UNet, scheduler and index; VAE and tokenizer are there already."""
    model.unet.half().save_pretrained(str(folder / "unet"))
    model.text.half().save_pretrained(str(folder / "text_encoder"))
    write_index(folder, SCHEDULER)
