"""The hash grid's benchmark, at a size for CPUs."""

import json

import pytest
import torch

from scaledreamer.benchmark.hash_grid import VARIANTS, Variant, bytes_of, main
from scaledreamer.benchmark.points import points_of
from scaledreamer.encodings.hash_grid import HashGrid
from scaledreamer.errors import UserError

CPU = torch.device("cpu")


def test_points_of_a_training_step():
    """Samples along rays from front to back, then the same moved by 0.01 of 4 world units along each axis."""
    base, *moved = points_of("rays", 4003, CPU).view(4, 1000, 3)
    for axis, points in enumerate(moved):
        step = torch.zeros(3)
        step[axis] = 0.0025
        torch.testing.assert_close(points - base, step.expand(1000, 3), rtol=0, atol=1e-6)
    assert 0 <= float(base.min()) <= float(base.max()) <= 1
    ray = base[:193]  # the first ray's: 128 proposals, 64 samples and 1
    steps = ray.diff(dim=0)
    assert ((steps @ (ray[-1] - ray[0])) > -1e-7).all()
    assert steps.norm(dim=-1).max() < 0.05


def test_random_points():
    points = points_of("uniform", 1001, CPU)
    assert points.shape == (1001, 3)
    assert 0 <= float(points.min()) < 0.01 < 0.99 < float(points.max()) < 1


def test_bytes_by_hand():
    """Two levels of 8 and 32 entries, 2 features, 10 points: 120 bytes of points, 160 of features, 320 of table."""
    encoding = HashGrid(n_levels=2, log2_size=5, base_resolution=2, growth=2.0)
    full, half = VARIANTS[1], Variant("", "triton", "float16", half_features=True)
    assert bytes_of(encoding, 10, "forward", full) == (600, 10 * 8 * 4 * 4)
    assert bytes_of(encoding, 10, "forward", half) == (120 + 80 + 160, 10 * 8 * 4 * 2)
    assert bytes_of(encoding, 10, "to parameters", full) == (2 * 600, 2 * 1280)
    assert bytes_of(encoding, 10, "to parameters", half) == (2 * 200 + 160 + 320, 640 + 1280)
    assert bytes_of(encoding, 10, "to both", full) == (1200 + 120 + 320, 3 * 1280)


def test_the_command(tmp_path, capsys):
    file = tmp_path / "figures.json"
    sizes = ["--points", "200", "--log2-size", "10", "--repeats", "1", "--warmup", "1"]
    main([*sizes, "--device", "cpu", "--json", str(file)])
    report = json.loads(file.read_text())
    rows = [(r["points"], r["variant"], r["timed"]) for r in report["measurements"]]
    assert rows == [(w, "torch", t) for w in ("rays", "uniform") for t in ("forward", "to parameters", "to both")]
    assert all(r["milliseconds"] > 0 and r["peak_gib"] is None for r in report["measurements"])
    forward = report["measurements"][0]
    assert forward["unique_bytes"] == 200 * (3 + 32) * 4 + 16 * 1024 * 2 * 4
    assert forward["gathered_bytes"] == 200 * 8 * 32 * 4
    assert report["copy_bytes_per_second"] > 1e8
    shown = capsys.readouterr().out
    assert "200 points" in shown
    assert shown.count("uniform") == 3


def test_too_few_points_are_refused():
    with pytest.raises(UserError, match="at least 4 points"):
        main(["--points", "3", "--device", "cpu"])
