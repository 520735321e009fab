"""Agreement of meshes with each other and with the toybox's truth."""

import math

import numpy as np
import pytest
import torch
from solids import Solids, box, sphere, torus

from scaledreamer.mesh.compare import compare, enclosed, surface_points
from scaledreamer.mesh.extract import MeshExtractor
from scaledreamer.mesh.mesh import Mesh
from scaledreamer.toybox.scene import Scene
from scaledreamer.toybox.truth_field import TrueField
from scaledreamer.toybox.vocabulary import parse


def mesh_of(solid, resolution: int = 48) -> Mesh:
    [mesh] = MeshExtractor(resolution=resolution)(Solids([solid]))
    return mesh


def test_two_balls_by_hand():
    """Distances between concentric spheres are the difference of the radii, volumes are as radii cubed."""
    found = compare(mesh_of(sphere(0.6)), mesh_of(sphere(0.5)), points=2000, cells=64)
    assert found.chamfer == pytest.approx(0.1, abs=2e-3)
    assert found.iou == pytest.approx((0.5 / 0.6) ** 3, abs=0.01)


def test_a_toy_agrees_with_itself():
    field = TrueField(Scene.of([parse("a red robot"), parse("a red duck")]).trimmed())
    robot, duck = MeshExtractor(resolution=32)(field)
    itself = compare(robot, robot, points=2000, cells=48)
    assert itself.iou == 1
    assert itself.chamfer < 0.012
    other = compare(robot, duck, points=2000, cells=48)
    assert other.iou < 0.7
    assert other.chamfer > 0.05
    assert other == compare(robot, duck, points=2000, cells=48)


def test_the_truth_is_meshed_as_it_is():
    scene = Scene.of([parse("a blue duck")]).trimmed()
    [mesh] = MeshExtractor(resolution=40)(TrueField(scene))
    points = torch.from_numpy(mesh.vertices)[None]
    assert scene.sdf(points).abs().max() < 1e-3
    np.testing.assert_allclose(mesh.colors, scene.albedo(points)[0], atol=1e-6)
    inside = enclosed(mesh, radius=1.0, cells=24)
    axis = (torch.arange(24) + 0.5) / 12 - 1
    places = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(1, -1, 3)
    true = (scene.sdf(places) < 0).view(24, 24, 24).numpy()
    assert (inside != true).mean() < 0.002


def test_enclosed_cells_by_hand():
    """A box from -0.5 to 0.5 along x, -0.4 to 0.4 along y, -0.3 to 0.3 along z, in cells of 0.1."""
    inside = enclosed(mesh_of(box((0.5, 0.4, 0.3)), resolution=30), radius=1.0, cells=20)
    expected = np.zeros((20, 20, 20), bool)
    expected[5:15, 6:14, 7:13] = True
    np.testing.assert_array_equal(inside, expected)


def test_a_hole_is_not_enclosed():
    shell = mesh_of(lambda p: torch.maximum(sphere(0.6)(p), -sphere(0.4)(p)))
    volume = enclosed(shell, radius=1.0, cells=64).mean() * 8
    assert volume == pytest.approx(4 / 3 * math.pi * (0.6**3 - 0.4**3), rel=0.02)


def test_points_are_spread_by_area():
    """On a torus: the half of its tube that is nearer to the axis has less of the area."""
    points = surface_points(mesh_of(torus(0.5, 0.15)), 20_000, np.random.default_rng(0))
    assert torus(0.5, 0.15)(torch.from_numpy(points).float()).abs().max() < 0.005
    # Area between angles a and b of the tube: 2 pi tube (radius (b - a) + tube (sin b - sin a)).
    inner = (np.linalg.norm(points[:, :2], axis=-1) < 0.5).mean()
    assert inner == pytest.approx((0.5 * math.pi - 0.15 * 2) / (0.5 * 2 * math.pi), abs=0.012)
    assert abs(points.mean(axis=0)).max() < 0.015


def test_points_follow_their_seed():
    mesh = mesh_of(sphere(), resolution=16)
    first, same, other = (surface_points(mesh, 50, np.random.default_rng(s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()
