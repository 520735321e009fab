"""Toys as tensors: packed once, gathered by index, queried for signed distance and albedo in one go.

World: right-handed, +z up; a toy looks along +x (azimuth 0) and the least ball about it is centred in the origin and
has the radius 0.9. "Toy units" are those of :mod:`scaledreamer.toybox.parts`.

Axes: P toys, N points per toy, K parts of one shape (padded to the most that any toy has).
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scaledreamer.toybox import distances
from scaledreamer.toybox.bounds import least_ball
from scaledreamer.toybox.packing import ELLIPSOID, SOLID, Columns, pack, rows_of, tables
from scaledreamer.toybox.parts import Part
from scaledreamer.toybox.vocabulary import COLOURS, Toy

RADIUS = 0.9
"""Radius of the least ball about every toy, world units."""


@dataclass(frozen=True)
class Scene:
    """P toys. All methods are plain tensor arithmetic: no loop over toys, no transfer, no data-dependent control flow.

    >>> scene = Scene.of([parse("a red robot"), parse("a blue duck on a drum")])
    >>> scene.sdf(torch.zeros(2, 1, 3)).shape
    torch.Size([2, 1])
    """

    solids: Tensor  # [P, K, columns of packing.SOLID]  toy units
    ellipsoids: Tensor  # [P, K, columns of packing.ELLIPSOID]  toy units
    placement: Tensor  # [P, 5]  world units per toy unit, centre in toy units, blend in toy units

    @classmethod
    def of(cls, toys: Sequence[Toy], device: torch.device | str = "cpu") -> "Scene":
        """Pack toys, in their order."""
        solids, ellipsoids, blend = pack(toys)
        # Paint does not change a toy's size: measuring one of each colour is a ninth of the work.
        unpainted = [dataclasses.replace(toy, colour=COLOURS[0]) for toy in toys]
        place = {toy: i for i, toy in enumerate(dict.fromkeys(unpainted))}
        same = torch.tensor([place[toy] for toy in unpainted])
        one = torch.tensor([unpainted.index(toy) for toy in place])
        return cls(solids, ellipsoids, _placement(solids[one], ellipsoids[one], blend[one])[same]).to(device)

    @classmethod
    def of_parts(cls, *parts: Part, colour: str = "red", blend: float = 0.02) -> "Scene":
        """One toy of one's own making, in any units and place; no more parts than the toybox's largest toy has."""
        solids, ellipsoids = tables([rows_of(parts, colour)])
        return cls(solids, ellipsoids, _placement(solids, ellipsoids, torch.tensor([blend])))

    def to(self, device: torch.device | str) -> "Scene":
        """The same toys on another device."""
        return Scene(self.solids.to(device), self.ellipsoids.to(device), self.placement.to(device))

    def __len__(self) -> int:
        return self.placement.shape[0]

    def __getitem__(self, index: Tensor | slice) -> "Scene":
        """The toys of ``index``, int64 [any number] on the scene's device, or a slice."""
        return Scene(self.solids[index], self.ellipsoids[index], self.placement[index])

    def trimmed(self) -> "Scene":
        """Without the padding that none of these toys needs. Waits for the device."""
        return Scene(SOLID.trimmed(self.solids), ELLIPSOID.trimmed(self.ellipsoids), self.placement)

    def sdf(self, points: Tensor) -> Tensor:
        """Signed distances [P, N] at points [P, N, 3], world units, positive outside; a lower bound of the distance."""
        scale, blend = self.placement[:, :1], self.placement[:, 4:]  # [P, 1] each
        solids, ellipsoids = self._distances(points)
        melt_solids, melt_ellipsoids = SOLID.of(self.solids, "melt"), ELLIPSOID.of(self.ellipsoids, "melt")
        # Exponential smooth minimum: symmetric in any number of parts, 1-Lipschitz, never above the sharp minimum.
        exponents = blend[..., None].reciprocal()
        body = torch.logaddexp(
            torch.logsumexp(-(solids + melt_solids) * exponents, dim=1),
            torch.logsumexp(-(ellipsoids + melt_ellipsoids) * exponents, dim=1),
        )
        crease_solids = (solids + SOLID.of(self.solids, "crease")).amin(dim=1)
        crease_ellipsoids = (ellipsoids + ELLIPSOID.of(self.ellipsoids, "crease")).amin(dim=1)
        return scale * (-blend * body).minimum(crease_solids).minimum(crease_ellipsoids)

    def albedo(self, points: Tensor) -> Tensor:
        """Colours [P, N, 3] in [0, 1] at points [P, N, 3]: that of the nearest part."""
        distances, colours = [], []
        for distance, table, columns in zip(
            self._distances(points), (self.solids, self.ellipsoids), (SOLID, ELLIPSOID), strict=True
        ):
            distances.append(distance + columns.absence(table))
            colours.append(torch.cat([columns.of(table, c) for c in ("red", "green", "blue")], dim=-1))
        nearest = torch.cat(distances, dim=1).argmin(dim=1)  # [P, N]
        return torch.cat(colours, dim=1).gather(1, nearest[..., None].expand(-1, -1, 3))

    def _distances(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Distances [P, K, N] of all solids and of all ellipsoids, toy units."""
        scale, centre = self.placement[:, None, :1], self.placement[:, None, 1:4]
        placed = points / scale + centre  # [P, N, 3]
        solids = distances.solid(
            *_to_part(placed, self.solids, SOLID), **{name: SOLID.of(self.solids, name) for name in SOLID.size}
        )
        ellipsoids = distances.ellipsoid(
            *_to_part(placed, self.ellipsoids, ELLIPSOID),
            **{name: ELLIPSOID.of(self.ellipsoids, name) for name in ELLIPSOID.size},
        )
        return solids, ellipsoids


def _placement(solids: Tensor, ellipsoids: Tensor, blend: Tensor) -> Tensor:
    centre, radius = least_ball(solids, ellipsoids)
    return torch.cat([RADIUS / radius[:, None], centre, blend[:, None]], dim=-1)


def _to_part(points: Tensor, table: Tensor, columns: Columns) -> tuple[Tensor, Tensor, Tensor]:
    """Points [P, N, 3] of the toy in the frame of each part: x, y, z [P, K, N], mirrored where the part is doubled."""
    x, y, z = (c[:, None] for c in points.unbind(dim=-1))  # [P, 1, N]
    plane = columns.of(table, "plane")
    x = torch.where(columns.of(table, "mirror_x") > 0, (x - plane).abs() + plane, x) - columns.of(table, "x")
    y = torch.where(columns.of(table, "mirror_y") > 0, y.abs(), y) - columns.of(table, "y")
    z = z - columns.of(table, "z")
    # Spelled out, because TF32 would round a matrix product; columns of the rotation are rows of its inverse.
    r = [columns.of(table, f"r{row}{column}") for row in range(3) for column in range(3)]
    return (
        r[0] * x + r[3] * y + r[6] * z,
        r[1] * x + r[4] * y + r[7] * z,
        r[2] * x + r[5] * y + r[8] * z,
    )
