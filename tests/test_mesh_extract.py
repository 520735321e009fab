"""Meshes of fields whose surfaces are known."""

import math

import numpy as np
import pytest
import torch
import trimesh
from solids import Fog, Solid, Solids, box, colored, nothing, rod, sphere, torus, union

from scaledreamer.mesh.decimate import decimated, unpinched
from scaledreamer.mesh.extract import MeshExtractor
from scaledreamer.mesh.mesh import Mesh
from scaledreamer.mesh.surface import Surface
from scaledreamer.toybox.scene import Scene
from scaledreamer.toybox.truth_field import TrueField
from scaledreamer.toybox.vocabulary import parse


def opened(mesh: Mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def extracted(*solids: Solid, resolution: int = 48, **options) -> Mesh:
    [mesh] = MeshExtractor(resolution=resolution, **options)(Solids(solids))
    return mesh


SOLIDS = [  # solid, its volume, its Euler characteristic
    (sphere(), 4 / 3 * math.pi * 0.6**3, 2),
    (box(), 8 * 0.5 * 0.4 * 0.3, 2),
    (torus(), 2 * math.pi**2 * 0.5 * 0.15**2, 0),
]
NAMES = ("sphere", "box", "torus")


@pytest.mark.parametrize(("solid", "volume", "euler"), SOLIDS, ids=NAMES)
def test_vertices_are_on_the_surface_which_is_closed(solid, volume, euler):
    mesh = extracted(solid)
    assert solid(torch.from_numpy(mesh.vertices)).abs().max() < 1e-3
    shape = opened(mesh)
    assert shape.is_watertight
    assert shape.is_winding_consistent
    assert shape.euler_number == euler
    assert shape.volume == pytest.approx(volume, rel=0.01)


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_fields_need_not_have_the_slope_of_a_distance(scale):
    [mesh] = MeshExtractor(resolution=48)(Solids([torus()], scale=scale))
    assert torus()(torch.from_numpy(mesh.vertices)).abs().max() < 1e-3
    assert opened(mesh).euler_number == 0


def test_colors_and_normals_are_the_field_s():
    mesh = extracted(sphere())
    np.testing.assert_allclose(mesh.colors, colored(torch.from_numpy(mesh.vertices)), atol=1e-6)
    outward = mesh.vertices / np.linalg.norm(mesh.vertices, axis=-1, keepdims=True)
    np.testing.assert_allclose(mesh.normals, outward, atol=2e-3)
    assert mesh.faces.dtype == np.int32
    assert {a.dtype for a in (mesh.vertices, mesh.colors, mesh.normals)} == {np.dtype(np.float32)}


def test_density_fields_end_at_the_threshold():
    meshes = MeshExtractor(resolution=48, threshold=10)(Fog(prompts=2))
    for mesh in meshes:
        distance = np.linalg.norm(mesh.vertices, axis=-1)
        np.testing.assert_allclose(distance, 0.3 * math.log(2), atol=1e-5)
        assert (mesh.normals * mesh.vertices).sum(axis=-1).min() > 0.99 * 0.3 * math.log(2)
    [larger] = MeshExtractor(resolution=48, threshold=2)(Fog())
    np.testing.assert_allclose(np.linalg.norm(larger.vertices, axis=-1), Fog.distance_of(2), atol=1e-5)
    assert MeshExtractor(resolution=16, threshold=21)(Fog()) == [None]


def test_a_surface_beyond_the_box_is_cut_off_and_closed():
    mesh = extracted(sphere(1.2), resolution=48)
    assert np.abs(mesh.vertices).max() == pytest.approx(1, abs=1e-5)
    shape = opened(mesh)
    assert shape.is_watertight
    # A ball less its six caps of height 0.2.
    assert shape.volume == pytest.approx(4 / 3 * math.pi * 1.2**3 - 6 * math.pi * 0.04 * (3.6 - 0.2) / 3, rel=0.01)
    front = (mesh.vertices[:, 0] > 0.99999) & (np.abs(mesh.vertices[:, 1:]).max(axis=-1) < 0.6)
    np.testing.assert_allclose(mesh.normals[front], [[1, 0, 0]] * front.sum(), atol=1e-3)


def test_all_is_full():
    shape = opened(extracted(lambda p: -nothing(p), resolution=32))
    assert shape.is_watertight
    assert shape.volume == pytest.approx(8, rel=0.01)


def test_empty_and_broken_fields_have_no_mesh():
    solids = [nothing, sphere(), lambda p: torch.full_like(p[:, 0], torch.nan)]
    empty, ball, broken = MeshExtractor(resolution=24, faces=500, texture=64)(Solids(solids))
    assert empty is None
    assert broken is None
    assert ball is not None
    assert MeshExtractor(resolution=24, texture=64)(Solids([nothing])) == [None]


def test_what_is_not_a_number_is_outside():
    def hollow(p):
        return torch.where(p[:, 2] > 0.1, torch.nan, sphere()(p))

    mesh = extracted(hollow, resolution=32)
    assert opened(mesh).is_watertight
    assert 0.05 < mesh.vertices[:, 2].max() < 0.15


def test_a_batch_equals_its_samples():
    solids = [sphere(0.3, center=(0.5, 0.2, 0.1)), nothing, box(), torus()]
    together = MeshExtractor(resolution=32, faces=2000)(Solids(solids))
    assert together[1] is None
    for solid, mesh in zip(solids, together, strict=True):
        [alone] = MeshExtractor(resolution=32, faces=2000, chunk=999)(Solids([solid]))
        if mesh is not None:
            np.testing.assert_array_equal(mesh.faces, alone.faces)
            np.testing.assert_allclose(mesh.vertices, alone.vertices, atol=1e-6)
            np.testing.assert_allclose(mesh.colors, alone.colors, atol=1e-6)


# -- where the field is asked ------------------------------------------------------------------------------------


def test_the_resolution_is_that_of_the_shape_s_box():
    """A small ball gets triangles as fine, in parts of itself, as a large one."""
    small, large = (extracted(sphere(r, center=(0.6 - r, 0, 0)), resolution=48) for r in (0.1, 0.6))
    assert len(small.faces) > 0.8 * len(large.faces)
    assert sphere(0.1, center=(0.5, 0, 0))(torch.from_numpy(small.vertices)).abs().max() < 1e-5


def test_most_of_space_is_not_asked():
    field = Solids([sphere()])
    MeshExtractor(resolution=96)(field)
    assert sum(field.asked) < 97**3  # with colours, normals and all


def test_memory_is_bounded():
    field = Solids([sphere(), torus()])
    MeshExtractor(resolution=32, chunk=1000)(field)
    assert max(field.asked) <= 500


def test_thin_parts_are_found():
    """A rod a third as thick as a cell of the first grid, in one piece, and a sheet."""
    needle = opened(extracted(rod(0.012), resolution=128))
    assert needle.is_watertight
    assert needle.euler_number == 2
    np.testing.assert_allclose(needle.bounds[:, 2], [-0.8, 0.8], atol=1e-5)
    sheet = opened(extracted(box((0.7, 0.01, 0.7)), resolution=128))
    assert sheet.volume == pytest.approx(8 * 0.7 * 0.01 * 0.7, rel=0.02)


def test_surfaces_are_followed_where_the_first_look_saw_nothing():
    """A field that is blind at a distance: its values do not tell of the surface but next to it."""

    def blind(p):
        return torus()(p).sign() * 0.01

    mesh = extracted(blind, resolution=64)
    assert opened(mesh).euler_number == 0
    assert opened(mesh).volume == pytest.approx(SOLIDS[2][1], rel=0.02)


# -- pieces and faces --------------------------------------------------------------------------------------------

CRUMBS = union(sphere(0.4), sphere(0.15, center=(0.7, 0, 0)), sphere(0.05, center=(0, 0, 0.8)))


@pytest.mark.parametrize(
    ("options", "radii"),
    [
        ({"smallest": 0.0}, (0.4, 0.15, 0.05)),
        ({"smallest": 0.02}, (0.4, 0.15)),
        ({"smallest": 0.1}, (0.4,)),
        ({"smallest": 0.0, "pieces": 2}, (0.4, 0.15)),
        ({"smallest": 0.02, "pieces": 3}, (0.4, 0.15)),
        ({"pieces": 1}, (0.4,)),
    ],
)
def test_pieces(options, radii):
    shape = opened(extracted(CRUMBS, **options))
    assert shape.volume == pytest.approx(sum(4 / 3 * math.pi * r**3 for r in radii), rel=0.01)
    assert shape.euler_number == 2 * len(radii)


def test_a_hole_is_kept_with_what_it_is_in():
    shell = opened(extracted(lambda p: torch.maximum(sphere(0.6)(p), -sphere(0.4)(p))))
    assert shell.volume == pytest.approx(4 / 3 * math.pi * (0.6**3 - 0.4**3), rel=0.01)


@pytest.mark.parametrize(("solid", "volume", "euler"), SOLIDS, ids=NAMES)
@pytest.mark.parametrize("faces", [3000, 400])
def test_the_face_budget_is_kept(solid, volume, euler, faces):
    mesh = extracted(solid, faces=faces)
    assert 0.9 * faces <= len(mesh.faces) <= faces
    shape = opened(mesh)
    assert shape.is_watertight
    assert shape.euler_number == euler
    assert shape.volume == pytest.approx(volume, rel=0.03)
    assert solid(torch.from_numpy(mesh.vertices)).abs().max() < 0.02


def test_a_budget_that_is_large_enough_changes_nothing():
    full, budgeted = extracted(torus()), extracted(torus(), faces=10**6)
    np.testing.assert_array_equal(full.faces, budgeted.faces)
    np.testing.assert_array_equal(full.vertices, budgeted.vertices)


@pytest.mark.parametrize("prompt", ["a green chair on a cloud", "a red car wearing a crown"])
def test_toys_stay_closed_with_few_faces(prompt):
    [mesh] = MeshExtractor(resolution=40)(TrueField(Scene.of([parse(prompt)]).trimmed()))
    for faces in (5000, 1000, 300):
        found = decimated(Surface(mesh.vertices.astype(float), mesh.faces), faces=faces)
        shape = trimesh.Trimesh(found.vertices, found.faces, process=False)
        assert 0.9 * faces <= len(found.faces) <= faces
        assert shape.is_volume
        assert shape.volume == pytest.approx(opened(mesh).volume, rel=0.1)


def test_sheets_that_touch_are_taken_apart():
    """Two tetrahedra with an edge in common, and one that is flat: four faces that cancel in pairs."""
    vertices = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0], [-1, 0, 0], [-1, -1, 0]], float)

    def tetrahedron(a, b, c, d):
        faces = np.array([[a, b, c], [a, c, d], [a, d, b], [b, d, c]])
        return faces if opened_volume(faces) > 0 else faces[:, ::-1]

    def opened_volume(faces):
        return trimesh.Trimesh(vertices, faces, process=False).volume

    solid = np.concatenate([tetrahedron(0, 1, 2, 3), tetrahedron(0, 1, 4, 5)])
    flat = np.array([[2, 3, 4], [4, 3, 2]])
    pinched = Surface(vertices, np.concatenate([solid, flat]).astype(np.int32))
    assert not trimesh.Trimesh(vertices, pinched.faces, process=False).is_watertight
    found = unpinched(pinched)
    shape = trimesh.Trimesh(found.vertices, found.faces, process=False)
    assert shape.is_volume
    assert shape.volume == pytest.approx(1 / 3)
    assert len(found.faces) == 8
    assert len(found.vertices) == 8
    np.testing.assert_allclose(found.vertices[found.faces], vertices[solid])


def test_what_is_open_is_left_as_it_is():
    surface = Surface(np.eye(3), np.array([[0, 1, 2]], np.int32))
    assert unpinched(surface) is surface


def test_xatlas_is_asked_for_in_words(monkeypatch):
    from scaledreamer.errors import UserError
    from scaledreamer.mesh import texture

    monkeypatch.setattr(texture.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install xatlas"):
        MeshExtractor(texture=512)
    MeshExtractor()
