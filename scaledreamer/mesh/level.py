"""Where a batch of shapes ends: the zero of a scalar that is positive outside, whatever kind of field they are.

Axes: P shapes, N points per shape. What is asked for is a list with the points of each shape, of any number.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from scaledreamer.fields.base import DensityField, Field, SdfField
from scaledreamer.mesh.roots import STEPS, Brackets

_FAR = 1e6  # for infinite values, which no root finder can weigh
_ON_BOX = 1e-5  # how near its sides points are on the box, in half sides
_LEAST_DENSITY = 1e-12


class _Scalar(Protocol):
    def value(self, points: Tensor) -> Tensor:
        """[P, N] at points [P, N, 3]: zero on the surface, positive outside."""
        ...

    def look(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Colours and outward directions [P, N, 3] at points [P, N, 3]."""
        ...


@dataclass(frozen=True)
class _Distance:
    """The signed distance itself."""

    field: SdfField

    def value(self, points: Tensor) -> Tensor:
        return self.field.sdf(points)

    def look(self, points: Tensor) -> tuple[Tensor, Tensor]:
        samples = self.field.query(points)
        return samples.color, samples.gradient


@dataclass(frozen=True)
class _Density:
    """log(threshold / density).

    Zero where threshold - density is, and closer to linear: roots take few steps, and a surface shows from afar.
    """

    field: DensityField
    threshold: float

    def value(self, points: Tensor) -> Tensor:
        return math.log(self.threshold) - self.field.density(points).clamp_min(_LEAST_DENSITY).log()

    def look(self, points: Tensor) -> tuple[Tensor, Tensor]:
        samples = self.field.query(points, gradient=True)
        assert samples.gradient is not None
        return samples.color, -samples.gradient


class Level:
    """The surfaces of P shapes, each cut off at the field's box.

    Args:
        field: of P shapes.
        threshold: density at the surface, 1 / world units; of density fields.
        device: of the field.
        chunk: points evaluated at a time, of all shapes together; memory follows it.
    """

    def __init__(self, field: Field, *, threshold: float, device: torch.device | str, chunk: int) -> None:
        self.prompts, self.radius, self.device, self.chunk = field.prompts, field.radius, torch.device(device), chunk
        self._scalar: _Scalar = (
            _Distance(cast(SdfField, field))
            if hasattr(field, "sdf")
            else _Density(cast(DensityField, field), threshold=threshold)
        )

    def values(self, points: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Values [N] at points [N, 3] of each shape, float32; positive where the field is not a number."""
        return [values[:, 0] for values in self._ask(lambda p: self._value(p)[..., None], points, width=1)]

    def look(self, points: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """(colours in [0, 1], unit normals or zeros) at points [N, 3] of each shape, float32 [N, 3] each."""
        return [(found[:, :3], found[:, 3:]) for found in self._ask(self._look, points, width=6)]

    def roots(self, starts: Sequence[np.ndarray], ends: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Where the surface is between starts and ends [N, 3] of each shape.

        Returns:
            Of each shape (points [N, 3], whether start and end have opposite signs [N]); a point without that says
            nothing.
        """
        brackets = [Brackets(*at) for at in zip(self.values(starts), self.values(ends), strict=True)]
        ways = [end - start for start, end in zip(starts, ends, strict=True)]
        for step in range(STEPS):
            if not any(bracket.open.any() for bracket in brackets):
                break
            asked = [
                start[bracket.open] + bracket.propose(step)[:, None] * way[bracket.open]
                for bracket, start, way in zip(brackets, starts, ways, strict=True)
            ]
            for bracket, values in zip(brackets, self.values(asked), strict=True):
                bracket.take(values)
        return [
            (start + bracket.shares()[:, None] * way, bracket.enclosed)
            for bracket, start, way in zip(brackets, starts, ways, strict=True)
        ]

    def _ask(
        self, function: Callable[[Tensor], Tensor], points: Sequence[np.ndarray], *, width: int
    ) -> list[np.ndarray]:
        """``function`` ([P, n, 3] -> [P, n, width]) at points [N, 3] of each shape, a chunk at a time."""
        longest = max(len(p) for p in points)
        padded = np.zeros((self.prompts, longest, 3), dtype=np.float32)
        for row, own in zip(padded, points, strict=True):
            row[: len(own)] = own
        at_once = max(1, self.chunk // self.prompts)
        parts = [
            function(torch.from_numpy(padded[:, i : i + at_once]).to(self.device)) for i in range(0, longest, at_once)
        ]
        found = torch.cat(parts, dim=1).cpu().numpy() if parts else np.zeros((self.prompts, 0, width), np.float32)
        return [row[: len(own)] for row, own in zip(found, points, strict=True)]

    def _value(self, points: Tensor) -> Tensor:
        beyond = points.abs().amax(dim=-1) - self.radius
        return self._scalar.value(points).float().nan_to_num(nan=1.0, posinf=_FAR, neginf=-_FAR).maximum(beyond)

    def _look(self, points: Tensor) -> Tensor:
        color, outward = self._scalar.look(points)
        normal = F.normalize(outward.float().nan_to_num(0.0), dim=-1)
        cut = (points.abs() > self.radius * (1 - _ON_BOX)) * points.sign()  # [P, N, 3], the box's own normal
        normal = torch.where(cut.any(dim=-1, keepdim=True), F.normalize(cut, dim=-1), normal)
        return torch.cat([color.float().nan_to_num(0.0).clamp(0, 1), normal], dim=-1)
