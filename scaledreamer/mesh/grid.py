"""Values of shapes on fine grids, evaluated only where a surface may be.

Coarse grids, one over the whole box and one about what that found, find where each shape is. A fine one about it is
divided into blocks of 4^3 cells; from the values at their corners follows which blocks may hold a piece of the surface,
and the points of these are evaluated. Wherever the surface then leaves them for other blocks, those are evaluated as
well, until it leaves none.

Axes: P shapes, X Y Z points along x, y and z.
"""

import numpy as np
from scipy import ndimage

from scaledreamer.mesh.level import Level

BLOCK = 4
"""Cells along a side of a block."""
_LEAST_COARSE = 24  # cells along a side of the coarse grid
_SAFETY = 1.25  # how much steeper a field may be between two points than it is around them


def sample(level: Level, *, resolution: int) -> "list[Grid]":
    """Grids of P shapes, with ``resolution`` cells along the longest side of each shape's bounding box."""
    boxes = _bounds(level, cells=max(_LEAST_COARSE, resolution // BLOCK))
    grids = [Grid(low, high, resolution=resolution) for low, high in boxes]
    for grid, values in zip(grids, level.values([grid.corners() for grid in grids]), strict=True):
        grid.start(values)
    while any(grid.missing.any() for grid in grids):
        for grid, values in zip(grids, level.values([grid.points() for grid in grids]), strict=True):
            grid.store(values)
    return grids


Box = tuple[np.ndarray, np.ndarray]
"""Two opposite corners, [3] each."""


class Grid:
    """Values of one shape, of which only the sign is known where there is no surface."""

    def __init__(self, low: np.ndarray, high: np.ndarray, *, resolution: int) -> None:
        self.spacing = float((high - low).max()) / resolution  # world units
        self.blocks = np.maximum(np.ceil((high - low) / (self.spacing * BLOCK) - 1e-6).astype(int), 1)
        self.origin = (low + high - self.blocks * BLOCK * self.spacing) / 2  # [3], of the first point
        shape = tuple(self.blocks * BLOCK + 1)
        self.values = np.ones(shape, np.float32)  # [X, Y, Z]
        self.known, self.missing = np.zeros(shape, bool), np.zeros(shape, bool)

    def world(self, places: np.ndarray) -> np.ndarray:
        """World coordinates [N, 3] of places in units of cells."""
        return self.origin + self.spacing * places

    def corners(self) -> np.ndarray:
        """Points [N, 3] where blocks meet."""
        return self.world(BLOCK * np.indices(tuple(self.blocks + 1)).reshape(3, -1).T)

    def start(self, values: np.ndarray) -> None:
        """Take the values [N] at the corners, and ask for the points of the blocks that may hold a surface."""
        coarse = values.reshape(self.blocks + 1)
        self.values = coarse[np.ix_(*(np.arange(n) // BLOCK for n in self.values.shape))]
        self._ask_for(candidates(coarse))

    def points(self) -> np.ndarray:
        """Points [N, 3] that are asked for."""
        return self.world(np.argwhere(self.missing))

    def store(self, values: np.ndarray) -> None:
        """Take the values [N] at those points, and ask for the blocks into which the surface goes on."""
        self.values[self.missing] = values
        self.known |= self.missing
        negative = self.values < 0
        entered = np.zeros_like(self.known)
        for axis in range(3):
            here, there = _along(axis, slice(None, -1)), _along(axis, slice(1, None))
            crossing = (negative[here] != negative[there]) & (self.known[here] != self.known[there])
            entered[here] |= crossing
            entered[there] |= crossing
        blocks = np.zeros(self.blocks, bool)
        blocks[tuple(np.minimum(np.argwhere(entered & ~self.known) // BLOCK, self.blocks - 1).T)] = True
        self._ask_for(blocks)

    def _ask_for(self, blocks: np.ndarray) -> None:
        cells = blocks.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1).repeat(BLOCK, axis=2)
        self.missing = _corners_of(cells) & ~self.known


def candidates(values: np.ndarray) -> np.ndarray:
    """Which cells [X - 1, Y - 1, Z - 1] of values [X, Y, Z] may hold a piece of the surface.

    Those with corners of both signs, and those with a corner so close to zero that the slope of the field around it
    could lead there within half a diagonal: no point of a cell is farther from a corner than that.
    """
    squared = np.zeros_like(values)
    for axis in range(3):
        change = np.abs(np.diff(values, axis=axis))
        ahead = np.concatenate([change, change[_along(axis, slice(-1, None))]], axis=axis)
        behind = np.concatenate([change[_along(axis, slice(None, 1))], change], axis=axis)
        squared += np.square(np.maximum(ahead, behind))
    slope = ndimage.maximum_filter(np.sqrt(squared), size=3, mode="nearest")  # per cell
    near = np.abs(values) <= _SAFETY * slope * np.sqrt(3) / 2
    return _any_corner(near) | (_any_corner(values < 0) & _any_corner(values >= 0))


def _bounds(level: Level, *, cells: int) -> list[Box]:
    """The least boxes about the candidates of each shape, which is as good as empty without any."""
    edge = level.radius * (1 + 1 / cells)  # beyond the field's box, where all surfaces end at the latest
    boxes = [(np.full(3, -edge), np.full(3, edge))] * level.prompts
    for _ in range(2):  # a small shape is seen better from near
        spacings = [(high - low).max() / cells for low, high in boxes]
        places = [
            np.indices(tuple(np.ceil((high - low) / spacing - 1e-6).astype(int) + 1))
            for (low, high), spacing in zip(boxes, spacings, strict=True)
        ]
        points = [
            low + spacing * p.reshape(3, -1).T for (low, _), spacing, p in zip(boxes, spacings, places, strict=True)
        ]
        for i, values in enumerate(level.values(points)):
            within = np.argwhere(candidates(values.reshape(places[i].shape[1:])))
            if len(within):
                low = boxes[i][0]
                boxes[i] = low + spacings[i] * within.min(axis=0), low + spacings[i] * (within.max(axis=0) + 1)
    return boxes


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return tuple(part if i == axis else slice(None) for i in range(3))


def _any_corner(points: np.ndarray) -> np.ndarray:
    """Cells [X - 1, Y - 1, Z - 1] with any of their corners in points [X, Y, Z]."""
    for axis in range(3):
        points = points[_along(axis, slice(None, -1))] | points[_along(axis, slice(1, None))]
    return points


def _corners_of(cells: np.ndarray) -> np.ndarray:
    """Points [X + 1, Y + 1, Z + 1] that are corners of any of the cells [X, Y, Z]."""
    return _any_corner(np.pad(cells, 1))
