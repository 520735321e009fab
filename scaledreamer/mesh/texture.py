"""Textures: surfaces unwrapped by xatlas, colours asked of the field at every texel.

Axes: P shapes, F faces, K texels, H W pixels.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from scaledreamer.errors import UserError
from scaledreamer.mesh.level import Level
from scaledreamer.mesh.mesh import Mesh
from scaledreamer.mesh.raster import fragments

_MAGNIFIED = 1000
_PADDING = 4  # texels between charts, so that a picture of half the size does not mix them


@dataclass(frozen=True)
class _Texels:
    """Texels whose centres are on the mesh."""

    row: np.ndarray  # [K]
    column: np.ndarray  # [K]
    points: np.ndarray  # [K, 3]  on the flat faces, world units
    reach: np.ndarray  # [K, 3]  along the interpolated normal: how far away the surface may be


def require_xatlas() -> None:
    """Raise :class:`UserError` where surfaces cannot be unwrapped."""
    if importlib.util.find_spec("xatlas") is None:
        raise UserError("a texture needs the package xatlas: pip install xatlas (or compile it), or leave it out.")


def textured(level: Level, meshes: Sequence[Mesh], *, side: int) -> list[Mesh]:
    """The meshes of P shapes with textures of side x side pixels; empty ones as they are."""
    cut = [_unwrapped(mesh, side=side) if len(mesh.faces) else mesh for mesh in meshes]
    texels = [_texels(mesh, side=side) for mesh in cut]
    # Faces are flat and the surface is not: a texel's colour is the surface's where the normal meets it.
    roots = level.roots([t.points - t.reach for t in texels], [t.points + t.reach for t in texels])
    met = [np.where(found[:, None], points, t.points) for t, (points, found) in zip(texels, roots, strict=True)]
    return [
        replace(mesh, texture=_filled(own, color, side=side)) if len(mesh.faces) else mesh
        for mesh, own, (color, _) in zip(cut, texels, level.look(met), strict=True)
    ]


def _unwrapped(mesh: Mesh, *, side: int) -> Mesh:
    """The mesh cut into charts, with texture coordinates."""
    import xatlas

    packing = xatlas.PackOptions()
    packing.resolution, packing.padding = side, _PADDING
    atlas = xatlas.Atlas()
    # Magnified, for what is smaller than 1e-7 gets no place in the texture.
    atlas.add_mesh(_MAGNIFIED * mesh.vertices, mesh.faces.astype(np.uint32))
    atlas.generate(pack_options=packing)
    vertex, faces, uv = atlas[0]  # in parts of a picture that is about as large, and seldom square
    uv = uv * np.array([atlas.width, atlas.height], np.float32) / max(atlas.width, atlas.height)
    return Mesh(mesh.vertices[vertex], faces.astype(np.int32), mesh.colors[vertex], mesh.normals[vertex], uv=uv)


def _texels(mesh: Mesh, *, side: int) -> _Texels:
    if mesh.uv is None:
        return _Texels(*(np.zeros(0, int),) * 2, *(np.zeros((0, 3)),) * 2)
    corners = mesh.vertices[mesh.faces].astype(np.float64)  # [F, 3, 3]
    # A flat face is seldom farther from the surface than half its sides are long.
    reach = np.linalg.norm(corners[:, 1] - corners[:, 0], axis=-1).mean() / 2
    normals = mesh.normals[mesh.faces]
    parts = [
        (
            part.row,
            part.column,
            np.einsum("kc,kci->ki", part.weights, corners[part.face]),
            reach * np.einsum("kc,kci->ki", part.weights, normals[part.face]),
        )
        for part in fragments(mesh.uv[mesh.faces] * side, height=side, width=side)
    ]
    return _Texels(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _filled(texels: _Texels, color: np.ndarray, *, side: int) -> np.ndarray:
    """The texture [H, W, 3], uint8; a texel beyond all charts has the colour of the nearest one on a chart."""
    picture = np.zeros((side, side, 3), np.uint8)
    empty = np.ones((side, side), bool)
    picture[texels.row, texels.column] = np.round(255 * color).astype(np.uint8)
    empty[texels.row, texels.column] = False
    nearest = np.empty((2, side, side), np.int32)
    ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True, indices=nearest)
    return picture[tuple(nearest)]
