"""The seam of every renderer: fields and rays in, images and what the losses need out.

Axes: P prompts, V views per prompt (all views of a prompt are consecutive), B = P * V images, H W pixels,
S samples per ray. Distances are in world units along normalised ray directions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor, nn

from scaledreamer.cameras import Rays
from scaledreamer.randomness import StepRandom


@dataclass(frozen=True)
class Rendering:
    """Images of a batch, and the per-sample quantities that regularisers use."""

    rgb: Tensor  # [B, H, W, 3]  foreground + background * (1 - opacity)
    foreground: Tensor  # [B, H, W, 3]  premultiplied by opacity
    background: Tensor  # [B, H, W, 3]
    opacity: Tensor  # [B, H, W, 1]
    depth: Tensor  # [B, H, W, 1]  sum of weight * t, not divided by opacity
    depth_variance: Tensor  # [B, H, W, 1]
    normal: Tensor | None  # [B, H, W, 3]  mean normal mapped to [0, 1] and faded by opacity; evaluation always has it
    gradient: Tensor | None = None  # [P, N, 3]  of the sdf at every sample; None in evaluation
    facing_away: Tensor | None = None  # [B, H, W, 1]  sum of weight * max(0, normal . direction)^2; weights constant


def joined(parts: Sequence[Rendering]) -> Rendering:
    """Rows [B, h, W] of images, rendered without gradients, as whole images; what is of samples is left out."""
    names = [f.name for f in fields(Rendering) if f.name != "gradient" and getattr(parts[0], f.name) is not None]
    whole = {name: torch.cat([getattr(part, name) for part in parts], dim=1) for name in names}
    return Rendering(**{"normal": None, **whole})


class Renderer(nn.Module):
    """Draws fields along rays."""

    fields: ClassVar[tuple[str, ...]] = ("sdf",)
    """Kinds of field it renders (``Generator.field``)."""
    regularisers: ClassVar[dict[str, str | None] | None] = None
    """Losses of :mod:`scaledreamer.losses` that its renders have what for, each with the option that must be true for
    it, if there is one. None: not known."""
    one_prompt: ClassVar[bool] = False
    """Whether it serves the prompt of its run alone; a corpus of more is refused."""

    def update(self, field, random: StepRandom) -> None:
        """Called once per training batch, before its rays: keep what is to be known of the fields of a run.

        Most renderers keep nothing. What is kept belongs into buffers, which are in checkpoints, and follows from the
        fields and from ``random`` alone.

        Args:
            field: the P fields of this batch.
            random: this batch's draws; ``random.step`` counts the batches before it.
        """

    def forward(self, field, rays: Rays, background: Tensor, random: StepRandom | None = None) -> Rendering:
        """Render B images.

        Args:
            field: the P fields; B must be a multiple of P, views of a prompt consecutive.
            rays: of B images.
            background: colours [B, H, W, 3] behind the field.
            random: jitters the samples (training); None samples at the centres (evaluation).
        """
        raise NotImplementedError
