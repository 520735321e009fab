"""Fields to meshes.

>>> meshes = MeshExtractor(resolution=128)(generator(text), device="cuda")      # one per prompt, None where it is empty
>>> write(meshes[0], Path("corgi.glb"))
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le

from scaledreamer.constraints import PositiveFloat, PositiveInt, Probability
from scaledreamer.fields.base import Field
from scaledreamer.mesh import grid
from scaledreamer.mesh.decimate import decimated
from scaledreamer.mesh.level import Level
from scaledreamer.mesh.mesh import Mesh, vertex_normals
from scaledreamer.mesh.surface import Surface, pieces, surfaces
from scaledreamer.mesh.texture import require_xatlas, textured

_LEAST_AGREEMENT = 0.5  # cosine between the normal of a field and that of the faces


class MeshExtractor:
    """Turns fields of any kind into meshes.

    Surfaces are cut off at the field's box and are closed. Vertices are on the surface, to a thousandth of a cell,
    unless they are decimated.

    Args:
        resolution: cells along the longest side of a box close about a shape. Time and memory grow with its square,
            those of marching cubes with its cube: 4 bytes per cell.
        threshold: density at the surface of density fields, 1 / world units: all but 1/e of the light is stopped within
            1 / threshold.
        smallest: least volume of a separate piece, as a share of the largest piece's; smaller ones are left out.
        pieces: the most pieces, the largest ones; null for any number.
        faces: the most triangles; null for as many as there are. Details of colour on flat parts do not survive a small
            number without a texture.
        texture: side of a square texture in pixels, which takes the place of colours at vertices; null for none.
            Unwrapping takes a second per 20,000 faces: set ``faces`` as well.
        chunk: points evaluated at a time, of all prompts together; memory on the device follows it.

    Raises:
        UserError: a texture is asked for and xatlas is not installed.
    """

    def __init__(
        self,
        *,
        resolution: Annotated[int, Ge(8), Le(1024)] = 128,
        threshold: PositiveFloat = 10.0,
        smallest: Probability = 0.02,
        pieces: PositiveInt | None = None,
        faces: Annotated[int, Ge(100)] | None = None,
        texture: Annotated[int, Ge(16), Le(8192)] | None = None,
        chunk: PositiveInt = 2**18,
    ) -> None:
        self.resolution, self.threshold, self.smallest = resolution, threshold, smallest
        self.pieces, self.faces, self.texture, self.chunk = pieces, faces, texture, chunk
        if texture is not None:
            require_xatlas()

    @torch.no_grad()
    def __call__(self, field: Field, *, device: torch.device | str = "cpu") -> list[Mesh | None]:
        """One mesh per prompt, None where there is no surface.

        Args:
            field: of P prompts.
            device: that the field is on.
        """
        level = Level(field, threshold=self.threshold, device=device, chunk=self.chunk)
        found = surfaces(level, grid.sample(level, resolution=self.resolution))
        found = [pieces(surface, smallest=self.smallest, most=self.pieces) for surface in found]
        if self.faces is not None:
            found = [decimated(surface, faces=self.faces) for surface in found]
        meshes = coloured(level, found)
        if self.texture is not None:
            meshes = textured(level, meshes, side=self.texture)
        return [mesh if len(mesh.faces) else None for mesh in meshes]


def coloured(level: Level, found: Sequence[Surface]) -> list[Mesh]:
    """Meshes of P surfaces, with the field's colours and normals at the vertices."""
    meshes = []
    for surface, (color, normal) in zip(found, level.look([s.vertices for s in found]), strict=True):
        # Where the field is flat or finer than the mesh, its slope says nothing of the faces.
        own = vertex_normals(surface.vertices, surface.faces).astype(np.float32)
        agree = (normal * own).sum(axis=-1, keepdims=True) > _LEAST_AGREEMENT
        normals = np.where(agree, normal, own)
        meshes.append(Mesh(surface.vertices.astype(np.float32), surface.faces, color, normals))
    return meshes
