"""A field that stands somewhere else and is larger or smaller than it was made.

What is learned then is a form in a frame of its own, and apart from it where it is and how large: a toy on a stand is
the toy, moved up, not another form.

Axes: P shapes, N points per shape.
"""

from dataclasses import dataclass

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
        own = self._own(points)
        # Only a query knows the derivative by the place.
        return self.query(points).sdf if own.requires_grad else self.scale * self.field.sdf(own)

    def query(self, points: Tensor) -> FieldSamples:
        """Signed distance, colour and gradient at points [P, N, 3]."""
        own = self._own(points)
        found = self.field.query(own.detach())
        moved = ((own - own.detach()) * found.gradient.detach()).sum(dim=-1)  # zero, but for its derivative
        return FieldSamples(sdf=self.scale * (found.sdf + moved), color=found.color, gradient=found.gradient)

    def _own(self, points: Tensor) -> Tensor:
        """Points [P, N, 3] of the world in the field's own frame."""
        return (points - self.shift[:, None]) / self.scale[..., None]
