"""What a run leaves in each logger, in its folder and on the screen."""

import csv
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import ROOT, TINY, python
from PIL import Image

from scaledreamer.training.progress import Meter

STEPS, EVERY = 4, 2


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two runs with every logger in one process, in ``sweep/0`` and ``sweep/1`` of a folder: the second one fails.

    Its last line says whether W&B's run was left open.
    """
    folder = tmp_path_factory.mktemp("loggers")
    script = f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')"
    code = f"import runpy, wandb\ntry: {script}\nfinally: print('left open' if wandb.run else 'closed')"
    options = [
        *("--multirun", "optimizer.lr=0.004,1e30", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=${hydra:job.num}"),
        *("logger=[tensorboard,wandb]", "corpus=prompt", "corpus.prompt='a corgi, sitting'", *TINY),
        *(f"trainer.max_steps={STEPS}", f"callbacks.previews.every={EVERY}", "callbacks.progress.line_every=0.001"),
    ]
    return python("-c", code, *options, folder=folder)


@pytest.fixture(scope="module")
def run(sweep):
    """The folder of the run that did not fail."""
    done = re.findall(r"Done: (\d) steps\. Checkpoints, .*configuration: (\S+)$", sweep.stdout, re.MULTILINE)
    assert [steps for steps, _ in done] == [str(STEPS)], sweep.stderr
    return Path(done[0][1])


def csv_curves(run: Path) -> dict[str, dict[int, float]]:
    """name -> step -> value."""
    curves: dict[str, dict[int, float]] = {}
    with open(run / "csv" / "metrics.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            step = int(row.pop("step"))
            for name, value in row.items():
                if value:
                    curves.setdefault(name, {})[step] = float(value)
    return curves


def wandb_records(path: Path) -> Iterator[Any]:
    """Records of a ``.wandb`` file: 7 bytes of header, then LevelDB's log format in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

    data, block, head, full, last = path.read_bytes(), 32768, 7, 1, 4
    assert data[:4] == b":W&B"
    at, content = head, b""
    while at + head <= len(data):
        if block - at % block < head:  # too little left in the block for a chunk
            at += block - at % block
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)  # after the checksum
        content += data[at + head : at + head + length]
        at += head + length
        if kind in (full, last):
            yield Record.FromString(content)
            content = b""


def wandb_rows(run: Path) -> list[dict[str, Any]]:
    """What was logged, a dict for each call."""
    (path,) = run.glob("wandb/offline-run-*/*.wandb")
    rows = [record.history.item for record in wandb_records(path) if record.HasField("history")]
    return [{i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items} for items in rows]


def test_figures_are_grouped(run):
    curves = csv_curves(run)
    groups = {name.partition("/")[0] for name in curves}
    assert groups == {"train", "val", "weight", "epoch"}
    assert {"train/loss", "train/distillation", "train/opacity", "train/grad_norm", "val/opacity"} <= set(curves)
    assert sorted(curves["train/loss"]) == list(range(STEPS))
    assert sorted(curves["val/opacity"]) == [EVERY, STEPS]  # after so many steps


def test_the_loss_is_its_weighed_parts(run):
    curves = csv_curves(run)
    for step in range(STEPS):
        parts = [n.removeprefix("weight/") for n in curves if n.startswith("weight/")]
        total = sum(curves[f"weight/{n}"][step] * curves[f"train/{n}"][step] for n in parts)
        assert curves["train/loss"][step] == pytest.approx(total, rel=1e-5)


def test_tensorboard_has_the_same_figures_and_the_picture(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    curves = csv_curves(run)
    assert set(events.Tags()["scalars"]) == set(curves)
    for name, curve in curves.items():
        assert {e.step: e.value for e in events.Scalars(name)} == pytest.approx(curve, rel=1e-6), name
    pictures = events.Images("val/preview")
    assert [(p.step, p.width, p.height) for p in pictures] == [(EVERY, 72, 24), (STEPS, 72, 24)]


def test_wandb_has_the_same_figures_offline(run):
    curves: dict[str, dict[int, float]] = {}
    for row in wandb_rows(run):
        for name, value in row.items():
            if not name.startswith(("_", "trainer/", "val/preview/")):
                curves.setdefault(name, {})[row["trainer/global_step"]] = value
    expected = csv_curves(run)
    assert set(curves) == set(expected)
    for name, curve in expected.items():
        assert curves[name] == pytest.approx(curve, rel=1e-6), name


def test_wandb_has_the_picture(run):
    logged = [row for row in wandb_rows(run) if "val/preview/filenames" in row]
    assert [row["val/preview/captions"] for row in logged] == [["a corgi, sitting"]] * 2
    (files,) = run.glob("wandb/offline-run-*/files")
    for row, step in zip(logged, (EVERY, STEPS), strict=True):
        theirs = Image.open(files / row["val/preview/filenames"][0])
        ours = Image.open(run / "previews" / f"step-{step:07d}.png")
        assert np.array_equal(np.asarray(theirs), np.asarray(ours))


def test_previews_show_something(run):
    assert sorted(p.name for p in (run / "previews").iterdir()) == ["step-0000002.png", "step-0000004.png"]
    picture = np.asarray(Image.open(run / "previews" / "step-0000002.png"))
    assert picture.shape == (24, 3 * 24, 3)  # a row per prompt, a column per view
    assert picture.std() > 0


def test_lines_of_progress_where_there_is_no_terminal(sweep):
    line = r"^step (\d)/4  loss \d\S*  opacity \d\S*  \d\S* (?:steps/s|s/step)  \w+ left$"
    assert re.findall(line, sweep.stderr, re.MULTILINE)[:STEPS] == ["1", "2", "3", "4"]
    assert "\x1b" not in sweep.stderr


def test_the_end_says_where_everything_is(sweep, run):
    assert run.is_absolute()
    for name in ("config.yaml", "launches.jsonl", "train.log", "checkpoints/last.ckpt", "csv/metrics.csv"):
        assert (run / name).stat().st_size > 0
    assert f"wandb sync {run}/wandb/offline-*" in sweep.stdout


def test_nothing_is_said_twice(sweep):
    first = sweep.stdout.partition("Done: ")[0] + sweep.stderr.partition(f"step {STEPS}/{STEPS}")[0]
    lines = [re.sub(r"^\[.*\] - |^INFO: ", "", line) for line in first.splitlines()]
    ours = [line for line in lines if line and not line.startswith("wandb:")]
    assert len(ours) == len(set(ours))
    assert not [line for line in ours if "litlogger" in line or "LeafSpec" in line or "weights_only" in line]


def test_wandb_is_closed_also_when_a_run_fails(sweep, run):
    assert sweep.returncode == 1
    assert "error: the loss is nan at step" in sweep.stderr
    assert sweep.stdout.splitlines()[-1] == "closed"
    failed = [row for row in wandb_rows(run.parent / "1") if "train/loss" in row]  # a file of its own
    assert 0 < len(failed) < STEPS


def test_a_pause_does_not_pass_for_the_speed_of_the_run():
    meter = Meter(horizon=30)
    for step in range(11):
        meter.tick(step, now=float(step))  # one step a second ...
    meter.tick(11, now=65.0)  # ... then a preview of 54 s
    assert meter.rate == pytest.approx(11 / 65)
