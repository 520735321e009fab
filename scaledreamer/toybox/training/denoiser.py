"""The toy prior's text encoder and denoiser, trained together on latents of captioned pictures.

The text encoder also learns to tell each word of a caption from its pooled embedding, by linear heads that are thrown
away: the pooled embedding is what a generator sees of a prompt.

Axes: B pictures, [C, h, w] latents, T toys, L tokens, D text width.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scaledreamer.priors.random_weights import write_index
from scaledreamer.toybox.training.latents import SCHEDULER, Latents
from scaledreamer.toybox.training.loop import Plan, fit
from scaledreamer.toybox.training.pictures import Pictures
from scaledreamer.toybox.training.words import (
    LENGTH,
    PLAIN,
    captions,
    no_words,
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
BATCH = 512
UNCAPTIONED, VIEWLESS = 0.1, 0.25  # shares of captions that are empty, and that do not tell the view


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
    device = pictures.rgba.device
    toys = every_toy()
    write_tokenizer(folder / "tokenizer", [text for row in captions(toys) for text in row])
    tokenizer = read_tokenizer(folder / "tokenizer")
    ids = token_table(tokenizer, toys).to(device)
    empty = no_words(tokenizer).to(device)
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
    latents = Latents(pictures, folder, seed=plan.seed)
    views = view_words(pictures.azimuth, pictures.elevation)
    torch.manual_seed(plan.seed)
    model = Denoiser(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id).to(device)
    if compiled:
        model.unet.compile(dynamic=False)

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=device)

        index = (uniform(batch) * len(latents)).long()
        shown = index % len(pictures)
        toy = pictures.toy[shown]
        words = torch.where(uniform(batch) < VIEWLESS, PLAIN, views[shown])
        captioned = uniform(batch) >= UNCAPTIONED
        tokens = torch.where(captioned[:, None], ids[toy, words], empty)
        t = (uniform(batch) * SCHEDULER["num_train_timesteps"]).long()
        noisy = latents.noisy(index, t, generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            text = model.text(input_ids=tokens)
            predicted = model.unet(noisy.latents, t, encoder_hidden_states=text.last_hidden_state, return_dict=False)[0]
            told = [head(text.pooler_output) for head in model.heads]
        spelled = sum(
            (F.cross_entropy(logits.float(), attributes[toy, i], reduction="none") * captioned).mean()
            for i, logits in enumerate(told)
        )
        return {"velocity": F.mse_loss(predicted.float(), noisy.velocity), "words": 0.02 * torch.as_tensor(spelled)}

    done = fit(model, loss, plan, state=folder / "state" / "denoiser")
    save_pipeline(model, folder)
    return done


def save_pipeline(model: Denoiser, folder: Path) -> None:
    """Write text encoder, UNet, scheduler and index; VAE and tokenizer are there already."""
    model.unet.half().save_pretrained(str(folder / "unet"))
    model.text.half().save_pretrained(str(folder / "text_encoder"))
    write_index(folder, SCHEDULER)
