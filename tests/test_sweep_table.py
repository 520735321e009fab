"""Tables and plots of sweeps, from files that are written here."""

import csv
import json

import pytest
import yaml
from PIL import Image

from scaledreamer.errors import UserError
from scaledreamer.sweep.__main__ import main
from scaledreamer.sweep.table import lower_is_better, over_seeds, short
from scaledreamer.training.figures import final_figures


def job(sweep, overrides, *, iou=None, error=None, begun=True, steps=500):
    """A job's folder in a sweep, with one figure if it is done."""
    name = ",".join(overrides)
    content = json.loads((sweep / "sweep.json").read_text()) if (sweep / "sweep.json").exists() else None
    content = content or {"launches": [], "jobs": {}}
    content["jobs"][name] = overrides
    sweep.mkdir(exist_ok=True)
    (sweep / "sweep.json").write_text(json.dumps(content))
    if not begun:
        return
    folder = sweep / name
    folder.mkdir()
    config = {"name": "x", "seed": 0, "trainer": {"max_steps": steps}, "optimizer": {"lr": 0.004}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "launches.jsonl").write_text("{}\n")
    if iou is not None:
        figures = {"toybox/seen/iou": iou, "train/loss": 1 - iou}
        (folder / "done.json").write_text(json.dumps({"figures": figures}))
    if error is not None:
        (folder / "failed.json").write_text(json.dumps({"error": error}))


@pytest.fixture
def sweep(tmp_path):
    """Two learning rates and one that was not set, by two seeds; some that did not end."""
    folder = tmp_path / "sweep"
    for lr, ious in (("0.01", (0.5, 0.7)), ("0.02", (0.8, 0.9))):
        for seed, iou in enumerate(ious):
            job(folder, [f"optimizer.lr={lr}", "corpus=toybox", f"seed={seed}"], iou=iou)
    job(folder, ["corpus=toybox", "seed=0"], iou=0.75)
    job(folder, ["optimizer.lr=9", "corpus=toybox", "seed=0"], error="the loss is nan")
    job(folder, ["optimizer.lr=0.02", "corpus=toybox", "seed=2"])
    (folder / "optimizer.lr=0.02,corpus=toybox,seed=2" / "csv").mkdir()
    (folder / "optimizer.lr=0.02,corpus=toybox,seed=2" / "csv" / "metrics.csv").write_text("step,train/loss\n119,2.5\n")
    job(folder, ["optimizer.lr=0.03", "corpus=toybox", "seed=0"], begun=False)
    return folder


def test_the_table_of_a_sweep(sweep, capsys):
    main([str(sweep)])
    lines = capsys.readouterr().out.splitlines()
    # Only what differs; the seeds are one row; the best first; what was not set is the option files'.
    assert lines[0].split() == ["lr", "seeds", "iou", "loss"]
    assert [line.split()[0] for line in lines[2:7]] == ["0.02", "0.004", "0.01", "9", "0.03"]
    # 0.8 and 0.9: mean .85, deviation .0707, half an interval of 12.706 * .0707 / sqrt(2) = .6353
    assert lines[2].split()[1:6] == ["2", "of", "3", "0.850", "(0.215-1.485)"]
    assert lines[3].split()[1:3] == ["1", "0.750"]
    assert lines[5].split() == ["9", "0", "of", "1", "-", "-"]
    assert "failed: optimizer.lr=9,corpus=toybox,seed=0: the loss is nan" in lines
    assert "unfinished: optimizer.lr=0.02,corpus=toybox,seed=2: 120 of 500 steps" in lines
    assert "not started: optimizer.lr=0.03,corpus=toybox,seed=0" in lines
    (row, *_) = csv.DictReader((sweep / "table.csv").open())
    assert row["optimizer.lr"] == "0.02"
    assert [float(row[f"toybox/seen/iou{end}"]) for end in ("", " low", " high")] == pytest.approx(
        [0.85, 0.215, 1.485], abs=1e-3
    )
    assert "| 0.01 | 2 | 0.600 (-0.671-1.871) | 0.400 (-0.871-1.671) |" in (sweep / "table.md").read_text()
    assert Image.open(sweep / "plot.png").width > 300


def test_sorting_formats_and_choice_of_measures(sweep, capsys):
    main([str(sweep), "--sort", "train/loss", "--metrics", "train/*", "--format", "csv", "--out", str(sweep / "out")])
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["optimizer.lr"] for row in rows] == ["0.02", "0.004", "0.01", "9", "0.03"]  # less is better
    assert "toybox/seen/iou" in rows[0]  # all figures, whatever is shown
    assert (sweep / "out" / "table.csv").exists()
    main([str(sweep), "--metrics", "train/*", "--format", "md"])
    assert capsys.readouterr().out.startswith("| lr | seeds | loss |\n|---|---|---|\n| 0.02 |")
    with pytest.raises(
        UserError, match=r"--sort nothing: no finished run has it; there are toybox/seen/iou, train/loss"
    ):
        main([str(sweep), "--sort", "nothing"])
    with pytest.raises(UserError, match=r"--metrics a\*"):
        main([str(sweep), "--metrics", "a*"])


def test_a_measure_that_some_runs_lack_is_told_and_not_averaged(sweep, capsys):
    scored = sweep / "optimizer.lr=0.01,corpus=toybox,seed=1" / "evaluate" / "prd"
    scored.mkdir(parents=True)
    summary = {"groups": {"all": {"prompts": 2, "measures": {"similarity": [0.3, 0.2, 0.4]}}}}
    (scored / "summary.json").write_text(json.dumps(summary))
    main([str(sweep), "--metrics", "evaluate/*,toybox/seen/iou"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["lr", "seeds", "similarity", "iou"]
    assert {line.split()[-2] for line in lines[2:7] if line.startswith("0.01")} == {"0.600"}
    assert "no figure: optimizer.lr=0.01,corpus=toybox,seed=0: evaluate/prd/all/similarity" in lines
    assert "no figure: optimizer.lr=0.01,corpus=toybox,seed=1: evaluate/prd/all/similarity" not in lines
    main([str(sweep)])  # where none are named, what can be averaged
    assert capsys.readouterr().out.splitlines()[0].split() == ["lr", "seeds", "iou", "loss"]


def test_a_sweep_that_has_only_begun_is_listed(tmp_path, capsys):
    job(tmp_path / "sweep", ["a=1", "seed=0"], begun=False)
    job(tmp_path / "sweep", ["a=2", "seed=0"], error="no")
    main([str(tmp_path / "sweep")])
    told = capsys.readouterr().out
    assert "not started: a=1,seed=0" in told
    assert "failed: a=2,seed=0: no" in told
    assert not (tmp_path / "sweep" / "plot.png").exists()
    with pytest.raises(UserError, match="no sweep and no run"):
        main([str(tmp_path / "sweep" / "nothing")])


@pytest.mark.parametrize("keys", [(), ("guidance",), ("lr", "guidance"), ("lr", "scale", "eta"), ("a", "b", "c", "d")])
def test_plots_of_any_number_of_keys(tmp_path, keys):
    import itertools

    values = {"lr": ("0.001", "0.01", "0.1"), "guidance": ("asd_toy", "sds_toy")}
    for i, chosen in enumerate(itertools.product(*(values.get(key, ("1.0", "2.5")) for key in keys))):
        job(tmp_path, [*(f"{k}={v}" for k, v in zip(keys, chosen, strict=True)), "seed=0"], iou=0.1 + i / 40)
    main([str(tmp_path)])
    picture = Image.open(tmp_path / "plot.png")
    assert 200 < picture.width < 3000
    assert picture.convert("L").getextrema()[0] < 128  # something is drawn


def test_single_runs_are_told_apart_by_their_options(tmp_path, capsys):
    for name, lr in (("a", 0.1), ("b", 0.2)):
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "step-0000002.ckpt").touch()  # of before runs said that they were done
        config = {"name": "x", "seed": 0, "optimizer": {"lr": lr}, "trainer": {"max_steps": 2}, "logger": {"csv": lr}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "launches.jsonl").write_text("{}\n")
        (folder / "csv").mkdir()
        (folder / "csv" / "metrics.csv").write_text(f"step,train/loss\n1,{lr}\n")
    main([str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["lr", "seeds", "loss"],
        ["---", "-----", "-----"],
        ["0.1", "1", "0.100"],
        ["0.2", "1", "0.200"],
    ]


def test_final_figures(tmp_path):
    (tmp_path / "csv").mkdir()
    steps = [(step, float(step)) for step in range(0, 101, 2)]
    rows = "".join(f"0,{step},{loss},\n" for step, loss in steps) + "0,50,,0.25\n0,100,,0.75\n"
    (tmp_path / "csv" / "metrics.csv").write_text("epoch,step,train/loss,other\n" + rows)
    (tmp_path / "toybox").mkdir()
    (tmp_path / "toybox" / "scores.json").write_text(json.dumps({"unseen": {"iou": [0.5, 0.4, 0.6]}}))
    (tmp_path / "evaluate" / "toy").mkdir(parents=True)
    summary = {"groups": {"all": {"prompts": 2, "measures": {"similarity": [0.3, 0.2, 0.4]}}}}
    (tmp_path / "evaluate" / "toy" / "summary.json").write_text(json.dumps(summary))
    assert final_figures(tmp_path) == {
        "train/loss": 95.0,  # steps 90 to 100
        "other": 0.75,
        "toybox/unseen/iou": 0.5,
        "evaluate/toy/all/similarity": 0.3,
    }
    assert final_figures(tmp_path / "nothing") == {}


def test_intervals_over_seeds():
    assert over_seeds([0.5]) == (0.5, 0.5, 0.5)
    mean, low, high = over_seeds([1.0, 2.0, 3.0])  # t = 4.3027, deviation 1
    assert (mean, low, high) == pytest.approx((2.0, 2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)


def test_names_are_shortened_while_they_differ():
    assert short(["optimizer.lr", "guidance.rule.eta"]) == {"optimizer.lr": "lr", "guidance.rule.eta": "eta"}
    names = ["toybox/seen/iou", "toybox/unseen/iou"]
    assert short(names) == {names[0]: "seen/iou", names[1]: "unseen/iou"}
    assert lower_is_better("toybox/seen/color_error")
    assert not lower_is_better("toybox/seen/iou")
