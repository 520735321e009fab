"""Environment map and spherical harmonics."""

import math

import torch
from torch.nn import functional as F

from scaledreamer.backgrounds import EnvironmentMap
from scaledreamer.randomness import StepRandom
from scaledreamer.spherical_harmonics import spherical_harmonics


def test_harmonics_at_the_axes():
    """Y_00 = 1/(2 sqrt(pi)) everywhere; along +z only m = 0 is left: sqrt(3/(4 pi)), sqrt(5/(4 pi))."""
    up = spherical_harmonics(torch.tensor([0.0, 0.0, 1.0]))
    expected = torch.zeros(9)
    expected[[0, 2, 6]] = torch.tensor([1.0, 3**0.5, 5**0.5]) / (2 * math.pi**0.5)
    torch.testing.assert_close(up, expected)


def test_harmonics_are_orthonormal():
    generator = torch.Generator().manual_seed(0)
    directions = F.normalize(torch.randn(200_000, 3, generator=generator), dim=-1)
    basis = spherical_harmonics(directions)
    gram = 4 * math.pi * basis.t() @ basis / len(directions)
    torch.testing.assert_close(gram, torch.eye(9), rtol=0, atol=0.02)


def directions(images=64):
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(images, 4, 4, 3, generator=generator), dim=-1)


def test_training_replaces_half_of_the_images_by_one_colour_each():
    background = EnvironmentMap(random_color_probability=0.5)
    found = background(directions(), random=StepRandom(seed=0, step=0))
    flat = (found.flatten(1, 2).std(dim=1) < 1e-6).all(dim=-1)
    assert 20 <= int(flat.sum()) <= 44  # 32 +- 3 deviations
    colors = found[flat, 0, 0]
    assert (colors[1:] - colors[:-1]).abs().min(dim=0).values.max() > 0
    torch.testing.assert_close(found[~flat], background(directions())[~flat])


def test_evaluation_and_probability_zero_show_the_map():
    background = EnvironmentMap(random_color_probability=0.0)
    torch.testing.assert_close(background(directions(), random=StepRandom(seed=0, step=0)), background(directions()))
    assert background(directions()).flatten(1, 2).std(dim=1).min() > 0


def test_the_widened_sigmoid_reaches_both_ends():
    background = EnvironmentMap(widened=True)
    torch.nn.init.constant_(background.network.layers[4].weight, 1e4)
    torch.nn.init.constant_(background.network.layers[0].weight, 1.0)
    torch.nn.init.constant_(background.network.layers[2].weight, 1.0)
    color = background(torch.tensor([0.0, 0.0, 1.0]).expand(1, 1, 1, 3))
    torch.testing.assert_close(color, torch.full_like(color, 1.001))


def test_published_layout(goldens):
    keys = goldens("reference_checkpoint_layout").meta["configs"]["DF415_3dconv_net"]["keys"]
    theirs = {k.removeprefix("background."): v["shape"] for k, v in keys.items() if k.startswith("background.network")}
    assert theirs == {k: list(v.shape) for k, v in EnvironmentMap().state_dict().items()}
