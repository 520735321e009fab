"""Files of a gallery: what is made of renders, kept, rendered where it is missing, and packaged."""

import base64
import fnmatch
import gzip
import hashlib
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ROOT
from galleries import MADE_BY, PROMPTS, data_of, options, write_rendered_run
from PIL import Image
from runs import trained

from scaledreamer.errors import UserError
from scaledreamer.gallery import media as gallery_media
from scaledreamer.gallery import source
from scaledreamer.gallery.job import write_gallery
from scaledreamer.gallery.page import ASSETS
from scaledreamer.render.names import name_of
from scaledreamer.training.trained import open_run


@pytest.fixture
def run(tmp_path) -> Path:
    """Four prompts."""
    return write_rendered_run(tmp_path / "run", PROMPTS)


def media(page: Path, suffix: str) -> dict[str, Path]:
    """Files of the first run by the names of their objects."""
    return {path.stem.rpartition("-")[0]: path for path in sorted(page.parent.glob(f"media/*/*.{suffix}"))}


def glb_of(script: Path) -> bytes:
    """What a script hands over."""
    found = re.fullmatch(r'gallery\.mesh\("([A-Za-z0-9+/=]+)"\);\n', script.read_text("ascii"))
    assert found is not None
    return gzip.decompress(base64.b64decode(found[1]))


# -- files -------------------------------------------------------------------------------------------------------


def test_meshes_and_videos_are_the_renders(run):
    page = write_gallery(options(run))
    for name, script in media(page, "js").items():
        assert glb_of(script) == (run / "render" / "meshes" / f"{name}.glb").read_bytes()
    for name, video in media(page, "mp4").items():
        assert video.read_bytes() == (run / "render" / "videos" / f"{name}.mp4").read_bytes()


@pytest.mark.parametrize(("maps", "at"), [(("rgb",), [0, 1]), (("normal", "rgb"), [1, 2]), (("depth",), [0, 1])])
def test_posters_are_first_frames_of_colours(tmp_path, maps, at):
    run = write_rendered_run(tmp_path / "run", {"a cat": ("train",)}, maps=maps, size=64)
    page = write_gallery(options(run))
    assert data_of(page)["objects"][0]["runs"][0]["at"] == at
    picture = np.asarray(Image.open(next(iter(media(page, "webp").values()))).convert("RGB")).astype(int)
    assert picture.shape == (64, 64, 3)
    bar, rest = picture[:, 2:13].mean((0, 1)), picture[:, 24:].mean((0, 1))
    assert np.abs(bar - ([0, 0, 255] if maps == ("depth",) else [230, 26, 26])).max() < 24
    assert np.abs(rest - 128).max() < 8


def test_files_are_made_once_and_go_with_their_objects(run):
    page = write_gallery(options(run))

    def written() -> dict[str, tuple[int, int]]:
        files = [path for path in page.parent.rglob("*") if path.parent.parent.name == "media"]
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}

    before = written()
    assert len(before) == 3 * len(PROMPTS)
    write_gallery(options(run))
    assert written() == before
    # A mesh that was made anew is taken anew, whatever its time, and nothing else is.
    name = name_of("a tree")
    mesh, old = run / "render" / "meshes" / f"{name}.glb", media(page, "js")[name].name
    content, time = mesh.read_bytes() + b"\0\0\0\0", mesh.stat().st_mtime_ns
    mesh.unlink()  # it is a link to the others
    mesh.write_bytes(content)
    os.utime(mesh, ns=(time, time))
    write_gallery(options(run))
    after, new = written(), media(page, "js")[name].name
    assert old != new
    assert set(before) - {old} == set(after) - {new}
    assert all(after[key] == before[key] for key in after if key != new)
    assert glb_of(media(page, "js")[name]) == content
    write_gallery(options(run, "prompts=test"))
    assert set(written()) == {media(page, suffix)[name].name for suffix in ("webp", "mp4", "js")}


def test_copies_are_complete(run, tmp_path, monkeypatch):
    """The times of files are not copied, and folders have other names."""
    write_gallery(options(run))
    monkeypatch.setattr(gallery_media, "_made", lambda *_: pytest.fail("made anew"))
    other = Path(shutil.copytree(run, tmp_path / "elsewhere" / "copy", copy_function=shutil.copyfile))
    page = write_gallery(options(other))
    assert len(list(page.parent.glob("media/*/*"))) == 3 * len(PROMPTS)
    assert data_of(page)["title"] == "elsewhere/copy"


def test_files_of_runs_go_with_them(run, tmp_path):
    other = write_rendered_run(tmp_path / "other", {"a cat": ("train",)}, color=(0.1, 0.9, 0.1))
    page = write_gallery(options([run, other], output=str(tmp_path / "page")))
    assert len(list(page.parent.glob("media/*"))) == 2
    write_gallery(options(other, output=str(tmp_path / "page")))
    assert list(media(page, "js")) == [name_of("a cat")]
    assert len(list(page.parent.glob("media/*"))) == 1


def test_no_folder_stays_behind_where_there_is_nothing_to_show(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("seed: 0\n")
    for missing in ("skip", "render"):
        with pytest.raises(UserError):
            write_gallery(options(run, missing=missing))
    assert [path.name for path in run.iterdir()] == ["config.yaml"]


def test_a_broken_video_is_named(run):
    broken = run / "render" / "videos" / f"{name_of('a tree')}.mp4"
    broken.unlink()
    broken.write_bytes(b"no video")
    with pytest.raises(UserError, match=re.escape(str(broken)) + ": is no video that can be read"):
        write_gallery(options(run))


def test_everything_that_the_page_names_is_packaged():
    page = (ASSETS / "index.html").read_text("utf-8")
    named = re.findall(r'(?:src|href)="(assets/[^"]+)"', page)
    assert len(named) >= 6
    assert all((ASSETS.parent / name).is_file() for name in named)
    own = [path for path in ASSETS.iterdir() if path.is_file()]
    for path in own:
        assert "http" not in path.read_text("utf-8"), path  # no network
    licences = {path.name for path in (ASSETS / "model-viewer").glob("LICENSE*")}
    assert licences == {"LICENSE", "LICENSE.three", "LICENSE.lit", "LICENSE.gainmap-js", "LICENSE.fflate"}
    viewer = (ASSETS / "model-viewer" / "model-viewer-umd.min.js").read_bytes()
    assert hashlib.sha256(viewer).hexdigest() in (ASSETS / "model-viewer" / "README.md").read_text("utf-8")


def test_assets_are_package_data():
    # A line, since tomllib is of Python 3.11.
    found = re.search(r'^"scaledreamer\.gallery" = \[(.*)\]$', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    assert found is not None
    patterns = re.findall(r'"([^"]+)"', found[1])
    files = [path.relative_to(ASSETS.parent).as_posix() for path in ASSETS.rglob("*") if path.is_file()]
    flat = [pattern.replace("**/", "*") for pattern in patterns]
    assert all(any(fnmatch.fnmatch(file, pattern) for pattern in flat) for file in files)


# -- what is missing is rendered ---------------------------------------------------------------------------------

FEW = {"image_size": 8, "frames": 2, "missing": "render"}
MESH = {"_target_": "scaledreamer.mesh.extract.MeshExtractor", "resolution": 12}


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory, one_thread):
    """A run of one step; its weights are shaken when it is opened, so that there are surfaces."""
    folder = tmp_path_factory.mktemp("gallery")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALEDREAMER_DATA", str(folder / "data"))
        (folder / "prompts.json").write_text('{"train": ["a cat", "a dog"], "test": ["a cat", "a tree"]}')
        few = [f"corpus.path={folder / 'prompts.json'}", "trainer.max_steps=1", "callbacks.previews=null"]
        trained(few, folder / "run")
        yield folder / "run"


@pytest.fixture
def rendered(monkeypatch) -> list[tuple[list[str], list[str]]]:
    """Prompts and kinds that are rendered, in order."""
    found: list[tuple[list[str], list[str]]] = []
    real = source.render

    def counting(trained, given):
        found.append((list(given.prompts), list(given.outputs)))
        return real(trained, given)

    monkeypatch.setattr(source, "render", counting)
    return found


def test_what_is_missing_is_rendered_and_no_more(trained_run, rendered):
    chosen = options(trained_run, **FEW, mesh=MESH)
    page = write_gallery(chosen)
    assert rendered == [(["a cat", "a dog", "a tree"], ["video", "mesh"])]
    shown = {o["prompt"]: o["runs"][0] for o in data_of(page)["objects"]}
    assert {p: (o["seen"], o["video"] is not None) for p, o in shown.items()} == {
        "a cat": (True, True), "a dog": (True, True), "a tree": (False, True),
    }  # fmt: skip
    kept = {path: path.stat().st_mtime_ns for path in trained_run.glob("render/*/*") if path.stem != name_of("a dog")}

    rendered.clear()
    # Renders of other sizes are taken as they are.
    write_gallery(options(trained_run, **{**FEW, "image_size": 16, "frames": 3}, mesh=MESH))
    assert rendered == []

    (trained_run / "render" / "videos" / f"{name_of('a dog')}.mp4").unlink()
    write_gallery(chosen)
    assert rendered == [(["a dog"], ["video"])]
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_renders_of_other_weights_are_not_shown(trained_run, rendered, monkeypatch):
    chosen = options(trained_run, **FEW, mesh=MESH, prompts=["a cat"], meshes=False)
    write_gallery(chosen)
    rendered.clear()

    def other(*given, **more):
        found = open_run(*given, **more)
        with torch.no_grad():
            next(iter(found.system.generator.parameters())).add_(0.1)
        return found

    monkeypatch.setattr(source, "open_run", other)
    write_gallery(chosen)
    assert rendered == [(["a cat"], ["video"])]


def test_meshes_that_no_viewer_shows_are_made_anew(tmp_path):
    run = write_rendered_run(tmp_path / "run", {"a cat": ("train",)})
    index = run / "render" / "index.json"
    index.write_text(index.read_text().replace('"format": "glb"', '"format": "obj"'))
    shelf = source.Shelf(run / "render", made_by=MADE_BY)
    (item,) = shelf.items
    assert shelf.has(item, "video")
    assert not shelf.has(item, "mesh")
    assert shelf.object(item).mesh is None


def test_an_empty_object_has_no_mesh_and_is_done(tmp_path):
    run = write_rendered_run(tmp_path / "run", {"a cat": ("train",)})
    index = run / "render" / "index.json"
    index.write_text(re.sub(r'"meshes/[^"]+"', "", index.read_text()))
    shelf = source.Shelf(run / "render", made_by=MADE_BY)
    assert shelf.has(shelf.items[0], "mesh")
    shown = data_of(write_gallery(options(run)))["objects"][0]["runs"][0]
    assert shown["video"].startswith(name_of("a cat"))
    assert shown["mesh"] is None
