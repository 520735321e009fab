"""python -m scaledreamer.gallery without a browser: what it shows and refuses."""

import re
import shutil
from pathlib import Path

import pytest
from commands import ROOT, python
from filelock import FileLock
from galleries import MADE_BY, PROMPTS, data_of, options, write_rendered_run, write_scores
from hydra.errors import HydraException

from scaledreamer.config.explain import explain
from scaledreamer.errors import UserError
from scaledreamer.gallery import settings
from scaledreamer.gallery.job import write_gallery
from scaledreamer.render.names import name_of


@pytest.fixture
def run(tmp_path) -> Path:
    """Four prompts, three of them scored."""
    scores = {"a red duck": 0.123456789, "a blue robot": 0.5, "a tree": 0.25}
    return write_rendered_run(tmp_path / "mine" / "run", PROMPTS, scores=scores)


# -- what is shown -----------------------------------------------------------------------------------------------


def test_page_of_a_run(run):
    page = write_gallery(options(run))
    assert page == run / "gallery" / "index.html"
    shown = data_of(page)
    assert shown["title"] == "mine/run"
    (of_run,) = shown["runs"]
    assert (of_run["name"], of_run["step"]) == ("mine/run", 40)
    assert of_run["launch"] == {"command": "python train.py", "time": "2030-01-02T03:04:05+00:00", "commit": "abc"}
    # Seen ones first, in the order of the index; files that the page names are there.
    assert [o["prompt"] for o in shown["objects"]] == ["a blue robot", "a red duck", "a boat", "a tree"]
    objects = {o["prompt"]: o["runs"][0] for o in shown["objects"]}
    assert {p: o["seen"] for p, o in objects.items()} == {
        "a blue robot": True, "a red duck": True, "a boat": None, "a tree": False,
    }  # fmt: skip
    for prompt, shown_object in objects.items():
        assert shown_object["name"] == name_of(prompt)
        assert shown_object["at"] == [0, 1]
        for kind, suffix in (("video", "webp"), ("video", "mp4"), ("mesh", "js")):
            assert re.fullmatch(f"{name_of(prompt)}-[0-9a-f]{{8}}", shown_object[kind])
            assert (page.parent / of_run["folder"] / f"{shown_object[kind]}.{suffix}").is_file()


def test_scores_and_settings(run):
    shown = data_of(write_gallery(options(run)))
    assert shown["measures"] == [{"protocol": "toybox", "name": "CLIP similarity"}]  # and no rank
    scores = {o["prompt"]: o["runs"][0]["scores"] for o in shown["objects"]}
    assert scores == {"a red duck": [0.12346], "a blue robot": [0.5], "a tree": [0.25], "a boat": [None]}
    mean = round((0.123456789 + 0.5 + 0.25) / 3, 5)
    found = shown["runs"][0]["scores"]["toybox"]
    assert list(found) == ["CLIP similarity"]
    assert found["CLIP similarity"]["all"] == pytest.approx([mean, mean - 0.1, mean + 0.1], abs=1e-5)
    assert shown["settings"] == [
        ["name", ["run"]], ["seed", ["0"]], ["generator._target_", ["x.Y"]], ["generator.widths", ["[16, 8]"]],
    ]  # fmt: skip


def test_scores_of_other_weights_are_left_out(run, caplog):
    shutil.rmtree(run / "evaluate")
    write_scores(run, PROMPTS, {"a tree": 0.9}, {**MADE_BY, "step": 30, "weights": "ffffffff"})
    shown = data_of(write_gallery(options(run)))
    assert shown["measures"] == []
    assert "scores of step 30 are left out, step 40 is shown" in caplog.text


def test_broken_scores_do_not_stop_it(run, caplog):
    (run / "evaluate" / "toybox" / "prompts.json").write_text("{")
    assert data_of(write_gallery(options(run)))["measures"] == []
    assert "left out, it cannot be read" in caplog.text


def test_runs_side_by_side(tmp_path):
    first = write_rendered_run(tmp_path / "a" / "t", {"a cat": ("train",), "a dog": ("test",)}, scores={"a cat": 0.5})
    other = write_rendered_run(
        tmp_path / "b" / "t", {"a cat": ("test",), "a fish": ("train",)}, config={"seed": 3, "lr": 0.1}
    )
    page = write_gallery(options([first, other]))
    assert page.parent == tmp_path / "gallery"
    shown = data_of(page)
    assert [of_run["name"] for of_run in shown["runs"]] == ["a/t", "b/t"]
    seen = {o["prompt"]: [one and one["seen"] for one in o["runs"]] for o in shown["objects"]}
    assert seen == {"a cat": [True, False], "a dog": [False, None], "a fish": [None, True]}
    there = {o["prompt"]: [one is not None for one in o["runs"]] for o in shown["objects"]}
    assert there == {"a cat": [True, True], "a dog": [True, False], "a fish": [False, True]}
    cat = next(o for o in shown["objects"] if o["prompt"] == "a cat")
    assert [one["scores"] for one in cat["runs"]] == [[0.5], [None]]
    rows = dict(shown["settings"])
    assert rows["seed"] == ["0", "3"]
    assert rows["lr"] == [None, "0.1"]


def test_prompts_and_sample(run):
    def shown(*overrides: str) -> list[str]:
        return [o["prompt"] for o in data_of(write_gallery(options(run, *overrides)))["objects"]]

    assert shown("prompts=test") == ["a tree"]
    assert shown("prompts=train") == ["a blue robot", "a red duck"]
    assert shown('prompts=["a boat","a tree"]') == ["a boat", "a tree"]
    assert shown("sample=1") == ["a blue robot", "a boat"]


def test_settings_are_merged_in_order():
    one, two = {"a": 1, "b": {"c": [1, [2]], "d": {}}, "e": None}, {"a": 1, "b": {"x": "text", "d": 2}, "e": True}
    assert settings.rows([one, two]) == [
        ("a", ["1", "1"]), ("b.x", [None, "text"]), ("b.c", ["[1, [2]]", None]), ("b.d", ["{}", "2"]),
        ("e", ["null", "true"]),
    ]  # fmt: skip


def test_hostile_text_is_no_markup(tmp_path):
    prompt = "</script><script>alert(1)</script> \"'&\u2028 <img src=x onerror=alert(2)>"
    run = write_rendered_run(tmp_path / "<b>" / "run", {prompt: ("train",)}, config={"<i>": "<script>"})
    page = write_gallery(options(run, title="<script>x</script>"))
    data = page.with_name("data.js").read_text("ascii")
    assert "<" not in data
    assert data_of(page)["objects"][0]["prompt"] == prompt
    assert "<script>x" not in page.read_text("utf-8")
    assert "&lt;script&gt;x&lt;/script&gt;" in page.read_text("utf-8")
    assert all(re.fullmatch(r"[a-z0-9-]+\.(webp|mp4|js)", path.name) for path in page.parent.glob("media/*/*"))


# -- mistakes ----------------------------------------------------------------------------------------------------


def test_folders_of_others_are_left_alone(run, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("all of it")
    with pytest.raises(UserError, match="holds other files than a gallery's; choose a new or an empty folder"):
        write_gallery(options(run, output=str(tmp_path / "home")))
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.txt"]


def test_a_folder_that_cannot_be_made(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file.*: Not a directory; set output=FOLDER"):
        write_gallery(options(run, output=str(tmp_path / "file" / "gallery")))


def test_one_at_a_time(run):
    page = write_gallery(options(run))
    with FileLock(page.parent / ".lock"), pytest.raises(UserError, match=r"another process writes .*gallery; wait"):
        write_gallery(options(run))


def test_nothing_rendered(run):
    with pytest.raises(UserError, match="has no video or mesh of these prompts to show; leave out missing=skip"):
        write_gallery(options(run, "prompts=[no such prompt]"))
    shutil.rmtree(run / "render")
    with pytest.raises(UserError, match="has no video or mesh"):
        write_gallery(options(run))


def test_no_checkpoint(run):
    # The configuration of this run cannot be built either; that there are no weights is said first.
    with pytest.raises(UserError, match="has no checkpoint"):
        write_gallery(options(run, missing="render"))


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["missing=skp"], "missing: input should be 'render' or 'skip', not 'skp'"),
        (["checkpoint=last"], "checkpoint: missing=skip shows what was rendered last"),
        (["prompts=tset"], "prompts: 'tset' is no split, did you mean 'test'?"),
        (["frames=0"], "frames: input should be greater than or equal to 1, not 0"),
        (["mesh.resolutoin=3"], "mesh.resolutoin: no such key; did you mean 'resolution'?"),
    ],
)
def test_wrong_options(run, overrides, line):
    with pytest.raises((UserError, HydraException)) as found:
        options(run, *overrides)
    assert line in (explain(found.value) or "")


def test_the_command_answers_in_a_line(tmp_path):
    done = python("-m", "scaledreamer.gallery", "run=outputs/none", folder=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 1
    assert done.stderr == (
        "error: run: outputs/none is no folder; give one that train.py has made, run=outputs/NAME/TIME. "
        "[command line]\n"
    )
