"""The true toys as a field, for whatever takes one: meshes, renderers, comparisons.

Axes: P toys, N points per toy.
"""

from dataclasses import dataclass

from torch import Tensor

from scaledreamer.fields.base import FieldSamples
from scaledreamer.fields.finite_difference import forward_difference, offsets
from scaledreamer.toybox.scene import RADIUS, Scene

_EPS = 1e-3  # world units


@dataclass(frozen=True)
class TrueField:
    """P toys with their albedo; see :class:`scaledreamer.fields.base.SdfField`."""

    scene: Scene

    @property
    def radius(self) -> float:
        """Half the side of the box: the toys end at nine tenths of it."""
        return RADIUS / 0.9

    @property
    def prompts(self) -> int:
        """P, the number of toys."""
        return len(self.scene)

    def sdf(self, points: Tensor) -> Tensor:
        """Signed distances [P, N] at points [P, N, 3]."""
        return self.scene.sdf(points)

    def query(self, points: Tensor) -> FieldSamples:
        """Signed distance, albedo and gradient at points [P, N, 3]."""
        sdf, gradient = forward_difference(self.scene.sdf(offsets(points, eps=_EPS)), eps=_EPS)
        return FieldSamples(sdf=sdf, color=self.scene.albedo(points), gradient=gradient)
