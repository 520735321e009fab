"""Points to ask an encoding at, for benchmarks: those of a training step, or random ones.

Axes: N points. World units are the paper's run's: the box is [-2, 2]^3.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scaledreamer.cameras import RandomCameras
from scaledreamer.fields.base import FieldSamples
from scaledreamer.fields.finite_difference import offsets
from scaledreamer.randomness import StepRandom
from scaledreamer.renderers.volsdf import VolSDFRenderer

Where = Literal["rays", "uniform"]

RADIUS = 2.0
"""Half the side of the box."""

EPS = 0.01
"""Step of the finite differences."""


@dataclass(frozen=True)
class Ball:
    """A sphere that is rendered to learn where a training step asks its field."""

    radius: float = RADIUS
    prompts: int = 1

    def sdf(self, points: Tensor) -> Tensor:
        """See :class:`scaledreamer.fields.base.SdfField`."""
        return points.norm(dim=-1) - 0.5

    def query(self, points: Tensor) -> FieldSamples:
        """The points themselves as the gradient, which a rendering has unchanged."""
        return FieldSamples(sdf=self.sdf(points), color=torch.zeros_like(points), gradient=points)


def points_of(where: Where, n: int, device: torch.device) -> Tensor:
    """Points [N, 3] for an encoding of the unit cube; ``n`` of them, with ``rays`` rounded down to a multiple of 4.

    Args:
        where: ``rays``: samples along the rays of one camera of the paper's run, in a step's order, then the same moved
            along x, y and z for finite differences; ``uniform``: anywhere in the cube.
        n: 4 at least.
    """
    random = StepRandom(seed=0, step=0, device=device)
    if where == "uniform":
        return random.uniform(n, 3)
    renderer = VolSDFRenderer().to(device)
    samples = renderer.proposals + renderer.samples + 1
    side = 1 + int((n / 4 / samples) ** 0.5)
    rays = RandomCameras().sample(1, random).rays(side, side)
    asked = renderer(Ball(), rays, torch.zeros_like(rays.origins), random).gradient  # [1, side * side * samples, 3]
    assert asked is not None
    return (offsets(asked[:, : n // 4], eps=EPS)[0] + RADIUS) / (2 * RADIUS)
