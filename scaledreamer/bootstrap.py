"""Percentile bootstrap: how far a mean over prompts can be trusted.

Axes: P prompts, R resamples.
"""

import torch
from torch import Tensor

CONFIDENCE = 0.95
_RESAMPLES = 2000
_AT_ONCE = 2**22
"""Numbers that are drawn at a time: memory does not follow P."""


def interval(values: Tensor, *, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high) of values [P]: an interval of 95 % of the mean."""
    generator = torch.Generator().manual_seed(seed)
    return _with_edges(values.double().mean(), _means(values, generator))


def gap(one: Tensor, other: Tensor, *, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high) of mean(one) - mean(other), for values [P] and [Q] of different prompts, drawn apart."""
    generator = torch.Generator().manual_seed(seed)
    drawn = _means(one, generator) - _means(other, generator)
    return _with_edges(one.double().mean() - other.double().mean(), drawn)


def _means(values: Tensor, generator: torch.Generator) -> Tensor:
    """Means [R] of as many values drawn with replacement."""
    at_once, values = max(1, _AT_ONCE // len(values)), values.double()
    parts = [
        values[torch.randint(len(values), (min(at_once, _RESAMPLES - first), len(values)), generator=generator)].mean(1)
        for first in range(0, _RESAMPLES, at_once)
    ]
    return torch.cat(parts)


def _with_edges(mean: Tensor, means: Tensor) -> tuple[float, float, float]:
    edge = (1 - CONFIDENCE) / 2
    low, high = torch.quantile(means, torch.tensor([edge, 1 - edge], dtype=means.dtype))
    return float(mean), float(low), float(high)
