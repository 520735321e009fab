"""The small parts around the training loop: meter, guard, run folder, resume."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch
import yaml

from scaledreamer.config.resolvers import run_folder
from scaledreamer.errors import UserError
from scaledreamer.training.directory import record
from scaledreamer.training.guard import CollapseGuard
from scaledreamer.training.progress import Meter, duration


def test_meter_measures_its_horizon_only():
    meter = Meter(horizon=10)
    assert meter.rate == 0
    for second in range(11):
        meter.tick(second, now=float(second))  # one step a second ...
    assert meter.rate == pytest.approx(1)
    for second in range(11, 41):
        meter.tick(10 + 5 * (second - 10), now=float(second))  # ... then five
    assert meter.rate == pytest.approx(5)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (75, "1m15s"), (3600, "1h0m"), (90061, "1d1h")]
)
def test_duration_shows_the_two_largest_units(seconds, text):
    assert duration(seconds) == text


def trainer_at(opacity: float, loss: float = 1.0) -> SimpleNamespace:
    figures = {"train/opacity": torch.tensor(opacity), "train/loss": torch.tensor(loss)}
    return SimpleNamespace(logged_metrics=figures, log_every_n_steps=10)


def test_guard_warns_once_after_its_patience(caplog):
    guard = CollapseGuard(empty=0.01, patience=50)
    with caplog.at_level(logging.WARNING):
        for step in range(10, 200, 10):
            guard.on_step(trainer_at(0.001), None, step)
    assert len(caplog.records) == 1
    assert "empty since step 10" in caplog.text


def test_guard_forgives_a_passing_emptiness(caplog):
    guard = CollapseGuard(empty=0.01, patience=50)
    for step in range(10, 400, 10):
        guard.on_step(trainer_at(0.3 if step % 50 == 0 else 0.001), None, step)
    assert not caplog.records


def test_guard_stops_at_a_loss_that_is_no_number():
    with pytest.raises(UserError, match=r"the loss is nan at step 20"):
        CollapseGuard().on_step(trainer_at(0.3, float("nan")), None, 20)


def test_run_folder_continues_the_run_it_resumes(tmp_path):
    assert run_folder(str(tmp_path), "a", "auto") not in [str(p) for p in tmp_path.glob("a/*")]
    for time in ("2026-01-01_00-00-00", "2026-01-02_00-00-00"):
        (tmp_path / "a" / time / "checkpoints").mkdir(parents=True)
        (tmp_path / "a" / time / "checkpoints" / "last.ckpt").touch()
        (tmp_path / "a" / time / "config.yaml").touch()
    (tmp_path / "a" / "2026-01-03_00-00-00").mkdir()  # crashed before its first checkpoint
    assert run_folder(str(tmp_path), "a", "auto") == str(tmp_path / "a" / "2026-01-02_00-00-00")
    first = tmp_path / "a" / "2026-01-01_00-00-00"
    assert run_folder("elsewhere", "b", str(first)) == str(first)
    assert run_folder("elsewhere", "b", str(first / "checkpoints" / "last.ckpt")) == str(first)
    assert run_folder(str(tmp_path), "b", str(tmp_path / "lonely.ckpt")).startswith(str(tmp_path / "b"))


def test_record_writes_what_a_run_was(tmp_path):
    record(tmp_path / "run", {"seed": 3, "resume": None})
    record(tmp_path / "run", {"seed": 3, "resume": "auto"})
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text()) == {"seed": 3, "resume": "auto"}
    launches = [json.loads(line) for line in (tmp_path / "run" / "launches.jsonl").read_text().splitlines()]
    assert [launch["resume"] for launch in launches] == [None, "auto"]
    assert launches[0]["packages"]["torch"] == torch.__version__
    assert "pytest" in launches[0]["command"]


def test_an_unwritable_folder_is_a_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write the run's folder"):
        record(tmp_path / "file" / "run", {})
