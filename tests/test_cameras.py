"""Cameras against the reference's numbers, by hand, and their statistics."""

import math

import pytest
import torch
from torch import Tensor

from scaledreamer.cameras import Cameras, RandomCameras, look_at_origin
from scaledreamer.errors import UserError
from scaledreamer.randomness import StepRandom

DEGREES = 180 / math.pi


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("uncond_b1", DEGREES),
        ("uncond_b4", DEGREES),
        ("mv_b4", 1.0),
        ("mv_b8", 1.0),
        ("mv_b4_noreladius", 1.0),
    ],
)
def test_golden_training_cameras(goldens, name, unit):
    case = goldens("cameras").case(name)
    cameras = look_at_origin(
        azimuth=case["in.azimuth"],
        elevation=case["in.elevation"],
        distance=case["in.camera_distances"],
        fovy=case["in.fovy"] * unit,
    )
    torch.testing.assert_close(cameras.c2w, case["out.c2w"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(cameras.c2w[:, :3, 3], case["out.camera_positions"], rtol=1e-5, atol=1e-5)
    rays = cameras.rays(8, 8)
    torch.testing.assert_close(rays.origins, case["out.rays_o"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rays.directions, case["out.rays_d"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"), [("eval_val4", {}), ("eval_test5", {"test_distance": 3, "test_fovy": 40})]
)
def test_golden_evaluation_cameras(goldens, name, options):
    case = goldens("cameras").case(name)
    views = len(case["in.azimuth_deg"])
    cameras = RandomCameras(**options).orbit(views if name == "eval_val4" else views - 1)
    torch.testing.assert_close(cameras.c2w, case["out.c2w"][: len(cameras)], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(cameras.rays(6, 8).directions, case["out.rays_d"][: len(cameras)], rtol=1e-5, atol=1e-5)


def test_golden_batch_of_three(goldens):
    """The reference mixes three cameras up; each by itself is right."""
    case = goldens("cameras").case("uncond_b3_reference_buggy")
    cameras = look_at_origin(
        azimuth=case["in.azimuth"],
        elevation=case["in.elevation"],
        distance=case["in.camera_distances"],
        fovy=case["in.fovy"] * DEGREES,
    )
    rotation = cameras.c2w[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(3, 3, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(3))
    torch.testing.assert_close(cameras.c2w[:, :3, 3], case["out.camera_positions"], rtol=1e-5, atol=1e-5)


def front(fovy=90.0, distance=2.0):
    one = torch.ones(1)
    return look_at_origin(azimuth=0 * one, elevation=0 * one, distance=distance * one, fovy=fovy * one)


def test_the_front_camera_by_hand():
    """At (2, 0, 0), looking at -x, right is +y, up is +z; fovy 90 puts the corners at +-1 for one unit ahead."""
    camera = front()
    expected = torch.tensor([[0.0, 0, 1, 2], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    torch.testing.assert_close(camera.c2w[0], expected)
    rays = camera.rays(2, 2)
    upper_left = torch.tensor([-1.0, -0.5, 0.5]) / 1.5**0.5
    torch.testing.assert_close(rays.directions[0, 0, 0], upper_left)
    torch.testing.assert_close(rays.origins[0, 1, 1], torch.tensor([2.0, 0.0, 0.0]))


def sample(cameras, prompts, step=0, **random):
    return cameras.sample(prompts, StepRandom(seed=0, step=step, **random))


def test_ranges_and_elevation_statistics():
    """Over [-10, 45]: uniform angles have mean 17.5 and 25/55 above 20; uniform on the sphere, with s the sine,
    the mean of asin(s) is 16.09 and (s(45) - s(20)) / (s(45) - s(-10)) = .4145 lie above 20. We draw half of each."""
    found = sample(RandomCameras(), 100_000)
    assert 1.0 <= found.distance.min() <= found.distance.max() <= 1.5
    assert 40 <= found.fovy.min() <= found.fovy.max() <= 70
    assert -10 <= found.elevation.min() <= found.elevation.max() <= 45
    assert -180 <= found.azimuth.min() <= found.azimuth.max() <= 180
    assert found.elevation.mean().item() == pytest.approx((17.5 + 16.09) / 2, abs=0.15)
    assert (found.elevation > 20).float().mean().item() == pytest.approx((25 / 55 + 0.4145) / 2, abs=0.005)


def test_azimuths_are_stratified_over_the_batch():
    found = sample(RandomCameras(), 8).azimuth
    assert ((found + 180) / 45).floor().tolist() == list(range(8))


def test_two_processes_draw_what_one_would():
    cameras = RandomCameras(views_per_prompt=2)
    one = sample(cameras, 4)
    parts = [sample(cameras, 2, rank=rank, world_size=2) for rank in range(2)]
    torch.testing.assert_close(torch.cat([p.c2w for p in parts]), one.c2w)
    torch.testing.assert_close(torch.cat([p.fovy for p in parts]), one.fovy)


def test_a_ring_shares_all_but_the_azimuth():
    cameras = RandomCameras(
        layout="ring", views_per_prompt=4, relative_distance=True, distance=(0.8, 1.0), fovy=(15, 60), elevation=(0, 30)
    )
    found = sample(cameras, 3)
    for name in ("elevation", "fovy", "distance"):
        values = getattr(found, name).view(3, 4)
        torch.testing.assert_close(values, values[:, :1].expand(3, 4))
    turns = found.azimuth.view(3, 4).diff(dim=1)
    torch.testing.assert_close(turns, torch.full((3, 3), 90.0), rtol=1e-4, atol=1e-3)
    relative = found.distance * torch.tan(torch.deg2rad(found.fovy) / 2)
    assert relative.min() >= 0.8 - 1e-5
    assert relative.max() <= 1.0 + 1e-5


def test_the_orbit_starts_at_the_front_and_goes_round():
    orbit = RandomCameras().orbit(4)
    assert orbit.azimuth.tolist() == [0, 90, 180, 270]
    torch.testing.assert_close(orbit.c2w[:, :3, 3].norm(dim=-1), torch.full((4,), 1.5))


def test_an_orbit_may_go_round_in_part_or_more_than_once():
    assert RandomCameras().orbit(4, turn=0.0).azimuth.tolist() == [0, 0, 0, 0]
    assert RandomCameras().orbit(3, turn=720.0).azimuth.tolist() == [0, 240, 480]


def test_cameras_are_selected_and_repeated_prompt_by_prompt():
    orbit = RandomCameras().orbit(4)
    assert orbit.select(slice(1, 3)).azimuth.tolist() == orbit.select([1, 2]).azimuth.tolist() == [90, 180]
    twice = orbit.select([0, 2]).repeat(2)
    assert twice.azimuth.tolist() == [0, 180, 0, 180]
    torch.testing.assert_close(twice.c2w[2:], twice.c2w[:2])
    assert twice.c2w.shape == (4, 4, 4)


def test_cameras_begin_at_front_and_back_and_widen():
    """A share of .25 is 22.5 degrees to both sides of the front and of the back; strata and all else stay."""
    cameras = RandomCameras(azimuth_share=((0, 0.25), (0.5, 1)), views_per_prompt=4)

    def drawn(progress: float) -> Cameras:
        return cameras.sample(64, StepRandom(seed=0, step=0), progress=progress)

    start, half, whole = drawn(0.0), drawn(0.25), drawn(0.5)

    def from_nearest(azimuth: Tensor) -> Tensor:  # of front and back, degrees
        return azimuth - 180 * (azimuth / 180).round()

    assert 20 < float(from_nearest(start.azimuth).abs().max()) <= 22.5
    assert 50 < float(from_nearest(half.azimuth).abs().max()) <= 0.625 * 90
    assert 0.4 < float((start.azimuth.abs() < 90).float().mean()) < 0.6
    torch.testing.assert_close(from_nearest(start.azimuth), from_nearest(whole.azimuth) / 4, atol=1e-4, rtol=0)
    assert torch.equal(start.elevation, whole.elevation)
    plain = RandomCameras(views_per_prompt=4).sample(64, StepRandom(seed=0, step=0))
    assert torch.equal(whole.azimuth, plain.azimuth)


def test_a_ring_goes_all_around():
    with pytest.raises(UserError, match="azimuth_share"):
        RandomCameras(layout="ring", views_per_prompt=4, azimuth_share=0.5)
