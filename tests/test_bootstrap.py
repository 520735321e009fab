"""Intervals of means, against what is known of them."""

import pytest
import torch

from scaledreamer import bootstrap
from scaledreamer.bootstrap import gap, interval


def test_interval_of_a_coin():
    mean, low, high = interval(torch.tensor([0.0, 1.0] * 50))
    assert mean == 0.5
    # Normal approximation: 1.96 * sqrt(0.25 / 100) = 0.098.
    assert (low, high) == (pytest.approx(0.402, abs=0.02), pytest.approx(0.598, abs=0.02))
    assert interval(torch.ones(5)) == (1.0, 1.0, 1.0)


def test_gap_of_two_coins():
    fair, loaded = torch.tensor([0.0, 1.0] * 50), torch.tensor([1.0, 1.0, 1.0, 0.0] * 50)
    mean, low, high = gap(loaded, fair)
    assert mean == 0.25
    # 1.96 * sqrt(0.25 / 100 + 0.1875 / 200) = 0.115: the two are drawn apart.
    assert (low, high) == (pytest.approx(0.135, abs=0.02), pytest.approx(0.365, abs=0.02))
    assert gap(fair, loaded)[0] == -0.25
    assert gap(torch.ones(3), torch.zeros(4)) == (1.0, 1.0, 1.0)


def test_drawing_in_parts_changes_nothing(monkeypatch):
    values = torch.rand(70, generator=torch.Generator().manual_seed(3))
    whole = interval(values)
    for at_once in (1, 700, 7 * 70):
        monkeypatch.setattr(bootstrap, "_AT_ONCE", at_once)
        assert interval(values) == whole
