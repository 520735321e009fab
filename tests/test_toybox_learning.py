"""Forty steps of the default run on four toys: text becomes 3-D, by truth and by the judge."""

import json

import pytest
from runs import trained_with

OPTIONS = (
    "experiment=toybox_minute",
    "corpus.max_prompts=4",
    "corpus.batch_size=4",
    "+callbacks.toybox.distractors=8",
    "callbacks.progress=null",
    "callbacks.previews=null",
    "callbacks.checkpoints=null",
)


def scores(folder, *options):
    trained_with([*OPTIONS, *options], folder)
    seen = json.loads((folder / "toybox" / "scores.json").read_text())["seen"]
    return {name: value[0] for name, value in seen.items()}


def test_forty_steps_of_distillation_make_toys(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path / "data"))
    learned = scores(tmp_path / "learned")
    untrained = scores(tmp_path / "untrained", "trainer.max_steps=1", "lr_schedule=0")
    assert learned["recall"] >= 0.75  # of 16 prompts, half of them distractors
    assert learned["recall"] >= untrained["recall"] + 0.3
    assert learned["iou"] > max(untrained["iou"], learned["sphere_iou"]) + 0.05
    assert learned["color_error"] < untrained["color_error"] - 0.03
    assert untrained["iou"] == pytest.approx(untrained["sphere_iou"], abs=0.15)
