"""Triangle meshes.

Axes: V vertices, F faces, H W pixels. World: right-handed, +z up, +x the front.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mesh:
    """A coloured surface, ready for a file.

    Without a texture vertices are shared by the faces around them, so that a closed surface is closed in its indices.
    With one a vertex is there once for each chart that it borders.
    """

    vertices: np.ndarray  # [V, 3]  float32, world units
    faces: np.ndarray  # [F, 3]  int32, counter-clockwise seen from outside
    colors: np.ndarray  # [V, 3]  float32 in [0, 1], display values (sRGB) as a render shows them
    normals: np.ndarray  # [V, 3]  float32, unit length, outward
    uv: np.ndarray | None = None  # [V, 2]  float32 in [0, 1], (0, 0) the upper left corner of the texture
    texture: np.ndarray | None = None  # [H, W, 3]  uint8, display values (sRGB)


def face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Outward normals [F, 3], float64, as long as twice the faces' areas."""
    corners = vertices.astype(np.float64)[faces]  # [F, 3, 3]
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Normals [V, 3], float64: the mean of the faces around, by area, at unit length; zeros where these cancel."""
    of_faces = face_normals(vertices, faces)
    summed = np.stack(
        [np.bincount(faces.ravel(), np.repeat(of_faces[:, axis], 3), minlength=len(vertices)) for axis in range(3)],
        axis=-1,
    )
    return summed / np.linalg.norm(summed, axis=-1, keepdims=True).clip(min=1e-30)
