"""What a prompt says about the side that a camera sees.

A template words the prompt for one side. The guidance gets, for each image, the embedding of the right wording and,
with Perp-Neg (Armandpour et al., arXiv 2304.04968), those of wordings it must not look like.

Axes: P prompts, K templates, B images (views of a prompt consecutive), L tokens, D width, M negatives.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from scaledreamer.cameras import Cameras
from scaledreamer.constraints import NonNegativeFloat, Template

SIDE, FRONT, BACK, OVERHEAD = range(4)


@dataclass(frozen=True)
class ViewText:
    """Embeddings of B images."""

    positive: Tensor  # [B, L, D]
    negatives: Tensor  # [B, M, L, D]
    weights: Tensor  # [B, M]  of the negatives in classifier-free guidance; <= 0 pushes away


class Views(Protocol):
    """How prompts are worded and which wording an image gets."""

    templates: tuple[str, ...]

    def condition(self, tokens: Tensor, cameras: Cameras) -> ViewText:
        """Choose among the wordings [P, K, L, D] of P prompts for B cameras."""
        ...


class PlainPrompt:
    """The prompt as it is, from every side: for priors that are told the camera itself."""

    templates: tuple[str, ...] = ("{prompt}",)

    def condition(self, tokens: Tensor, cameras: Cameras) -> ViewText:
        """See :meth:`Views.condition`."""
        positive = tokens[:, 0].repeat_interleave(len(cameras) // tokens.shape[0], dim=0)
        none = positive[:, None][:, :0]
        return ViewText(positive=positive, negatives=none, weights=none.new_zeros(len(cameras), 0))


class ViewPrompts:
    """Side, front, back or overhead view by the camera's angles, interpolated and with negatives under Perp-Neg.

    Args:
        side, front, back, overhead: templates; ``{prompt}`` stands for the prompt.
        front_threshold: |azimuth| below which a camera sees the front, degrees.
        back_threshold: |azimuth| above 180 - this sees the back, degrees.
        overhead_threshold: elevation above which a camera looks from overhead, degrees.
        perp_neg: strength of Perp-Neg; 0 takes the wording of the side that the camera sees, without negatives.
    """

    def __init__(
        self,
        *,
        side: Template = "{prompt}, side view",
        front: Template = "{prompt}, front view",
        back: Template = "{prompt}, back view",
        overhead: Template = "{prompt}, overhead view",
        front_threshold: NonNegativeFloat = 30.0,
        back_threshold: NonNegativeFloat = 30.0,
        overhead_threshold: float = 60.0,
        perp_neg: NonNegativeFloat = 0.5,
    ) -> None:
        self.templates = (side, front, back, overhead)
        self.front_threshold, self.back_threshold = front_threshold, back_threshold
        self.overhead_threshold, self.perp_neg = overhead_threshold, perp_neg

    def direction(self, cameras: Cameras) -> Tensor:
        """Index [B] of the template of the side that each camera sees."""
        azimuth = wrap(cameras.azimuth)
        index = torch.full_like(azimuth, SIDE, dtype=torch.int64)
        index = torch.where(azimuth.abs() < self.front_threshold, FRONT, index)
        index = torch.where(azimuth.abs() > 180 - self.back_threshold, BACK, index)
        return torch.where(cameras.elevation > self.overhead_threshold, OVERHEAD, index)

    def condition(self, tokens: Tensor, cameras: Cameras) -> ViewText:
        """See :meth:`Views.condition`."""
        tokens = tokens.repeat_interleave(len(cameras) // tokens.shape[0], dim=0)  # [B, 4, L, D]
        image = torch.arange(len(cameras), device=tokens.device)
        if self.perp_neg == 0:
            positive = tokens[image, self.direction(cameras)]
            none = tokens[:, :0]
            return ViewText(positive=positive, negatives=none, weights=none.new_zeros(len(cameras), 0))
        shares, sources, weights = perp_neg(cameras.azimuth, cameras.elevation > self.overhead_threshold)
        return ViewText(
            positive=torch.einsum("bk,bkld->bld", shares.to(tokens.dtype), tokens),
            negatives=tokens[image[:, None], sources],
            weights=self.perp_neg * weights,
        )


def wrap(azimuth: Tensor) -> Tensor:
    """Degrees in [-180, 180)."""
    return (azimuth + 180) % 360 - 180


def perp_neg(azimuth: Tensor, overhead: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Interpolation and negatives of Perp-Neg, for azimuths [B] in degrees and booleans [B].

    With a = |azimuth| and the decay f(k, b, c; r) = k exp(-b r) + c:
    a < 90: r = 1 - a/90; r front + (1 - r) side; away from front by f(4, .5, -2.426; r), side by f(...; 1 - r).
    else:   r = 2 - a/90; r side + (1 - r) back; away from side by f(1, .5, -.606; r), front by f(1, .5, .967; r).
    Overhead: its own wording, nothing to be kept away from.

    Returns:
        shares [B, 4] of the wordings in the positive embedding, sources [B, 2] (which wordings are negatives),
        weights [B, 2] of the negatives, <= 0 up to rounding of the constants.
    """
    a = wrap(azimuth).abs()
    ahead = a < 90
    r = torch.where(ahead, 1 - a / 90, 2 - a / 90)
    zero = torch.zeros_like(r)
    shares_ahead = torch.stack([1 - r, r, zero, zero], dim=-1)
    shares_behind = torch.stack([r, zero, 1 - r, zero], dim=-1)
    above = torch.stack([zero, zero, zero, zero + 1], dim=-1)
    shares = torch.where(overhead[:, None], above, torch.where(ahead[:, None], shares_ahead, shares_behind))
    weights_ahead = torch.stack([_decay(r, 4, 0.5, -2.426), _decay(1 - r, 4, 0.5, -2.426)], dim=-1)
    weights_behind = torch.stack([_decay(r, 1, 0.5, -0.606), _decay(r, 1, 0.5, 0.967)], dim=-1)
    weights = -torch.where(ahead[:, None], weights_ahead, weights_behind) * ~overhead[:, None]
    sources = torch.stack([torch.where(ahead, FRONT, SIDE), torch.where(ahead, SIDE, FRONT)], dim=-1)
    return shares, sources, weights


def _decay(r: Tensor, k: float, b: float, c: float) -> Tensor:
    return k * torch.exp(-b * r) + c
