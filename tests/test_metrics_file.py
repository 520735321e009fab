"""The table of a run's figures, unbroken and resumed."""

import csv

import pytest
import torch

from scaledreamer.training.metrics_file import MetricsFile


def rows(path):
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def log(file: MetricsFile, step: int, **figures) -> None:
    file.log_metrics({"epoch": 0, **{name: torch.tensor(float(value)) for name, value in figures.items()}}, step)
    file.save()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "csv" / "metrics.csv"


def test_rows_and_columns_grow(path):
    file = MetricsFile(path=path)
    assert not path.exists()
    log(file, 0, loss=3)
    log(file, 1, loss=2)
    log(file, 2, opacity=0.5)
    log(file, 2, loss=1)
    assert rows(path) == [
        {"epoch": 0, "step": 0, "loss": 3},
        {"epoch": 0, "step": 1, "loss": 2},
        {"epoch": 0, "step": 2, "opacity": 0.5},
        {"epoch": 0, "step": 2, "loss": 1},
    ]
    assert path.read_text().splitlines()[0] == "epoch,loss,opacity,step"


def test_a_resumed_run_goes_on(path):
    """The first run logged up to step 5, its checkpoint is of step 3, whose picture it had already made."""
    first = MetricsFile(path=path)
    for step in range(6):
        log(first, step, loss=step)
        if step == 2:
            log(first, 3, opacity=0.5)
    second = MetricsFile(path=path)
    before = path.read_text()
    second.save()
    second.finalize("failed")
    assert path.read_text() == before  # nothing was logged yet
    log(second, 3, loss=30, grad_norm=1)
    log(second, 4, loss=40, grad_norm=1)
    assert [(r["step"], r["loss"]) for r in rows(path) if "loss" in r] == [(0, 0), (1, 1), (2, 2), (3, 30), (4, 40)]
    assert [r["step"] for r in rows(path) if "opacity" in r] == [3]


def test_half_a_line_is_left_out(path):
    log(MetricsFile(path=path), 0, loss=3)
    with path.open("a") as file:
        file.write("0,")
    log(MetricsFile(path=path), 1, loss=2)
    assert [r["loss"] for r in rows(path)] == [3, 2]
