"""A frozen CLIP of transformers' layout: unit features of texts and of pictures.

Axes: B pictures, T texts, E features, H W pixels.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scaledreamer.clip.files import Resample, checked
from scaledreamer.errors import UserError
from scaledreamer.priors.clip_text import token_ids, too_long

log = logging.getLogger(__name__)

TEXTS = 256
"""Texts that are read at a time."""


class Clip:
    """Reads texts and sees pictures, in float32 and without gradients; each text's and picture's features are its own.

    Args:
        folder: of the weights, their tokenizer and their preprocessing, as :func:`scaledreamer.clip.files.find` gives
            it.
        resample: how pictures are resized; None for what the folder says.
        device: where it runs.

    Raises:
        UserError: the folder is incomplete, broken or of another kind of model.
    """

    def __init__(self, folder: Path, *, resample: Resample | None = None, device: torch.device | str = "cpu") -> None:
        self.preprocessing = checked(folder)
        self.resample: Resample = resample or self.preprocessing.resample
        self.model, self.tokenizer = _loaded(folder, device)
        self.length: int = self.model.config.text_config.max_position_embeddings

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> Tensor:
        """Unit features [T, E] of texts; those that are too long are cut before their end token."""
        found = [torch.empty(0, self.model.config.projection_dim, device=self.device)]
        for first in range(0, len(texts), TEXTS):
            ids = torch.tensor(token_ids(self.tokenizer, texts[first : first + TEXTS], self.length))
            found.append(text_features(self.model, ids.to(self.device)))
        return torch.cat(found)

    @torch.no_grad()
    def see(self, images: Tensor) -> Tensor:
        """Unit features [B, E] of square pictures [B, H, H, 3] in [0, 1]."""
        return image_features(self.model, self.preprocessed(images.to(self.device)))

    def preprocessed(self, images: Tensor) -> Tensor:
        """Pictures [B, H, H, 3] in [0, 1] as the vision model takes them, [B, 3, S, S]: resized, cut, standardised."""
        options, pixels = self.preprocessing, images.permute(0, 3, 1, 2).float()
        if pixels.shape[-1] != options.size:
            side = (options.size, options.size)
            pixels = F.interpolate(pixels, side, mode=self.resample, antialias=True).clamp(0, 1)
        border = (options.size - options.crop) // 2
        pixels = pixels[..., border : border + options.crop, border : border + options.crop]
        mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (options.mean, options.std))
        return (pixels - mean) / std

    def warn_of_cut(self, texts: Sequence[str]) -> None:
        """One warning for all texts that are longer than this CLIP reads."""
        if cut := too_long(self.tokenizer, texts, self.length):
            log.warning(
                "%d of %d texts are longer than %d tokens; the CLIP does not see the rest of them, e.g. '%.160s'",
                len(cut), len(texts), self.length, cut[0],
            )  # fmt: skip


def image_features(model: nn.Module, images: Tensor) -> Tensor:
    """Unit features [B, E] of images [B, 3, S, S] as the model's preprocessing leaves them."""
    pooled = model.vision_model(pixel_values=images).pooler_output  # type: ignore[operator]
    return F.normalize(model.visual_projection(pooled), dim=-1)  # type: ignore[operator]


def text_features(model: nn.Module, ids: Tensor) -> Tensor:
    """Unit features [T, E] of token ids [T, L]."""
    pooled = model.text_model(input_ids=ids).pooler_output  # type: ignore[operator]
    return F.normalize(model.text_projection(pooled), dim=-1)  # type: ignore[operator]


def _loaded(folder: Path, device: torch.device | str) -> tuple[Any, Any]:
    """(model, tokenizer) of a folder; one line for whatever the libraries raise about a broken file."""
    from transformers import CLIPModel, CLIPTokenizer

    from scaledreamer.priors.weights import no_progress_bar

    try:
        with no_progress_bar():
            load: Any = CLIPModel.from_pretrained
            model, report = load(
                str(folder), local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
            )
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{folder} cannot be loaded: {reason}; fetch it anew, or name another CLIP.") from error
    # A buffer of positions is absent from recent files and is rebuilt.
    missing = [key for key in report["missing_keys"] if not key.endswith("position_ids")]
    if missing or report["mismatched_keys"]:
        raise UserError(f"{folder}: its weights do not fit its config.json; fetch both anew, or name another CLIP.")
    return model.float().to(device).eval().requires_grad_(False), tokenizer
