"""The VolSDF renderer against the reference's numbers, by hand, and for any batch."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from scaledreamer.backgrounds import EnvironmentMap
from scaledreamer.cameras import Rays
from scaledreamer.fields.mlp import MLP
from scaledreamer.fields.voxel import VoxelField
from scaledreamer.generators.conv3d import Conv3DGenerator
from scaledreamer.randomness import StepRandom
from scaledreamer.renderers.compositing import alphas, weights
from scaledreamer.renderers.volsdf import VolSDFRenderer, box_bounds, volsdf_density


def test_golden_density(goldens):
    case = goldens("volsdf_renderer").tensors
    found = volsdf_density(case["in.density.sdf"], case["in.density.inv_std"])
    torch.testing.assert_close(found, case["out.density"], rtol=2e-4, atol=2e-5)


def test_density_by_hand():
    sdf = torch.tensor([0.0, 1.0, -1.0, 0.1])
    expected = torch.tensor([15.0, 0.0, 30.0, 15 * math.exp(-3)])
    torch.testing.assert_close(volsdf_density(sdf, 30.0), expected, rtol=1e-5, atol=1e-6)


def golden_scene(golden):
    """The reference's generator, background and renderer with its weights."""
    generator = Conv3DGenerator(
        text_dim=7,
        latent_dim=6,
        w_dim=10,
        resolution=16,
        widths=(20, 16, 12),
        channels=8,
        noise="none",
        clamp_offsets=True,
    )
    state = golden.case("state.geometry")
    generator.load_state_dict({k.removeprefix("space_generator."): v for k, v in state.items() if k != "bbox"})
    background = EnvironmentMap(random_color_probability=0)
    state = golden.case("state.background")
    background.load_state_dict({k: v for k, v in state.items() if k.startswith("network.")})
    return generator, background, VolSDFRenderer(bounds="fixed", near=0.1, far=4.0)


def render(golden, views, jitters=None, background_color=None):
    generator, background, renderer = golden_scene(golden)
    case = golden.tensors
    field = generator(case["in.text_embed"], case["in.noise"])
    rays = Rays(case["in.rays_o"][views], case["in.rays_d"][views])
    behind = background(rays.directions)
    if background_color is not None:
        behind = torch.full_like(behind, background_color)
    return renderer.render(field, rays, behind, jitters), SimpleNamespace(generator=generator, background=background)


IMAGES = {
    "comp_rgb": "rgb",
    "comp_rgb_fg": "foreground",
    "comp_rgb_bg": "background",
    "opacity": "opacity",
    "depth": "depth",
    "z_variance": "depth_variance",
}


@torch.no_grad()
def test_golden_evaluation(goldens):
    golden = goldens("volsdf_renderer")
    found, _ = render(golden, slice(None))
    for theirs, ours in IMAGES.items():
        expected = golden.tensors[f"out.eval.{theirs}"]
        torch.testing.assert_close(getattr(found, ours), expected, rtol=2e-4, atol=2e-5, msg=theirs)
    torch.testing.assert_close(found.normal, golden.tensors["out.eval.comp_normal"], rtol=0, atol=3e-3)
    found, _ = render(golden, slice(0, 1), background_color=0.25)
    torch.testing.assert_close(found.rgb, golden.tensors["out.eval_bg025_view0.comp_rgb"], rtol=2e-4, atol=2e-5)


@torch.no_grad()
def test_golden_samples(goldens):
    """Every interval and what is found in it, along the rays of the training render."""
    golden = goldens("volsdf_renderer")
    generator, _, renderer = golden_scene(golden)
    case = golden.tensors
    jitters = (case["in.train.jitter0"].view(1, -1), case["in.train.jitter1"].view(1, -1))
    origins, directions = case["in.rays_o"][0].view(-1, 3), case["in.rays_d"][0].view(-1, 3)
    field = generator(case["in.text_embed"], case["in.noise"])
    edges = renderer._edges(field, origins, directions, jitters)
    middles, intervals = (edges[:, 1:] + edges[:, :-1]) / 2, edges.diff(dim=1)
    assert middles.shape == (25, 193)
    points = origins[:, None] + directions[:, None] * middles[..., None]
    sampled = field.query(points.view(1, -1, 3))
    density = volsdf_density(sampled.sdf.view_as(middles), renderer.inv_std)
    found = {
        "t_points": middles,
        "t_intervals": intervals,
        "points": points,
        "sdf": sampled.sdf,
        "weights": weights(alphas(density, intervals, "linear")),
        "inv_std": renderer.inv_std,
    }
    for name, value in found.items():
        expected = case[f"out.train.{name}"]
        torch.testing.assert_close(value.reshape(expected.shape), expected, rtol=2e-4, atol=2e-5, msg=name)
    color = torch.sigmoid(case["out.train.features"])
    torch.testing.assert_close(sampled.color[0], color, rtol=2e-4, atol=2e-5)
    normal = F.normalize(sampled.gradient[0], dim=-1)
    torch.testing.assert_close(normal, case["out.train.normal"], rtol=0, atol=3e-3)


def test_golden_training_with_gradients(goldens):
    golden = goldens("volsdf_renderer")
    case = golden.tensors
    jitters = (case["in.train.jitter0"].view(1, -1), case["in.train.jitter1"].view(1, -1))
    found, modules = render(golden, slice(0, 1), jitters)
    for theirs, ours in IMAGES.items():
        torch.testing.assert_close(getattr(found, ours), case[f"out.train.{theirs}"], rtol=2e-4, atol=2e-5, msg=theirs)
    torch.testing.assert_close(found.gradient[0], case["out.train.sdf_grad"], rtol=1e-3, atol=5e-3)
    eikonal = (found.gradient.norm(dim=-1) - 1).square().mean()
    loss = (
        (found.rgb * case["in.w_rgb"]).mean()
        + (found.opacity * case["in.w_opacity"]).mean()
        + 0.1 * (found.depth * case["in.w_depth"]).mean()
        + 0.1 * (found.normal * case["in.w_normal"]).mean()
        + 0.01 * eikonal
    )
    torch.testing.assert_close(loss, case["out.train.loss"], rtol=1e-3, atol=1e-5)
    loss.backward()
    parameters = {f"geometry.{n}": p for n, p in modules.generator.named_parameters()}
    parameters |= {f"background.{n}": p for n, p in modules.background.named_parameters()}
    checked = 0
    for key, expected in golden.case("grad").items():
        found_gradient = parameters[key.replace("space_generator.", "")].grad
        torch.testing.assert_close(found_gradient, expected, rtol=2e-3, atol=1e-6, msg=lambda m, k=key: f"{k}: {m}")
        checked += 1
    assert checked == 6


# -- numbers worked by hand ------------------------------------------------------------------------------------


def test_the_inverse_deviation_is_kept_as_published(goldens):
    keys = goldens("reference_checkpoint_layout").meta["configs"]["DF415_3dconv_net"]["keys"]
    state = VolSDFRenderer().state_dict()
    assert {k: list(v.shape) for k, v in state.items()} == {"log_inv_std": keys["renderer.variance._inv_std"]["shape"]}
    renderer = VolSDFRenderer(log_inv_std=0.1)
    renderer.load_state_dict(state)
    assert renderer.inv_std.item() == pytest.approx(30.0, rel=1e-4)


def test_compositing_by_hand():
    """Three samples that each stop half: 1/2, 1/4, 1/8."""
    torch.testing.assert_close(weights(torch.full((1, 3), 0.5)), torch.tensor([[0.5, 0.25, 0.125]]))
    torch.testing.assert_close(weights(torch.tensor([[1.0, 0.7]]))[0, 1].item(), 0.0, rtol=0, atol=1e-5)


def test_alphas_by_hand():
    density, interval = torch.tensor([[2.0, 30.0]]), torch.tensor([[0.1, 0.1]])
    torch.testing.assert_close(alphas(density, interval, "linear"), torch.tensor([[0.2, 1.0]]))
    torch.testing.assert_close(alphas(density, interval, "exp"), torch.tensor([[1 - math.exp(-0.2), 1 - math.exp(-3)]]))


def test_gradients_of_compositing_are_those_of_the_product():
    alpha = torch.tensor([[0.1, 0.9, 0.4, 0.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(weights, (alpha[:, :3].detach().requires_grad_(),))
    before = torch.cat([torch.ones(1, 1), torch.cumprod(1 - alpha, dim=1)[:, :-1]], dim=1)
    torch.testing.assert_close(weights(alpha), alpha * before)


def test_box_by_hand():
    origins = torch.tensor([[3.0, 0, 0], [0.5, 0, 0], [3.0, 5, 0], [1.0, 5.0, 1.0]])
    directions = torch.tensor([[-1.0, 0, 0], [1.0, 0, 0], [-1.0, 0, 0], [0.0, -1.0, 0.0]])
    near, far = box_bounds(origins, directions, radius=2.0, nearest=0.1)
    torch.testing.assert_close(near[:, 0], torch.tensor([1.0, 0.1, 1.0, 3.0]))
    torch.testing.assert_close(far[:, 0], torch.tensor([5.0, 1.5, 1.0, 7.0]))


def sphere(prompts=1, radius=0.8):
    """Exact spheres of colour 1/2."""
    sdf_network, feature_network = MLP([2, 4, 1]), MLP([2, 4, 3])
    return VoxelField(
        voxels=torch.zeros(prompts, 2, 4, 4, 4),
        sdf_network=sdf_network,
        feature_network=feature_network,
        radius=2.0,
        sphere_radius=radius,
        eps=0.01,
    )


def parallel_rays(offsets, distance=3.0):
    """A row of rays along -x at the given heights."""
    offsets = torch.as_tensor(offsets)
    origins = torch.stack([torch.full_like(offsets, distance), torch.zeros_like(offsets), offsets], dim=-1)
    directions = torch.tensor([-1.0, 0, 0]).expand_as(origins)
    return Rays(origins.view(1, 1, -1, 3), directions.reshape(1, 1, -1, 3))


@torch.no_grad()
def test_a_sphere_is_seen_where_it_is():
    rays = parallel_rays([0.0, 0.4, 0.6, 1.0, 1.5])
    background = torch.full((1, 1, 5, 3), 0.2)
    found = VolSDFRenderer(proposals=256, samples=128, alpha="exp")(sphere(), rays, background)
    opacity = found.opacity[0, 0, :, 0]
    assert opacity[:3].min() > 0.99
    assert opacity[3:].max() < 0.02
    depth = found.depth[0, 0, :3, 0]
    torch.testing.assert_close(depth, 3 - (0.64 - torch.tensor([0.0, 0.16, 0.36])).sqrt(), rtol=0, atol=0.06)
    torch.testing.assert_close(found.rgb[0, 0, 0], torch.full((3,), 0.5), rtol=0, atol=0.01)
    torch.testing.assert_close(found.rgb[0, 0, 4], torch.full((3,), 0.2), rtol=0, atol=0.01)
    torch.testing.assert_close(found.normal[0, 0, 0], torch.tensor([1.0, 0.5, 0.5]), rtol=0, atol=0.02)


@pytest.mark.parametrize("training", [False, True])
def test_rays_that_miss_the_box_show_exactly_the_background(training):
    rays = parallel_rays([2.5, 3.0])
    field = sphere()
    background = torch.rand(1, 1, 2, 3)
    random = StepRandom(seed=0, step=0) if training else None
    found = VolSDFRenderer(proposals=16, samples=8)(field, rays, background, random)
    assert torch.equal(found.rgb, background)
    assert torch.equal(found.opacity, torch.zeros(1, 1, 2, 1))
    (found.rgb.sum() + found.depth_variance.sum() + found.gradient.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in field.sdf_network.parameters())


class Lumpy(nn.Module):
    """A field with one random grid per prompt."""

    def __init__(self, prompts):
        super().__init__()
        torch.manual_seed(3)
        self.sdf_network, self.feature_network = MLP([2, 8, 1]), MLP([2, 8, 3])
        self.voxels = torch.randn(prompts, 2, 8, 8, 8)

    def field(self, which=slice(None)):
        return VoxelField(
            voxels=self.voxels[which],
            sdf_network=self.sdf_network,
            feature_network=self.feature_network,
            radius=2.0,
            sphere_radius=0.8,
            eps=0.01,
        )


def some_rays(images, height=6, width=5):
    generator = torch.Generator().manual_seed(1)
    origins = F.normalize(torch.randn(images, 1, 1, 3, generator=generator), dim=-1) * 1.4
    directions = F.normalize(-origins + 0.3 * torch.randn(images, height, width, 3, generator=generator), dim=-1)
    return Rays(origins.expand_as(directions), directions)


@torch.no_grad()
def test_prompts_and_views_do_not_mix():
    """3 prompts with 2 views each, rendered together and one image at a time."""
    scene, rays, background = Lumpy(3), some_rays(6), torch.rand(6, 6, 5, 3)
    renderer = VolSDFRenderer(proposals=24, samples=12)
    together = renderer(scene.field(), rays, background)
    for image in range(6):
        one = slice(image, image + 1)
        alone = renderer(
            scene.field(slice(image // 2, image // 2 + 1)),
            Rays(rays.origins[one], rays.directions[one]),
            background[one],
        )
        torch.testing.assert_close(together.rgb[one], alone.rgb, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.depth[one], alone.depth, rtol=1e-4, atol=1e-5)
    assert (together.rgb[0] - together.rgb[2]).abs().max() > 0.01


@pytest.mark.parametrize("training", [False, True])
def test_chunks_change_nothing(training):
    scene, rays, background = Lumpy(2), some_rays(4), torch.rand(4, 6, 5, 3)
    random = (lambda: StepRandom(seed=0, step=5)) if training else (lambda: None)
    with torch.no_grad():
        whole = VolSDFRenderer(proposals=24, samples=12)(scene.field(), rays, background, random())
        parts = VolSDFRenderer(proposals=24, samples=12, chunk=40)(scene.field(), rays, background, random())
    for name in ("rgb", "opacity", "depth", "normal", "depth_variance"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-5, atol=1e-6, msg=name)
    assert parts.gradient is None


@pytest.mark.parametrize("prompts", [1, 2])
def test_half_precision_trains(prompts):
    """Generator, background and renderer under bfloat16 autocast: close to float32, all gradients finite."""
    torch.manual_seed(0)
    generator = Conv3DGenerator(text_dim=7, latent_dim=6, w_dim=10, resolution=16, widths=(12, 10, 8), channels=5)
    background, renderer = EnvironmentMap(), VolSDFRenderer(proposals=24, samples=12)
    text, rays = torch.randn(prompts, 7), some_rays(2)

    def render(half):
        random = StepRandom(seed=0, step=0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            behind = background(rays.directions, random=random)
            return renderer(generator(text, random=random), rays, behind, random)

    full, half = render(False), render(True)
    assert half.rgb.dtype == torch.float32
    assert (half.rgb - full.rgb).abs().mean() < 0.02
    half.rgb.mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in generator.parameters())
