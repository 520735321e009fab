"""The NeRF renderer: numbers worked by hand, closed forms, and properties of any batch."""

import math

import pytest
import torch
from matter import balls, first_batch, fog, made
from test_volsdf import parallel_rays, some_rays
from torch.nn import functional as F

from scaledreamer.cameras import Rays
from scaledreamer.losses import orient, regularisers
from scaledreamer.renderers.box import box_bounds
from scaledreamer.renderers.compositing import packed_weights, weights

# -- by hand -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_fog_in_a_box_stops_what_the_integral_says(training):
    """1 - exp(-density * length) on every ray, whatever the steps and their shift."""
    rays, background = some_rays(2), torch.rand(2, 6, 5, 3)
    found = made(samples=24)(fog(1.7), rays, background, first_batch() if training else None)
    near, far = box_bounds(rays.origins, rays.directions, radius=1.0, nearest=0.0)
    opacity = 1 - torch.exp(-1.7 * (far - near))
    torch.testing.assert_close(found.opacity, opacity)
    assert 0.1 < opacity.min() < opacity.max() < 0.999
    color = torch.tensor([0.2, 0.5, 0.9])
    torch.testing.assert_close(found.rgb, opacity * color + (1 - opacity) * background)


def test_depth_of_fog():
    """Between 2 and 4 from the camera, density 3: the integral of t 3 exp(-3 (t - 2)) is 7/3 - 13/3 exp(-6)."""
    found = made(samples=1024)(fog(3.0), parallel_rays([0.0]), torch.zeros(1, 1, 1, 3))
    torch.testing.assert_close(found.depth.item(), 7 / 3 - 13 / 3 * math.exp(-6), rtol=1e-4, atol=0)
    second_moment = (
        3
        * math.exp(6)
        * sum(  # antiderivative of t^2 exp(-3 t), from 2 to 4
            sign * -math.exp(-3 * t) * (t * t / 3 + 2 * t / 9 + 2 / 27) for t, sign in ((4, 1), (2, -1))
        )
    )
    opacity, depth = found.opacity.item(), found.depth.item()
    variance = second_moment - depth**2 * (2 - opacity)
    torch.testing.assert_close(found.depth_variance.item(), variance, rtol=1e-3, atol=0)


def test_packed_compositing_by_hand():
    """Two rays of places that each stop half of the light: 1/2, 1/4, 1/8; then what fills the list up."""
    ray = torch.tensor([[0, 0, 0, 2, 2, 0]])
    optical = math.log(2) * torch.tensor([[1.0, 1, 1, 1, 1, 0]])
    torch.testing.assert_close(packed_weights(optical, ray), torch.tensor([[0.5, 0.25, 0.125, 0.5, 0.25, 0.0]]))


def test_packed_compositing_is_the_dense_one():
    torch.manual_seed(0)
    optical = (5 * torch.rand(40, 7) ** 3).requires_grad_()
    dense = weights(-torch.expm1(-optical))
    packed = packed_weights(optical.reshape(1, -1), torch.arange(40).repeat_interleave(7)[None]).view_as(dense)
    torch.testing.assert_close(packed, dense, rtol=1e-4, atol=1e-6)
    one, other = (torch.autograd.grad((w * w).sum(), optical)[0] for w in (packed, dense))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    few = torch.rand(1, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda o: packed_weights(o, torch.tensor([[0, 0, 1, 3, 3, 3]])), (few,))
    assert packed_weights(torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.int64)).shape == (2, 0)


def test_what_faces_away_by_hand():
    """Density that falls along x has normals along x: seen from there they face the camera, from behind they do not."""
    field, background = fog(2.0, slope=(-4.0, 0.0, 0.0)), torch.zeros(1, 1, 1, 3)
    behind = Rays(torch.tensor([-3.0, 0, 0]).view(1, 1, 1, 3), torch.tensor([1.0, 0, 0]).view(1, 1, 1, 3))
    aslant = Rays(behind.origins, F.normalize(torch.tensor([1.0, 0.5, 0.0]), dim=0).view(1, 1, 1, 3))
    for rays, share in ((parallel_rays([0.0]), 0.0), (behind, 1.0), (aslant, 0.8)):
        found = made(normals=True)(field, rays, background, first_batch())
        torch.testing.assert_close(found.facing_away, share * found.opacity)
        torch.testing.assert_close(found.normal, torch.tensor([1.0, 0.5, 0.5]) * found.opacity)
        assert regularisers(found)["orient"].item() == pytest.approx(share * found.opacity.item())
    unasked = made()(field, behind, background, first_batch())
    assert unasked.normal is None
    assert "orient" not in regularisers(unasked)


def test_golden_orient_loss(goldens):
    golden = goldens("optim_schedules")
    case = golden.case("loss.in")
    turned = (case["normal"] * case["t_dirs"]).sum(dim=-1, keepdim=True).clamp(min=0).square()
    found = orient((case["weights"] * turned).sum(), case["opacity"])
    assert found.item() == pytest.approx(
        golden.meta["facts"]["loss.all_terms"]["logged"]["train/loss_orient"], rel=1e-5
    )


# -- any batch ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_prompts_and_views_do_not_mix():
    """3 prompts with 2 views each, rendered together and one image at a time."""
    rays, background = some_rays(6), torch.rand(6, 6, 5, 3)
    renderer = made()
    renderer.update(balls(0.2, 0.5, 0.7), first_batch())
    together = renderer(balls(0.2, 0.5, 0.7), rays, background)
    for image in range(6):
        one, size = slice(image, image + 1), (0.2, 0.5, 0.7)[image // 2]
        field = balls(size)
        field.color = balls(0.2, 0.5, 0.7).color[image // 2 : image // 2 + 1]
        alone = renderer(field, Rays(rays.origins[one], rays.directions[one]), background[one])
        for name in ("rgb", "opacity", "depth", "depth_variance"):
            torch.testing.assert_close(getattr(together, name)[one], getattr(alone, name), rtol=1e-4, atol=1e-5)
    assert (together.rgb[0] - together.rgb[2]).abs().max() > 0.01


@pytest.mark.parametrize("training", [False, True])
def test_chunks_change_nothing(training):
    rays, background = some_rays(4), torch.rand(4, 6, 5, 3)
    random = first_batch if training else (lambda: None)
    with torch.no_grad():
        whole = made()(balls(0.3, 0.6), rays, background, random())
        parts = made(chunk=40)(balls(0.3, 0.6), rays, background, random())
    for name in ("rgb", "opacity", "depth", "normal", "depth_variance", "facing_away"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-5, atol=1e-6, msg=name)


def test_evaluation_is_deterministic_and_training_follows_its_draws():
    field, rays, background = balls(0.5), some_rays(1), torch.rand(1, 6, 5, 3)
    renderer = made(samples=16)
    one, other = (renderer(field, rays, background).depth for _ in range(2))
    assert torch.equal(one, other)
    first, again, next_step = (renderer(field, rays, background, first_batch(s)).depth for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first - next_step).abs().max() > 1e-3


@pytest.mark.parametrize("training", [False, True])
def test_rays_that_miss_the_box_show_exactly_the_background(training):
    density = torch.tensor(2.0, requires_grad=True)
    background = torch.rand(1, 1, 2, 3)
    random = first_batch() if training else None
    found = made(normals=True)(fog(density, slope=(1.0, 0, 0)), parallel_rays([1.5, 3.0]), background, random)
    assert torch.equal(found.rgb, background)
    assert torch.equal(found.opacity, torch.zeros(1, 1, 2, 1))
    (found.rgb.sum() + found.depth_variance.sum() + found.facing_away.sum()).backward()
    assert density.grad == 0


def test_gradients_are_those_of_the_closed_form():
    """d/d density of exp(-density * 2), the light that passes a box of side 2."""
    density = torch.tensor(0.7, requires_grad=True)
    found = made()(fog(density), parallel_rays([0.0, 0.3]), torch.ones(1, 1, 2, 3), first_batch())
    found.opacity.sum().backward()
    torch.testing.assert_close(density.grad.item(), 2 * 2 * math.exp(-1.4), rtol=1e-5, atol=0)
