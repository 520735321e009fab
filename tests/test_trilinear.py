"""Trilinear interpolation by hand and against ``grid_sample``."""

import pytest
import torch
from torch.nn import functional as F

from scaledreamer.fields import trilinear


def test_by_hand():
    """Two voxels per side have their centres at +-0.5; the value is x + 10 y + 100 z in steps of one voxel."""
    ramp = torch.arange(2.0)
    grid = (ramp + 10 * ramp[:, None] + 100 * ramp[:, None, None])[None, None]
    points = torch.tensor(
        [[[-0.5, -0.5, -0.5], [0.5, -0.5, -0.5], [0.0, 0.5, -0.5], [0.0, 0.0, 0.0], [-1.0, 0.5, 0.5]]]
    )
    found = trilinear.sample(grid, points)[0, :, 0]
    # The last one lies half a voxel outside: half of voxel (0, 1, 1).
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, 10.5, 55.5, 55.0]))


@pytest.mark.parametrize("side", [4, 9])
def test_equals_grid_sample(side):
    generator = torch.Generator().manual_seed(0)
    grid = torch.randn(3, 5, side, side, side, generator=generator, dtype=torch.float64, requires_grad=True)
    points = torch.rand(3, 200, 3, generator=generator, dtype=torch.float64) * 3 - 1.5  # inside and outside
    expected = F.grid_sample(grid, points[:, None, None], align_corners=False)[:, :, 0, 0].transpose(1, 2)
    found = trilinear.sample(grid, points)
    torch.testing.assert_close(found, expected)
    toward = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    mine, theirs = (torch.autograd.grad((f * toward).sum(), grid)[0] for f in (found, expected))
    torch.testing.assert_close(mine, theirs)


def test_a_point_that_is_no_number_gives_none():
    grid = torch.ones(1, 2, 4, 4, 4)
    points = torch.tensor([[[0.0, 0.0, 0.0], [float("nan"), 0.0, 0.0]]])
    found = trilinear.sample(grid, points)
    assert found[0, 0].tolist() == [1, 1]
    assert found[0, 1].isnan().all()
