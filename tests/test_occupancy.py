"""The NeRF renderer's occupancy grid, and the places along rays that it leaves."""

import math
import sys
from types import SimpleNamespace

import pytest
import torch
from matter import Matter, balls, first_batch, fog, made
from pairs import by_two
from test_volsdf import some_rays

from scaledreamer.cameras import Rays
from scaledreamer.errors import UserError
from scaledreamer.kernels.launch import has_triton
from scaledreamer.randomness import StepRandom
from scaledreamer.renderers import marching
from scaledreamer.renderers.occupancy import OccupancyGrid

# -- the grid ----------------------------------------------------------------------------------------------------


def octant(density: float) -> Matter:
    """Matter where x, y and z are positive."""
    return Matter(lambda points: density * (points > 0).all(dim=-1).float(), torch.ones(1, 3))


def test_the_grid_marks_where_matter_is():
    grid = OccupancyGrid(resolution=4)
    assert grid.binaries.all()
    grid.update(octant(3.0), step_size=0.1, batch=0)
    x, y, z = torch.meshgrid(*[torch.arange(4)] * 3, indexing="ij")
    expected = (x > 1) & (y > 1) & (z > 1)
    assert torch.equal(grid.binaries[0], expected)
    torch.testing.assert_close(grid.occs.view(4, 4, 4), 0.3 * expected.float())
    points = torch.tensor([[0.1, 0.2, 0.9], [1.0, 1.0, 1.0], [-0.1, 0.2, 0.9], [0.1, 0.2, -0.9]])
    assert grid.occupied(points, radius=1.0).tolist() == [True, True, False, False]


def test_cells_are_ordered_as_in_nerfacc():
    """x slowest: the cell (0, 1, 2) of 3^3 is number 5."""
    grid = OccupancyGrid(resolution=3)
    low, high = torch.tensor([-1.0, -1 / 3, 1 / 3]), torch.tensor([-1 / 3, 1 / 3, 1.0])
    inside = Matter(lambda points: ((points > low) & (points < high)).all(dim=-1).float(), torch.ones(1, 3))
    grid.update(inside, step_size=1.0, batch=0)
    assert grid.occs.nonzero().tolist() == [[5]]


def _sees(rank: int) -> torch.Tensor:
    grid = OccupancyGrid(resolution=4)
    grid.update((octant(3.0), fog(0.5))[rank], step_size=0.1, batch=0)
    return grid.occs


def test_a_grid_is_of_the_prompts_of_all_processes(tmp_path):
    """0.3 in the octant of the first one's matter, 0.05 in the second one's fog."""
    alone = OccupancyGrid(resolution=4)
    alone.update(octant(3.0), step_size=0.1, batch=0)
    for found in by_two(_sees, tmp_path):
        torch.testing.assert_close(found, alone.occs.clamp(min=0.05))


def test_matter_that_vanishes_is_forgotten():
    """0.3 fades by a half per update and is under the threshold of 0.05 after three; updates come every other batch."""
    grid = OccupancyGrid(resolution=4, every=2, decay=0.5, threshold=0.05)
    grid.update(octant(3.0), step_size=0.1, batch=0)
    counts = []
    for batch in range(1, 8):
        grid.update(octant(0.0), step_size=0.1, batch=batch)
        counts.append(int(grid.binaries.sum()))
    assert counts[:4] == [8] * 4
    torch.testing.assert_close(grid.occs.max().item(), 0.3 / 8)
    # The mean, which is lower than the threshold, decides: what is left is more than that.
    assert counts[-1] == 8
    grid.update(fog(0.04), step_size=1.0, batch=8)
    assert grid.binaries.all()


def test_an_empty_field_is_looked_at_everywhere():
    """Else it could never come back."""
    grid = OccupancyGrid(resolution=4)
    grid.update(fog(0.0), step_size=0.1, batch=0)
    assert grid.binaries.all()


def test_updates_look_all_over_a_cell():
    grid = OccupancyGrid(resolution=2)
    places = torch.stack([grid._points(turn, radius=1.0) for turn in range(64)]) % 1  # cells are one unit wide
    assert (places - places[:, :1]).abs().max() < 1e-5  # the same place of every cell
    corners = (places[:, 0] * 4).long()
    assert len({tuple(corner) for corner in corners.tolist()}) >= 40  # of 64 parts; 64 at random would find 40.8


@torch.no_grad()
def test_leaving_out_empty_cells_changes_little():
    field, rays, background = balls(0.4, sharpness=60), some_rays(3, 16, 16), torch.rand(3, 16, 16, 3)
    everywhere, pruned = made(resolution=16), made(resolution=16)
    for turn in range(32):
        pruned.update(field, first_batch(16 * turn))
    assert pruned.grid.binaries.float().mean() < 0.1
    full, found = (r(field, rays, background) for r in (everywhere, pruned))
    # What is left out of a ray are steps that lose less than a hundredth of its light each.
    torch.testing.assert_close(found.rgb, full.rgb, rtol=0, atol=0.03)
    assert (found.rgb - full.rgb).abs().mean() < 0.001
    assert full.opacity.max() > 0.99
    assert not torch.equal(found.opacity, full.opacity)


def test_training_and_evaluation_share_the_grid_and_checkpoints_keep_it():
    field, rays, background = balls(0.4), some_rays(1), torch.zeros(1, 6, 5, 3)
    renderer, other = made(), made()
    renderer.update(field, first_batch(3))
    assert renderer.grid.binaries.all()  # not this batch's turn
    renderer.update(field, first_batch(16))
    assert not renderer.grid.binaries.all()
    other.load_state_dict(renderer.state_dict())
    assert torch.equal(renderer(field, rays, background).rgb, other(field, rays, background).rgb)
    renderer.grid.binaries.zero_()
    for random in (None, first_batch()):
        assert renderer(field, rays, background, random).opacity.abs().max() == 0


def test_published_layout(goldens):
    keys = goldens("reference_checkpoint_layout").meta["configs"]["single_asd_sd_nerf"]["keys"]
    theirs = {k.removeprefix("renderer.estimator."): v for k, v in keys.items() if k.startswith("renderer.estimator.")}
    ours = made(resolution=32).state_dict()
    assert set(ours) == {"grid.occs", "grid.binaries"}
    for name, value in ours.items():
        expected = theirs[name.removeprefix("grid.")]
        assert (list(value.shape), str(value.dtype)) == (expected["shape"], f"torch.{expected['dtype']}")


# -- places ------------------------------------------------------------------------------------------------------


def test_of_more_places_than_there_is_room_for_an_even_share_is_kept():
    mask = torch.tensor([[1, 0, 1, 1, 1, 0, 1, 1], [0, 0, 0, 0, 0, 0, 1, 0]]).bool()
    index, stretch = marching.kept(mask, 3, counts=True)
    assert index.tolist() == [[2, 4, 7], [6, -1, -1]]
    assert stretch.tolist() == [[2.0], [1.0]]
    index, stretch = marching.kept(mask, None, counts=True)
    assert index.tolist() == [[0, 2, 3, 4, 6, 7], [6, -1, -1, -1, -1, -1]]
    assert stretch.tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("capacity", [5, 40, 300])
def test_lists_of_a_fixed_length_hold_the_same(capacity):
    """What a GPU computes without waiting for a count."""
    mask = torch.rand(3, 200, generator=torch.Generator().manual_seed(0)) < torch.tensor([[0.0], [0.1], [0.5]])
    exact, fixed = (marching.kept(mask, capacity, counts=c) for c in (True, False))
    assert fixed[0].shape == (3, min(capacity, 200))
    assert torch.equal(exact[1], fixed[1])
    for one, other in zip(exact[0], fixed[0], strict=True):
        assert one[one >= 0].tolist() == other[other >= 0].tolist()


@pytest.mark.parametrize("fixed", [False, True])
def test_a_small_capacity_looks_more_coarsely(monkeypatch, fixed):
    if fixed:
        whole = marching.kept
        monkeypatch.setattr(marching, "kept", lambda mask, capacity, counts: whole(mask, capacity, counts=False))
    field, rays, background = balls(0.5), some_rays(2, 12, 12), torch.zeros(2, 12, 12, 3)
    full = made(samples=256)(field, rays, background, first_batch())
    enough = made(samples=256, capacity=2**17)(field, rays, background, first_batch())
    coarse = made(samples=256, capacity=2**13)(field, rays, background, first_batch())
    torch.testing.assert_close(enough.rgb, full.rgb)
    assert (coarse.opacity - full.opacity).abs().mean() < 0.01
    assert (coarse.opacity - full.opacity).abs().max() > 1e-4
    same = made(samples=256, places_per_ray=2**13 // 288)(field, rays, background, first_batch())
    assert (same.opacity - full.opacity).abs().mean() < 0.01
    assert not torch.equal(same.opacity, full.opacity)


def test_a_stand_in_for_nerfacc_gives_the_same_pictures(monkeypatch):
    """Its kernel's intervals, made here step by step, through the lists that the rest of the renderer reads."""

    def traverse_grids(origins, directions, binaries, boxes, *, near_planes, far_planes, step_size):
        assert boxes.tolist() == [[-1, -1, -1, 1, 1, 1]]
        edges, left, right, rays = [], [], [], []
        for ray, (near, far) in enumerate(zip(near_planes.tolist(), far_planes.tolist(), strict=True)):
            for step in range(math.ceil((far - near) / step_size)):
                t = [near + step * step_size, min(near + (step + 1) * step_size, far)]
                cell = ((origins[ray] + directions[ray] * sum(t) / 2 + 1) * 4).long().clamp(0, 7)
                if binaries[0, cell[0], cell[1], cell[2]]:
                    edges, left, right, rays = edges + t, [*left, True, False], [*right, False, True], [*rays, ray]
        intervals = SimpleNamespace(
            vals=torch.tensor(edges), is_left=torch.tensor(left).bool(), is_right=torch.tensor(right).bool()
        )
        return intervals, SimpleNamespace(ray_indices=torch.tensor(rays, dtype=torch.int64)), None

    monkeypatch.setitem(sys.modules, "nerfacc", SimpleNamespace(traverse_grids=traverse_grids))
    field, rays, background = balls(0.3, 0.6), some_rays(2), torch.rand(2, 6, 5, 3)
    renderer = made(samples=32)
    renderer.update(field, first_batch())
    expected = renderer(field, rays, background)
    monkeypatch.setattr("scaledreamer.renderers.nerf.choose_backend", lambda *_: marching.march_nerfacc)
    found = renderer(field, rays, background)
    torch.testing.assert_close(found.rgb, expected.rgb, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.depth, expected.depth, rtol=1e-4, atol=1e-4)


def test_backends_that_are_not_here():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert marching.choose_backend("auto", cpu) is marching.march_torch
    assert marching.choose_backend("torch", gpu) is marching.march_torch
    with pytest.raises(UserError, match=r"^renderer\.backend: nerfacc needs a GPU"):
        marching.choose_backend("nerfacc", cpu)
    automatic = marching.march_triton if has_triton() else marching.march_torch
    assert marching.choose_backend("auto", gpu) is automatic
    with pytest.raises(UserError, match=r"^renderer\.backend: triton needs a GPU"):
        marching.choose_backend("triton", cpu)
    if not has_triton():
        with pytest.raises(UserError, match=r"^renderer\.backend: triton is not installed"):
            made(backend="triton")
    if not marching.nerfacc_installed():
        with pytest.raises(UserError, match=r"^renderer\.backend: nerfacc is not installed"):
            made(backend="nerfacc")


@pytest.mark.gpu
def test_nerfacc_agrees():
    pytest.importorskip("nerfacc")
    rays = some_rays(2, 32, 32)
    rays = Rays(rays.origins.cuda(), rays.directions.cuda())
    sizes = torch.tensor([[0.5]], device="cuda")
    field = Matter(
        lambda points: 20 * torch.sigmoid(20 * (sizes - points.norm(dim=-1))), torch.full((1, 3), 0.3, device="cuda")
    )
    background = torch.ones(2, 32, 32, 3, device="cuda")
    found = []
    for backend in ("torch", "nerfacc"):
        renderer = made(samples=512, resolution=32, backend=backend).cuda()
        renderer.update(field, StepRandom(seed=0, step=0, device="cuda"))
        with torch.no_grad():
            found.append(renderer(field, rays, background))
    torch.testing.assert_close(found[0].rgb, found[1].rgb, rtol=0, atol=0.02)
    torch.testing.assert_close(found[0].depth, found[1].depth, rtol=0, atol=0.02)


@pytest.mark.gpu
def test_a_gpu_computes_what_a_cpu_computes():
    rays, background = some_rays(2, 16, 16), torch.rand(2, 16, 16, 3)
    there = Rays(rays.origins.cuda(), rays.directions.cuda())
    cpu, gpu = made(backend="torch"), made(backend="torch").cuda()
    color = torch.full((1, 3), 0.3)
    ball = lambda points: 20 * torch.sigmoid(20 * (0.5 - points.norm(dim=-1)))  # noqa: E731
    expected = cpu(Matter(ball, color), rays, background)
    found = gpu(Matter(ball, color.cuda()), there, background.cuda())
    torch.testing.assert_close(found.rgb.cpu(), expected.rgb, rtol=1e-4, atol=1e-4)
