"""README's "Create your own", followed to the letter from outside the repository."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from commands import ROOT, TINY, train
from PIL import Image

from scaledreamer.config import check, compose
from scaledreamer.errors import UserError
from scaledreamer.training import checkpoints

SECTION = (ROOT / "README.md").read_text("utf-8").partition("## Create your own")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", SECTION, flags=re.DOTALL | re.MULTILINE)  # (language, content)


def written_by_the_reader(folder: Path) -> Path:
    """Write every block of the section whose first lines hold its name; returns the folder."""
    for block in (content for language, content in BLOCKS if language):
        name = re.search(r"^# (mine/\S+)$", block, flags=re.MULTILINE)
        assert name, block
        path = folder / name[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block, encoding="utf-8")
    return folder


def commands() -> list[tuple[dict[str, str], list[str]]]:
    """(environment, arguments of train.py) of every command of the section."""
    found = []
    for line in "".join(content for language, content in BLOCKS if not language).splitlines():
        words = shlex.split(line, comments=True)
        start = words.index("python")
        assert words[start : start + 2] == ["python", "train.py"]
        found.append((dict(word.split("=", 1) for word in words[:start]), words[start + 2 :]))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written_by_the_reader(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def run(folder):
    """The folder of a run of the first command, at trial size."""
    environment, arguments = commands()[0]
    done = train(*arguments, *TINY, "trainer.max_steps=3", folder=folder, **environment)
    assert done.returncode == 0, done.stderr
    directory = re.search(r"Done: 3 steps\..*: (\S+)$", done.stdout + done.stderr, flags=re.MULTILINE)
    assert directory, done.stdout + done.stderr
    return Path(directory[1])


def test_the_run_holds_all_three(folder, run):
    config = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    assert run.parent == folder / "outputs" / "ellipsoids_fruit_asd_sd_asd_plus_sds_tiny"
    assert config["guidance"]["rule"] == {"_target_": "my_rule.asd_plus_sds", "_partial_": True, "mix": 0.25}
    assert config["generator"] == {"_target_": "ellipsoids.Ellipsoids", "hidden": 32}
    assert config["corpus"]["name"] == "fruit"
    assert "corpus fruit: 6 train, 6 val, 6 test prompts" in (run / "train.log").read_text("utf-8")


def test_its_preview_shows_something(run):
    picture = np.asarray(Image.open(run / "previews" / "step-0000003.png"))
    assert picture.shape == (24, 3 * 24, 3)
    assert picture.min() < picture.max()


def test_its_generator_learned(folder, run, monkeypatch):
    monkeypatch.syspath_prepend(folder / "mine")
    from ellipsoids import Ellipsoids  # pyright: ignore[reportMissingImports]

    state = checkpoints.read(run / "checkpoints" / "last.ckpt")["state_dict"]
    torch.manual_seed(0)  # the run's seed: the generator's weights are the first that are drawn
    fresh = Ellipsoids(text_dim=state["generator.network.0.weight"].shape[1], hidden=32)
    for name, initial in fresh.named_parameters():
        moved = (state[f"generator.{name}"] - initial.detach()).abs()
        # Adam moves a weight by about lr at each step: another initial weight would be further away.
        assert 0 < moved.max() < 4 * 0.001, name


@pytest.mark.parametrize("option", ["guidance/rule=asd_plus_sds", "generator=ellipsoids", "corpus=fruit"])
def test_each_goes_with_our_own_options(folder, monkeypatch, option):
    monkeypatch.syspath_prepend(folder / "mine")
    monkeypatch.chdir(folder)
    check(compose(["experiment=trial", "hydra.searchpath=[file://mine/conf]", option]))


def test_the_search_path_is_an_option_too(folder):
    environment, arguments = commands()[1]
    done = train(*arguments, "--cfg", "job", "--package", "generator", folder=folder, **environment)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["_target_"] == "ellipsoids.Ellipsoids"


def test_a_mistake_in_the_users_file_is_named_with_it(tmp_path):
    option = written_by_the_reader(tmp_path) / "mine/conf/guidance/rule/asd_plus_sds.yaml"
    option.write_text(option.read_text("utf-8").replace("mix:", "mixx:"), encoding="utf-8")
    environment, arguments = commands()[0]
    done = train(*arguments, *TINY, folder=tmp_path, **environment)
    assert done.returncode == 1
    wanted = "guidance.rule.mixx: no such option; did you mean 'mix'? [mine/conf/guidance/rule/asd_plus_sds.yaml]"
    assert wanted in done.stderr
    assert "Traceback" not in done.stderr


def test_so_is_one_in_a_chosen_group(tmp_path, monkeypatch):
    option = written_by_the_reader(tmp_path) / "mine/conf/generator/ellipsoids.yaml"
    option.write_text(option.read_text("utf-8").replace("hidden:", "hiden:"), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    cfg = compose(["hydra.searchpath=[file://mine/conf]", "generator=ellipsoids"])
    with pytest.raises(UserError, match=r"did you mean 'hidden'\? \[mine/conf/generator/ellipsoids\.yaml\]"):
        check(cfg)


def test_and_one_on_the_command_line(folder):
    environment, arguments = commands()[0]
    done = train(*arguments, "generator.hiden=3", folder=folder, **environment)
    assert done.returncode == 1
    assert re.search(r"generator\.hiden: no such key; did you mean 'hidden'\? .*ellipsoids\.yaml\]", done.stderr)


def test_a_forgotten_python_path_is_explained(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "ellipsoids", raising=False)
    cfg = compose(["hydra.searchpath=[file://mine/conf]", "generator=ellipsoids"])
    with pytest.raises(
        UserError, match=r"No module named 'ellipsoids'; for a folder of your own set PYTHONPATH=FOLDER"
    ):
        check(cfg)
