"""Schedules against the reference's table and by hand."""

import pytest

from scaledreamer.cameras import RandomCameras
from scaledreamer.guidance.timesteps import TimestepSchedule
from scaledreamer.schedules import step_at, value_at


def test_by_hand():
    rising = [[0.8, 0], [1.0, 10]]
    assert [value_at(rising, p) for p in (0, 0.8, 0.9, 1.0)] == [0, 0, pytest.approx(5), 10]
    assert value_at(3, 0.4) == 3.0
    three = [[0, 0], [0.5, 10], [1, 0]]
    assert [value_at(three, p) for p in (0.25, 0.5, 0.75)] == [5, 10, 5]
    jump = [[0.4, 0], [0.4, 100]]
    assert [value_at(jump, p) for p in (0.3, 0.39, 0.41)] == [0, 0, 100]


def test_golden_table(goldens):
    """The reference's [start, value, end value, end] lists, as fractions of a run of 300,000 steps."""
    facts = goldens("optim_schedules").meta["facts"]["C"]
    run, checked = 300_000, 0
    for spec, values in zip(facts["specs"], facts["values"], strict=True):
        spec = [0, *spec] if isinstance(spec, list) and len(spec) == 3 else spec
        if not isinstance(spec, list) or len(spec) != 4 or isinstance(spec[3], float):
            continue  # constants, and forms that count epochs
        start, first, last, end = spec
        schedule = [[start / run, first], [end / run, last]]
        for step, expected in zip(facts["steps"], values, strict=False):
            assert value_at(schedule, step / run) == pytest.approx(expected, abs=1e-9), (spec, step)
            checked += 1
    assert checked > 200


def test_golden_timestep_bounds(goldens):
    facts = goldens("optim_schedules").meta["facts"]["min_max_step_int"]
    schedule = TimestepSchedule()
    for step, low, high in zip(facts["steps"], facts["min_step"], facts["max_step"], strict=True):
        found = schedule.bounds(min(step / 50_000, 1), 1000)
        # At a few steps the exact bound is a whole number and rounding decides between it and the one below.
        assert found[0] == pytest.approx(low, abs=1)
        assert found[1] == pytest.approx(high, abs=1)


def test_steps_jump():
    sizes = [[0, 64], [0.4, 256], [0.9, 512]]
    assert [step_at(sizes, p) for p in (0, 0.3999, 0.4, 0.8, 0.9, 1)] == [64, 64, 256, 256, 512, 512]
    assert step_at(32, 0.7) == 32
    assert step_at([[0.5, 8], [0.5, 16]], 0.2) == 8
    # The reference's milestone: from step 10,000 of 25,000 on.
    assert [step_at(sizes, step / 25_000) for step in (9_999, 10_000)] == [64, 256]
    assert [RandomCameras(image_size=((0, 64), (0.4, 256))).size_at(p) for p in (0.1, 0.5)] == [64, 256]
