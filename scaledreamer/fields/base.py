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


@dataclass(frozen=True)
class DensitySamples:
    """A density field at points."""

    density: Tensor  # [P, N]  share of the light that is stopped per world unit, not negative
    color: Tensor  # [P, N, 3]  in [0, 1]
    gradient: Tensor | None  # [P, N, 3]  of the density; None where it was not asked for


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


class DensityField(Protocol):
    """As :class:`SdfField`, of matter that has a density instead of a surface."""

    @property
    def radius(self) -> float:
        """Half the side of the bounding box, world units."""
        ...

    @property
    def prompts(self) -> int:
        """P, the number of shapes."""
        ...

    def density(self, points: Tensor) -> Tensor:
        """Densities [P, N] at points [P, N, 3]."""
        ...

    def query(self, points: Tensor, *, gradient: bool) -> DensitySamples:
        """Density and colour at points [P, N, 3], and the density's gradient where it is asked for."""
        ...


Field = SdfField | DensityField
"""What a generator makes; its attribute ``field`` says which."""
