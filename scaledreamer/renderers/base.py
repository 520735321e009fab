"""The seam of every renderer: fields and rays in, images and what the losses need out.

Axes: P prompts, V views per prompt (all views of a prompt are consecutive), B = P * V images, H W pixels,
S samples per ray. Distances are in world units along normalised ray directions.
"""

from dataclasses import dataclass
from typing import ClassVar

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
    normal: Tensor  # [B, H, W, 3]  mean normal mapped to [0, 1] and faded by opacity
    gradient: Tensor | None = None  # [P, N, 3]  of the sdf at every sample; None in evaluation


class Renderer(nn.Module):
    """Draws fields along rays."""

    fields: ClassVar[tuple[str, ...]] = ("sdf",)
    """Kinds of field it renders (``Generator.field``)."""

    def forward(self, field, rays: Rays, background: Tensor, random: StepRandom | None = None) -> Rendering:
        """Render B images.

        Args:
            field: the P fields; B must be a multiple of P, views of a prompt consecutive.
            rays: of B images.
            background: colours [B, H, W, 3] behind the field.
            random: jitters the samples (training); None samples at the centres (evaluation).
        """
        raise NotImplementedError
