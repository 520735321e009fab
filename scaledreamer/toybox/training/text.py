"""Tune the toy prior's text encoder: its pooled embedding becomes a sum of its words, all other tokens stay.

A generator sees the pooled embedding alone. What that says of a pair of words beyond what it says of each is learned by
heart from the prompts that are trained on, and is wrong for others.

Axes: C captions, B captions of a batch, L tokens, D text width, A words (of toys and of views).
"""

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from scaledreamer.toybox.training.loop import Plan, fit
from scaledreamer.toybox.training.words import VIEW_WORDS, read_tokenizer, token_table
from scaledreamer.toybox.vocabulary import COLOURS, HATS, KINDS, STANDS, Toy, every_toy

log = logging.getLogger(__name__)

BATCH = 256


def tune_text(folder: Path, plan: Plan, *, device: torch.device, batch: int = BATCH) -> bool:
    """Tune ``folder``'s ``text_encoder`` in place; False if ``plan.minutes`` were over before."""
    from transformers import CLIPTextModel

    toys = every_toy()
    ids = token_table(read_tokenizer(folder / "tokenizer"), toys).flatten(0, 1).to(device)  # [C, L]
    words = torch.stack([word_counts(toy, view) for toy in toys for view in range(len(VIEW_WORDS))]).to(device)
    model: Any = CLIPTextModel.from_pretrained(str(folder / "text_encoder"), dtype=torch.float32)
    model.to(device)
    before = copy.deepcopy(model).eval().requires_grad_(False)
    pooled = _pooled(before, ids)
    sums = additive(pooled, words)  # [C, D]
    log.info("text encoder: %.4f of the pooled embedding is a sum of its words", share_of(pooled, sums))

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        index = torch.randint(len(ids), (batch,), generator=generator, device=device)
        was, now = before(input_ids=ids[index]), model(input_ids=ids[index])
        # The pooled embedding is one of the tokens: where it was is found by its value.
        rest = (was.last_hidden_state != was.pooler_output[:, None]).any(dim=-1, keepdim=True)  # [B, L, 1]
        changed = (now.last_hidden_state - was.last_hidden_state).square() * rest
        return {"kept": changed.sum() / rest.sum(), "sum": F.mse_loss(now.pooler_output, sums[index])}

    done = fit(model, loss, plan, state=folder / "state" / "text")
    model.half().save_pretrained(str(folder / "text_encoder"))
    after = _pooled(model.float().eval(), ids)
    log.info("text encoder: %.4f after tuning", share_of(after, additive(after, words)))
    return done


def word_counts(toy: Toy, view: int) -> Tensor:
    """Which words [A] a caption has: ones and zeros, float32."""
    row, start = torch.zeros(len(KINDS) + len(COLOURS) + len(HATS) + 1 + len(STANDS) + 1 + len(VIEW_WORDS)), 0
    for words, word in (
        (KINDS, toy.kind),
        (COLOURS, toy.colour),
        ((None, *HATS), toy.hat),
        ((None, *STANDS), toy.stand),
    ):
        row[start + words.index(word)] = 1  # pyright: ignore[reportArgumentType]
        start += len(words)
    row[start + view] = 1
    return row


def additive(pooled: Tensor, words: Tensor) -> Tensor:
    """The closest embeddings [C, D] that are a mean plus one vector per word, for words [C, A]."""
    mean, counts = pooled.mean(dim=0), (words - words.mean(dim=0)).double()
    vectors = torch.linalg.pinv(counts) @ (pooled - mean).double()  # [A, D]
    return mean + (counts @ vectors).float()


def share_of(pooled: Tensor, sums: Tensor) -> float:
    """Explained variance of embeddings [C, D]."""
    return 1 - float((pooled - sums).square().sum() / (pooled - pooled.mean(dim=0)).square().sum())


@torch.no_grad()
def _pooled(model: Any, ids: Tensor) -> Tensor:
    return torch.cat([model(input_ids=part).pooler_output for part in ids.split(1024)])
