"""Wrong files, folders and checkpoints: one line that says what to do, exit code 1, nothing lost."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from answers import answer
from commands import train

from scaledreamer.config import compose, plain
from scaledreamer.priors.random_weights import write_random_prior
from scaledreamer.training.directory import record

TRIAL = ("experiment=trial", "generator.resolution=8")


@pytest.fixture
def error(tmp_path, monkeypatch, capsys):
    """``error("corpus.path=x.txt")``: the line that a trial is answered with, from an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def ask(*arguments: str) -> str:
        return answer(*TRIAL, *arguments, capsys=capsys, monkeypatch=monkeypatch).error

    return ask


def contents(folder: Path) -> dict[str, str]:
    """Path and hash of every file but the log, to which the refused launch is added."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "train.log"]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# -- priors ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_prior(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prior")
    write_random_prior(folder)
    return folder


def test_a_prior_that_is_not_there(error):
    message = error("guidance.prior.path=/no/such/folder")
    assert "'/no/such/folder'" in message
    assert "python -m scaledreamer.fetch sd21" in message
    assert "guidance.prior.path=random:tiny" in message


def test_a_prior_that_has_not_been_fetched(error, tmp_path):
    message = error("guidance/prior=sd21")
    assert message.startswith(f"the prior 'sd21' has not been fetched to {tmp_path}/data/priors/sd21. ")
    assert "python -m scaledreamer.fetch sd21" in message


def test_a_hub_name_without_a_network(error):
    message = error("guidance.prior.path=nobody/no-such-model")
    assert message.startswith("cannot download nobody/no-such-model (")
    assert "Set guidance.prior.path to a local folder" in message


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


BREAK = {
    "weights cut short": ("unet/diffusion_pytorch_model.safetensors", cut, "its header promises"),
    "config missing": ("vae/config.json", Path.unlink, "is missing"),
    "broken json": ("scheduler/scheduler_config.json", lambda path: path.write_text("{"), "cannot be read"),
    "another model": (
        "unet/config.json",
        lambda path: path.write_text(path.read_text().replace('"cross_attention_dim": 32', '"cross_attention_dim": 8')),
        "its UNet wants text 8 wide, its text encoder's is 32; choose another folder.",
    ),
}


@pytest.mark.parametrize("case", BREAK)
def test_a_prior_that_is_broken(error, tmp_path, whole_prior, case):
    name, damage, reason = BREAK[case]
    folder = shutil.copytree(whole_prior, tmp_path / "prior")
    damage(folder / name)
    message = error(f"guidance.prior.path={folder}")
    assert str(folder if case == "another model" else folder / name) in message
    assert reason in message
    assert "another folder" in message


# -- corpora -----------------------------------------------------------------------------------------------------

PROMPTS = {
    "empty.json": ("", "is empty; put at least one prompt into it."),
    "cut.json": ('{"train": ["a corgi"', "not JSON"),
    "notrain.json": ('{"test": ["a corgi"]}', "train"),
    "numbers.json": ('{"train": ["a corgi", 7]}', "train[1] must be a string, not 7."),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_file_that_is_broken(error, tmp_path, name):
    content, reason = PROMPTS[name]
    (tmp_path / name).write_text(content)
    message = error(f"corpus.path={name}")
    assert message.startswith(name)
    assert reason in message


def test_a_prompt_file_that_is_not_there(error, tmp_path):
    assert error("corpus.path=none.txt") == f"none.txt: there is no such prompt file (looked from {tmp_path})."


def test_a_published_file_of_another_content(error, tmp_path):
    file = tmp_path / "data" / "corpora" / "magic3d_15_prompt_library.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"train": ["mine"]}')
    message = error("corpus=MG15")
    assert message.startswith(f"{file} is not the published file: sha256 ")
    assert f"remove it to have it downloaded, or train on it as it is with corpus.path={file}" in message
    assert file.read_text() == '{"train": ["mine"]}'


def test_a_published_file_without_a_network(error, tmp_path, monkeypatch):
    monkeypatch.setattr("scaledreamer.corpora.download.time.sleep", lambda seconds: None)
    message = error("corpus=MG15", "corpus.source.url=http://127.0.0.1:1/prompts.json")
    file = tmp_path / "data" / "corpora" / "magic3d_15_prompt_library.json"
    assert message.startswith("cannot download http://127.0.0.1:1/prompts.json (")
    assert f"Without a network, put that file at {file} (sha256 " in message


def test_a_corpus_that_has_to_be_built(error):
    assert "build it with: python -m scaledreamer.corpora.cap3d CAPTIONS.csv" in error("corpus=CP100k")


# -- places that cannot be written -------------------------------------------------------------------------------


def test_a_run_folder_that_cannot_be(error, tmp_path):
    (tmp_path / "file").touch()
    message = error("hydra.run.dir=file/run")
    assert "file/run" in message
    assert "hydra.run.dir=DIR" in message


def test_a_data_folder_that_cannot_be(error, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path / "file"))
    assert "set SCALEDREAMER_DATA to a folder with room" in error("corpus=prompt", "corpus.prompt=a")


# -- runs to resume ----------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    """A run's folder ``run`` as a trial leaves it, with a checkpoint that knows its configuration and prompts."""
    config = plain(compose([*TRIAL, "corpus=prompt", "corpus.prompt=a corgi"]))
    folder = tmp_path / "run"
    record(folder, config)
    digest = hashlib.sha256(b"a corgi").hexdigest()
    place = {"samples_seen": 2, "batches_seen": 2, "size": 1, "seed": 0, "prompts": digest}
    ours = {"version": "0", "config": config}
    torch.save(
        {"state_dict": {}, "scaledreamer": ours, "PromptDataModule": place}, folder / "checkpoints" / "last.ckpt"
    )
    (folder / "csv").mkdir()
    (folder / "csv" / "metrics.csv").write_text("step,train/loss\n0,1.0\n")
    return folder


SAME = ("corpus=prompt", "corpus.prompt=a corgi", "resume=run")


def test_a_run_of_another_configuration_is_not_resumed(error, run):
    before = contents(run)
    message = error(*SAME, "generator.hidden=32", "optimizer.lr=1")
    assert message.splitlines() == [
        "run/checkpoints/last.ckpt was made with another configuration:",
        "  generator.hidden: 64 in the checkpoint, 32 in this run",
        "  optimizer.lr: 0.004 in the checkpoint, 1 in this run",
        "resume it with the same options.",
    ]
    assert contents(run) == before


def test_a_run_on_other_prompts_is_not_resumed(error, run):
    before = contents(run)
    message = error(*SAME, "corpus.prompt=a cat")
    assert message.startswith("the checkpoint was trained with another corpus (prompts ")
    assert message.endswith("resume with the corpus it had, or start a new run.")
    assert contents(run) == before


def test_a_damaged_checkpoint_is_not_resumed(error, run):
    cut(run / "checkpoints" / "last.ckpt")
    before = contents(run)
    assert error(*SAME).startswith("run/checkpoints/last.ckpt: not a readable checkpoint (")
    assert contents(run) == before


def test_a_checkpoint_that_is_not_there(error):
    assert error("resume=run") == "resume=run: no checkpoint there; give a .ckpt file, a run's folder or 'auto'."


# -- processes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        pytest.param(
            "corpus.path=numbers.json", "numbers.json: train[0] must be a string, not 7.", marks=pytest.mark.slow
        ),
        ("hydra.run.dir=file/run", "file/run: Not a directory; choose a folder you can write"),
    ],
)
def test_exit_code_and_message_of_a_process(tmp_path, argument, message):
    """A mistake that shows when the run is built, and one before it begins."""
    (tmp_path / "file").touch()
    (tmp_path / "numbers.json").write_text(json.dumps({"train": [7]}))
    done = train(*TRIAL, argument, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stdout
