"""Triangles of a surface: marching cubes, vertices moved onto it, connected pieces.

Marching cubes in Lewiner's variant (Lewiner et al., "Efficient implementation of marching cubes' cases with topological
guarantees", 2003) of scikit-image: closed surfaces without ambiguous cases, shared vertices, 0.03 s at 128^3. Of the
other libraries PyMCubes has no wheels beyond Python 3.12, and the GPU ones need a compiler.

Axes: P shapes, V vertices, F faces.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from scaledreamer.mesh.grid import Grid
from scaledreamer.mesh.level import Level


@dataclass(frozen=True)
class Surface:
    """Bare triangles."""

    vertices: np.ndarray  # [V, 3]  float64
    faces: np.ndarray  # [F, 3]  int32, counter-clockwise seen from outside

    def part(self, chosen: np.ndarray) -> "Surface":
        """Some of the faces, bool [F], and the vertices that they need."""
        used, faces = np.unique(self.faces[chosen], return_inverse=True)
        return Surface(self.vertices[used], faces.reshape(-1, 3).astype(np.int32))


def surfaces(level: Level, grids: Sequence[Grid]) -> list[Surface]:
    """The surfaces of P shapes, in world units; without faces where there is none."""
    found = [_marched(grid) for grid in grids]
    # Along its edge of the grid each vertex finds the surface, and cannot overtake another.
    edges = [_edges(surface.vertices) for surface in found]
    starts = [grid.world(low) for grid, (low, _) in zip(grids, edges, strict=True)]
    ends = [grid.world(high) for grid, (_, high) in zip(grids, edges, strict=True)]
    return [
        Surface(np.where(on_edge[:, None], points, grid.world(surface.vertices)), surface.faces)
        for grid, surface, (points, on_edge) in zip(grids, found, level.roots(starts, ends), strict=True)
    ]


def _marched(grid: Grid) -> Surface:
    """Marching cubes, in units of cells."""
    if not (grid.values < 0).any():
        return Surface(np.zeros((0, 3)), np.zeros((0, 3), np.int32))
    from skimage.measure import marching_cubes

    # A frame that is outside closes what reaches the border; a value of exactly zero would make faces without area.
    values = np.pad(grid.values, 1, constant_values=np.abs(grid.values).max())
    values[values == 0] = np.finfo(np.float32).tiny
    vertices, faces, _, _ = marching_cubes(values, level=0.0, method="lewiner")
    return Surface(vertices.astype(np.float64) - 1, faces.astype(np.int32))


def _edges(vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends [V, 3] of the grid's edges that vertices are on; both are the vertex where it is inside a cell."""
    low, high = np.floor(vertices), np.ceil(vertices)
    inside = ((low != high).sum(axis=-1) > 1)[:, None]
    return np.where(inside, vertices, low), np.where(inside, vertices, high)


def pieces(surface: Surface, *, smallest: float, most: int | None) -> Surface:
    """The largest connected pieces by enclosed volume, holes in them included.

    Args:
        surface: of any number of pieces.
        smallest: least volume of a piece, as a share of the largest one's.
        most: number of pieces; None for any.
    """
    if not len(surface.faces):
        return surface
    a, b, c = surface.faces.T
    number, label = components(np.r_[a, b], np.r_[b, c], count=len(surface.vertices))
    of_face = label[a]
    corners = surface.vertices[surface.faces]
    signed = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    # The surface of a hole has a negative volume, smaller than that of what it is in.
    volume = np.abs(np.bincount(of_face, signed, minlength=number))
    chosen = volume >= smallest * volume.max()
    if most is not None:
        chosen[np.argsort(-volume, kind="stable")[most:]] = False
    return surface if chosen.all() else surface.part(chosen[of_face])


def components(one: np.ndarray, other: np.ndarray, *, count: int) -> tuple[int, np.ndarray]:
    """(number, label [count]) of the connected components of things that are linked pairwise."""
    links = sparse.coo_array((np.ones(len(one), bool), (one, other)), shape=(count, count))
    return sparse.csgraph.connected_components(links.tocsr(), directed=False)
