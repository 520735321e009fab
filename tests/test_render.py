"""render.py on a run: what it makes, keeps, replaces and refuses."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from answers import answer
from runs import SMALL, trained
from torch import Tensor

from scaledreamer.config import compose, plain
from scaledreamer.errors import UserError
from scaledreamer.render import job, maps, outputs
from scaledreamer.render.index import Index
from scaledreamer.render.interpolation import take
from scaledreamer.render.job import render
from scaledreamer.render.options import RenderOptions
from scaledreamer.render.shots import Shot, joined
from scaledreamer.training.trained import Trained, open_run

PROMPTS = ("a cat", "a dog", "a red house", "a blue car", "a tree")
TINY = {"image_size": 16, "tile": 8, "views": 2, "frames": 3, "columns": 2, "rows": 1}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a run of two steps."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALEDREAMER_DATA", str(folder / "data"))
        (folder / "prompts.txt").write_text("\n".join(PROMPTS))
        trained([f"corpus.path={folder / 'prompts.txt'}", "trainer.max_steps=2"], folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def opened(run) -> Trained:
    """That run, its weights shaken so that each prompt has a shape of its own."""
    found = open_run(run, device="cpu")
    torch.manual_seed(1)
    for parameter in found.system.generator.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return found


def options(run: Path, **given) -> RenderOptions:
    """Those of ``conf/render.yaml`` and the command line."""
    node = plain(compose([f"run={run}"], config_name="render"))
    return RenderOptions(**{**node, **TINY, **given})


def content(folder: Path) -> dict[str, int]:
    """Each file and when it was written."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name not in (".lock", "index.json")]
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in files}


def own(trained: Trained, prompt: str, *, frames: int = 3, size: int = 16) -> Tensor:
    """The frames of a prompt rendered by itself, without anything of ``scaledreamer.render``: [T, H, W, 3] uint8."""
    with torch.no_grad():
        rendering = trained.system.render(trained.embed([prompt]), trained.system.cameras.orbit(frames), size)
    return (rendering.rgb.clamp(0, 1) * 255).round().to(torch.uint8)


# -- what is made ------------------------------------------------------------------------------------------------


def test_every_kind_of_file_is_there_and_the_index_says_whose(run, opened, tmp_path):
    every = ["rgb", "rgba", "normal", "depth", "opacity"]
    wanted = options(
        run, output=str(tmp_path), outputs=["video", "views", "sheet", "mesh"], maps=every, mesh_format="ply"
    )
    prompts, coarse = [*PROMPTS[:2], "a dog no one has seen"], {**wanted.mesh, "resolution": 12}
    wanted = dataclasses.replace(wanted, prompts=prompts, mesh=coarse)
    assert render(opened, wanted) == dict.fromkeys(("video", "views", "sheet", "mesh"), (3, 0))
    index = json.loads((tmp_path / "index.json").read_text())
    by_prompt = {entry["prompt"]: entry for entry in index["prompts"].values()}
    assert by_prompt["a cat"]["splits"] == ["train", "val", "test"]
    assert by_prompt["a dog no one has seen"]["splits"] == []
    listed = [
        file
        for entry in [*index["prompts"].values(), *index["sheets"].values()]
        for kind in entry["files"].values()
        for file in kind
    ]
    assert sorted(listed) == sorted(content(tmp_path))
    recipe = index["recipes"][by_prompt["a cat"]["made"]["video"]]
    assert (recipe["step"], recipe["frames"], recipe["size"]) == (2, 3, 16)
    for entry in by_prompt.values():
        video = iio.imread(tmp_path / entry["files"]["video"][0], plugin="FFMPEG")
        assert video.shape == (3, 16, 5 * 16, 3)
        assert len(entry["files"]["views"]) == 2 * 5
        (mesh,) = entry["files"]["mesh"]
        assert (tmp_path / mesh).read_bytes().startswith(b"ply")
    pages = {path: len(entry["prompts"]) for path, entry in index["sheets"].items()}
    assert sorted(pages.values()) == [1, 2]
    assert iio.imread(tmp_path / min(pages)).shape[1] == 2 * (2 * 8 + 6) + 6


def test_pictures_are_those_of_the_system(run, opened, tmp_path):
    render(opened, options(run, output=str(tmp_path), prompts=list(PROMPTS), outputs="views", batch=2))
    for prompt in PROMPTS:
        (entry,) = [e for e in Index(tmp_path).content["prompts"].values() if e["prompt"] == prompt]
        assert [Path(file).name for file in entry["files"]["views"]] == ["rgb-000.png", "rgb-180.png"]
        found = np.stack([iio.imread(tmp_path / file) for file in entry["files"]["views"]])
        expected = own(opened, prompt, frames=2)
        assert np.abs(found.astype(int) - expected.numpy()).max() <= 1


def test_each_prompt_is_generated_once_for_all_its_files(run, opened, tmp_path, monkeypatch):
    generator, asked = type(opened.system.generator), []
    real = generator.forward

    def counting(self, text, *rest):
        asked.append(len(text))
        return real(self, text, *rest)

    monkeypatch.setattr(generator, "forward", counting)
    monkeypatch.setattr("scaledreamer.render.shots.PIXELS", 1)  # a view at a time
    render(opened, options(run, output=str(tmp_path), prompts=list(PROMPTS), batch=2))
    assert asked == [2, 2, 1]


def test_names_of_views_tell_their_angles(run, opened, tmp_path):
    render(opened, options(run, output=str(tmp_path), prompts=["a cat"], outputs="views", views=7))
    names = sorted(Path(file).name for file in content(tmp_path))
    assert names == [f"rgb-{angle}.png" for angle in ("000", "051.4", "102.9", "154.3", "205.7", "257.1", "308.6")]


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("pixels", [1, 3 * 16 * 16, 2**18])
def test_batches_and_parts_equal_their_samples(opened, monkeypatch, batch, pixels):
    monkeypatch.setattr("scaledreamer.render.shots.PIXELS", pixels)
    shot = Shot(opened.system.cameras.orbit(3), 16, ("rgb",), maps.shown)
    expected = [own(opened, prompt) for prompt in PROMPTS]
    assert max((expected[0].int() - other.int()).abs().max() for other in expected[1:]) > 20  # they differ
    with torch.no_grad():
        for first in range(0, len(PROMPTS), batch):
            some = PROMPTS[first : first + batch]
            text = opened.embed(some)
            parts = list(shot.take(opened.system, opened.system.field(text), text))
            for place in range(len(some)):
                found = joined(parts, place)["rgb"]
                assert (found.int() - expected[first + place].int()).abs().max() <= 1


# -- interpolation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_an_interpolation_begins_at_one_prompt_and_ends_at_the_other(run, opened, batch):
    ends = {"from": "a cat", "to": "a new dog"}
    with torch.no_grad():
        found = take(opened, options(run, interpolate=ends, frames=4, batch=batch)).int()
        back = take(opened, options(run, interpolate={"from": ends["to"], "to": ends["from"]}, frames=4)).int()
    start, end = (own(opened, ends[name], frames=4).int() for name in ("from", "to"))
    assert (start[0] - end[0]).abs().max() > 20
    assert (found[0] - start[0]).abs().max() <= 1
    assert (found[3] - end[3]).abs().max() <= 1
    assert (back[0] - end[0]).abs().max() <= 1
    assert (found[1] - start[1]).abs().max() > 1  # on its way


def test_an_interpolation_without_turning_keeps_its_view(run, opened):
    with torch.no_grad():
        found = take(opened, options(run, interpolate={"from": "a cat", "to": "a cat"}, frames=4, turn=0.0)).int()
    assert (found - own(opened, "a cat", frames=1).int()).abs().max() <= 1


def test_files_of_an_interpolation(run, opened, tmp_path):
    wanted = options(
        run, output=str(tmp_path), interpolate={"from": "a cat", "to": "a dog"}, outputs=["video", "sheet"]
    )
    assert render(opened, wanted) == {"video": (1, 0), "sheet": (1, 0)}
    assert render(opened, wanted) == {"video": (0, 1), "sheet": (0, 1)}
    (entry,) = json.loads((tmp_path / "index.json").read_text())["interpolations"].values()
    assert (entry["from"], entry["to"]) == ("a cat", "a dog")
    assert iio.imread(tmp_path / entry["files"]["video"][0], plugin="FFMPEG").shape == (3, 16, 16, 3)
    assert sorted(content(tmp_path)) == sorted([*entry["files"]["video"], *entry["files"]["sheet"]])


# -- what is kept ------------------------------------------------------------------------------------------------


def test_what_is_there_is_kept_unless_it_is_overwritten(run, opened, tmp_path):
    wanted = options(run, output=str(tmp_path), prompts=list(PROMPTS[:3]))
    first = render(opened, wanted)
    assert first == dict.fromkeys(("video", "views", "sheet"), (3, 0))
    before = content(tmp_path)
    assert render(opened, wanted) == dict.fromkeys(first, (0, 3))
    assert content(tmp_path) == before
    assert render(opened, dataclasses.replace(wanted, overwrite=True)) == first
    after = content(tmp_path)
    assert after.keys() == before.keys()
    assert all(after[file] > before[file] for file in before)


def test_only_what_is_missing_is_made(run, opened, tmp_path):
    wanted = options(run, output=str(tmp_path), prompts=list(PROMPTS[:3]), outputs=["video", "views"])
    render(opened, wanted)
    before = content(tmp_path)
    gone = sorted(file for file in before if file.startswith("videos/"))[0]
    (tmp_path / gone).unlink()
    assert render(opened, wanted) == {"video": (1, 2), "views": (0, 3)}
    after = content(tmp_path)
    assert {file for file in after if after[file] != before[file]} == {gone}
    more = dataclasses.replace(wanted, prompts=list(PROMPTS[:4]))
    assert render(opened, more) == {"video": (1, 3), "views": (1, 3)}


def test_other_options_and_other_weights_are_not_taken_for_the_same(run, opened, tmp_path):
    wanted = options(run, output=str(tmp_path), prompts=list(PROMPTS[:1]), outputs=["video", "views"])
    render(opened, wanted)
    assert render(opened, dataclasses.replace(wanted, fps=5.0)) == {"video": (1, 0), "views": (0, 1)}
    fresh = open_run(run, device="cpu")  # not shaken
    assert render(fresh, wanted) == {"video": (1, 0), "views": (1, 0)}


def test_a_page_is_made_anew_when_its_prompts_are_others(run, opened, tmp_path):
    wanted = options(run, output=str(tmp_path), prompts="train", outputs="sheet")
    assert render(opened, wanted) == {"sheet": (5, 0)}  # pages of two
    assert sorted(content(tmp_path)) == [f"sheets/train-0{n}.png" for n in (1, 2, 3)]
    (tmp_path / "sheets" / "train-02.png").unlink()
    assert render(opened, wanted) == {"sheet": (2, 3)}
    assert render(opened, dataclasses.replace(wanted, limit=3)) == {"sheet": (1, 2)}


def test_a_call_that_dies_goes_on_where_it_was(run, opened, tmp_path, monkeypatch):
    wanted = options(run, output=str(tmp_path), prompts=list(PROMPTS), outputs="video")
    written = []

    def dying(frames, path, *, fps):
        if len(written) == 2:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        real(frames, path, fps=fps)

    real = outputs.save_video
    monkeypatch.setattr(outputs, "save_video", dying)
    with pytest.raises(UserError, match=r"videos/.*\.mp4: No space left on device; set output=FOLDER\."):
        render(opened, wanted)
    monkeypatch.undo()
    before = content(tmp_path)
    assert len(before) >= 2
    assert not list(tmp_path.rglob("*.part"))
    assert render(opened, wanted)["video"] == (3, 2)
    after = content(tmp_path)
    assert {tmp_path / file for file in before if after[file] == before[file]} == set(written)


def test_two_calls_do_not_write_into_one_folder(run, opened, tmp_path, monkeypatch):
    wanted = options(run, output=str(tmp_path), prompts=list(PROMPTS[:1]), outputs="views")

    def second(*arguments):
        with pytest.raises(UserError, match=r"^output: another process renders into "):
            render(opened, wanted)
        return {}

    monkeypatch.setattr(job, "_rendered", second)
    render(opened, wanted)


# -- what is refused ---------------------------------------------------------------------------------------------

WRONG = {
    "": "run: is required; set run=...",
    "run=nowhere": "run: nowhere is no folder; give one that train.py has made, run=outputs/NAME/TIME.",
    "run=.": "run: . is no folder of a run: it has no config.yaml; give one that train.py has made,",
    "run=RUN prompts=tset": "prompts: 'tset' is no split, did you mean 'test'? A prompt of one word is written as a ",
    "run=RUN prompts=[]": "prompts: input should be a valid string, or list should have at least 1 item",
    "run=RUN prompts=['']": "prompts: number 1 is blank; write one.",
    "run=RUN outputs=[vidoe]": "outputs: input should be 'video', 'views', 'sheet' or 'mesh', ",
    "run=RUN maps=[colour]": "maps: input should be 'rgb', 'rgba', 'normal', 'depth' or 'opacity', ",
    "run=RUN image_size=65": "image_size: input should be a multiple of 2, not 65. [command line, over ",
    "run=RUN image_size=0": "image_size: input should be greater than or equal to 8, not 0.",
    "run=RUN frames=0": "frames: input should be greater than or equal to 1, not 0.",
    "run=RUN ouputs=[video]": "ouputs: no such key; did you mean 'outputs'?",
    "run=RUN interpolate.form=a": "interpolate.form: no such key; did you mean 'from'? [",
    "run=RUN interpolate.from=a": "interpolate.to: is required beside interpolate.from.",
    "run=RUN interpolate.from=a interpolate.to=b outputs=mesh": "outputs: of an interpolation there are video and ",
    "run=RUN mesh.resolution=0": "mesh.resolution: input should be greater than or equal to 8, not 0.",
    "run=RUN mesh_format=stl": "mesh_format: input should be 'glb', 'obj' or 'ply', not 'stl'.",
    "run=RUN train=x": "train: describes weights that are no run's; leave it out, or run=.",
    "run=null": "run: give a run's folder, run=outputs/NAME/TIME; or, of weights that are no run's, ",
    "run=null checkpoint=a.pth train=x": "output: weights that are no run's have no folder of their own;",
    "run=RUN device=tpu": "device=tpu: choose auto, cpu, cuda or cuda:N.",
    "run=RUN checkpoint=step-7": "checkpoint=step-7: no such file; run=",
    "run=EMPTY": "run=EMPTY has no checkpoint",
    "-m run=RUN,nowhere": "run: nowhere is no folder;",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_a_mistake_is_one_line(run, tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "EMPTY", ignore=shutil.ignore_patterns("checkpoints"))
    os.symlink(run, "RUN")
    before = sorted(tmp_path.rglob("*"))
    found = answer(*arguments.split(), capsys=capsys, monkeypatch=monkeypatch, script="render")
    assert found.error.splitlines()[0].startswith(WRONG[arguments])
    assert len(found.error.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_generator_of_one_prompt_refuses_others(run, opened, tmp_path, monkeypatch):
    monkeypatch.setattr(type(opened.system.generator), "one_prompt", True)
    wanted = options(run, output=str(tmp_path), prompts=["a zebra"])
    with pytest.raises(UserError, match=r"^prompts: this run has learned 'a cat' alone, it cannot make 'a zebra'\.$"):
        render(opened, wanted)
    with pytest.raises(UserError, match=r"cannot make 'a zebra'"):
        render(opened, dataclasses.replace(wanted, interpolate={"from": "a cat", "to": "a zebra"}))
    assert not content(tmp_path)


def test_a_broken_index_is_not_overwritten(run, opened, tmp_path):
    (tmp_path / "index.json").write_text('{"prompts": {')
    with pytest.raises(UserError, match=r"index\.json is not an index of renders \(JSONDecodeError: .*remove it, or"):
        render(opened, options(run, output=str(tmp_path)))
    assert (tmp_path / "index.json").read_text() == '{"prompts": {'


# -- the command -------------------------------------------------------------------------------------------------


def test_the_command_renders_into_the_runs_folder(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["image_size=16", "tile=8", "frames=2", "views=1", "limit=2", "prompts=train", "device=cpu"]
    found = answer(f"run={run}", *small, capsys=capsys, monkeypatch=monkeypatch, script="render")
    assert found.code == 0, found.errors
    assert "picture 8/8" in found.errors  # 2 prompts: 2 frames, 1 view and 1 on the sheet each
    assert len(list((run / "render" / "videos").glob("*.mp4"))) == 2
    assert not list(tmp_path.iterdir())


def test_weights_of_no_run_are_rendered_with_the_options_they_fit(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    prompts = run.parent / "prompts.txt"
    torch.save({"state_dict": torch.load(run / "checkpoints" / "last.ckpt")["state_dict"]}, "weights.pth")
    train = " ".join([*SMALL, f"corpus.path={prompts}"])
    what = ["run=null", "checkpoint=weights.pth", f'train="{train}"', "output=out", "image_size=16", "outputs=views"]
    found = answer(*what, "limit=1", capsys=capsys, monkeypatch=monkeypatch, script="render")
    assert found.code == 0, found.errors
    (picture,) = sorted((tmp_path / "out" / "views").glob("*/rgb-000.png"))
    expected = own(open_run(run, device="cpu"), "a cat", frames=4)[0]
    assert np.abs(iio.imread(picture).astype(int) - expected.numpy()).max() <= 1
