"""Meshes in files.

| file | axes | colours |
|---|---|---|
| ``.glb`` | +y up, front +z, as glTF demands | linear at vertices, or a texture; see :mod:`scaledreamer.mesh.glb` |
| ``.obj`` | the same, as most programs take it | ``v x y z r g b``, or ``NAME.mtl`` with ``NAME_texture.png`` |
| ``.ply`` | our world's: +z up, front +x | at vertices, 8 bits; never a texture |
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from scaledreamer.errors import UserError
from scaledreamer.mesh.glb import glb, png, upright
from scaledreamer.mesh.mesh import Mesh
from scaledreamer.paths import whole_file


def write(mesh: Mesh, path: Path) -> None:
    """Write a mesh in the format of the file's suffix; the file appears when it is whole.

    Raises:
        UserError: a suffix that is none of :data:`FORMATS`.
    """
    path = Path(path)
    require_format(path)
    FORMATS[path.suffix.lower()](mesh, path)


def require_format(path: Path) -> None:
    """Raise :class:`UserError` unless meshes can be written to files of this name."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"{path}: meshes are written as {', '.join(FORMATS)}; end the name with one of these.")


def _write_glb(mesh: Mesh, path: Path) -> None:
    _save(path, glb(mesh))


def _write_obj(mesh: Mesh, path: Path) -> None:
    vertices, normals = upright(mesh.vertices), upright(mesh.normals)
    if mesh.uv is not None and mesh.texture is not None:
        material, picture = path.with_suffix(".mtl"), path.with_name(f"{path.stem}_texture.png")
        _save(picture, png(mesh.texture))
        # illum 0: the colour as it is, without lights.
        _save(material, f"newmtl surface\nKd 1 1 1\nKs 0 0 0\nillum 0\nmap_Kd {picture.name}\n".encode())
        uv = np.stack([mesh.uv[:, 0], 1 - mesh.uv[:, 1]], axis=-1)  # (0, 0) is the lower left corner there
        head = f"mtllib {material.name}\nusemtl surface\n"
        body = _lines("v %.6f %.6f %.6f\n", vertices) + _lines("vt %.6f %.6f\n", uv)
        corner = "%d/%d/%d"
        faces = np.repeat(mesh.faces + 1, 3, axis=1)
    else:
        head = ""
        body = _lines("v %.6f %.6f %.6f %.5f %.5f %.5f\n", np.concatenate([vertices, mesh.colors], axis=-1))
        corner = "%d//%d"
        faces = np.repeat(mesh.faces + 1, 2, axis=1)
    body += _lines("vn %.4f %.4f %.4f\n", normals) + _lines(f"f {corner} {corner} {corner}\n", faces)
    _save(path, (head + body).encode())


def _write_ply(mesh: Mesh, path: Path) -> None:
    columns = [*((name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")), *((c, "u1") for c in _CHANNELS)]
    vertices = np.empty(len(mesh.vertices), dtype=columns)
    values = [*mesh.vertices.T, *mesh.normals.T, *np.round(255 * mesh.colors).astype(np.uint8).T]
    for (name, _), value in zip(columns, values, strict=True):
        vertices[name] = value
    faces = np.empty(len(mesh.faces), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, mesh.faces
    properties = [f"property {'uchar' if kind == 'u1' else 'float'} {name}" for name, kind in columns]
    head = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(vertices)}",
        *properties,
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    _save(path, "\n".join(head).encode() + vertices.tobytes() + faces.tobytes())


_CHANNELS = ("red", "green", "blue")

FORMATS: dict[str, Callable[[Mesh, Path], None]] = {".glb": _write_glb, ".obj": _write_obj, ".ply": _write_ply}
"""How each kind of file is written, by its suffix."""


def _lines(template: str, rows: np.ndarray) -> str:
    return template * len(rows) % tuple(rows.ravel().tolist())


def _save(path: Path, content: bytes) -> None:
    with whole_file(path) as part:
        part.write_bytes(content)
