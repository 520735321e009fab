"""Regularisers of renders, and how much each loss counts over a run (ScaleDreamer's supplement; DreamFusion).

Axes: B images, H W pixels, P prompts, N samples.
"""

import torch
from torch import Tensor

from scaledreamer.renderers.base import Rendering
from scaledreamer.schedules import Schedule


class LossWeights:
    """Weight of each term over the run; a term with weight 0 is not added.

    Args:
        distillation: of the guidance's loss.
        sparsity: see :func:`sparsity`.
        opaque: see :func:`opaque`.
        eikonal: see :func:`eikonal`.
        orient: see :func:`orient`.
    """

    def __init__(
        self,
        *,
        distillation: Schedule = 1.0,
        sparsity: Schedule = 0.0,
        opaque: Schedule = 0.0,
        eikonal: Schedule = 0.0,
        orient: Schedule = 0.0,
    ) -> None:
        self.distillation, self.sparsity, self.opaque = distillation, sparsity, opaque
        self.eikonal, self.orient = eikonal, orient


def regularisers(rendering: Rendering) -> dict[str, Tensor]:
    """Every term of :class:`LossWeights` but the distillation, unweighted, [] each."""
    terms = {"sparsity": sparsity(rendering.opacity), "opaque": opaque(rendering.opacity)}
    if rendering.gradient is not None:
        terms["eikonal"] = eikonal(rendering.gradient)
    if rendering.facing_away is not None:
        terms["orient"] = orient(rendering.facing_away, rendering.opacity)
    return terms


def sparsity(opacity: Tensor) -> Tensor:
    """Mean of sqrt(o^2 + 0.01) over opacities of any shape: less matter is better."""
    return (opacity.float().square() + 0.01).sqrt().mean()


def opaque(opacity: Tensor) -> Tensor:
    """Mean binary entropy of opacities clamped to [0.001, 0.999]: a pixel is matter or not."""
    clamped = opacity.float().clamp(1e-3, 1 - 1e-3)  # bfloat16 would round 0.999 to 1
    return -(clamped * clamped.log() + (1 - clamped) * (1 - clamped).log()).mean()


def eikonal(gradient: Tensor) -> Tensor:
    """Mean of (|grad sdf| - 1)^2 over gradients [..., 3]: distances grow by one per unit."""
    return (torch.linalg.vector_norm(gradient.float(), dim=-1) - 1).square().mean()


def orient(facing_away: Tensor, opacity: Tensor) -> Tensor:
    """Sum of ``Rendering.facing_away`` per pixel that is not empty, both [B, H, W, 1]: what is seen faces the camera.

    Ref-NeRF (Verbin et al., CVPR 2022), equation 11.
    """
    return facing_away.float().sum() / (opacity > 0).sum().clamp(min=1)
