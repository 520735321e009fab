"""A field that stands somewhere else and is larger or smaller than it was made.

What is learned then is a form in a frame of its own, and apart from it where it is and how large: a toy on a stand is
the toy, moved up, not another form.

Axes: P shapes, N points per shape.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scaledreamer.fields.base import FieldSamples, SdfField


@dataclass(frozen=True)
class PlacedField:
    """Signed distance ``scale * f((x - shift) / scale)`` of another field f, whose gradient it shares.

    Shift and scale learn by the distance alone, as the gradient says: d sdf / d shift = -gradient. How colours and
    gradients move is left out, which spares the derivatives of interpolations by their points. The box that is
    rendered stays the field's.
    """

    field: SdfField
    shift: Tensor  # [P, 3]  world units
    scale: Tensor  # [P, 1]  world units per unit of the field, positive

    @property
    def radius(self) -> float:
        """Half the side of the bounding box, world units."""
        return self.field.radius

    @property
    def prompts(self) -> int:
        """P, the number of shapes."""
        return self.field.prompts

    def sdf(self, points: Tensor) -> Tensor:
        """Signed distances [P, N]; see :class:`scaledreamer.fields.base.SdfField`."""
        learns = any(t.requires_grad for t in (points, self.shift, self.scale))
        # Only a query knows the derivative by the place.
        if learns and torch.is_grad_enabled():
            return self.query(points).sdf
        return self.scale * self.field.sdf(self._own(points))

    def query(self, points: Tensor) -> FieldSamples:
        """Signed distance, colour and gradient at points [P, N, 3]."""
        own = self._own(points.detach())
        found = self.field.query(own)
        sdf = _Placed.apply(found.sdf, points, self.shift, self.scale, found.gradient.detach(), own)
        return FieldSamples(sdf=sdf, color=found.color, gradient=found.gradient)  # type: ignore[arg-type]

    def _own(self, points: Tensor) -> Tensor:
        """Points [P, N, 3] of the world in the field's own frame."""
        return (points - self.shift.detach()[:, None]) / self.scale.detach()[..., None]


class _Placed(torch.autograd.Function):
    """scale * sdf, where sdf [P, N] was asked at ``own`` [P, N, 3] and has that ``gradient`` [P, N, 3] there."""

    @staticmethod
    def forward(
        ctx: Any, sdf: Tensor, points: Tensor, shift: Tensor, scale: Tensor, gradient: Tensor, own: Tensor
    ) -> Tensor:
        ctx.save_for_backward(sdf, scale, gradient, own)
        return scale * sdf

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (of_placed,) = gradients
        sdf, scale, gradient, own = ctx.saved_tensors
        of_points = of_placed[..., None] * gradient  # d (scale f((x - shift) / scale)) / dx is f's gradient
        of_scale = (of_placed * sdf).sum(dim=1) - torch.einsum("pnc,pnc->p", of_points, own)
        return (
            scale * of_placed,
            of_points if ctx.needs_input_grad[1] else None,
            -of_points.sum(dim=1),
            of_scale[:, None],
            None,
            None,
        )
