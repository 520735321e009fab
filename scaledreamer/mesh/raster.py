"""Which pixels triangles cover: flat, without a loop over triangles or pixels.

Pixel (i, j) is at x = j + 0.5, y = i + 0.5. Axes: F triangles, K fragments (pairs of a triangle and a pixel of it).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_CHUNK = 2**21  # pixels of bounding boxes that are looked at together


@dataclass(frozen=True)
class Fragments:
    """Pixels whose centres are in triangles."""

    face: np.ndarray  # [K]
    row: np.ndarray  # [K]
    column: np.ndarray  # [K]
    weights: np.ndarray  # [K, 3]  of the triangle's corners, sum 1


def fragments(corners: np.ndarray, *, height: int, width: int) -> Iterator[Fragments]:
    """The pixels of triangles [F, 3, 2] (x, y in pixels), in several portions.

    Of triangles that share an edge, and lie on either side of it, exactly one has a pixel centre that is on it: edges
    are treated from the lesser to the greater of their ends, whichever triangle they belong to.
    """
    corners = corners.astype(np.float64)
    low = np.clip(np.ceil(corners.min(axis=1) - 0.5), 0, (width, height)).astype(np.int64)
    high = np.clip(np.floor(corners.max(axis=1) - 0.5) + 1, 0, (width, height)).astype(np.int64)  # one beyond the last
    columns, rows = (high - low).clip(min=0).T
    last = np.cumsum(columns * rows)
    begin = 0
    while begin < len(corners):
        end = max(begin + 1, int(np.searchsorted(last, (last[begin - 1] if begin else 0) + _CHUNK, side="right")))
        part = slice(begin, end)
        face, x, y = _boxes(low[part], columns[part], rows[part])
        weights = _weights(corners[part], face, x + 0.5, y + 0.5)
        inside = ~np.isnan(weights[:, 0])
        yield Fragments(face[inside] + begin, y[inside], x[inside], weights[inside])
        begin = end


def _boxes(low: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pixels of boxes at ``low`` [F, 2]: (box, x, y)."""
    sizes = columns * rows
    box = np.repeat(np.arange(len(low)), sizes)
    place = np.arange(len(box)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    row, column = np.divmod(place, columns[box])
    return box, low[box, 0] + column, low[box, 1] + row


def _weights(corners: np.ndarray, face: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Barycentric coordinates [K, 3] of points in triangles ``face``; NaN outside."""
    areas = np.empty((len(face), 3))
    left = np.empty((len(face), 3), bool)
    for i in range(3):  # the edge across from corner i
        start, end = corners[:, (i + 1) % 3], corners[:, (i + 2) % 3]
        forth = (start[:, 0] < end[:, 0]) | ((start[:, 0] == end[:, 0]) & (start[:, 1] < end[:, 1]))
        lesser, greater = np.where(forth[:, None], start, end), np.where(forth[:, None], end, start)
        (ax, ay), (dx, dy) = lesser[face].T, (greater - lesser)[face].T
        area = dx * (y - ay) - dy * (x - ax)
        areas[:, i] = np.where(forth[face], area, -area)
        left[:, i] = (area >= 0) == forth[face]
    # Counter-clockwise triangles have their pixels on the left of all edges, others on the right.
    inside = left.all(axis=1) | ~left.any(axis=1)
    total = areas.sum(axis=1)
    inside &= total != 0
    areas[~inside] = np.nan
    return areas / np.where(inside, total, 1)[:, None]
