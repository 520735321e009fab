"""Parts of toys as rows of tables, one table per shape, padded with rows that are nowhere.

Axes: P toys, K rows.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from scaledreamer.toybox.catalogue import parts_of, shape_of, slots
from scaledreamer.toybox.palette import PALETTE
from scaledreamer.toybox.parts import Part
from scaledreamer.toybox.vocabulary import Toy

Rows = tuple[tuple[str, tuple[float, ...]], ...]
"""Of one toy: the shape and the row of every part."""

_NOWHERE = 1e3
"""Added to distances of parts that a query leaves out: far, yet harmless in float32."""


class Columns:
    """What the columns of a table are."""

    def __init__(self, *size: str) -> None:
        self.size = size
        rotation = [f"r{row}{column}" for row in range(3) for column in range(3)]
        rest = ["x", "y", "z", *rotation, "mirror_x", "mirror_y", "plane", "melt", "crease", "red", "green", "blue"]
        self._index = {name: i for i, name in enumerate([*size, *rest])}

    def __len__(self) -> int:
        return len(self._index)

    def of(self, table: Tensor, name: str) -> Tensor:
        """One column [P, K, 1] of a table [P, K, columns].

        ``melt`` and ``crease`` are added to distances: 0 in rows of the soft parts, or of the sharp ones, else large.
        """
        return table[..., self._index[name], None]

    def absence(self, table: Tensor) -> Tensor:
        """0 where a row is a part, a large number where it is padding: [P, K, 1]."""
        return self.of(table, "melt").minimum(self.of(table, "crease"))

    def trimmed(self, table: Tensor) -> Tensor:
        """The first rows, as many as any of the toys needs, at least one."""
        needed = (self.absence(table) == 0).any(dim=0).sum()
        return table[:, : max(1, int(needed))]


SOLID = Columns("side_x", "side_y", "height", "corner", "taper", "wall", "edge")
ELLIPSOID = Columns("radius_x", "radius_y", "radius_z")


def pack(toys: Sequence[Toy]) -> tuple[Tensor, Tensor, Tensor]:
    """Tables of solids and of ellipsoids [P, K, columns] and blends [P] of toys, toy units."""
    blends = torch.tensor([shape_of(toy.kind).blend for toy in toys])
    return *tables([_rows(toy) for toy in toys]), blends


def tables(toys: Sequence[Rows]) -> tuple[Tensor, Tensor]:
    """Tables of solids and of ellipsoids [P, K, columns] of the rows of toys."""
    padded = []
    nowhere = _row_end(Part("solid", (), (0, 0, 0)), "black", there=False)
    for shape, columns in (("solid", SOLID), ("ellipsoid", ELLIPSOID)):
        absent = (*[1.0] * len(columns.size), *nowhere)
        found = [[row for kind, row in rows if kind == shape] for rows in toys]
        full = [[*rows, *[absent] * (slots()[shape] - len(rows))] for rows in found]
        padded.append(torch.tensor(full).reshape(len(toys), slots()[shape], len(columns)))
    return padded[0], padded[1]


def rows_of(parts: Sequence[Part], colour: str) -> Rows:
    """Parts as rows, with the shape of each."""
    return tuple((part.shape, (*part.size, *_row_end(part, colour))) for part in parts)


@functools.lru_cache(maxsize=4096)
def _rows(toy: Toy) -> Rows:
    return rows_of(parts_of(toy), toy.colour)


def _row_end(part: Part, body: str, *, there: bool = True) -> tuple[float, ...]:
    """The columns behind the size."""
    rotation = [value for row in part.rotation for value in row]
    mirror = [float(axis in part.mirror) for axis in "xy"]
    roles = [0.0 if there and part.soft is soft else _NOWHERE for soft in (True, False)]
    return (
        *part.centre,
        *rotation,
        *mirror,
        part.plane,
        *roles,
        *PALETTE[body if part.colour == "body" else part.colour],
    )
