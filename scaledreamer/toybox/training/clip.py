"""The toybox's judge: a small CLIP in transformers' layout, trained apart from the prior, on other pictures.

It sees sharp pictures only, so a blob that has the right colours does not pass for the toy.

Axes: B pictures, T toys, W view words, L tokens.
"""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scaledreamer.clip.model import image_features, text_features
from scaledreamer.toybox.training.loop import Plan, fit
from scaledreamer.toybox.training.pictures import SIZE, Pictures
from scaledreamer.toybox.training.words import (
    LENGTH,
    PLAIN,
    VIEW_WORDS,
    captions,
    read_tokenizer,
    token_table,
    view_words,
    write_tokenizer,
)
from scaledreamer.toybox.vocabulary import every_toy

log = logging.getLogger(__name__)

TEXT: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "hidden_act": "gelu",
    "max_position_embeddings": LENGTH,
}
VISION: dict[str, Any] = {
    "hidden_size": 160,
    "intermediate_size": 640,
    "num_hidden_layers": 6,
    "num_attention_heads": 5,
    "image_size": SIZE,
    "patch_size": 8,
    "hidden_act": "gelu",
}
PROJECTION = 96
BATCH = 1024
VIEWLESS = 0.5  # share of captions that do not tell the view
SHIFT = 4  # pixels that pictures are moved by at most
PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": SIZE},
    "crop_size": {"height": SIZE, "width": SIZE},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def train_clip(pictures: Pictures, folder: Path, plan: Plan, *, batch: int = BATCH, compiled: bool = True) -> bool:
    """Train, and save to ``folder`` in transformers' layout; False if ``plan.minutes`` were over before."""
    from transformers import CLIPConfig, CLIPModel

    device = pictures.rgba.device
    toys = every_toy()
    write_tokenizer(folder, [text for row in captions(toys) for text in row])
    tokenizer = read_tokenizer(folder)
    ids = token_table(tokenizer, toys).to(device)
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {**TEXT, "vocab_size": len(tokenizer), "projection_dim": PROJECTION, "pad_token_id": special["eos_token_id"]}
    config = CLIPConfig(
        text_config={**text, **special},
        vision_config={**VISION, "projection_dim": PROJECTION},
        projection_dim=PROJECTION,
    )
    torch.manual_seed(plan.seed)
    model: Any = CLIPModel(config)
    model.to(device)
    views = view_words(pictures.azimuth, pictures.elevation)
    if compiled:
        model.vision_model.compile(dynamic=False)

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        index = (torch.rand(batch, generator=generator, device=device) * len(pictures)).long()
        plain = torch.rand(batch, generator=generator, device=device) < VIEWLESS
        words = torch.where(plain, PLAIN, views[index])
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            seen = image_features(model, moved(pictures.batch(index, generator), generator))
            read = text_features(model, ids[pictures.toy[index], words])
        logits = model.logit_scale.exp().clamp(max=100) * read.float() @ seen.float().t()  # [texts, pictures]
        # A text fits every picture of its toy from its side; a plain one fits the toy from all sides.
        same_toy = pictures.toy[index][:, None] == pictures.toy[index]
        fits = (same_toy & (plain[:, None] | (views[index][:, None] == views[index]))).float()
        of_text, of_picture = fits / fits.sum(dim=1, keepdim=True), fits.t() / fits.t().sum(dim=1, keepdim=True)
        return {
            "text": F.cross_entropy(logits, of_text) / 2,
            "picture": F.cross_entropy(logits.t(), of_picture) / 2,
        }

    done = fit(model, loss, plan, state=folder / "state")
    model.half().save_pretrained(str(folder))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=1) + "\n")
    return done


def moved(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images [B, 3, H, W] shifted by up to :data:`SHIFT` pixels each way, edges repeated; all of a batch alike."""
    dx, dy = torch.randint(2 * SHIFT + 1, (2,), generator=generator, device=generator.device)
    padded = F.pad(images, (SHIFT,) * 4, mode="replicate")
    rows = torch.arange(images.shape[-1], device=images.device)
    return padded.index_select(2, rows + dy).index_select(3, rows + dx)


@torch.no_grad()
def recall(
    model: nn.Module, pictures: Pictures, ids: Tensor, *, gallery: int = 256, batch: int = 1024
) -> tuple[float, float]:
    """(recall@1, view accuracy) of true pictures.

    Args:
        pictures: not trained on.
        ids: token ids [T, W, L].
        gallery: prompts that a picture's own is chosen among: the first ``gallery`` toys of a fixed random order.
    """
    device = pictures.rgba.device
    order = torch.randperm(ids.shape[0], generator=torch.Generator().manual_seed(0))[:gallery].to(device)
    place = torch.full((ids.shape[0],), -1, device=device)
    place[order] = torch.arange(len(order), device=device)
    texts = text_features(model, ids[order, PLAIN])
    views = view_words(pictures.azimuth, pictures.elevation)
    generator = torch.Generator(device).manual_seed(0)
    right, sided, count, seen_all = 0, 0, 0, 0
    for index in torch.arange(len(pictures), device=device).split(batch):
        seen = image_features(model, pictures.batch(index, generator))
        asked = place[pictures.toy[index]]
        mine = asked >= 0
        right += int(((seen @ texts.t()).argmax(dim=1) == asked)[mine].sum())
        count += int(mine.sum())
        worded = torch.stack([text_features(model, ids[pictures.toy[index], w]) for w in range(1, len(VIEW_WORDS))])
        sided += int((((worded * seen).sum(dim=-1)).argmax(dim=0) + 1 == views[index]).sum())
        seen_all += len(index)
    return right / max(1, count), sided / seen_all
