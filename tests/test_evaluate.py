"""What evaluate.py measures of a run: figures against pictures made one by one, galleries, groups, protocols."""

import dataclasses
import gc
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from evaluations import PROMPTS, TEST, TRAIN, composed, open_shaken, options, rows_of, write_run
from runs import trained_with
from test_toybox_report import OPTIONS

from scaledreamer.bootstrap import interval
from scaledreamer.clip.files import find
from scaledreamer.clip.model import Clip
from scaledreamer.config import CONF, compose, plain
from scaledreamer.errors import UserError
from scaledreamer.evaluate import gallery, job, views
from scaledreamer.evaluate.job import evaluate
from scaledreamer.evaluate.protocols import Protocol, ToyboxProtocol
from scaledreamer.evaluate.rows import Row
from scaledreamer.evaluate.summary import grouped

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """See ``write_run``."""
    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALEDREAMER_DATA", str(folder / "data"))
        write_run(folder)
    return folder


@pytest.fixture
def run(base, tmp_path, monkeypatch) -> Path:
    """A copy of the run, whose weights are shaken when it is opened."""
    monkeypatch.setenv("SCALEDREAMER_DATA", str(base / "data"))
    monkeypatch.setattr(job, "open_run", open_shaken)
    return Path(shutil.copytree(base / "first", tmp_path / "mine")) / "run"


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """Prompts that are looked at, in order."""
    found: list[str] = []
    real = views.scored

    def counting(trained, prompts, **given):
        found.extend(prompts)
        return real(trained, prompts, **given)

    monkeypatch.setattr(job, "scored", counting)
    return found


# -- what is measured --------------------------------------------------------------------------------------------


def test_figures_are_those_of_pictures_made_one_by_one(base, run):
    """Everything once more without anything of ``scaledreamer.evaluate``, and with transformers' own CLIP."""
    from transformers import CLIPModel

    evaluate(options(base, run))
    rows, opened = rows_of(run), open_shaken(run, device="cpu")
    clip = Clip(base / "clip", resample="bilinear")
    model = CLIPModel.from_pretrained(base / "clip")
    texts = sorted(PROMPTS)
    with torch.no_grad():

        def features(some: list[str]) -> torch.Tensor:
            ids = clip.tokenizer(some, padding="max_length", max_length=24, truncation=True, return_tensors="pt")
            pooled = model.get_text_features(**ids)
            pooled = pooled if isinstance(pooled, torch.Tensor) else pooled.pooler_output
            return torch.nn.functional.normalize(pooled, dim=-1)

        for prompt in PROMPTS:
            pictures = opened.system.render(opened.embed([prompt]), opened.system.cameras.orbit(6), 16).rgb.clamp(0, 1)
            pooled = model.get_image_features(pixel_values=clip.preprocessed(pictures))
            pooled = pooled if isinstance(pooled, torch.Tensor) else pooled.pooler_output
            seen = torch.nn.functional.normalize(pooled, dim=-1)
            found, own = rows[prompt], texts.index(prompt)
            likeness = seen @ features(texts).t()  # [6, 6]
            front, back = features([f"{prompt}, front view"]), features([f"{prompt}, back view"])
            behind = seen[3:4]  # of 0, 60, ... degrees only 180 is within 30 of 180
            assert found["similarity"] == pytest.approx(float(likeness[:, own].mean()), abs=2e-5)
            first = (likeness.argmax(dim=1) == own).float().mean()
            assert found["view_recall_1"] == pytest.approx(float(first), abs=1e-5)
            order = likeness.mean(dim=0).argsort(descending=True).tolist()
            assert found["rank"] == order.index(own) + 1
            assert found["object_recall_1"] == float(order[0] == own)
            assert found["object_recall_5"] == float(own in order[:5])
            assert found["janus"] == float(behind @ front.t() > behind @ back.t())
            neighbours = torch.stack([seen[i] @ seen[(i + 1) % 6] for i in range(6)])
            assert found["consistency"] == pytest.approx(float(neighbours.mean()), abs=2e-5)
    assert len({row["similarity"] for row in rows.values()}) == len(PROMPTS)


@pytest.mark.parametrize(("batch", "pixels"), [(1, 1), (4, 2 * 4 * 16 * 16)])
def test_batches_and_parts_change_nothing(base, run, monkeypatch, batch, pixels):
    evaluate(options(base, run))
    expected = rows_of(run)
    monkeypatch.setattr("scaledreamer.render.shots.PIXELS", pixels)
    monkeypatch.setattr("scaledreamer.clip.measures.BLOCK", batch)
    monkeypatch.setattr("scaledreamer.clip.model.TEXTS", batch)
    evaluate(options(base, run, batch=batch, overwrite=True))
    found = rows_of(run)
    assert found.keys() == expected.keys()
    for prompt, row in found.items():
        for name, value in row.items():
            known = expected[prompt][name]
            assert value == (pytest.approx(known, abs=1e-4) if isinstance(value, float) else known), (prompt, name)


def test_memory_does_not_follow_the_number_of_prompts(base, run, monkeypatch):
    """The most bytes of tensors that are alive while pictures are taken: of 8 prompts as of 2."""
    peaks: list[int] = []
    real = views._looked_at

    def looking(*arguments):
        found = real(*arguments)
        alive = {t.untyped_storage().data_ptr(): t for t in gc.get_objects() if type(t) is torch.Tensor}
        peaks.append(sum(t.untyped_storage().nbytes() for t in alive.values()))
        return found

    monkeypatch.setattr(views, "_looked_at", looking)
    most = []
    for count in (2, 8):
        peaks.clear()
        prompts = [f"a thing {n:02d}" for n in range(count)]
        evaluate(options(base, run, "protocol.views=2", prompts=prompts, overwrite=True))
        most.append(max(peaks))
    assert most[0] > 1000
    assert most[1] <= most[0] + 100


def test_pictures_that_are_not_numbers_are_black():
    protocol = Protocol(name="x", clip="toy_clip", views=2)
    broken: Any = SimpleNamespace(rgb=torch.tensor([float("nan"), 2.0, -1.0]))
    assert protocol.picture(broken).tolist() == [0.0, 1.0, 0.0]


# -- the gallery -------------------------------------------------------------------------------------------------


def test_the_gallery_is_named_counted_and_the_same_whatever_is_scored(base, run):
    (one,) = evaluate(options(base, run, prompts=["a tree"]))
    (all_,) = evaluate(options(base, run))
    assert one.gallery == all_.gallery
    assert all_.gallery["name"] == "file train+test"
    assert all_.gallery["size"] == len(PROMPTS)
    stored = json.loads((run / "evaluate" / "scaledreamer" / "summary.json").read_text())["gallery"]
    assert stored == all_.gallery


def test_galleries(run, tmp_path):
    opened = open_shaken(run, device="cpu")
    assert gallery.choose(opened, None).texts == tuple(sorted(PROMPTS))
    assert gallery.choose(opened, "test").texts == tuple(sorted(TEST))
    assert gallery.choose(opened, "all").name == "file train+val+test"
    for name, content in (("a.txt", "a dog\na cat\na dog\n"), ("b.txt", "a cat\na dog\n")):
        (tmp_path / name).write_text(content)
    one, other = (gallery.choose(opened, str(tmp_path / name)) for name in ("a.txt", "b.txt"))
    assert (one.name, one.texts, one.digest) == ("a.txt", ("a cat", "a dog"), other.digest)
    assert one.digest != gallery.choose(opened, None).digest


def test_a_prompt_beyond_the_gallery_does_not_change_it(base, run):
    (before,) = evaluate(options(base, run))
    known = rows_of(run)
    (after,) = evaluate(options(base, run, prompts=["a cat", "a thing of its own"]))
    assert before.gallery == after.gallery
    rows = rows_of(run)
    assert rows["a cat"] == known["a cat"]
    assert (rows["a cat"]["in_gallery"], rows["a thing of its own"]["in_gallery"]) == (True, False)
    assert 1 <= rows["a thing of its own"]["rank"] <= len(PROMPTS) + 1


def test_a_gallery_of_one_text_leaves_recall_out(base, run, tmp_path, caplog):
    (tmp_path / "one.txt").write_text("a cat")
    (found,) = evaluate(options(base, run, prompts=["a cat"], gallery=str(tmp_path / "one.txt")))
    assert "the gallery has one text: recall would say nothing" in caplog.text
    assert "similarity" in found.groups["seen"].measures
    assert not [name for name in found.groups["seen"].measures if "recall" in name or name == "rank"]


# -- seen and unseen ---------------------------------------------------------------------------------------------


def test_groups_are_those_of_the_corpus(base, run):
    (found,) = evaluate(options(base, run))
    assert {name: group.prompts for name, group in found.groups.items()} == {"all": 6, "seen": 4, "unseen": 2, "gap": 6}
    rows = rows_of(run)
    assert {prompt for prompt, row in rows.items() if row["split"] == "seen"} == set(TRAIN)
    for name in ("similarity", "consistency", "view_recall_1"):
        values = {split: [r[name] for r in rows.values() if r["split"] == split] for split in ("seen", "unseen")}
        means = {split: sum(some) / len(some) for split, some in values.items()}
        assert found.groups["seen"].measures[name] == interval(torch.tensor(values["seen"], dtype=torch.float64))
        assert found.groups["gap"].measures[name][0] == pytest.approx(means["seen"] - means["unseen"])
    (test,) = evaluate(options(base, run, prompts="test"))
    assert {name: group.prompts for name, group in test.groups.items()} == {"all": 3, "seen": 1, "unseen": 2, "gap": 3}
    (train,) = evaluate(options(base, run, prompts="train"))
    assert list(train.groups) == ["seen"]


def test_groups_by_hand():
    rows = [Row(prompt=p, in_gallery=True, measures={"similarity": v}) for p, v in (("a", 0.1), ("b", 0.3), ("c", 0.8))]
    found = grouped(rows, {"a": "seen", "b": "unseen", "c": "seen"})
    assert {name: group.measures["similarity"][0] for name, group in found.items()} == pytest.approx(
        {"all": 0.4, "seen": 0.45, "unseen": 0.3, "gap": 0.15}
    )
    assert list(grouped(rows, {"a": None, "b": None, "c": None})) == ["all"]


def test_a_sample_is_spread_over_both_groups(base, run, asked):
    evaluate(options(base, run, sample=2))
    assert asked == ["a cat", "a red house", "a tree", "a green bird on a rock"]


def test_without_its_corpus_a_run_is_scored_on_ones_own_prompts(base, run, tmp_path):
    config = (run / "config.yaml").read_text().replace("prompts.json", "gone.json")
    (run / "config.yaml").write_text(config)
    (tmp_path / "mine.txt").write_text("a cat\na horse\na cow")
    (found,) = evaluate(options(base, run, prompts=["a cat"], gallery=str(tmp_path / "mine.txt")))
    assert list(found.groups) == ["all"]
    with pytest.raises(UserError, match=r"^gallery: .*gone\.json.* Or give a prompt file, gallery=FILE\.$"):
        evaluate(options(base, run, prompts=["a cat"]))


# -- the toybox --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    """A run of two steps in the toybox, with its report."""
    folder = tmp_path_factory.mktemp("toy") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALEDREAMER_DATA", str(folder.parent / "data"))
        trained_with([*OPTIONS, "guidance=truth_toy", "callbacks.toybox.frames=0"], folder)
    return folder


def test_the_toybox_protocol_finds_what_the_runs_own_report_found(toy, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SCALEDREAMER_DATA", str(toy.parent / "data"))
    caplog.set_level("INFO")
    report = json.loads((toy / "toybox" / "scores.json").read_text())
    (tmp_path / "gallery.txt").write_text("\n".join(report["prompts"]))
    few = ["protocol.toybox.views=4", "protocol.toybox.size=16", f"gallery={tmp_path / 'gallery.txt'}"]
    (found,) = evaluate(composed(f"run={toy}", *few, prompts=list(report["prompts"])))
    assert "protocol: toybox, since the run is of the toybox" in caplog.text
    names = {"recall": "object_recall_1", "view_recall": "view_recall_1"}
    for split in ("seen", "unseen"):
        for name, estimate in report[split].items():
            mine = found.groups[split].measures[names.get(name, name)]
            assert mine == pytest.approx(estimate, abs=1e-5), (split, name)
    rows = rows_of(toy, "toybox")
    for prompt, scores in report["prompts"].items():
        for name, value in scores.items():
            assert rows[prompt][names.get(name, name)] == pytest.approx(value, abs=6e-5)


def test_share_needs_a_ceiling():
    rows = [Row(p, True, {"iou": i, "sphere_iou": s}) for p, i, s in (("a", 0.7, 0.5), ("b", 0.3, 0.3))]
    protocol = ToyboxProtocol(name="t", clip="toy_clip", views=4, background="grey")
    assert protocol.completed(rows, {}) == rows
    expected = [(0.7 - 0.4) / (0.9 - 0.4), (0.3 - 0.4) / (0.9 - 0.4)]
    config = {"callbacks": {"toybox": {"ceiling": 0.9}}}
    assert [r.measures["share"] for r in protocol.completed(rows, config)] == pytest.approx(expected)
    own = dataclasses.replace(protocol, ceiling=0.9)
    assert own.completed(rows, {}) == protocol.completed(rows, config)


def test_a_prompt_that_is_no_toy_is_told_before_anything_is_rendered(run, asked):
    with pytest.raises(UserError, match=r"^'a cat' is no toy of the toybox.* Other prompts are scored with protocol="):
        evaluate(composed(f"run={run}", "protocol=toybox"))
    assert asked == []


def test_runs_of_two_kinds_need_one_protocol(toy, run):
    with pytest.raises(UserError) as error:
        evaluate(composed(f"run=[{run},{toy}]"))
    message = f"protocol: {run} would be scored by scaledreamer and {toy} by toybox; choose one for all."
    assert str(error.value) == message


# -- protocols ---------------------------------------------------------------------------------------------------


OPTION_FILES = sorted((CONF / "protocol").glob("*.yaml"))


@pytest.mark.parametrize("path", OPTION_FILES, ids=lambda path: path.stem)
def test_every_protocol_composes_and_passes(path, run):
    node: Any = composed(f"run={run}", f"protocol={path.stem}").protocol
    assert node.get("name", path.stem) == path.stem
    assert path.read_text("utf-8").startswith("# ")


def test_protocols_are_what_they_say():
    names = [path.stem for path in OPTION_FILES]
    node = {name: plain(compose([f"protocol={name}", "run=x"], config_name="evaluate"))["protocol"] for name in names}
    paper, quick, toybox = (node[name] for name in ("scaledreamer", "prd", "toybox"))
    assert (paper["clip"], paper["views"], paper["size"]) == ("openai/clip-vit-large-patch14", 120, None)
    assert (quick["clip"], quick["views"], quick["elevation"]) == ("openai/clip-vit-base-patch32", 4, 15.0)
    assert find(toybox["clip"]).name == "toy_clip"
    assert (node["auto"]["others"], node["auto"]["toybox"]) == (paper, toybox)


def test_cameras_and_pictures_of_a_protocol(run):
    system = open_shaken(run, device="cpu").system
    protocol = Protocol(name="x", clip="toy_clip", views=4)
    circle = protocol.cameras(system)
    assert protocol.size_for(system) == system.cameras.test_image_size
    torch.testing.assert_close(circle.c2w, system.cameras.orbit(4).c2w)
    high = dataclasses.replace(protocol, elevation=60.0, size=8)
    assert high.size_for(system) == 8
    assert high.cameras(system).elevation.tolist() == [60.0] * 4
    position = high.cameras(system).c2w[0, :3, 3]
    distance = system.cameras.test_distance
    torch.testing.assert_close(position, torch.tensor([0.5 * distance, 0.0, 0.75**0.5 * distance]))
    rendering = system.render(open_shaken(run, device="cpu").embed(["a cat"]), circle, 8)
    white = dataclasses.replace(protocol, background="white").picture(rendering)
    torch.testing.assert_close(white, (rendering.foreground + 1 - rendering.opacity).clamp(0, 1))
    torch.testing.assert_close(protocol.picture(rendering), rendering.rgb.clamp(0, 1))
