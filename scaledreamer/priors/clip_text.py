"""CLIP's text encoder as Stable Diffusion uses it: texts of a fixed number of tokens, padding not masked.

Axes: N texts, L tokens, D width.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from scaledreamer.priors.base import TextEncoding

log = logging.getLogger(__name__)

BATCH = 64
"""Texts that are encoded at a time."""

COUNTED = 2048
"""Texts whose words are counted at a time: those of a large corpus, each once, could still take gigabytes."""


class ClipText:
    """Encodes texts; the weights stay as long as the object does.

    Args:
        tokenizer: transformers' CLIP tokenizer.
        encoder: transformers' ``CLIPTextModel``; frozen and put in eval mode.
        length: L, tokens of a text with its start and its end.
        width: D.
    """

    def __init__(self, *, tokenizer: Any, encoder: nn.Module, length: int, width: int) -> None:
        self.tokenizer, self.length, self.width = tokenizer, length, width
        self.encoder = encoder.eval().requires_grad_(False)

    def to(self, device: torch.device, dtype: torch.dtype) -> "ClipText":
        """Move the weights, in place."""
        self.encoder.to(device, dtype)
        return self

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> TextEncoding:
        """Embed texts on the device and in the type of the weights; each text's result is its own."""
        weight = next(self.encoder.parameters())
        pooled = weight.new_empty(len(texts), self.width)
        tokens = weight.new_empty(len(texts), self.length, self.width)
        ids = torch.tensor(token_ids(self.tokenizer, texts, self.length), dtype=torch.int64).to(weight.device)
        with torch.autocast(weight.device.type, enabled=False):
            for start in range(0, len(texts), BATCH):
                chunk = slice(start, start + BATCH)
                out = self.encoder(input_ids=ids[chunk])
                pooled[chunk], tokens[chunk] = out.pooler_output, out.last_hidden_state
        return TextEncoding(pooled=pooled, tokens=tokens)


def token_ids(tokenizer: Any, texts: Sequence[str], length: int) -> list[list[int]]:
    """Tokens [N, length] of texts: cut with the end token kept, or padded."""
    if not texts:
        return []
    rows = tokenizer(list(texts), truncation=False, padding=False, verbose=False)["input_ids"]
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    return [[*row[: length - 1], end] if len(row) > length else row + [pad] * (length - len(row)) for row in rows]


def too_long(tokenizer: Any, texts: Sequence[str], length: int) -> list[str]:
    """Those of the texts that :func:`token_ids` cuts."""
    # Every token stands for at least one byte, so only long texts need to be looked at. No token spans two words, so
    # it is enough to count those of each word once: a large corpus has few words, in all its wordings.
    candidates = [text for text in texts if len(text.encode()) > length - 2]
    tokens: dict[str, int] = {}
    for start in range(0, len(candidates), COUNTED):
        words = {word for text in candidates[start : start + COUNTED] for word in text.split()} - tokens.keys()
        if words:
            new = list(words)
            rows = tokenizer(new, add_special_tokens=False, verbose=False)["input_ids"]
            tokens.update(zip(new, map(len, rows), strict=True))
    return [text for text in candidates if sum(tokens[word] for word in text.split()) > length - 2]


def warn_of_cut(cut: Sequence[str], total: int, length: int) -> None:
    """One warning for all texts of a list that are cut, with an example."""
    if cut:
        example = cut[0] if len(cut[0]) <= 160 else f"{cut[0][:160]}..."
        log.warning(
            "%d of %d texts are longer than %d tokens; the prior does not see the rest of them, e.g. '%s'",
            len(cut), total, length, example,
        )  # fmt: skip
