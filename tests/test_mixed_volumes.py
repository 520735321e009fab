"""The toybox's generator: learned volumes mixed by the text."""

import math

import pytest
import torch
from torch.nn import functional as F

from scaledreamer.generators.mixed_volumes import MixedVolumesGenerator
from scaledreamer.generators.mixing import COARSEST, Mix
from scaledreamer.training.saved_weights import SavedWeights, load_weights


def generator(**options):
    torch.manual_seed(0)
    return MixedVolumesGenerator(text_dim=6, **{"w_dim": 8, "resolution": 16, "volumes": 5, "channels": 4, **options})


def test_mix_by_hand():
    mix = Mix(w_dim=2, volumes=3, channels=1, resolution=2, std=1.0)
    with torch.no_grad():
        mix.weights.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        mix.weights.bias.copy_(torch.tensor([0.0, 0.0, 2.0]))
    found = mix(torch.tensor([[2.0, 3.0]]))
    first, second, third = mix.volumes.detach()
    torch.testing.assert_close(found[0], 2 * first + 3 * second + 7 * third)


@pytest.mark.parametrize("options", [{}, {"color_channels": 3, "activation": "relu"}])
def test_a_batch_equals_its_samples(options):
    g = generator(**options)
    for parameter in g.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    text = torch.randn(3, 6)
    together = g.voxels(text)
    assert together.shape == (3, 4, 16, 16, 16)
    torch.testing.assert_close(together, torch.cat([g.voxels(row) for row in text.split(1)]), rtol=1e-4, atol=1e-5)


def test_starts_smooth_and_near_the_sphere():
    g = generator(sphere_radius=0.6)
    voxels = g.voxels(torch.randn(2, 6))
    # Nothing finer than the coarsest volumes: what they hold is what is left of the field at their resolution.
    coarse = F.interpolate(voxels, (2 * COARSEST,) * 3, mode="trilinear", align_corners=True)
    back = F.interpolate(coarse, voxels.shape[2:], mode="trilinear", align_corners=True)
    assert (voxels - back).std() < 0.2 * voxels.std()
    field = g(torch.randn(2, 6))
    points = torch.tensor([[[0.95, 0.0, 0.0], [0.0, 0.0, 0.0]]]).expand(2, -1, -1)
    outside, inside = field.sdf(points).unbind(dim=1)
    assert (outside > 0).all()
    assert (inside < 0).all()


@pytest.mark.parametrize("options", [{}, {"color_channels": 3, "activation": "relu"}])
def test_every_parameter_learns(options):
    g = generator(placement_rate=0.02, modulation_rate=0.1, **options)
    optimizer = torch.optim.SGD(g.parameters(), lr=0.001)
    before = [p.clone() for p in g.parameters()]
    for _ in range(2):  # volumes that start at zero reach their weights in the second step
        optimizer.zero_grad()
        found = g(torch.randn(4, 6)).query(torch.rand(4, 200, 3) - 0.5)
        ((found.sdf - 1).square().sum() + found.color.square().sum()).backward()
        optimizer.step()
    assert all((p != b).any() for p, b in zip(g.parameters(), before, strict=True))


def test_the_text_places_the_form():
    g = generator(placement_rate=0.5)
    text, points = torch.randn(2, 6), torch.rand(2, 40, 3) - 0.5
    left = g(text).query(points)
    with torch.no_grad():
        g.placement.bias.copy_(torch.tensor([0.2, -0.4, 0.0, 2 * math.log(1.25)]))  # half of it counts
    moved = g(text).query(points * 1.25 + torch.tensor([0.1, -0.2, 0.0]))
    torch.testing.assert_close(moved.sdf, 1.25 * left.sdf)
    torch.testing.assert_close(moved.color, left.color)
    torch.testing.assert_close(moved.gradient, left.gradient)


def test_rates_change_how_fast_is_learned_not_what_is_first():
    slow, fast = generator(modulation_rate=0.1), generator(modulation_rate=1.0)
    text, points = torch.randn(2, 6), torch.rand(2, 40, 3) - 0.5
    torch.testing.assert_close(slow(text).sdf(points), fast(text).sdf(points), rtol=1e-4, atol=1e-5)
    for g in (slow, fast):
        g.voxels(text).sum().backward()
    slowed, at_full_pace = (g.volumes.modulation.weight.grad for g in (slow, fast))
    torch.testing.assert_close(slowed, 0.1 * at_full_pace, rtol=1e-3, atol=1e-5)


def test_colours_and_distances_are_of_volumes_of_their_own():
    g = generator(color_channels=3, activation="relu")
    found = g(torch.randn(2, 6)).query(torch.rand(2, 40, 3) - 0.5)
    found.sdf.sum().backward(retain_graph=True)
    assert all(p.grad is None or not p.grad.any() for p in g.colors.parameters())
    assert g.volumes.outputs.weight.grad.any()
    g.zero_grad()
    found.color.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in g.volumes.parameters())
    assert g.colors.outputs.weight.grad.any()


def test_reads_weights_from_before_colours_could_be_apart(tmp_path):
    g, text = generator(placement_rate=0.02), torch.randn(2, 6)
    before = {name.replace("volumes.", "", 1): value.clone() for name, value in g.state_dict().items()}
    assert {"coarse.0.weights.weight", "coarse.0.volumes", "fine.volumes", "outputs.bias"} <= set(before)
    expected = g.voxels(text)
    for parameter in g.parameters():
        torch.nn.init.zeros_(parameter)
    tensors = {f"generator.{name}": value for name, value in before.items()}
    load_weights({"generator": g}, SavedWeights(path=tmp_path / "old.ckpt", tensors=tensors, step=800, made_by={}))
    torch.testing.assert_close(g.voxels(text), expected)
