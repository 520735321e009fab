"""What is behind the page to try a generator: prompts, the line, files and their end. No web server is needed here."""

import itertools
import logging
import os
import shutil
import sys
import threading
import unicodedata
from types import SimpleNamespace

import hydra
import imageio.v3 as iio
import pytest
import torch
import trimesh
from answers import QUIET
from hydra.core.global_hydra import GlobalHydra
from serving import HOSTILE, MARKUP, TEST, TRAIN, open_small

from scaledreamer.cli import clear_errors
from scaledreamer.config import CONF, compose, plain
from scaledreamer.errors import UserError
from scaledreamer.serve.__main__ import main
from scaledreamer.serve.book import PromptBook, cleaned
from scaledreamer.serve.line import Cancelled, Full, Job, Line
from scaledreamer.serve.shelf import Made, Shelf
from scaledreamer.serve.workshop import STAGES
from scaledreamer.training.trained import Trained

PATIENCE = 60.0


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def desk(served_run):
    made = open_small(served_run)
    yield made
    made.close()


def finished(job: Job) -> Job:
    assert job.over.wait(PATIENCE)
    return job


# -- prompts -----------------------------------------------------------------------------------------------------


def test_prompts_are_one_clean_line():
    assert cleaned("  a\tred \r\n robot\0on\u2028a drum ", longest=99) == "a red robot on a drum"
    assert cleaned("e\u0301", longest=99) == "\u00e9"
    assert cleaned("a \u202egnp.exe\ud800\ufeff", longest=99) == "a gnp.exe"
    assert cleaned("👩\u200d🚀", longest=99) == "👩\u200d🚀"
    assert cleaned("x" * 99, longest=99) == "x" * 99


@pytest.mark.parametrize("text", ["", "   ", "\0\0", "\u202e", "\ud800", None, 7, ["a cat"], {"a": 1}, b"a cat"])
def test_what_is_no_prompt_is_refused(text):
    with pytest.raises(UserError, match=r"^(Write what you want to see|A prompt is text)\.$"):
        cleaned(text, longest=99)


def test_long_prompts_are_refused_before_anything_is_done_with_them(monkeypatch):
    monkeypatch.setattr("scaledreamer.serve.book.unicodedata", None)
    with pytest.raises(UserError, match=r"^A prompt may have 200 characters, this one has 1,048,576\.$"):
        cleaned("x" * 2**20, longest=200)


def test_a_prompt_may_not_grow_when_it_is_composed():
    assert len(unicodedata.normalize("NFC", "\ufb2c")) == 3  # a Hebrew letter with two dots
    with pytest.raises(UserError, match="may have 8 characters, this one has 15"):
        cleaned("\ufb2c" * 5, longest=8)


def test_examples_are_half_unseen_and_marked(desk):
    assert [(e.prompt, e.seen) for e in desk.book.examples] == [
        *((prompt, True) for prompt in TRAIN),
        *((prompt, False) for prompt in TEST[1:]),
    ]
    assert (desk.book.seen("A  cat"), desk.book.seen("a zebra")) == (True, False)
    assert (desk.book.words, desk.book.sentence) == ({}, None)


def toys(**given) -> PromptBook:
    """The book of a run of the toybox that never was."""
    config = plain(compose(["experiment=toybox_minute"]))
    system = SimpleNamespace(generator=SimpleNamespace(one_prompt=False))
    return PromptBook(Trained(system=system, config=config, directory=None, step=0), examples=8, longest=200, **given)


def test_the_toybox_says_what_it_knows():
    book = toys()
    assert [example.seen for example in book.examples] == [True] * 4 + [False] * 4
    assert book.read(" a  pink robot ") == "a pink robot"
    assert all(book.read(example.prompt) for example in book.examples)
    with pytest.raises(UserError) as refused:
        book.read("a red dragon")
    assert str(refused.value).startswith("'a red dragon': the toybox has no kind of toy 'dragon'; ")
    assert str(refused.value).endswith(f"It has {', '.join(book.words['toy'])}.")  # and nothing about training
    for text in HOSTILE.values():
        with pytest.raises(UserError) as refused:
            book.read(text)
        assert len(str(refused.value).splitlines()) == 1


def test_a_run_of_one_prompt_offers_that_one(monkeypatch):
    config = plain(compose(["experiment=toybox_one_prompt"]))
    system = SimpleNamespace(generator=SimpleNamespace(one_prompt=True))
    trained = Trained(system=system, config=config, directory=None, step=0)
    book = PromptBook(trained, examples=8, longest=200)
    (own,) = trained.prompts.train
    assert [(e.prompt, e.seen) for e in book.examples] == [(own, True)]
    assert book.read(own) == own
    with pytest.raises(UserError, match=f"learned '{own}' alone"):
        book.read("a black teapot")


def test_without_its_corpus_a_run_still_reads_prompts(served_run, tmp_path):
    copied = tmp_path / "run"
    shutil.copytree(served_run, copied)
    config = (copied / "config.yaml").read_text().replace("prompts.json", "gone.json")
    (copied / "config.yaml").write_text(config)
    lost = open_small(copied)
    try:
        assert lost.book.examples == ()
        assert lost.order("a cat").made.seen is None
    finally:
        lost.close()


# -- what is made ------------------------------------------------------------------------------------------------


def test_a_prompt_becomes_a_mesh_and_a_video(desk):
    job = finished(desk.order("a green bird on a rock"))
    made = job.made
    assert job.error is None
    assert (made.whole, made.seen, made.variation) == (True, False, 0)
    assert tuple(made.seconds) == STAGES
    assert all(seconds > 0 for seconds in made.seconds.values())
    mesh = trimesh.load(made.files["mesh"], force="mesh", process=False)
    assert len(mesh.faces) == made.triangles > 50
    video = iio.imread(made.files["video"], plugin="FFMPEG")
    assert video.shape == (3, 16, 16, 3)
    assert {path.parent for path in made.files.values()} == {desk.shelf.folder}
    assert made.address("mesh") == f"/files/{made.name}.glb"
    expected = desk.workshop.trained
    with torch.no_grad():
        text = expected.embed(["a green bird on a rock"])
        (own,) = desk.workshop.extractor(expected.system.field(text))
    torch.testing.assert_close(torch.tensor(own.vertices[:, [1, 2, 0]]), torch.tensor(mesh.vertices).float())


def test_what_was_made_is_kept(desk):
    first = finished(desk.order("a dog"))
    again = desk.order(" A Dog\0".lower())
    assert again.over.is_set()
    assert again.made is first.made
    other = finished(desk.order("a Dog"))
    assert other.made.name != first.made.name


def test_a_variation_is_another_object(desk):
    meshes = [finished(desk.order("a cat", n)).made.files["mesh"].read_bytes() for n in (0, 1, 2, 1.0)]
    assert meshes[1] == meshes[3]
    assert len(set(meshes)) == 3
    for wrong in (-1, 2**31, 0.5, "1", True, None, float("nan"), float("inf"), [1]):
        with pytest.raises(UserError, match=r"^A variation is a whole number from 0 to 2147483647\.$"):
            desk.order("a cat", wrong)


def test_generators_without_a_latent_have_one_variation(desk, monkeypatch):
    monkeypatch.setattr(desk.workshop.trained.system.generator, "latent_dim", 0)
    with pytest.raises(UserError, match="makes one object of a prompt"):
        desk.order("a cat", 1)


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_prompts_are_nothing_but_text(desk, kind):
    made = finished(desk.order(HOSTILE[kind])).made
    assert made.whole
    for path in made.files.values():
        assert path.parent == desk.shelf.folder
        assert set(path.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
        assert path.is_file()


def test_an_object_without_a_surface_has_no_mesh(desk, monkeypatch):
    monkeypatch.setattr(desk.workshop, "extractor", lambda field, device: [None])
    job = finished(desk.order("nothing at all"))
    assert (job.error, job.made.whole, job.made.address("mesh")) == (None, True, None)
    assert "file" not in job.made.seconds
    assert job.made.files["video"].is_file()


def test_an_error_is_one_job_s_alone(desk, monkeypatch, caplog):
    monkeypatch.setattr(desk.workshop, "extractor", lambda field, device: 1 / 0)
    with caplog.at_level(logging.ERROR):
        job = finished(desk.order("a prompt that breaks it"))
    monkeypatch.undo()
    assert job.error == "Something went wrong, this one cannot be made; the server's log says what happened."
    assert "ZeroDivisionError" in caplog.text
    assert desk.shelf.get(job.made.name) is None
    assert finished(desk.order("a prompt that breaks it")).made.whole
    monkeypatch.setattr(desk.workshop, "extractor", lambda field, device: refuse())
    assert finished(desk.order("another")).error == "there is no text encoder here."


def refuse():
    raise UserError("there is no text encoder here.")


def test_a_cancelled_job_leaves_no_file(desk, monkeypatch):
    begun, go = threading.Event(), threading.Event()

    def slow(field, device):
        begun.set()
        assert go.wait(PATIENCE)
        return [None]

    monkeypatch.setattr(desk.workshop, "extractor", slow)
    before = sorted(desk.shelf.folder.iterdir())
    job = desk.order("a job that nobody waits for")
    assert begun.wait(PATIENCE)
    desk.line.cancel(job)
    go.set()
    assert finished(job).cancelled
    assert not job.made.whole
    assert sorted(desk.shelf.folder.iterdir()) == before


# -- the line ----------------------------------------------------------------------------------------------------


def a_job(prompt: str = "x") -> Job:
    return Job(Made(prompt=prompt, variation=0, seen=None))


def test_one_job_is_done_at_a_time_in_order():
    order, at_work, gates = [], [], {}

    def work(job):
        at_work.append(job)
        assert len(at_work) == 1
        assert gates[job].wait(PATIENCE)
        order.append(job)
        at_work.remove(job)

    line = Line(work, waiting=3)
    jobs = [a_job(str(n)) for n in range(5)]
    gates.update((job, threading.Event()) for job in jobs)
    line.add(jobs[0])
    while not at_work:
        pass
    for job in jobs[1:4]:
        line.add(job)
    assert [line.ahead(job) for job in jobs] == [0, 1, 2, 3, 0]
    with pytest.raises(Full, match=r"^3 prompts are waiting already; try again in a while\.$"):
        line.add(jobs[4])
    line.cancel(jobs[2])
    assert jobs[2].over.is_set()
    assert [line.ahead(job) for job in jobs] == [0, 1, 0, 2, 0]
    line.add(jobs[4])
    for gate in gates.values():
        gate.set()
    for job in jobs:
        finished(job)
    assert order == [jobs[0], jobs[1], jobs[3], jobs[4]]
    line.close()


def test_a_closed_line_lets_everyone_go():
    begun = threading.Event()

    def work(job):
        begun.set()
        for _ in itertools.count():
            job.enter("video")

    line = Line(work, waiting=5)
    jobs = [a_job(), a_job()]
    line.add(jobs[0])
    assert begun.wait(PATIENCE)
    line.add(jobs[1])
    line.close(patience=PATIENCE)
    assert all(finished(job).cancelled for job in jobs)
    with pytest.raises(Cancelled):
        jobs[0].enter("text")


# -- files -------------------------------------------------------------------------------------------------------


def thing(shelf: Shelf, prompt: str) -> Made:
    made = Made(prompt=prompt, variation=0, seen=None, whole=True)
    made.files["mesh"] = shelf.folder / f"{made.name}.glb"
    made.files["mesh"].write_bytes(b"glTF")
    shelf.put(made)
    return made


def test_the_shelf_keeps_what_was_asked_for_last():
    shelf = Shelf(keep=2)
    a, b = thing(shelf, "a"), thing(shelf, "b")
    assert shelf.get(a.name) is a
    c = thing(shelf, "c")
    assert [shelf.get(made.name) for made in (a, b, c)] == [a, None, c]
    assert sorted(shelf.folder.iterdir()) == sorted(made.files["mesh"] for made in (a, c))
    again = thing(shelf, "a")
    assert shelf.get(a.name) is again
    shelf.drop(a)  # that was replaced
    assert shelf.get(a.name) is again
    shelf.close()
    assert not shelf.folder.exists()
    assert shelf.file(c.files["mesh"].name) is None


def test_only_names_on_the_shelf_are_files():
    shelf = Shelf(keep=2)
    made = thing(shelf, "a")
    (shelf.folder / "secret.txt").write_text("x")
    name = made.files["mesh"].name
    assert shelf.file(name) == made.files["mesh"]
    for other in ("", ".", "..", "secret.txt", f"./{name}", f"../{shelf.folder.name}/{name}", str(made.files["mesh"]),
                  f"{name}\0", name.upper(), "/etc/passwd", "..%2f..%2fetc%2fpasswd"):  # fmt: skip
        assert shelf.file(other) is None
    if os.name == "posix":
        assert shelf.folder.stat().st_mode & 0o777 == 0o700  # of this user alone
    shelf.close()


# -- the command -------------------------------------------------------------------------------------------------

WRONG = {
    "": "run: is required; set run=...",
    "run=nowhere": "run: nowhere is no folder; give one that train.py has made, run=outputs/NAME/TIME.",
    "run=RUN port=70000": "port: input should be less than or equal to 65535, not 70000.",
    "run=RUN hots=0.0.0.0": "hots: no such key; did you mean 'host'?",
    "run=RUN host=''": "host: is blank; 127.0.0.1 is this machine alone,",
    "run=RUN keep=0": "keep: input should be greater than or equal to 1, not 0.",
    "run=RUN mesh.resolution=0": "mesh.resolution: input should be greater than or equal to 8, not 0.",
    "run=RUN train=x": "train: describes weights that are no run's; leave it out, or run=.",
    "run=null": "run: give a run's folder, run=outputs/NAME/TIME; or, of weights that are no run's, ",
    "run=RUN device=tpu": "device=tpu: choose auto, cpu, cuda or cuda:N.",
    "run=RUN device=cpu checkpoint=step-7": "checkpoint=step-7: no such file; run=",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_a_mistake_is_one_line(served_run, tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr("scaledreamer.serve.server.require_packages", lambda: None)
    monkeypatch.setattr("scaledreamer.serve.server.signal.signal", lambda *_: None)
    os.symlink(served_run, "RUN")
    monkeypatch.setattr(sys, "argv", ["serve", "port=0", *arguments.replace("''", "").split(), *QUIET])
    command = hydra.main(version_base="1.3", config_path=str(CONF), config_name="serve")(main.__wrapped__)
    with pytest.raises(SystemExit) as ended, clear_errors():
        command()
    GlobalHydra.instance().clear()
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {WRONG[arguments]}")
    assert len(error.splitlines()) == 1


def test_without_the_extra_the_command_says_how_to_get_it(monkeypatch):
    from scaledreamer.serve.server import require_packages

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"^there is no package nicegui; pip install -c constraints.txt -e '\.\[serve\]'$"
    ):
        require_packages()


def test_markup_of_a_corpus_is_a_prompt_like_others(desk):
    assert finished(desk.order(MARKUP)).made.whole
