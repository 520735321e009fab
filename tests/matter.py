"""Densities that are known exactly, and a renderer for them, for tests of the NeRF renderer."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scaledreamer.fields.base import DensitySamples
from scaledreamer.randomness import StepRandom
from scaledreamer.renderers.nerf import NeRFRenderer
from scaledreamer.renderers.occupancy import OccupancyGrid


@dataclass
class Matter:
    """P shapes of any density and one colour each."""

    of: Callable[[Tensor], Tensor]  # [P, N, 3] -> [P, N]
    color: Tensor  # [P, 3]
    slope: tuple[float, float, float] = (0.0, 0.0, 0.0)  # that it tells of the density everywhere
    radius: float = 1.0

    @property
    def prompts(self) -> int:
        return len(self.color)

    def density(self, points: Tensor) -> Tensor:
        return self.of(points)

    def query(self, points: Tensor, *, gradient: bool) -> DensitySamples:
        slope = points.new_tensor(self.slope).expand_as(points) if gradient else None
        return DensitySamples(self.of(points), self.color[:, None].expand_as(points), slope)


def fog(density: float | Tensor, **options) -> Matter:
    """The same density everywhere in the box."""
    return Matter(lambda points: density * torch.ones_like(points[..., 0]), torch.tensor([[0.2, 0.5, 0.9]]), **options)


def balls(*radii: float, sharpness: float = 20.0) -> Matter:
    """Soft balls around the origin."""
    sizes = torch.tensor(radii)[:, None]
    return Matter(
        lambda points: 20 * torch.sigmoid(sharpness * (sizes - points.norm(dim=-1))),
        torch.linspace(0.1, 0.9, 3 * len(radii)).view(-1, 3),
    )


def made(*, samples: int = 64, resolution: int = 8, **options) -> NeRFRenderer:
    grid = {key: options.pop(key) for key in ("every", "decay", "threshold") if key in options}
    options = {"places_per_ray": samples, **options}  # all there may be
    return NeRFRenderer(grid=OccupancyGrid(resolution=resolution, **grid), samples=samples, **options)


def first_batch(step: int = 0) -> StepRandom:
    return StepRandom(seed=0, step=step)
