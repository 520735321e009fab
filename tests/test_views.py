"""View prompts and Perp-Neg against the reference's table and by hand."""

import math

import pytest
import torch
from fakes import Angles

from scaledreamer.guidance.views import BACK, FRONT, OVERHEAD, SIDE, PlainPrompt, ViewPrompts, perp_neg, wrap


def angles(azimuth, elevation=0.0):
    azimuth = torch.as_tensor(azimuth, dtype=torch.float32)
    elevation = torch.as_tensor(elevation, dtype=torch.float32).expand_as(azimuth)
    return Angles(azimuth=azimuth, elevation=elevation)


@pytest.mark.parametrize("threshold", [30, 45])
def test_golden_directions_and_weights(goldens, threshold):
    golden = goldens("prompt_directions")
    cameras = angles(golden.tensors["in.azimuth"], golden.tensors["in.elevation"])
    case = golden.case(f"thr{threshold}.out")
    views = ViewPrompts(front_threshold=threshold, back_threshold=threshold)
    torch.testing.assert_close(wrap(cameras.azimuth), golden.tensors["out.azimuth_shifted"], rtol=0, atol=1e-4)
    assert torch.equal(views.direction(cameras), case["direction_idx"].long())
    shares, sources, weights = perp_neg(cameras.azimuth, cameras.elevation > 60)
    torch.testing.assert_close(shares, case["pos_coeffs"], rtol=0, atol=1e-6)
    torch.testing.assert_close(weights, case["neg_guidance_weights"], rtol=0, atol=1e-6)
    active = case["neg_guidance_weights"] != 0
    assert active.any()
    assert torch.equal(sources[active], case["neg_source"].long()[active])


def test_directions_by_hand():
    found = ViewPrompts().direction(angles([0, 29, 31, -29, 151, -151, 149, 181, 359, 90]))
    expected = [FRONT, FRONT, SIDE, FRONT, BACK, BACK, SIDE, BACK, FRONT, SIDE]
    assert found.tolist() == expected
    assert ViewPrompts().direction(angles([0, 180], elevation=61)).tolist() == [OVERHEAD, OVERHEAD]


def test_perp_neg_by_hand():
    """At 45 degrees r = 1/2 on both sides; at 135 the interpolation is between side and back."""
    shares, sources, weights = perp_neg(torch.tensor([45.0, 135.0]), torch.tensor([False, False]))
    torch.testing.assert_close(shares, torch.tensor([[0.5, 0.5, 0, 0], [0.5, 0, 0.5, 0]]))
    assert sources.tolist() == [[FRONT, SIDE], [SIDE, FRONT]]
    near, far = 4 * math.exp(-0.25) - 2.426, math.exp(-0.25)
    torch.testing.assert_close(weights, -torch.tensor([[near, near], [far - 0.606, far + 0.967]]))


def tokens(prompts=3):
    """Prompt p worded by template k is the number 10 p + k."""
    return (10 * torch.arange(prompts)[:, None] + torch.arange(4))[..., None, None].float()


def test_condition_picks_each_images_words():
    cameras = angles([0, 180, 90, 0, 180, 90], elevation=[0, 0, 0, 80, 0, 0])  # two views of three prompts
    words = ViewPrompts(perp_neg=0).condition(tokens(), cameras)
    assert words.positive.flatten().tolist() == [FRONT, BACK, 10 + SIDE, 10 + OVERHEAD, 20 + BACK, 20 + SIDE]
    assert words.negatives.shape == (6, 0, 1, 1)


def test_condition_interpolates_and_pairs_negatives_with_their_own_image():
    cameras = angles([45, 135, 0])
    words = ViewPrompts(perp_neg=0.5).condition(tokens(), cameras)
    torch.testing.assert_close(words.positive.flatten(), torch.tensor([0.5, 11.0, 21.0]))
    assert words.negatives.flatten(1).tolist() == [[1, 0], [10, 11], [21, 20]]
    _, _, weights = perp_neg(cameras.azimuth, torch.zeros(3, dtype=torch.bool))
    torch.testing.assert_close(words.weights, 0.5 * weights)


def test_a_plain_prompt_is_the_same_from_everywhere():
    words = PlainPrompt().condition(tokens()[:, :1], angles([0, 180, 90, 0, 180, 90]))
    assert words.positive.flatten().tolist() == [0, 0, 10, 10, 20, 20]
    assert words.weights.shape == (6, 0)
