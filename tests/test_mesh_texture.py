"""Textures of meshes, and the rasteriser that they are baked with."""

import numpy as np
import pytest
from solids import Fog, Solids, box, colored, sphere

from scaledreamer.mesh import raster
from scaledreamer.mesh.extract import MeshExtractor
from scaledreamer.mesh.mesh import Mesh, face_normals
from scaledreamer.mesh.raster import fragments


def covered(corners, *, height: int, width: int) -> np.ndarray:
    """How many triangles [F, 3, 2] have each pixel."""
    counts = np.zeros((height, width), int)
    for part in fragments(np.asarray(corners, float), height=height, width=width):
        np.add.at(counts, (part.row, part.column), 1)
    return counts


def test_pixels_of_a_triangle_by_hand():
    """Centres at half pixels: below the diagonal of a square of 4 there are 6, and 4 on it that count once."""
    lower, upper = [[0, 0], [4, 0], [4, 4]], [[0, 0], [4, 4], [0, 4]]
    one, other = (covered([t], height=4, width=5) for t in (lower, upper))
    np.testing.assert_array_equal(one + other, [[1, 1, 1, 1, 0]] * 4)
    assert sorted((one.sum(), other.sum())) == [6, 10]
    assert covered([lower[::-1]], height=4, width=5).sum() in (6, 10)


def test_weights_by_hand():
    [part] = fragments(np.array([[[0.5, 0.5], [4.5, 0.5], [0.5, 4.5]]]), height=5, width=5)
    found = dict(zip(zip(part.row, part.column, strict=True), part.weights.tolist(), strict=True))
    assert found[1, 1] == pytest.approx([0.5, 0.25, 0.25])
    assert found[2, 1] == pytest.approx([0.25, 0.25, 0.5])


@pytest.mark.parametrize("whole", [True, False])
def test_a_fan_covers_every_pixel_once(whole, monkeypatch):
    """Corners on pixel centres and anywhere; in portions of a few pixels as well."""
    numbers = np.random.default_rng(0)
    ring = np.array([[-9, -9], [7, -9], [25, -9], [25, 7], [25, 25], [7, 25], [-9, 25], [-9, 7]], float)
    for center in [(7.5, 8.5), *numbers.uniform(1, 15, (5, 2))]:
        fan = [[center, ring[i], ring[(i + 1) % 8]] for i in range(8)]
        if not whole:
            monkeypatch.setattr(raster, "_CHUNK", 10)
        assert (covered(fan, height=16, width=16) == 1).all()


def test_what_is_beyond_the_picture_or_flat_has_no_pixels():
    away = [[-5, -5], [-1, -5], [-1, -1]]
    line = [[0, 0], [8, 8], [4, 4]]
    point = [[3.5, 3.5]] * 3
    assert covered([away, line, point], height=8, width=8).sum() == 0
    assert covered(np.zeros((0, 3, 2)), height=8, width=8).sum() == 0


# -- textures ----------------------------------------------------------------------------------------------------


def looked_up(mesh: Mesh, face: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(points [N, 3], bilinear colours [N, 3] in [0, 1]) at places of the mesh's faces."""
    assert mesh.uv is not None
    assert mesh.texture is not None
    points, uv = (np.einsum("nc,nci->ni", weights, a[mesh.faces[face]]) for a in (mesh.vertices, mesh.uv))
    height, width = mesh.texture.shape[:2]
    place = np.clip(uv * (width, height) - 0.5, 0, (width - 1.001, height - 1.001))
    (x, y), (u, v) = place.astype(int).T, (place % 1).T[..., None]
    picture = mesh.texture / 255
    rows = [(1 - u) * picture[y + i, x] + u * picture[y + i, x + 1] for i in (0, 1)]
    return points, (1 - v) * rows[0] + v * rows[1]


@pytest.mark.parametrize("solid", [sphere(), box()], ids=["sphere", "box"])
def test_a_texture_has_the_field_s_colors(solid):
    """Everywhere on the mesh, seams included; along them a texel of the neighbour's colour would be far off."""
    [mesh] = MeshExtractor(resolution=32, faces=500, texture=256)(Solids([solid]))
    assert mesh.texture.shape == (256, 256, 3)
    assert len(mesh.faces) <= 500
    assert (mesh.uv >= 0).all()
    assert (mesh.uv <= 1).all()
    areas = np.linalg.norm(face_normals(mesh.vertices, mesh.faces), axis=-1)
    numbers = np.random.default_rng(0)
    face = numbers.choice(len(areas), size=20_000, p=areas / areas.sum())
    weights = numbers.dirichlet([0.5] * 3, size=20_000)  # many near the corners and edges
    points, found = looked_up(mesh, face, weights)
    error = np.abs(found - colored(points)).max(axis=-1)
    assert error.max() < 0.015
    assert error.mean() < 0.003


def test_texels_have_the_colors_of_the_surface_not_of_the_flat_faces():
    """Of a ball with 100 faces: where a face is inside the ball, the colour is that of the point above it."""
    [mesh] = MeshExtractor(resolution=32, faces=100, texture=256)(Solids([sphere()]))
    face, weights = np.arange(len(mesh.faces)), np.full((len(mesh.faces), 3), 1 / 3)
    points, found = looked_up(mesh, face, weights)
    depth = np.linalg.norm(points, axis=-1, keepdims=True)
    assert depth.min() < 0.58
    onto = points * (0.6 / depth)
    assert np.abs(found - colored(onto)).max() < 0.012
    assert np.abs(found - colored(points)).max() > 0.012


def test_density_fields_get_textures_too():
    [mesh] = MeshExtractor(resolution=24, faces=300, texture=64)(Fog())
    inside = np.full((len(mesh.faces), 3), 1 / 3)
    points, found = looked_up(mesh, np.arange(len(mesh.faces)), inside)
    assert np.abs(found - colored(points)).max() < 0.03


def test_cut_vertices_keep_what_they_were():
    plain, cut = (MeshExtractor(resolution=24, faces=300, texture=t)(Solids([box()]))[0] for t in (None, 64))
    assert len(cut.vertices) > len(plain.vertices)
    np.testing.assert_allclose(np.sort(plain.vertices[plain.faces], axis=0), np.sort(cut.vertices[cut.faces], axis=0))
    np.testing.assert_allclose(cut.colors, colored(cut.vertices), atol=1e-6)
