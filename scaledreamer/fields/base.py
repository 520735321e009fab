"""A field: what one batch of shapes is at points in space.

Axes: P shapes (one per prompt), N points per shape. Points are in world units; the shapes live in the box
[-radius, radius]^3. Signed distances are positive outside. Colours are RGB in [0, 1].
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class FieldSamples:
    """A signed-distance field at points."""

    sdf: Tensor  # [P, N]  world units, positive outside
    color: Tensor  # [P, N, 3]  in [0, 1]; widened ones by a thousandth beyond
    gradient: Tensor  # [P, N, 3]  of the sdf; not normalised


class SdfField(Protocol):
    """Made once per step by a generator (cheap to hold), then asked by every ray."""

    @property
    def radius(self) -> float:
        """Half the side of the bounding box, world units."""
        ...

    @property
    def prompts(self) -> int:
        """P, the number of shapes."""
        ...

    def sdf(self, points: Tensor) -> Tensor:
        """Signed distances [P, N] at points [P, N, 3]."""
        ...

    def query(self, points: Tensor) -> FieldSamples:
        """Signed distance, colour and gradient at points [P, N, 3]."""
        ...
