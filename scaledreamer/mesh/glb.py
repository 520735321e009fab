"""Binary glTF 2.0 of a mesh.

glTF is +y up and its front faces +z: our x, y, z (front +x, up +z, left +y) become its z, x, y. Colours at vertices are
linear there and those of textures sRGB; ours are sRGB, as renders show them. The material is unlit
(``KHR_materials_unlit``), because a render has no lights either: what is seen is the colour; viewers without that
extension light a rough surface that is no metal.
"""

import io
import json
import struct
from typing import Any

import numpy as np

from scaledreamer import __version__
from scaledreamer.mesh.mesh import Mesh

_FLOAT, _UINT32, _UINT16 = 5126, 5125, 5123
_ATTRIBUTES, _INDICES = 34962, 34963  # what a part of the buffer is for
_LINEAR, _LINEAR_MIPMAPS, _CLAMP = 9729, 9987, 33071
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}


def glb(mesh: Mesh) -> bytes:
    """The file's content."""
    file = _File()
    positions = upright(mesh.vertices)
    attributes = {
        "POSITION": file.accessor(positions, min=positions.min(axis=0).tolist(), max=positions.max(axis=0).tolist()),
        "NORMAL": file.accessor(upright(mesh.normals)),
    }
    surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    if mesh.uv is not None and mesh.texture is not None:
        attributes["TEXCOORD_0"] = file.accessor(mesh.uv.astype(np.float32))
        surface["baseColorTexture"] = {"index": file.texture(mesh.texture)}
    else:
        opaque = np.ones((len(mesh.colors), 1))
        # 16 bits, since 8 of a linear scale are too coarse for dark colours; 4 channels, since rows are 4-byte words.
        attributes["COLOR_0"] = file.accessor(
            np.round(65535 * np.concatenate([linear(mesh.colors), opaque], axis=-1)).astype(np.uint16), normalized=True
        )
    file.add("materials", pbrMetallicRoughness=surface, extensions={"KHR_materials_unlit": {}})
    faces = file.accessor(mesh.faces.reshape(-1).astype(np.uint32), target=_INDICES)
    file.add("meshes", primitives=[{"attributes": attributes, "indices": faces, "material": 0}])
    file.add("nodes", mesh=0)
    file.add("scenes", nodes=[0])
    return file.content()


def upright(vectors: np.ndarray) -> np.ndarray:
    """Vectors [V, 3] of our world in that of glTF, float32."""
    return np.ascontiguousarray(vectors[:, [1, 2, 0]], dtype=np.float32)


def linear(color: np.ndarray) -> np.ndarray:
    """sRGB values in [0, 1] of any shape -> linear ones (IEC 61966-2-1)."""
    color = color.astype(np.float64)
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


class _File:
    """A glTF document with its one buffer, under construction."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": f"scaledreamer {__version__}"},
            "extensionsUsed": ["KHR_materials_unlit"],
            "scene": 0,
        }
        self.buffer = bytearray()

    def add(self, kind: str, **item: Any) -> int:
        """Append to one of the document's lists; the item's index in it."""
        self.document.setdefault(kind, []).append(item)
        return len(self.document[kind]) - 1

    def accessor(self, array: np.ndarray, *, target: int = _ATTRIBUTES, **more: Any) -> int:
        """Numbers [n] or [n, C] of float32, uint32 or uint16."""
        component = {np.dtype("f4"): _FLOAT, np.dtype("u4"): _UINT32, np.dtype("u2"): _UINT16}[array.dtype]
        kind = _TYPES[1 if array.ndim == 1 else array.shape[1]]
        view = self._view(array.astype(array.dtype.newbyteorder("<")).tobytes(), target=target)
        return self.add("accessors", bufferView=view, componentType=component, count=len(array), type=kind, **more)

    def texture(self, picture: np.ndarray) -> int:
        """A picture [H, W, 3], uint8."""
        image = self.add("images", bufferView=self._view(png(picture)), mimeType="image/png")
        filters = {"magFilter": _LINEAR, "minFilter": _LINEAR_MIPMAPS, "wrapS": _CLAMP, "wrapT": _CLAMP}
        return self.add("textures", source=image, sampler=self.add("samplers", **filters))

    def _view(self, content: bytes, **more: int) -> int:
        view = self.add("bufferViews", buffer=0, byteOffset=len(self.buffer), byteLength=len(content), **more)
        self.buffer += _padded(content, b"\0")
        return view

    def content(self) -> bytes:
        self.add("buffers", byteLength=len(self.buffer))
        described = _padded(json.dumps(self.document, separators=(",", ":")).encode(), b" ")
        chunks = _chunk(b"JSON", described) + _chunk(b"BIN\0", bytes(self.buffer))
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def png(picture: np.ndarray) -> bytes:
    """A picture [H, W, 3], uint8, as the content of a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", compress_level=4)
    return file.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack("<I4s", len(content), kind) + content


def _padded(content: bytes, filler: bytes) -> bytes:
    return content + filler * (-len(content) % 4)
