"""What a run leaves in each logger, in its folder and on the screen."""

import csv
import json
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from commands import ROOT, TINY, python
from PIL import Image

from scaledreamer.errors import UserError
from scaledreamer.training import logged, loggers
from scaledreamer.training.progress import Meter
from scaledreamer.training.wandb_run import WandbRun, has_key

STEPS, EVERY = 4, 2
NOTES = "four steps, told apart"
MEDIA = ("val/preview/", "val/turntable/", "val/mesh/")


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
        *("callbacks.showcase.prompts=1", "callbacks.showcase.frames=3", "callbacks.showcase.size=24"),
        *(
            "callbacks.showcase.resolution=16",
            "logger.wandb.checkpoints=kept",
            f"callbacks.checkpoints.keep_every={EVERY}",
        ),
        *(f"logger.wandb.notes='{NOTES}'", "logger.wandb.tags=[corgi,trial]"),
    ]
    return python("-c", code, *options, folder=folder, PYTHONPATH=str(ROOT))  # as for python train.py


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


def records(run: Path, kind: str) -> list[Any]:
    """The records of one kind of a run's only file."""
    (path,) = run.glob("wandb/offline-run-*/*.wandb")
    return [getattr(record, kind) for record in wandb_records(path) if record.HasField(kind)]


def values(items: Any) -> dict[str, Any]:
    """name -> value of what W&B keeps as keys and JSON."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def wandb_rows(run: Path) -> list[dict[str, Any]]:
    """What was logged, a dict for each call."""
    return [values(history.item) for history in records(run, "history")]


def test_figures_are_grouped(run):
    curves = csv_curves(run)
    groups = {name.partition("/")[0] for name in curves}
    assert groups == {"train", "val", "weight", "speed", "epoch"}
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
            if not name.startswith(("_", "trainer/", *MEDIA)):
                curves.setdefault(name, {})[row["trainer/global_step"]] = value
    expected = csv_curves(run)
    assert set(curves) == set(expected)
    for name, curve in expected.items():
        assert curves[name] == pytest.approx(curve, rel=1e-6), name


def test_every_name_is_in_the_table(run):
    names = {*csv_curves(run), *(n for row in wandb_rows(run) for n in row if not n.startswith(("_", "trainer/")))}
    media = {name.rpartition("/")[0] for name in names if name.startswith(MEDIA)}
    assert media == {name.rstrip("/") for name in MEDIA}
    names = {name for name in names if name.rpartition("/")[0] not in media} | media
    assert not [name for name in names if sum(family.matches(name) for family in logged.LOGGED) != 1]


def test_gradients_of_groups_make_up_the_whole(run):
    curves = csv_curves(run)
    for step in range(STEPS):
        parts = [curves[f"train/grad_norm/{group}"][step] for group in ("generator", "background")]
        assert curves["train/grad_norm"][step] == pytest.approx(sum(p**2 for p in parts) ** 0.5, rel=1e-5)


def test_timesteps_stay_in_the_range_that_is_logged(run):
    curves = csv_curves(run)
    # The bounds fall linearly over the run: [0.5, 0.98] of 1000 at its start, [0.02, 0.5] at its end.
    assert [curves["train/t_min"][step] for step in range(STEPS)] == [500, 380, 260, 140]
    assert [curves["train/t_max"][step] for step in range(STEPS)] == [980, 860, 740, 620]
    assert all(curves["train/t_min"][s] <= curves["train/t"][s] <= curves["train/t_max"][s] for s in range(STEPS))


def test_speed_counts_the_prompts_of_a_step(run):
    curves = csv_curves(run)
    assert sorted(curves["speed/steps_per_second"]) == list(range(STEPS))
    assert curves["speed/prompts_per_second"] == pytest.approx(curves["speed/steps_per_second"])  # one prompt a step


def test_wandb_knows_the_run(run):
    (began,) = records(run, "run")
    assert (began.project, began.run_group, began.notes) == ("scaledreamer", "sweep", NOTES)
    assert began.display_name == "3dconv_prompt_asd_sd_tiny/0"
    assert list(began.tags) == ["corgi", "trial"]
    config = values(began.config.update)
    config.pop("_wandb", None)
    assert config == yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    kept = json.loads((run / "wandb" / "run.json").read_text("utf-8"))
    assert kept == {"id": began.run_id, "name": began.display_name}
    assert re.fullmatch(r"sweep-0-[0-9a-f]{8}", began.run_id)


def test_wandb_ends_with_the_final_figures(run):
    summary: dict[str, Any] = {}
    for record in records(run, "summary"):
        summary |= values(record.update)
    for name, curve in csv_curves(run).items():
        assert summary[name] == pytest.approx(curve[max(curve)], rel=1e-6), name
    assert [end.exit_code for end in records(run, "exit")] == [0]


def test_wandb_has_turntable_and_mesh(run):
    (files,) = run.glob("wandb/offline-run-*/files")
    for name, suffix in (("val/turntable", ".mp4"), ("val/mesh", ".glb")):
        (row,) = [row for row in wandb_rows(run) if any(n.startswith(f"{name}/") for n in row)]
        assert row["trainer/global_step"] == STEPS
        (ours,) = (run / "showcase" / f"step-{STEPS:07d}").glob(f"*{suffix}")
        theirs = {file.read_bytes() for file in files.rglob(f"*{suffix}")}
        assert theirs == {ours.read_bytes()}
        if suffix == ".mp4":  # W&B shows no captions of lists of meshes
            assert row[f"{name}/captions"] == ["a corgi, sitting"]


def test_wandb_has_the_checkpoints_that_are_kept(run):
    artifacts = records(run, "artifact")
    (began,) = records(run, "run")
    assert [a.name for a in artifacts] == [f"checkpoint-{began.run_id}"] * 2
    assert [{*a.aliases} for a in artifacts] == [{"latest", f"step-{s}"} for s in (EVERY, STEPS)]
    paths = [entry.local_path for a in artifacts for entry in a.manifest.contents]
    assert paths == [str(run / "checkpoints" / f"step-{s:07d}.ckpt") for s in (EVERY, STEPS)]  # read where they are


def test_tensorboard_compares_runs_by_their_options(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.metadata import parse_experiment_plugin_data, parse_session_start_info_plugin_data

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    content = events.PluginTagToContent("hparams")
    options = parse_session_start_info_plugin_data(content["_hparams_/session_start_info"]).hparams
    assert options["optimizer.lr"].number_value == 0.004
    assert options["guidance.rule._target_"].string_value == "scaledreamer.guidance.rules.asd"
    compared = parse_experiment_plugin_data(content["_hparams_/experiment"]).metric_infos
    assert [info.name.tag for info in compared] == list(logged.COMPARED)


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
    assert "the loss is nan at step" in sweep.stderr
    assert sweep.stdout.splitlines()[-1] == "closed"
    failed = [row for row in wandb_rows(run.parent / "1") if "train/loss" in row]  # a file of its own
    assert 0 < len(failed) < STEPS
    assert [end.exit_code for end in records(run.parent / "1", "exit")] == [1]


def test_a_pause_does_not_pass_for_the_speed_of_the_run():
    meter = Meter(horizon=30)
    for step in range(11):
        meter.tick(step, now=float(step))  # one step a second ...
    meter.tick(11, now=65.0)  # ... then a preview of 54 s
    assert meter.rate == pytest.approx(11 / 65)


# -- W&B's key and identity ----------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty home, without settings of W&B's in the environment."""
    for name in [n for n in os.environ if n.startswith("WANDB_")] + ["NETRC"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def settings(home: Path, content: str) -> None:
    (home / ".config" / "wandb").mkdir(parents=True)
    (home / ".config" / "wandb" / "settings").write_text(content)


def test_a_key_is_found_where_wandb_looks(home, monkeypatch):
    assert not has_key()
    (home / ".netrc").write_text("machine example.org login me password x\n")
    assert not has_key()
    (home / ".netrc").write_text("machine api.wandb.ai login user password x\n")
    assert has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://ml.example.org")  # a server of one's own, without a key
    assert not has_key()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert has_key()


def test_a_key_for_the_server_of_the_settings_is_found(home):
    settings(home, "[default]\nbase_url = https://ml.example.org\n")
    (home / ".netrc").write_text("machine ml.example.org login user password x\n")
    assert has_key()


def logger(folder: Path, **options: Any) -> WandbRun:
    return loggers.wandb(directory=folder, config={"name": "corgis"}, **options)


def test_online_without_a_key_is_refused_and_not_asked_for(home):
    with pytest.raises(UserError, match=r"mode=online: W&B has no key here; run `wandb login`"):
        logger(home, mode="online")


@pytest.mark.parametrize(
    ("asked", "variable", "online"), [("auto", "", True), ("auto", "offline", False), ("offline", "", False)]
)
def test_auto_is_online_where_a_key_is(home, monkeypatch, asked, variable, online):
    assert not logger(home).online
    monkeypatch.setenv("WANDB_API_KEY", "x")
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    assert logger(home, mode=asked).online is online


def test_auto_goes_offline_where_wandb_does_not_answer(home, monkeypatch, caplog):
    import wandb

    modes = []

    def init(**options: Any) -> object:
        modes.append(options["mode"])
        if options["mode"] == "online":
            raise wandb.errors.CommError("Timed out\nConsider this and that")
        return object()

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert logger(home / "run").experiment is not None
    assert modes == ["online", "offline"]
    assert f"W&B does not answer (Timed out): logging offline; `wandb sync {home}/run/wandb/offline-*`" in caplog.text
    with pytest.raises(UserError, match=r"^W&B: Timed out; or train with logger.wandb.mode=offline"):
        _ = logger(home / "run", mode="online").experiment


def test_a_folder_keeps_its_run(home):
    first = logger(home / "a" / "run")
    assert first.version == logger(home / "a" / "run").version  # after a requeue, or by evaluate.py
    assert first.version != logger(home / "b" / "run").version
    (home / "a").rename(home / "moved")
    assert logger(home / "moved" / "run").version == first.version
    long = logger(home / ("generator=x,optimizer.lr=0.1," * 5)).version
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", long)
