"""A run in the toybox, from its options to its report, at a size of seconds."""

import json

import imageio.v3 as iio
import pytest
from PIL import Image
from runs import prepared, trained_with

from scaledreamer.errors import UserError

OPTIONS = (
    "generator=3dconv_toy",
    "corpus=toybox",
    "trainer=cpu",
    "generator.resolution=16",
    "generator.volumes=4",
    "generator.fine_volumes=4",
    "renderer.proposals=8",
    "renderer.samples=4",
    "cameras.image_size=16",
    "corpus.batch_size=2",
    "trainer.max_steps=2",
    "trainer.log_every_n_steps=1",
    "callbacks.progress=null",
    "callbacks.previews=null",
    "callbacks.toybox.views=4",
    "callbacks.toybox.size=16",
    "callbacks.toybox.prompts=2",
    "callbacks.toybox.sheet=3",
    "callbacks.toybox.frames=3",
)


@pytest.mark.parametrize("guidance", ["asd_toy", "truth_toy"])
def test_a_run_is_held_against_the_truth(tmp_path, monkeypatch, guidance):
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path / "data"))
    run = trained_with([*OPTIONS, f"guidance={guidance}"], tmp_path / "run")
    assert run.trainer.global_step == 2
    scores = json.loads((tmp_path / "run" / "toybox" / "scores.json").read_text())
    assert scores["protocol"]["prompts"] == {"seen": 2, "unseen": 2}
    for split in ("seen", "unseen"):
        mean, low, high = scores[split]["iou"]
        assert 0 <= low <= mean <= high <= 1
        assert 0.2 < scores[split]["sphere_iou"][0] < 0.8  # a ball covers a good part of any toy
    assert Image.open(tmp_path / "run" / "toybox" / "sheet.png").width > 3 * 4 * 16
    assert len(iio.imread(tmp_path / "run" / "toybox" / "turntable.mp4", plugin="FFMPEG")) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["callbacks.toybox.views=6"], "multiple of 4"),
        (["corpus.prompt=a red zebra"], "zebra"),
    ],
)
def test_mistakes_are_told_before_the_training(tmp_path, monkeypatch, options, message):
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path / "data"))
    with pytest.raises(UserError, match=message):
        prepared([*OPTIONS, "guidance=truth_toy", *options], tmp_path / "run")


def test_a_run_without_unseen_prompts_is_reported_too(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path / "data"))
    others = "+callbacks.toybox.distractors=5"
    trained_with([*OPTIONS, "guidance=truth_toy", "corpus.prompt=a red duck on a drum", others], tmp_path / "run")
    scores = json.loads((tmp_path / "run" / "toybox" / "scores.json").read_text())
    assert "unseen" not in scores
    assert scores["protocol"]["prompts"] == {"seen": 1, "unseen": 0}
    assert scores["protocol"]["gallery"] == 6
