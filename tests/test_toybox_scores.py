"""The toybox's measures, by hand; the report of a run."""

import math

import pytest
import torch

from scaledreamer.cameras import RandomCameras
from scaledreamer.corpora.corpus import spread
from scaledreamer.toybox.scores import Views, color_error, iou, sphere_opacity, upright


def views(rgb: torch.Tensor, opacity: torch.Tensor | None = None) -> Views:
    return Views(rgb=rgb, opacity=torch.ones(rgb.shape[:-1]) if opacity is None else opacity)


def test_iou_counts_pixels_above_a_half():
    one = torch.tensor([[[0.9, 0.6], [0.4, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    other = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.5]]])
    assert iou(one, other).tolist() == [pytest.approx(1 / 3), 1.0]


def test_color_error_looks_where_both_are():
    ours, truth = torch.zeros(2, 1, 1, 2, 3), torch.zeros(2, 1, 1, 2, 3)
    truth[0, 0, 0, 0] = torch.tensor([0.3, 0.0, 0.6])
    truth[0, 0, 0, 1] = 1.0
    both = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 0.0]]]])
    assert color_error(views(ours, both), views(truth)).tolist() == [pytest.approx(0.3), 1.0]


def test_upright_tells_a_quarter_turn():
    truth = torch.rand(3, 8, 4, 4, 3)
    ours = truth.clone()
    ours[1] = truth[1].roll(2, dims=0)
    ours[2] = truth[2].roll(4, dims=0)
    assert upright(views(ours), views(truth)).tolist() == [1.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="quarter"):
        upright(views(ours[:, :6]), views(truth[:, :6]))


def test_a_sphere_covers_its_disc():
    cameras = RandomCameras(test_distance=3.0, test_fovy=40.0).orbit(4)
    covered = sphere_opacity(cameras, 128, radius=0.6).mean(dim=(1, 2))
    # A ball of radius r at distance d shows a disc of radius r / sqrt(d^2 - r^2) where the picture reaches tan(20).
    disc = math.pi * 0.36 / (9 - 0.36) / (2 * math.tan(math.radians(20))) ** 2
    torch.testing.assert_close(covered, torch.full((4,), disc), rtol=0.01, atol=0)


def test_spread_is_even_and_complete():
    assert spread(range(10), 5) == [0, 2, 4, 6, 8]
    assert spread("abc", 9) == ["a", "b", "c"]
