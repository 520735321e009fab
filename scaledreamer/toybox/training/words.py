"""What the priors read: captions of pictures as token ids, and the tokenizer that makes them.

Axes: T toys (all compositions), W view words, L tokens.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scaledreamer.toybox.vocabulary import Toy

LENGTH = 24
"""Tokens of a text, start and end included; the longest caption has 16."""

VIEW_WORDS = ("", ", side view", ", front view", ", back view", ", overhead view")
"""Ends of captions; the last four in the order of :mod:`scaledreamer.guidance.views`."""

PLAIN = 0
START, END = "<|startoftext|>", "<|endoftext|>"
_MERGES = 2000  # more than the words need, so that each becomes one token; letters remain for other words


def view_words(azimuth: Tensor, elevation: Tensor) -> Tensor:
    """The view word [N] that a camera's angles [N] in degrees call for: 45 degrees about the front and the back."""
    a = ((azimuth + 180) % 360 - 180).abs()
    side = torch.ones_like(a, dtype=torch.int64)
    words = torch.where(a <= 45, 2 * side, torch.where(a >= 135, 3 * side, side))
    return torch.where(elevation > 60, 4 * side, words)


def captions(toys: Sequence[Toy]) -> list[list[str]]:
    """Captions [T][W]."""
    return [[toy.prompt + words for words in VIEW_WORDS] for toy in toys]


def write_tokenizer(folder: Path, texts: Sequence[str]) -> None:
    """Learn a byte-pair tokenizer in CLIP's format from texts, in which each of their words is one token."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    alphabet = [chr(c) for c in range(0x21, 0x7F)]
    endings = [f"{c}</w>" for c in alphabet]
    trainer = trainers.BpeTrainer(
        vocab_size=_MERGES,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        special_tokens=endings,  # numbered before training, which breaks ties by number, they come out the same
        show_progress=False,
    )
    words = sorted({word for text in texts for word in text.replace(",", " , ").split()})
    tokenizer.train_from_iterator([" ".join([word] * 2) for word in words], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    symbols = dict.fromkeys([*alphabet, *endings, *model["vocab"], START, END])
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in model["merges"]]
    folder.mkdir(parents=True, exist_ok=True)
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    _write(folder / "vocab.json", {symbol: i for i, symbol in enumerate(symbols)})
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{merge}\n" for merge in merges), "utf-8")
    _write(folder / "special_tokens_map.json", special)
    _write(
        folder / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, **special}
    )


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")


def read_tokenizer(folder: Path) -> Any:
    """Transformers' CLIP tokenizer."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(str(folder))


def token_table(tokenizer: Any, toys: Sequence[Toy]) -> Tensor:
    """Token ids [T, W, L] of all captions, int64, padded with the end token."""
    from scaledreamer.priors.clip_text import token_ids

    texts = [text for row in captions(toys) for text in row]
    return torch.tensor(token_ids(tokenizer, texts, LENGTH)).view(len(toys), len(VIEW_WORDS), LENGTH)


def no_words(tokenizer: Any) -> Tensor:
    """Token ids [L] of the empty caption."""
    from scaledreamer.priors.clip_text import token_ids

    return torch.tensor(token_ids(tokenizer, [""], LENGTH))[0]
