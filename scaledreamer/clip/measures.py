"""What a CLIP's features say of renders: likeness to the prompt, recall, views that agree, Janus faces.

Features are unit vectors. Views go round a circle in equal steps, the first at the front.

Axes: P prompts, V views, E features, G texts of the gallery, N = P * V pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 8192
"""Texts of the gallery that pictures are compared with at a time: memory follows V * BLOCK, whatever G is."""

TOP = (1, 5)
"""k of recall@k."""


@dataclass(frozen=True)
class Texts:
    """Features of what P prompts' pictures are held against."""

    prompt: Tensor  # [P, E]  as it is
    front: Tensor  # [P, E]  worded for the view from the front
    back: Tensor  # [P, E]  worded for the view from behind
    place: Tensor  # [P] int64  of the prompt in the gallery, -1 where it is not in it


def ranks(seen: Tensor, text: Tensor, gallery: Tensor, place: Tensor) -> Tensor:
    """How many texts of the gallery, the own one apart, are no less like each picture than the own one, int64 [N].

    0: the picture names its own text. A tie counts against it, and so does a feature that is not a number.

    Args:
        seen: features [N, E].
        text: features [N, E] of each picture's own text.
        gallery: features [G, E].
        place: [N] of the own text in the gallery, -1 where it is not in it.
    """
    own = (seen * text).sum(dim=-1, keepdim=True)  # [N, 1]
    found = torch.zeros(len(seen), dtype=torch.int64, device=seen.device)
    for first in range(0, len(gallery), BLOCK):
        block = gallery[first : first + BLOCK]
        others = torch.arange(first, first + len(block), device=seen.device) != place[:, None]
        found += (~(seen @ block.t() < own) & others).sum(dim=1)
    return found


def similarity(seen: Tensor, text: Tensor) -> Tensor:
    """Mean over the views of cos(picture, text) [P]: features [P, V, E] and [P, E]."""
    return (seen * text[:, None]).sum(dim=-1).mean(dim=1)


def consistency(seen: Tensor) -> Tensor:
    """Mean cosine [P] of neighbouring views [P, V, E], the last and the first among them; 1 for views all alike."""
    return (seen * seen.roll(-1, dims=1)).sum(dim=-1).mean(dim=1)


def janus(behind: Tensor, front: Tensor, back: Tensor) -> Tensor:
    """Share [P] of views from behind [P, V, E] that are more like the wording for the front [P, E] than the back's."""
    return ((behind * front[:, None]).sum(dim=-1) > (behind * back[:, None]).sum(dim=-1)).float().mean(dim=1)


def views_from_behind(azimuth: Tensor, *, within: float) -> list[int]:
    """Places of the cameras [V] whose azimuth, in degrees, is at most ``within`` from 180."""
    distance = (azimuth % 360 - 180).abs()
    return torch.nonzero(distance <= within + 0.01).flatten().tolist()


def measure(seen: Tensor, texts: Texts, gallery: Tensor, *, behind: Sequence[int]) -> dict[str, Tensor]:
    """Every measure of P prompts, float32 [P] on the CPU.

    ``similarity``; ``view_recall_k``: share of the views that by themselves rank their prompt among the first k of the
    gallery; ``object_recall_k`` and ``rank`` (1 is the first): of the mean of the views' features; ``consistency``
    where there are two views or more; ``janus`` where a view is from behind.

    Args:
        seen: features [P, V, E] of the pictures.
        texts: of the prompts.
        gallery: features [G, E].
        behind: places of the views from behind, :func:`views_from_behind`.
    """
    views = seen.shape[1]
    each = ranks(
        seen.flatten(0, 1),
        texts.prompt.repeat_interleave(views, dim=0),
        gallery,
        texts.place.repeat_interleave(views),
    ).unflatten(0, (-1, views))  # [P, V]
    whole = ranks(seen.mean(dim=1), texts.prompt, gallery, texts.place)  # [P]
    found = {"similarity": similarity(seen, texts.prompt)}
    found |= {f"view_recall_{k}": (each < k).float().mean(dim=1) for k in TOP}
    found |= {f"object_recall_{k}": (whole < k).float() for k in TOP} | {"rank": whole.float() + 1}
    if views > 1:
        found["consistency"] = consistency(seen)
    if behind:
        found["janus"] = janus(seen[:, list(behind)], texts.front, texts.back)
    return {name: values.float().cpu() for name, values in found.items()}
