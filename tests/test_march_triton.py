"""The kernels that find places along rays against plain PyTorch.

On GPUs with ``-m gpu``; on CPUs through Triton's interpreter, in a process of their own, where Triton is installed.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from test_volsdf import some_rays

from scaledreamer.renderers.marching import March, march_torch, march_triton
from scaledreamer.renderers.occupancy import OccupancyGrid

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICES = ["cpu"] if INTERPRETED else [pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request):
    """Where the kernels run."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    return request.param


def marched(device, *, prompts=2, capacity, shifted=True, steps=24, share=0.3):
    """The places of both, of rays through a box of which a share of the cells is occupied."""
    draws = torch.Generator().manual_seed(0)
    grid = OccupancyGrid(resolution=5)
    grid.binaries.copy_(torch.rand(1, 5, 5, 5, generator=draws) < share)
    grid.to(device)
    rays = some_rays(prompts, 4, 3)
    origins, directions = (r.reshape(prompts, -1, 3).to(device) for r in (rays.origins, rays.directions))
    shift = torch.rand(origins.shape[:2], generator=draws).to(device) if shifted else None
    march = March(grid=grid, radius=1.0, step_size=2 * 3**0.5 / steps, steps=steps, near=0.1)
    return [f(march, origins, directions, shift, capacity) for f in (march_torch, march_triton)]


@pytest.mark.parametrize("options", [{}, {"shifted": False}, {"steps": 17, "prompts": 1}, {"share": 0.0}])
@pytest.mark.parametrize("capacity", [None, 11, 60, 5000])
def test_the_same_places_in_the_same_order(device, capacity, options):
    expected, found = marched(device, capacity=capacity, **options)
    if capacity is not None:
        assert found.ray.shape == found.t.shape == found.length.shape == (options.get("prompts", 2), capacity)
    for row in range(len(found.ray)):
        there, ours = expected.length[row] > 0, found.length[row] > 0
        assert torch.equal(found.ray[row][ours], expected.ray[row][there])
        torch.testing.assert_close(found.t[row][ours], expected.t[row][there])
        torch.testing.assert_close(found.length[row][ours], expected.length[row][there])
        assert not ours[int(ours.sum()) :].any()  # what fills a list up comes last


@pytest.mark.skipif(INTERPRETED, reason="this is the process that the test starts")
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_on_a_cpu_through_the_interpreter():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
