"""The least ball about each toy, from support functions: how far a shape reaches in a direction.

Axes: P toys, K parts, D directions. Toy units.
"""

import math

import torch
from torch import Tensor

from scaledreamer.toybox.packing import ELLIPSOID, SOLID, Columns

_DIRECTIONS, _ITERATIONS = 200, 64


def least_ball(solids: Tensor, ellipsoids: Tensor) -> tuple[Tensor, Tensor]:
    """Centres [P, 3] and radii [P] of the least balls about toys, to about a hundredth of the radius.

    From the middle of the bounding box the centre moves towards the farthest point, in ever smaller steps (Badoiu and
    Clarkson, 2003); the best one is kept.
    """
    directions = _sphere(_DIRECTIONS).to(solids)  # [D, 3], the last six are the axes
    reach = _reach(solids, ellipsoids, directions)  # [P, D]
    best = centre = (reach[:, -6:-3] - reach[:, -3:]) / 2
    radius, farthest = (reach - centre @ directions.T).max(dim=-1)
    least = radius
    for i in range(_ITERATIONS):
        centre = centre + radius[:, None] * directions[farthest] / (i + 8)
        radius, farthest = (reach - centre @ directions.T).max(dim=-1)
        best = torch.where((radius < least)[:, None], centre, best)
        least = radius.minimum(least)
    return best, least


def _reach(solids: Tensor, ellipsoids: Tensor, directions: Tensor) -> Tensor:
    """max over a toy's points p of p . u for directions u, [P, D]; mirrored parts in mirrored directions too."""
    reaches = []
    for sign_x, sign_y in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
        signs = directions.new_tensor([sign_x, sign_y, 1])
        for table, columns, support in ((solids, SOLID, _solid), (ellipsoids, ELLIPSOID, _ellipsoid)):
            there = columns.absence(table) == 0  # [P, K, 1]
            for axis, sign in (("mirror_x", sign_x), ("mirror_y", sign_y)):
                there = there & (columns.of(table, axis) > 0 if sign < 0 else there)
            shift = (1 - sign_x) * columns.of(table, "plane") * directions[:, 0]
            reach = support(table, directions * signs) + shift
            reaches.append(reach.masked_fill(~there, -math.inf).amax(dim=1))
    return torch.stack(reaches).amax(dim=0)


def _turned(table: Tensor, columns: Columns, directions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Directions in each part's frame, u v w [P, K, D], and the reach of its centre [P, K, D]."""
    a, b, c = directions.unbind(dim=-1)
    u, v, w = (_weighted(table, columns, [f"r{row}{column}" for row in range(3)], a, b, c) for column in range(3))
    return u, v, w, _weighted(table, columns, ["x", "y", "z"], a, b, c)


def _weighted(table: Tensor, columns: Columns, names: list[str], a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    x, y, z = (columns.of(table, name) for name in names)
    return x * a + y * b + z * c


def _solid(table: Tensor, directions: Tensor) -> Tensor:
    u, v, w, centre = _turned(table, SOLID, directions)
    side_x, side_y, height, corner, taper, _, edge = (SOLID.of(table, name) for name in SOLID.size)
    ends = []
    for end in (-1, 1):
        round_ = corner - edge - end * taper  # radius of the corners at this end, before the edge is rounded
        flat = (u.abs() * (side_x - corner) + v.abs() * (side_y - corner)) + round_.clamp(max=0) * (u.abs() + v.abs())
        ends.append(flat + round_.clamp(min=0) * (u * u + v * v).sqrt() + end * w * (height - edge))
    return torch.maximum(*ends) + edge + centre


def _ellipsoid(table: Tensor, directions: Tensor) -> Tensor:
    u, v, w, centre = _turned(table, ELLIPSOID, directions)
    radius_x, radius_y, radius_z = (ELLIPSOID.of(table, name) for name in ELLIPSOID.size)
    return ((u * radius_x).square() + (v * radius_y).square() + (w * radius_z).square()).sqrt() + centre


def _sphere(count: int) -> Tensor:
    """Directions [count, 3], evenly spread (a Fibonacci lattice), and the six axes."""
    index = torch.arange(count, dtype=torch.float64) + 0.5
    z, angle = 1 - 2 * index / count, index * math.pi * (3 - math.sqrt(5))
    radius = (1 - z * z).sqrt()
    lattice = torch.stack([radius * angle.cos(), radius * angle.sin(), z], dim=-1)
    return torch.cat([lattice, torch.eye(3, dtype=torch.float64), -torch.eye(3, dtype=torch.float64)])
