"""How well a mesh agrees with another, such as a toy's truth.

>>> [truth] = MeshExtractor(resolution=128)(TrueField(Scene.of([parse("a red robot")])))
>>> compare(mesh, truth)
Agreement(chamfer=0.031, iou=0.78)

Axes: V vertices, F faces, N points, R cells per side.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from scaledreamer.mesh.mesh import Mesh, face_normals
from scaledreamer.mesh.raster import fragments

_TARGETS = 10  # times as many points on the other surface, so that their own distances count less


@dataclass(frozen=True)
class Agreement:
    """Of two meshes."""

    chamfer: float  # mean distance from either surface to the other, averaged over the two; world units
    iou: float  # of the enclosed volumes, in [0, 1]


def compare(mesh: Mesh, truth: Mesh, *, points: int = 20_000, cells: int = 128, seed: int = 0) -> Agreement:
    """Agreement of two closed meshes.

    Args:
        mesh, truth: in either order; the measures are symmetric.
        points: on either surface, from which distances are taken. They end at one of ten times as many points on the
            other: with 20,000, two equal surfaces of area 4 are 0.002 apart.
        cells: R, per side of the cube about both meshes in whose cells the volumes are compared.
        seed: of the points.
    """
    numbers = np.random.default_rng(seed)
    ours, theirs = (surface_points(m, _TARGETS * points, numbers) for m in (mesh, truth))
    there, back = (KDTree(b).query(a[:points])[0].mean() for a, b in ((ours, theirs), (theirs, ours)))
    radius = max(float(np.abs(m.vertices).max()) for m in (mesh, truth))
    a, b = (enclosed(m, radius=radius, cells=cells) for m in (mesh, truth))
    union = (a | b).sum()
    return Agreement(chamfer=float(there + back) / 2, iou=float((a & b).sum() / union) if union else 1.0)


def surface_points(mesh: Mesh, count: int, numbers: np.random.Generator) -> np.ndarray:
    """Points [N, 3] on the mesh, uniform in area and in random order."""
    areas = np.linalg.norm(face_normals(mesh.vertices, mesh.faces), axis=-1)
    face = numbers.choice(len(areas), size=count, p=areas / areas.sum())
    first, second = numbers.random((2, count, 1))
    root = np.sqrt(first)  # spreads points evenly over a triangle (Osada et al. 2002)
    a, b, c = mesh.vertices[mesh.faces[face]].astype(np.float64).swapaxes(0, 1)
    return (1 - root) * a + root * (1 - second) * b + root * second * c


def enclosed(mesh: Mesh, *, radius: float, cells: int) -> np.ndarray:
    """Which centres of the cells [R, R, R] (x y z) of the box [-radius, radius]^3 the mesh winds around.

    Along z, a cell's winding number is how many more faces were entered than left below its centre. Exact for closed
    meshes; a hole in one spoils the columns above and below it.
    """
    corners = mesh.vertices[mesh.faces].astype(np.float64)  # [F, 3, 3]
    places = (corners + radius) * (cells / (2 * radius))
    entering = np.where(face_normals(mesh.vertices, mesh.faces)[:, 2] < 0, 1, -1)
    change = np.zeros((cells, cells, cells + 1), np.int32)
    for part in fragments(places[..., :2], height=cells, width=cells):
        height = (part.weights * places[part.face, :, 2]).sum(axis=-1)
        above = np.clip(np.ceil(height - 0.5), 0, cells).astype(np.int64)  # the first cell whose centre is above
        np.add.at(change, (part.column, part.row, above), entering[part.face])
    return np.cumsum(change, axis=-1)[..., :-1] > 0
