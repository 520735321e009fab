"""Meshes in files, read again by other programs' readers."""

import io
import json
import struct
from pathlib import Path

import numpy as np
import pygltflib
import pytest
import trimesh
from PIL import Image
from solids import Solids, box

from scaledreamer.errors import UserError
from scaledreamer.mesh.extract import MeshExtractor
from scaledreamer.mesh.glb import linear
from scaledreamer.mesh.mesh import Mesh
from scaledreamer.mesh.write import write

COMPONENTS = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
CHANNELS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


@pytest.fixture(scope="module")
def plain() -> Mesh:
    """A box 1.0 long (front to back), 0.8 wide and 0.6 high."""
    [mesh] = MeshExtractor(resolution=16)(Solids([box()]))
    return mesh


@pytest.fixture(scope="module")
def textured() -> Mesh:
    [mesh] = MeshExtractor(resolution=16, faces=200, texture=32)(Solids([box()]))
    return mesh


class Opened:
    """A GLB file through pygltflib."""

    def __init__(self, path: Path) -> None:
        self.gltf = pygltflib.GLTF2().load(str(path))
        [mesh] = self.gltf.meshes
        [self.primitive] = mesh.primitives
        self.material = self.gltf.materials[self.primitive.material]

    def array(self, accessor: int) -> np.ndarray:
        described = self.gltf.accessors[accessor]
        view = self.gltf.bufferViews[described.bufferView]
        kind, channels = COMPONENTS[described.componentType], CHANNELS[described.type]
        found = np.frombuffer(self.gltf.binary_blob(), kind, described.count * channels, offset=view.byteOffset)
        assert found.nbytes == view.byteLength
        return found.reshape(-1, channels)

    def attribute(self, name: str) -> np.ndarray:
        return self.array(getattr(self.primitive.attributes, name))


def test_glb_stands_upright_and_looks_at_the_viewer(plain, tmp_path):
    write(plain, tmp_path / "box.glb")
    file = Opened(tmp_path / "box.glb")
    positions = file.attribute("POSITION")
    # Ours: x front, y left, z up. There: z front, x left, y up.
    np.testing.assert_array_equal(positions, plain.vertices[:, [1, 2, 0]])
    np.testing.assert_allclose(np.ptp(positions, axis=0), [0.8, 0.6, 1.0], atol=2e-3)
    np.testing.assert_array_equal(file.attribute("NORMAL"), plain.normals[:, [1, 2, 0]])
    np.testing.assert_array_equal(file.array(file.primitive.indices).reshape(-1, 3), plain.faces)
    described = file.gltf.accessors[file.primitive.attributes.POSITION]
    np.testing.assert_allclose([described.min, described.max], [positions.min(axis=0), positions.max(axis=0)])
    shape = trimesh.load(tmp_path / "box.glb", force="mesh", process=False)
    assert shape.volume == pytest.approx(0.48, rel=0.02)  # positive: it was not mirrored
    assert shape.is_watertight


def test_glb_colors_are_linear_and_unlit(plain, tmp_path):
    write(plain, tmp_path / "box.glb")
    file = Opened(tmp_path / "box.glb")
    accessor = file.gltf.accessors[file.primitive.attributes.COLOR_0]
    assert accessor.normalized
    color = file.attribute("COLOR_0") / 65535
    np.testing.assert_array_equal(color[:, 3], 1)
    # What a viewer makes of it on its way to the screen.
    shown = np.where(color <= 0.0031308, 12.92 * color, 1.055 * color ** (1 / 2.4) - 0.055)[:, :3]
    np.testing.assert_allclose(shown, plain.colors, atol=1e-4)
    assert "KHR_materials_unlit" in file.material.extensions
    assert file.gltf.extensionsUsed == ["KHR_materials_unlit"]
    assert not file.gltf.extensionsRequired
    surface = file.material.pbrMetallicRoughness
    assert (surface.metallicFactor, surface.roughnessFactor) == (0, 1)


def test_srgb_by_hand():
    np.testing.assert_allclose(linear(np.array([0, 0.04045, 0.5, 1])), [0, 0.04045 / 12.92, 0.214041, 1], atol=1e-6)


def test_glb_with_a_texture(textured, tmp_path):
    write(textured, tmp_path / "box.glb")
    file = Opened(tmp_path / "box.glb")
    assert file.primitive.attributes.COLOR_0 is None  # it would be multiplied with the texture
    np.testing.assert_array_equal(file.attribute("TEXCOORD_0"), textured.uv)
    assert file.material.pbrMetallicRoughness.baseColorTexture.index == 0
    view = file.gltf.bufferViews[file.gltf.images[file.gltf.textures[0].source].bufferView]
    picture = file.gltf.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(picture))), textured.texture)
    shape = trimesh.load(tmp_path / "box.glb", force="mesh", process=False)
    np.testing.assert_allclose(shape.visual.uv, textured.uv * (1, -1) + (0, 1), atol=1e-6)
    assert len(shape.faces) == len(textured.faces)


def test_glb_is_laid_out_as_the_format_says(textured, tmp_path):
    write(textured, tmp_path / "box.glb")
    content = (tmp_path / "box.glb").read_bytes()
    magic, version, length = struct.unpack("<4sII", content[:12])
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size, kind = struct.unpack("<I4s", content[12:20])
    document = json.loads(content[20 : 20 + size])
    rest, binary = struct.unpack("<I4s", content[20 + size : 28 + size])
    assert (kind, binary) == (b"JSON", b"BIN\0")
    assert size % 4 == rest % 4 == 0
    assert 28 + size + rest == len(content)
    assert document["buffers"] == [{"byteLength": rest}]
    assert all(view["byteOffset"] % 4 == 0 for view in document["bufferViews"])
    assert document["asset"]["version"] == "2.0"


def test_obj_with_colors(plain, tmp_path):
    write(plain, tmp_path / "box.obj")
    assert [p.name for p in tmp_path.iterdir()] == ["box.obj"]
    shape = trimesh.load(tmp_path / "box.obj", process=False)
    assert shape.is_watertight
    np.testing.assert_allclose(shape.vertices, plain.vertices[:, [1, 2, 0]], atol=1e-6)
    np.testing.assert_allclose(shape.visual.vertex_colors[:, :3] / 255, plain.colors, atol=0.005)
    np.testing.assert_allclose(shape.vertex_normals, plain.normals[:, [1, 2, 0]], atol=1e-3)


def test_obj_with_a_texture(textured, tmp_path):
    write(textured, tmp_path / "box.obj")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["box.mtl", "box.obj", "box_texture.png"]
    shape = trimesh.load(tmp_path / "box.obj", process=False)
    np.testing.assert_array_equal(np.asarray(shape.visual.material.image), textured.texture)
    # Readers join a corner's vertex, texture coordinate and normal anew.
    np.testing.assert_allclose(shape.triangles, textured.vertices[textured.faces][..., [1, 2, 0]], atol=1e-6)
    np.testing.assert_allclose(shape.visual.uv[shape.faces], textured.uv[textured.faces] * (1, -1) + (0, 1), atol=1e-6)


def test_ply_keeps_the_world(plain, textured, tmp_path):
    for mesh in (plain, textured):
        write(mesh, tmp_path / "box.ply")
        shape = trimesh.load(tmp_path / "box.ply", process=False)
        np.testing.assert_array_equal(shape.vertices, mesh.vertices)
        np.testing.assert_array_equal(shape.faces, mesh.faces)
        np.testing.assert_allclose(shape.visual.vertex_colors[:, :3] / 255, mesh.colors, atol=0.0021)
        np.testing.assert_allclose(shape.vertex_normals, mesh.normals, atol=1e-5)


def test_files_appear_whole(plain, tmp_path, monkeypatch):
    write(plain, tmp_path / "new" / "box.GLB")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["box.GLB"]
    before = (tmp_path / "new" / "box.GLB").read_bytes()

    def full(self, content):
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        write(plain, tmp_path / "new" / "box.GLB")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["box.GLB"]
    assert (tmp_path / "new" / "box.GLB").read_bytes() == before


def test_other_suffixes_are_refused(plain, tmp_path):
    with pytest.raises(UserError, match=r"box\.stl: meshes are written as \.glb, \.obj, \.ply"):
        write(plain, tmp_path / "box.stl")
