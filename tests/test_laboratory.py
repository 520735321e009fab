"""Tables of runs in the toybox."""

import csv
import json

import numpy as np
import pytest
import yaml
from PIL import Image

from scaledreamer.errors import UserError
from scaledreamer.toybox import laboratory
from scaledreamer.toybox.laboratory import interval


def written(folder, *, name, seed, eta, iou):
    """A run's folder with two prompts of train and one of test."""
    (folder / "toybox").mkdir(parents=True)
    config = {"name": name, "seed": seed, "guidance": {"rule": {"eta": eta}}, "trainer": {"threads": seed}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    values = {"recall": 1.0, "color_error": 0.1, "upright": 1.0, "janus": 0.0}
    prompts = {f"toy {i}": {**values, "iou": value} for i, value in enumerate(iou)}
    scores = {"protocol": {"prompts": {"seen": 2, "unseen": 1}}, "prompts": prompts}
    (folder / "toybox" / "scores.json").write_text(json.dumps(scores))


def test_runs_that_differ_in_their_seed_make_one_row(tmp_path, capsys):
    for seed in (0, 1):
        written(tmp_path / f"near{seed}", name="asd", seed=seed, eta=0.1, iou=(0.5, 0.7, 0.4 + 0.2 * seed))
        written(tmp_path / f"far{seed}", name="asd", seed=seed, eta=0.5, iou=(0.8, 0.8, 0.8))
    written(tmp_path / "sds", name="sds", seed=0, eta=0.1, iou=(0.9, 0.9, 0.9))
    laboratory.main([str(tmp_path)])
    table = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    means = {(row["run"], row["split"]): float(row["iou"]) for row in table}
    assert means == pytest.approx(
        {
            ("asd guidance.rule.eta=0.1", "seen"): 0.6,
            ("asd guidance.rule.eta=0.1", "unseen"): 0.5,
            ("asd guidance.rule.eta=0.5", "seen"): 0.8,
            ("asd guidance.rule.eta=0.5", "unseen"): 0.8,
            ("sds", "seen"): 0.9,
            ("sds", "unseen"): 0.9,
        }
    )
    assert {row["seeds"] for row in table if row["run"].startswith("asd")} == {"2"}
    text = (tmp_path / "table.md").read_text()
    assert "| asd guidance.rule.eta=0.1 | unseen | 1 | 2 | 1.000 | 0.500 (0.400-0.600) |" in text
    assert text in capsys.readouterr().out
    assert Image.open(tmp_path / "plot.png").width > 500


def test_the_interval_counts_both_seeds_and_prompts():
    of_one_run = np.linspace(0, 1, 41)
    mean, low, high = interval([of_one_run])
    deviation = of_one_run.std() / len(of_one_run) ** 0.5
    assert mean == pytest.approx(0.5)
    assert (low, high) == pytest.approx((0.5 - 1.96 * deviation, 0.5 + 1.96 * deviation), abs=0.01)
    # Seeds that differ widen it, however many prompts there are.
    apart = interval([np.full(1000, value) for value in (0.2, 0.5, 0.8)])
    assert apart == pytest.approx((0.5, 0.2, 0.8))


def test_mistakes_are_told(tmp_path):
    with pytest.raises(UserError, match="no finished toybox run"):
        laboratory.main([str(tmp_path)])
    written(tmp_path / "a", name="asd", seed=0, eta=0.1, iou=(0.5, 0.7, 0.4))
    (tmp_path / "a" / "toybox" / "scores.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read as scores"):
        laboratory.main([str(tmp_path)])
