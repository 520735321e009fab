"""The toybox's judge: the bundled CLIP, which says what toy a picture shows and from which side.

Axes: B pictures, T texts, E features, H W pixels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scaledreamer.priors.clip_text import token_ids
from scaledreamer.toybox import weights

FOLDER = weights.FOLDER / "toy_clip"


class Judge:
    """A frozen CLIP in transformers' layout.

    Args:
        folder: of the weights.
        device: where it runs.
    """

    def __init__(self, *, folder: Path = FOLDER, device: torch.device | str = "cpu") -> None:
        from transformers import CLIPModel, CLIPTokenizer

        from scaledreamer.priors.weights import no_progress_bar

        with no_progress_bar():
            model: Any = CLIPModel.from_pretrained(str(folder), dtype=torch.float32)
        self.model = model.to(device).eval().requires_grad_(False)
        self.tokenizer = CLIPTokenizer.from_pretrained(str(folder))
        self.length: int = model.config.text_config.max_position_embeddings
        self.size: int = model.config.vision_config.image_size

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> Tensor:
        """Unit features [T, E] of texts."""
        return text_features(self.model, torch.tensor(token_ids(self.tokenizer, texts, self.length)).to(self.device))

    @torch.no_grad()
    def see(self, images: Tensor) -> Tensor:
        """Unit features [B, E] of images [B, H, W, 3] in [0, 1]."""
        pixels = images.permute(0, 3, 1, 2).to(self.device) * 2 - 1
        if pixels.shape[-1] != self.size:
            pixels = F.interpolate(pixels, (self.size, self.size), mode="bilinear", antialias=True)
        return image_features(self.model, pixels)


def image_features(model: nn.Module, images: Tensor) -> Tensor:
    """Unit features [B, E] of images [B, 3, 64, 64] in [-1, 1]."""
    pooled = model.vision_model(pixel_values=images).pooler_output  # type: ignore[operator]
    return F.normalize(model.visual_projection(pooled), dim=-1)  # type: ignore[operator]


def text_features(model: nn.Module, ids: Tensor) -> Tensor:
    """Unit features [T, E] of token ids [T, L]."""
    pooled = model.text_model(input_ids=ids).pooler_output  # type: ignore[operator]
    return F.normalize(model.text_projection(pooled), dim=-1)  # type: ignore[operator]
