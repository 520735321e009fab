"""Fields whose surfaces are known exactly, for tests of meshes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from scaledreamer.fields.base import DensitySamples, FieldSamples

Solid = Callable[[Tensor], Tensor]
"""Signed distances [N] at points [N, 3]."""


def sphere(radius: float = 0.6, center: Sequence[float] = (0, 0, 0)) -> Solid:
    return lambda p: (p - torch.tensor(center)).norm(dim=-1) - radius


def box(sides: Sequence[float] = (0.5, 0.4, 0.3)) -> Solid:
    def distance(p: Tensor) -> Tensor:
        beyond = p.abs() - torch.tensor(sides)
        return beyond.clamp(min=0).norm(dim=-1) + beyond.amax(dim=-1).clamp(max=0)

    return distance


def torus(radius: float = 0.5, tube: float = 0.15) -> Solid:
    return lambda p: torch.hypot(p[:, :2].norm(dim=-1) - radius, p[:, 2]) - tube


def rod(radius: float, half: float = 0.8) -> Solid:
    return lambda p: torch.maximum(p[:, :2].norm(dim=-1) - radius, p[:, 2].abs() - half)


def union(*solids: Solid) -> Solid:
    return lambda p: torch.stack([solid(p) for solid in solids]).amin(dim=0)


def nothing(p: Tensor) -> Tensor:
    return torch.ones_like(p[:, 0])


def colored(points: Tensor) -> Tensor:
    """Colours [..., 3] that depend on the place: red grows to the front, green to the left, blue upwards."""
    return (points + 1) / 2


@dataclass(frozen=True)
class Solids:
    """A signed-distance field; counts the points it is asked for."""

    solids: Sequence[Solid]
    radius: float = 1.0
    scale: float = 1.0  # of the values: a field need not have the slope 1
    asked: list[int] = field(default_factory=list)

    @property
    def prompts(self) -> int:
        return len(self.solids)

    def sdf(self, points: Tensor) -> Tensor:
        self.asked.append(points.shape[1])
        return self.scale * torch.stack([solid(p) for solid, p in zip(self.solids, points, strict=True)])

    def query(self, points: Tensor) -> FieldSamples:
        steps = 1e-3 * torch.eye(3)
        slope = torch.stack([self.sdf(points + s) - self.sdf(points - s) for s in steps], dim=-1) / 2e-3
        return FieldSamples(sdf=self.sdf(points), color=colored(points), gradient=slope)


@dataclass(frozen=True)
class Fog:
    """A density field: 20 exp(-|x| / 0.3), which is 10 at |x| = 0.3 log 2."""

    prompts: int = 1
    radius: float = 1.0

    @staticmethod
    def distance_of(density: float) -> float:
        return 0.3 * math.log(20 / density)

    def density(self, points: Tensor) -> Tensor:
        return 20 * torch.exp(-points.norm(dim=-1) / 0.3)

    def query(self, points: Tensor, *, gradient: bool) -> DensitySamples:
        density = self.density(points)
        slope = -density[..., None] / 0.3 * F.normalize(points, dim=-1) if gradient else None
        return DensitySamples(density=density, color=colored(points), gradient=slope)
