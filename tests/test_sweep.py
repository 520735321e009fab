"""Sweeps that are started again, and searches; the jobs are stand-ins for runs, but for one sweep of real ones."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import hydra
import pytest
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from runs import SMALL

import train
from scaledreamer.cli import clear_errors
from scaledreamer.config import CONF, plain
from scaledreamer.config.resolvers import register_resolvers
from scaledreamer.config.sweep import CheckSweep
from scaledreamer.errors import UserError
from scaledreamer.render.options import RunsChoice
from scaledreamer.sweep import folder as sweep_folder
from scaledreamer.sweep.names import LONGEST, job_name
from scaledreamer.training import checkpoints, outcome
from scaledreamer.training.callback import StepCallback

STARTED: list[str] = []
"""Folders of the jobs that ran, in order."""

BROKEN = SimpleNamespace(lr=1.0)
"""From which learning rate on jobs fail."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def stand_in(cfg):
    """Ends with a loss that is least at a learning rate of .01, a hundredth of the seed more."""
    directory, config = Path(HydraConfig.get().runtime.output_dir), plain(cfg)
    STARTED.append(directory.name)
    outcome.clear(directory)
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    lr = config["optimizer"]["lr"]
    if lr >= BROKEN.lr:
        raise UserError(f"optimizer.lr={lr} is too large.")
    return outcome.finish(directory, config, {"train/loss": abs(lr - 0.01) + config["seed"] / 100})


real = hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")(train.main.__wrapped__)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(BROKEN, "lr", 1.0)
    register_resolvers()
    # It has tests of its own, and composes every job once more.
    monkeypatch.setattr(CheckSweep, "on_multirun_start", lambda self, config, **_: None)
    STARTED.clear()


@pytest.fixture
def sweep(monkeypatch):
    """``sweep(OVERRIDES)``: what ran. The jobs are stand-ins."""

    def start(*overrides, task=stand_in):
        STARTED.clear()
        monkeypatch.setattr(sys, "argv", ["train.py", *sweep_folder.started_again(["-m", *overrides])])
        task()
        return list(STARTED)

    return start


# -- names -------------------------------------------------------------------------------------------------------


def test_names_hold_what_differs_and_the_seed():
    assert job_name(["guidance=sds_toy", "seed=3", "+a.b=1"], seed=3) == "+a.b=1,guidance=sds_toy,seed=3"
    assert job_name(["b=1", "a=2"], seed=0) == job_name(["a=2", "b=1"], seed=0) == "a=2,b=1,seed=0"
    assert job_name(["a=2", "logger=wandb"], seed=0, without=["logger"]) == "a=2,seed=0"
    assert job_name([], seed=7) == "seed=7"


def test_names_are_names_of_files(tmp_path):
    odd = [f"corpus.path=/data/{'x' * n}/a b'\u00e9.txt" for n in (1, 300)] + ["corpus.path=/data/x/a b'\u00e8.txt"]
    names = [job_name([override], seed=0) for override in odd]
    assert len(set(names)) == 3
    for name in names:
        (tmp_path / name).mkdir()  # one folder, which its file system takes
        assert len(name.encode()) <= LONGEST
        assert name.endswith(",seed=0")


# -- a sweep, started again --------------------------------------------------------------------------------------


def test_a_sweep_does_what_is_left(sweep, capfd):
    with pytest.raises(UserError, match=r"2 done, 0 skipped, 2 failed") as told:
        sweep("name=grid", "optimizer.lr=2,0.1", "seed=0,1")
    # One that fails does not stop those behind it.
    assert [f"optimizer.lr={lr},seed={seed}" for lr in ("2", "0.1") for seed in (0, 1)] == STARTED
    assert "\n  optimizer.lr=2,seed=1: optimizer.lr=2 is too large.\n" in str(told.value)
    (folder,) = Path("multirun/grid").iterdir()
    assert outcome.read(folder / "optimizer.lr=2,seed=0", outcome.FAILED)["error"] == "optimizer.lr=2 is too large."
    assert outcome.read(folder / "optimizer.lr=0.1,seed=1", outcome.DONE)["figures"] == {
        "train/loss": pytest.approx(0.1)
    }

    # By its folder alone: those that failed.
    BROKEN.lr = 10.0
    capfd.readouterr()
    assert sweep("sweep=last") == ["optimizer.lr=2,seed=0", "optimizer.lr=2,seed=1"]
    assert "optimizer.lr=0.1,seed=0: finished, skipped" in capfd.readouterr().out
    assert outcome.read(folder / "optimizer.lr=2,seed=0", outcome.FAILED) is None
    assert sweep(f"sweep={folder}") == []

    # With more values: those that are new. A logger makes no other job, and no other folder.
    assert sweep("name=grid", "sweep=last", "optimizer.lr=0.1,0.3", "seed=1", "logger=none") == [
        "optimizer.lr=0.3"  # the seed is not swept, and still there
        ",seed=1"
    ]
    assert len(list(Path("multirun/grid").iterdir())) == 1
    # What was constant before, and what is constant now, does not take another's folder.
    (other,) = sweep("name=grid", "sweep=last", "optimizer.lr=0.1", "seed=1,0", "guidance.rule.eta=0.25")[:1]
    assert other == "seed=1"
    assert sweep("name=grid", "sweep=last", "optimizer.lr=0.7", "seed=1")[0].startswith("seed=1,")


def test_more_steps_go_on_and_other_options_are_refused(sweep):
    given = ("hydra.sweep.dir=here", "seed=1")
    assert sweep(*given, "trainer.max_steps=5") == ["seed=1"]
    assert sweep(*given, "trainer.max_steps=9") == ["seed=1"]
    assert outcome.read(Path("here/seed=1"), outcome.DONE)["steps"] == 9
    # The same command, but what it means was edited.
    path = Path("here/seed=1/config.yaml")
    path.write_text(path.read_text().replace("lr: 0.004", "lr: 0.008"))
    with pytest.raises(UserError, match=r"seed=1 is a run with other options:\n  optimizer.lr: 0.008 there, 0.004 now"):
        sweep(*given, "trainer.max_steps=9")


def test_all_jobs_of_a_sweep_are_in_one_folder(sweep):
    """The name of a run follows from its guidance; that of the sweep's folder does not change from job to job."""
    assert sweep("guidance=asd_toy,sds_toy") == ["guidance=asd_toy,seed=0", "guidance=sds_toy,seed=0"]
    assert len({file.parents[1] for file in Path("multirun").glob("**/done.json")}) == 1


def test_a_template_of_names_is_kept(sweep):
    given = ("hydra.sweep.dir=here", "guidance=asd_toy,sds_toy", "hydra.sweep.subdir=${hydra:job.num}")
    assert sweep(*given, "hydra.sweeper.max_batch_size=1") == ["0", "1"]
    with pytest.raises(UserError, match=r"two jobs would share the folder one"):
        sweep("hydra.sweep.dir=there", "seed=0,1", "hydra.sweep.subdir=one")


def test_mistakes_are_told(sweep, monkeypatch, capsys):
    with pytest.raises(UserError, match=r"sweep=last: no sweep"):
        sweep("sweep=last")
    with pytest.raises(UserError, match=r"sweep=nowhere: no sweep"):
        sweep("sweep=nowhere")
    monkeypatch.setattr(sys, "argv", ["train.py", "sweep=last", "name=none"])
    with pytest.raises(SystemExit), clear_errors():
        stand_in()
    assert "goes with -m alone" in capsys.readouterr().err
    assert STARTED == []


@pytest.mark.parametrize("error", [RuntimeError("the queue is gone"), KeyboardInterrupt()])
def test_a_launch_that_is_cut_short_is_told_with_what_is_known(sweep, monkeypatch, capfd, error):
    Plugins.instance()  # which imports launchers anew
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher

    launch = BasicLauncher.launch

    def lost(self, job_overrides, initial_job_idx):
        launch(self, job_overrides[:1], initial_job_idx)
        raise error

    monkeypatch.setattr(BasicLauncher, "launch", lost)
    with pytest.raises(type(error)):
        sweep("name=lost", "seed=0,1")
    told = capfd.readouterr().out
    assert "1 done, 0 skipped, 0 failed, 1 not known to have ended" in told
    assert "python train.py -m sweep=multirun/lost/" in told


# -- real runs ---------------------------------------------------------------------------------------------------


def test_a_broken_run_of_a_sweep_goes_on_where_it_stopped(sweep, tmp_path, monkeypatch):
    (tmp_path / "prompts.txt").write_text("a corgi\na red chair\n")
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path / "data"))
    given = [*SMALL, "callbacks.previews=null", "callbacks.checkpoints.last_every=2", "corpus.path=prompts.txt"]
    given += ["hydra.sweep.dir=here", "seed=0,1", "trainer.threads=1", "objective=train/loss"]
    sweep(*given, "trainer.max_steps=4", task=real)
    found = {seed: Path(f"here/seed={seed}") for seed in (0, 1)}
    figures = outcome.read(found[1], outcome.DONE)["figures"]
    assert figures["train/loss"] > 0
    # As if it had been killed after two steps: the end is not there.
    (found[1] / outcome.DONE).unlink()
    shutil.copy(found[1] / "checkpoints" / "last.ckpt", tmp_path / "whole.ckpt")
    early = tmp_path / "early"

    def killed():
        with pytest.raises(UserError, match="killed"):
            real()

    sweep(
        *(o for o in given if not o.startswith(("hydra.sweep.dir", "seed"))),
        *("seed=1", f"hydra.sweep.dir={early}", "trainer.max_steps=4", "+callbacks.stop._target_=test_sweep.Killed"),
        task=killed,
    )
    shutil.rmtree(found[1] / "checkpoints")
    shutil.copytree(early / "seed=1" / "checkpoints", found[1] / "checkpoints")
    before = (found[0] / "launches.jsonl").read_text()
    sweep(*given, "trainer.max_steps=4", task=real)
    assert (found[0] / "launches.jsonl").read_text() == before
    again, whole = checkpoints.read(found[1] / "checkpoints" / "last.ckpt"), checkpoints.read(tmp_path / "whole.ckpt")
    assert again["global_step"] == whole["global_step"] == 4
    for name, value in whole["state_dict"].items():
        assert (again["state_dict"][name] == value).all()
    assert outcome.read(found[1], outcome.DONE)["figures"]["train/loss"] == pytest.approx(figures["train/loss"])
    assert len((found[1] / "launches.jsonl").read_text().splitlines()) == 2


class Killed(StepCallback):
    """Ends a run after its third step, which no checkpoint has."""

    def on_step(self, trainer, module, step):
        if step == 3:
            raise RuntimeError("killed")


# -- search ------------------------------------------------------------------------------------------------------

SEARCH = (
    *("hydra/sweeper=optuna", "hydra.sweep.dir=found", "objective=train/loss"),
    *("hydra.sweeper.search.direction=minimize", "hydra.sweeper.search.parallel=2"),
    "optimizer.lr=tag(log, interval(0.001, 0.1))",
)


def test_a_search_goes_on_with_its_study(sweep, capfd):
    optuna = pytest.importorskip("optuna")
    BROKEN.lr = 0.02
    with pytest.raises(UserError, match=r"failed\n"):
        sweep(*SEARCH, "hydra.sweeper.search.trials=4", "hydra.sweeper.search.seed=1")
    first = list(STARTED)
    assert len(set(first)) == 4
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend("found/study.log"))
    trials = optuna.load_study(study_name="sweep", storage=storage).trials
    for trial in trials:
        lr = float(f"{trial.params['optimizer.lr']:.5g}")
        assert f"optimizer.lr={lr!r},seed=0" in first
        assert trial.value == (None if lr >= 0.02 else pytest.approx(abs(lr - 0.01)))
    broken = [name for name in first if float(name.split("=")[1].partition(",")[0]) >= 0.02]
    assert 0 < len(broken) < 4

    # Started again: first those that failed, then new ones until six have a result.
    BROKEN.lr = 1.0
    capfd.readouterr()
    again = sweep(*SEARCH, "hydra.sweeper.search.trials=6")
    assert sorted(again[: len(broken)]) == sorted(broken)
    assert len(again) == len(broken) + 2
    assert not set(again[len(broken) :]) & set(first)
    assert "Best train/loss: " in capfd.readouterr().out
    assert sweep(*SEARCH, "hydra.sweeper.search.trials=6") == []


def test_seeds_are_not_searched_but_averaged(sweep):
    optuna = pytest.importorskip("optuna")
    started = sweep(*SEARCH[:-1], "optimizer.lr=0.02,0.05", "seed=0,2", "hydra.sweeper.search.trials=2")
    assert {name.split(",")[1] for name in started} == {"seed=0", "seed=2"}
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend("found/study.log"))
    for trial in optuna.load_study(study_name="sweep", storage=storage).trials:
        assert trial.value == pytest.approx(abs(float(trial.params["optimizer.lr"]) - 0.01) + 0.01)


def test_a_search_needs_an_objective_that_is_there(sweep):
    pytest.importorskip("optuna")
    with pytest.raises(
        UserError, match=r"objective: the run has no finite figure 'train/los'; did you mean 'train/loss'"
    ):
        sweep(*(o.replace("train/loss", "train/los") for o in SEARCH))
    assert len(STARTED) == 2  # not a third
    with pytest.raises(Exception, match=r"objective: name the figure"):
        sweep(*(o for o in SEARCH if not o.startswith("objective")))
    with pytest.raises(UserError, match=r"nothing to search"):
        sweep(*SEARCH[:-1], "seed=0,1", "hydra.sweep.dir=other")


def test_what_hydra_says_is_swept_is_what_optuna_is_asked():
    pytest.importorskip("optuna")
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    from scaledreamer.sweep.search import space_of

    given = [
        "a=tag(log, interval(0.001, 0.1))",
        "b=int(interval(2, 8))",
        "c=range(16, 65, 16)",
        "d=x,y",
        "e=3",
        "seed=0,1",
    ]
    space = space_of(OverridesParser.create().parse_overrides([*given, "f=range(0.0, 1.0, 0.25)"]))
    assert space.searched == {
        "a": FloatDistribution(0.001, 0.1, log=True),
        "b": IntDistribution(2, 8),
        "c": IntDistribution(16, 64, step=16),
        "d": CategoricalDistribution(["x", "y"]),
        "f": FloatDistribution(0.0, 0.75, step=0.25),
    }
    params = {"a": 0.012345678, "b": 3, "c": 32, "d": "x", "f": 0.25}
    jobs = space.jobs(params)
    assert jobs == [["e=3", "a=0.012346", "b=3", "c=32", "d=x", "f=0.25", f"seed={s}"] for s in (0, 1)]
    assert space.jobs({**params, "a": 0.001})[0][1] == "a=0.001"


def test_the_record_of_a_sweep(sweep):
    sweep("hydra.sweep.dir=here", "seed=0,1")
    content = json.loads(Path("here/sweep.json").read_text())
    assert content["jobs"] == {"seed=0": ["seed=0"], "seed=1": ["seed=1"]}
    assert content["launches"][0]["arguments"] == ["-m", "hydra.sweep.dir=here", "seed=0,1"]
    # It goes on where it is now, whatever it was told first.
    moved = Path("here").rename("b, c's")
    (moved / "seed=1" / outcome.DONE).unlink()
    assert RunsChoice(run=str(moved)).runs == [moved / "seed=0"]  # as evaluate.py is told of it
    assert sweep(f"sweep={moved}") == ["seed=1"]
    assert RunsChoice(run=[str(moved), str(moved / "seed=0")]).runs == [moved / "seed=0", moved / "seed=1"]
    assert not Path("here").exists()
    for name in content["jobs"]:
        (moved / name / outcome.DONE).unlink()
    with pytest.raises(UserError, match="is a sweep without a finished run"):
        RunsChoice(run=str(moved))
    (moved / "sweep.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        sweep(f"sweep={moved}")
