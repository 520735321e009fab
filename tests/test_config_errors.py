"""A wrong configuration is refused when it is composed: the message names the key, the file and the way out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from answers import answer
from commands import ROOT, environment, train

from scaledreamer.config import check, compose
from scaledreamer.config.sweep import LIMIT, jobs
from scaledreamer.errors import UserError


@pytest.fixture
def error(tmp_path, monkeypatch, capsys):
    """``error("seed=-1")``: the line that a command line is answered with, from an empty folder."""
    monkeypatch.chdir(tmp_path)

    def ask(*arguments: str) -> str:
        message = answer(*arguments, capsys=capsys, monkeypatch=monkeypatch).error
        assert not list(tmp_path.glob("outputs/*/*/config.yaml"))
        return message.replace(f"{ROOT}/", "")

    return ask


COMPOSITION = {  # refused by Hydra, before any class is looked at
    "trainr.max_steps=3": "trainr: no such key; did you mean 'trainer'?",
    "generator.resolutoin=64": "generator.resolutoin: no such key; did you mean 'resolution'? "
    "[conf/generator/3dconv_toy.yaml]",
    "generator=3dcnv": "generator=3dcnv: no such option; did you mean '3dconv'?",
    "guidance/rule=asdd": "guidance/rule=asdd: no such option; did you mean 'asd'?",
    "generater=3dconv": "generater: no such key; did you mean 'generator'?",
    "guidance/ruel=asd": "guidance/ruel: no such group; did you mean 'guidance/rule'?",
    "logger=null": "logger=null: no such option; valid names are: csv, none, tensorboard, wandb.",
    "+experiment=trial": "experiment is chosen twice; write experiment=OPTION without a +.",
    "corpus.prompt=it's": "corpus.prompt=it's: cannot be read as KEY=VALUE",
    "foo": "foo: cannot be read as KEY=VALUE",
    "cameras.layout=ring": "cameras.layout: the files give it no value; write +cameras.layout=... "
    "[conf/guidance/prior/sd21.yaml]",
}


@pytest.mark.parametrize("override", COMPOSITION)
def test_names_are_refused_with_the_nearest(error, override):
    assert error(override).startswith(COMPOSITION[override])


CHECKED = {  # refused by what the values would be passed to, all at once
    "+generator.foo=3": "generator.foo: no such option; valid names are: activation, channels, ",
    "+foo=3": "foo: no such option; valid names are: background, ",
    "seed=-1": "seed: input should be greater than or equal to 0, not -1. [command line, over conf/train.yaml]",
    "generator.hidden=0": "generator.hidden: input should be greater than or equal to 1, not 0. "
    "[command line, over conf/generator/3dconv_toy.yaml]",
    "trainer.max_steps=-5": "trainer.max_steps: input should be greater than or equal to 1, not -5. "
    "[command line, over conf/corpus/toybox.yaml]",
    "trainer.precision=float17": "trainer.precision: input should be '32-true', 'bf16-mixed' or '16-mixed', "
    "not 'float17'. [command line, over conf/trainer/auto.yaml]",
    "guidance.weighting=sd": "guidance.weighting: input should be 'sds', 'uniform' or 'fantasia3d', not 'sd'. "
    "[command line, over conf/guidance/asd_sd.yaml]",
    "guidance.rule=csd": "guidance.rule: cannot be 'csd' (an option of a group is chosen with a slash",
    "cameras.fovy=[70,40]": "cameras.fovy: [low, high] must have low <= high, not [70, 40]. ",
    "losses.opaque=high": "losses.opaque: input should be a valid number, or ",
    "optimizer.lr=fast": "optimizer.lr: input should be a valid number, not 'fast'. ",
    "+parameter_groups.background=3": "parameter_groups.background: input should be an object, not 3. ",
    "corpus.prompt=3": "corpus.prompt: input should be a valid string, not 3. "
    "[command line, over conf/corpus/file.yaml]",
    "+callbacks.gaurd.patience=3": "callbacks.gaurd: needs a _target_",
    "background._target_=nowhere.X": "background._target_: 'nowhere.X' cannot be imported: No module named 'nowhere'; "
    "for a folder of your own set PYTHONPATH=FOLDER.",
    "renderer._target_=scaledreamer.renderers.volsdf.VolSDF": "renderer._target_: "
    "'scaledreamer.renderers.volsdf.VolSDF' cannot be imported: module 'scaledreamer.renderers.volsdf' has no "
    "attribute 'VolSDF'; did you mean 'VolSDFRenderer'? [command line, over conf/renderer/volsdf.yaml]",
}


@pytest.fixture(scope="module")
def told():
    """The lines of one configuration with all mistakes of ``CHECKED``."""
    with pytest.raises(UserError) as caught:
        check(compose([override.replace("+parameter", "parameter") for override in CHECKED]))
    first, *lines = str(caught.value).replace(f"{ROOT}/", "").splitlines()
    assert first == f"{len(CHECKED)} mistakes:"
    return [line.strip() for line in lines]


@pytest.mark.parametrize("override", CHECKED)
def test_values_are_refused_with_what_is_valid(told, override):
    assert [line for line in told if line.startswith(CHECKED[override])]


CONSTRUCTED = [  # refused by constructors
    ("optimizer.lr=-1", "optimizer: torch.optim.Adam refuses its arguments: Invalid learning rate: -1. "),
    ("parameter_groups.background.lr=-1", "parameter_groups.background: torch.optim.Adam refuses its arguments: "),
    ("+parameter_groups.background.lrr=1", "parameter_groups.background.lrr: no such option; did you mean 'lr'?"),
    ("generator=3dconv generator.widths=[512]", "generator.widths: resolution 128 needs 6 of them"),
    ("guidance.timesteps.low=0.9", "guidance.timesteps: low is above high when 0 % of the run is done. "),
]


@pytest.mark.parametrize(("override", "message"), CONSTRUCTED)
def test_values_that_only_a_constructor_refuses(override, message):
    with pytest.raises(UserError) as caught:
        check(compose(override.split()))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("corpus.name=???", "corpus.name: is required; set corpus.name=... [command line"),
        ("trainer.max_steps=${nope}", "trainer.max_steps: Interpolation key 'nope' not found [command line"),
        ("callbacks.guard.patience=0", "callbacks.guard.patience: input should be greater than or equal to 1, not 0."),
        ("generator.hidden=0", "generator.hidden: input should be greater than or equal to 1, not 0. [command line, "),
    ],
)
def test_one_mistake_is_one_line(error, override, message):
    assert error(override).startswith(message)


PAIRS = [
    (["corpus=prompt"], "corpus: has no prompts; set corpus.prompt="),
    (["corpus.path=a.txt", "corpus.prompt=a"], "corpus: corpus.path and corpus.prompt are both set; give one of them."),
    (["trainer=cpu", "trainer.precision=16-mixed"], "trainer.precision: a CPU has no float16 training; use 32-true"),
    (["corpus=AT2520"], "corpus: the toybox's prior knows toys alone; choose another one"),
    (["corpus=prompt", "corpus.prompt=a red zebra"], "corpus.prompt: 'a red zebra': the toybox has no kind of toy"),
]


@pytest.mark.parametrize(("overrides", "message"), PAIRS, ids=lambda value: value[0].split(":")[0])
def test_options_that_exclude_each_other(overrides, message):
    with pytest.raises(UserError) as caught:
        check(compose(overrides))
    assert str(caught.value).startswith(message)


def test_a_field_that_the_renderer_cannot_render(monkeypatch):
    from scaledreamer.renderers.volsdf import VolSDFRenderer

    monkeypatch.setattr(VolSDFRenderer, "fields", ("density",))
    with pytest.raises(
        UserError, match=r"^renderer: VolSDFRenderer renders density fields, but MixedVolumesGenerator makes"
    ):
        check(compose())


def test_views_that_the_prior_denoises_together(monkeypatch):
    from scaledreamer.priors.stable_diffusion import StableDiffusion

    monkeypatch.setattr(StableDiffusion, "views", 4)
    with pytest.raises(UserError, match=r"cameras\.views_per_prompt: .*must be a multiple of 4, not 6"):
        check(compose(["cameras.views_per_prompt=6"]))
    check(compose(["cameras.views_per_prompt=8"]))


def test_values_that_look_wrong_and_are_not():
    check(
        compose(["callbacks.guard=null", "optimizer.lr=1", "renderer.far=5", "losses.opaque=3", "cameras.fovy=[3,3]"])
    )
    check(compose(["name='${seed}_mine'", "~generator.radius", "+guidance.views.side='{prompt} from the side'"]))


# -- files of the user's -----------------------------------------------------------------------------------------


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def test_a_wrong_key_in_a_file_of_the_users(error, tmp_path):
    text = "# @package _global_\ndefaults: [3dconv, _self_]\ngenerator:\n  resolutoin: 64\n"
    write(tmp_path / "mine" / "conf" / "generator" / "wide.yaml", text)
    message = error("--config-dir", "mine/conf", "generator=wide")
    assert message.startswith("generator.resolutoin: no such option; did you mean 'resolution'?")
    assert message.endswith("[mine/conf/generator/wide.yaml]")


def test_a_wrong_default_in_a_file_of_the_users(error, tmp_path):
    write(
        tmp_path / "mine" / "experiment" / "big.yaml", "# @package _global_\ndefaults: [override /generator: 3dcnv]\n"
    )
    assert "generator=3dcnv: no such option; did you mean '3dconv'?" in error("--config-dir", "mine", "experiment=big")


def test_a_file_without_a_target(error, tmp_path):
    write(tmp_path / "mine" / "renderer" / "mine.yaml", "samples: 3\n")
    assert error("--config-dir", "mine", "generator=3dconv", "renderer=mine") == (
        "renderer: needs a _target_: the class or function that its values are passed to. [mine/renderer/mine.yaml]"
    )


def test_a_file_that_is_not_yaml(error, tmp_path):
    write(tmp_path / "mine" / "renderer" / "mine.yaml", "samples: [3\n")
    message = error("--config-dir", "mine", "renderer=mine")
    assert (
        message == f"{tmp_path}/mine/renderer/mine.yaml line 2: not YAML, expected ',' or ']', but got '<stream end>'."
    )


# -- sweeps ------------------------------------------------------------------------------------------------------


SWEEP = ("-m", "experiment=trial", "guidance/rule=asd,csd", "generator.hidden=8,0")


def test_a_sweep_with_one_wrong_job_starts_none(error, tmp_path):
    message = error(*SWEEP)
    assert message.startswith("generator.hidden: input should be greater than or equal to 1, not 0. [command line")
    assert not list(tmp_path.rglob("*.*"))


def test_a_sweep_that_an_experiment_describes_is_checked_as_well(error, tmp_path):
    message = error("experiment=toybox_rules", "hydra.sweeper.params.guidance='asd_toy,sds_toys'")
    assert "sds_toy" in message
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.slow
def test_a_sweep_with_one_wrong_job_starts_no_process(tmp_path):
    done = train(*SWEEP, folder=tmp_path)
    assert done.returncode == 1
    assert "error: generator.hidden: input should be greater than or equal to 1, not 0. [command line" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("train.log"))
    assert not list(tmp_path.rglob("config.yaml"))


def test_every_job_of_a_small_sweep_is_checked():
    found = jobs(["seed=0,1", "generator=3dconv,3dconv_m2", "name='a,b'", "cameras.fovy=[1,2]", "seed=range(2)"])
    assert len(found) == 8
    assert found[0] == ["seed=0", "generator=3dconv", "name='a,b'", "cameras.fovy=[1,2]", "seed=0"]
    assert len({tuple(job) for job in found}) == 8


def test_every_value_of_a_large_sweep_is_checked():
    seeds = ",".join(str(i) for i in range(LIMIT))
    found = jobs([f"seed={seeds}", "generator.hidden=8,16,0"])
    assert {job[0] for job in found} == {f"seed={i}" for i in range(LIMIT)}
    assert {job[1] for job in found} == {f"generator.hidden={i}" for i in (8, 16, 0)}
    assert len(found) == LIMIT


# -- speed -------------------------------------------------------------------------------------------------------

IMPORTED = """
import contextlib, json, runpy, sys
sys.argv = ["train.py", sys.argv[1]]
try:
    runpy.run_path(TRAIN, run_name="__main__")
except SystemExit as end:
    print(json.dumps([end.code, [m for m in ("torch", "lightning", "diffusers", "transformers") if m in sys.modules]]))
"""


@pytest.mark.parametrize(("override", "imported"), [("generator.hiden=3", []), ("trainer.max_steps=-5", ["torch"])])
def test_a_mistake_is_answered_without_heavy_imports(tmp_path, override, imported):
    """Names need no class at all, values PyTorch for the signatures; Lightning and diffusers would take seconds."""
    script = IMPORTED.replace("TRAIN", repr(str(ROOT / "train.py")))
    done = subprocess.run(
        [sys.executable, "-c", script, override],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert json.loads(done.stdout) == [1, imported]
    assert done.stderr.startswith(f"error: {override.partition('=')[0]}: ")
    assert done.stderr.count("\n") == 1
