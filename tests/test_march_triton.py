"""The kernels that find places along rays against plain PyTorch.

On GPUs with ``-m gpu``; on CPUs through Triton's interpreter, in a process of their own, where Triton is installed.
"""

import pytest
import torch
from interpreter import pass_in_the_interpreter
from test_volsdf import some_rays

from scaledreamer.renderers.marching import March, march_torch, march_triton
from scaledreamer.renderers.occupancy import OccupancyGrid


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


def test_on_a_cpu_through_the_interpreter():
    pass_in_the_interpreter(__file__)
