"""What runs on a cluster rest on, without one: launchers, snapshots, signals, requeues."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from commands import ROOT, environment, train
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from runs import SMALL, prepared, trained
from test_training import equal, figures, prompts  # noqa: F401 (a fixture)

from scaledreamer.config import check, compose
from scaledreamer.config.explain import explain
from scaledreamer.errors import Interrupted, UserError
from scaledreamer.slurm import job
from scaledreamer.slurm.jobs import SlurmJobs
from scaledreamer.slurm.snapshot import take
from scaledreamer.training.callback import StepCallback
from scaledreamer.training.checkpoints import find, read

EIGHT = ("hydra/launcher=slurm_8gpu", "trainer=ddp")


@pytest.fixture
def programs(tmp_path, monkeypatch) -> Path:
    """A folder that is searched for programs before all others."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def in_job(monkeypatch) -> None:
    """This process is the first of job 7's, which submitit knows nothing of."""
    for name in [n for n in os.environ if n.startswith(("SLURM_", "SUBMITIT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_PROCID", "0")


@pytest.fixture
def signals():
    """Handlers are as before, after the test."""
    before = {s: signal.getsignal(s) for s in (*job.NOTICES, signal.SIGTERM)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def program(folder: Path, name: str, *lines: str) -> None:
    path = folder / name
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)


# Launchers


@pytest.mark.parametrize(
    "fits",
    [
        (),
        EIGHT,
        (*EIGHT, "trainer.devices=8"),
        ("hydra/launcher=slurm_multinode", "trainer=ddp", "trainer.num_nodes=2"),
        ("hydra/launcher=slurm", "hydra.launcher.gpus_per_node=null", "trainer=cpu"),
        ("hydra/launcher=slurm", "hydra.launcher.gpus_per_node=null", "+hydra.launcher.gres=gpu:a100:1", "trainer=gpu"),
    ],
    ids=" ".join,
)
def test_launcher_and_trainer_that_fit_pass(fits):
    check(compose([*fits]))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["hydra/launcher=slurm_8gpu"],
            r"trainer\.devices: is 1, but hydra\.launcher\.tasks_per_node is 8; set trainer",
        ),
        ([*EIGHT, "trainer.num_nodes=2"], r"trainer\.num_nodes: is 2, but hydra\.launcher\.nodes is 1; set trainer"),
        (
            [*EIGHT, "hydra.launcher.gpus_per_node=4"],
            r"trainer\.devices: auto .*gpus_per_node is 4 and tasks_per",
        ),
        (
            ["hydra/launcher=slurm", "hydra.launcher.gpus_per_node=null", "trainer=gpu"],
            r"trainer\.accelerator: gpu, but hydra\.launcher\.gpus_per_node is None; set it to 1",
        ),
    ],
)
def test_launcher_and_trainer_that_do_not_fit_are_refused(overrides, told):
    with pytest.raises(UserError, match=told) as error:
        check(compose(overrides))
    assert "\n" not in str(error.value)


def test_what_a_site_asks_for_reaches_the_batch_script(programs, tmp_path):
    from submitit.slurm.slurm import _make_sbatch_string

    options = {"partition": "gpu", "account": "me", "constraint": "a100", "timeout_min": 90, "array_parallelism": 4}
    site = [f"hydra.launcher.{key}={value}" for key, value in options.items()]
    site += ["hydra.launcher.setup=[module load cuda]", "+hydra.launcher.additional_parameters.nice=5"]
    launcher = OmegaConf.to_container(compose(["hydra/launcher=slurm_multinode", *site]).hydra.launcher, resolve=False)
    renamed = {"timeout_min": "time", "tasks_per_node": "ntasks_per_node"}
    dropped = ("_target_", "submitit_folder", "mem_gb", "name", "max_num_timeout")
    given = {renamed.get(k, k): v for k, v in launcher.items() if k not in dropped}
    script = _make_sbatch_string(command="COMMAND", folder=tmp_path, map_count=9, **given)
    asked = set(script.splitlines())
    assert {
        "#SBATCH --partition=gpu",
        "#SBATCH --account=me",
        "#SBATCH --constraint=a100",
        "#SBATCH --time=90",
    } <= asked
    assert {"#SBATCH --array=0-8%4", "#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=8"} <= asked
    assert {"#SBATCH --gpus-per-node=8", "#SBATCH --signal=USR2@120", "#SBATCH --requeue", "#SBATCH --nice=5"} <= asked
    assert script.index("module load cuda") < script.index("srun")


def test_a_launcher_without_a_sweep_is_told_in_a_line(tmp_path):
    alone = train("hydra/launcher=slurm", folder=tmp_path)
    assert alone.returncode == 1
    assert alone.stderr == "error: hydra/launcher=slurm submits with -m alone: python train.py -m ...\n"
    assert not list(tmp_path.glob("outputs"))


def test_a_machine_without_slurm_is_told_in_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="1"):
        SlurmJobs().on_multirun_start(compose(["hydra/launcher=slurm", f"hydra.sweep.dir={tmp_path}/sweep"]))
    told = "error: hydra/launcher: there is no SLURM here (no sbatch); submit from a login node.\n"
    assert capsys.readouterr().err == told
    assert not (tmp_path / "sweep").exists()


def test_the_jobs_are_given_the_snapshot(programs, tmp_path, monkeypatch):
    program(programs, "sbatch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    callback = SlurmJobs()
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3", job_name="train"):
        options = ["hydra/launcher=slurm", "hydra.sweep.dir=a sweep", "hydra.launcher.setup=[module load cuda]"]
        cfg = hydra.compose("train", options, return_hydra_config=True)
        callback.on_multirun_start(cfg)
        search = GlobalHydra.instance().config_loader().get_search_path().get_path()
    code = tmp_path / "a sweep" / "code"
    assert callback.submitted_from == str(tmp_path)
    assert cfg.hydra.launcher.setup[0] == "module load cuda"
    assert cfg.hydra.launcher.setup[-1] == f"cd '{code}'"
    assert f"export PYTHONPATH='{code}'$PYTHONPATH" in cfg.hydra.launcher.setup
    assert cfg.hydra.overrides.hydra[-1] == f"hydra.sweep.dir='{code.parent}'"
    paths = {source.path for source in search}
    assert f"file://{code / 'conf'}" in paths
    assert f"file://{ROOT / 'conf'}" not in paths


# Snapshots


def test_a_snapshot_keeps_what_is_edited_later(tmp_path, monkeypatch):
    mine, options = tmp_path / "mine", tmp_path / "options"
    (mine / "site-packages").mkdir(parents=True)
    (options / "guidance").mkdir(parents=True)
    for file in (mine / "rule.py", mine / "site-packages" / "big.py", options / "guidance" / "x.yaml"):
        file.write_text("first")
    root = tmp_path / "sweep" / "code"
    taken = take(root, conf=[ROOT / "conf", options], python=[mine, ROOT, tmp_path / "missing"])
    (mine / "rule.py").write_text("second")
    (options / "guidance" / "x.yaml").write_text("second")
    assert taken.conf == {ROOT / "conf": root / "conf", options: root / "conf_1"}
    assert taken.python == [root / "python_0"]
    assert (
        (root / "python_0" / "rule.py").read_text() == (root / "conf_1" / "guidance" / "x.yaml").read_text() == "first"
    )
    assert not (root / "python_0" / "site-packages").exists()
    assert (root / "conf" / "train.yaml").read_bytes() == (ROOT / "conf" / "train.yaml").read_bytes()
    assert (root / "train.py").exists()
    assert not list(root.rglob("__pycache__"))
    # The copy is what a process there imports, weights of the toybox included, and it knows what it is a copy of.
    (root / "snapshot.json").write_text(json.dumps({"commit": "abc", "patch": "changes"}))
    asked = (
        "import scaledreamer, scaledreamer.config as c; from scaledreamer.training.directory import git_state;"
        "print(scaledreamer.__file__, c.CONF, git_state())"
    )
    told = subprocess.run([sys.executable, "-c", asked], cwd=root, capture_output=True, text=True, check=True).stdout
    assert told.split(maxsplit=2) == [
        *(str(root / "scaledreamer" / "__init__.py"), str(root / "conf")),
        "('abc', 'changes')\n",
    ]
    assert list(root.glob("scaledreamer/toybox/weights/**/*.safetensors"))
    take(root, conf=[ROOT / "conf"], python=[])  # a second submission to the same folder
    assert not (root / "python_0").exists()


def test_the_command_copies_once_and_prints_the_path(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "rule.py").write_text("first")
    more = environment(tmp_path) | {"PYTHONPATH": f"{ROOT}{os.pathsep}mine"}
    command = [sys.executable, "-m", "scaledreamer.slurm.snapshot", "run/code"]
    for content in ("first", "second"):
        (tmp_path / "mine" / "rule.py").write_text(content)
        told = subprocess.run(command, cwd=tmp_path, env=more, capture_output=True, text=True, check=True).stdout
        assert told == f"{tmp_path / 'run' / 'code'}{os.pathsep}{tmp_path / 'run' / 'code' / 'python_0'}\n"
    assert (tmp_path / "run" / "code" / "python_0" / "rule.py").read_text() == "first"


# Signals


class SignalAt(StepCallback):
    """Sends this process a signal in the middle of a step."""

    def __init__(self, step: int, signum: int) -> None:
        self.step, self.signum = step, signum

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step - 1:
            os.kill(os.getpid(), self.signum)


def interrupted(overrides: list[str], directory: Path, signum: int, *, step: int) -> Interrupted:
    """What a small run ends with that is sent a signal while it is at a step."""
    run, _ = prepared([*SMALL, *overrides], directory)
    run.trainer.callbacks.append(SignalAt(step, signum))
    with pytest.raises(Interrupted) as error:
        run.trainer.fit(run.system, datamodule=run.data)
    return error.value


def test_a_notice_saves_after_the_step_and_the_rest_is_as_if_nothing_had_been(tmp_path, prompts, signals):  # noqa: F811
    mine = lambda *_: None  # noqa: E731
    signal.signal(signal.SIGUSR2, mine)
    run = [prompts, "trainer.max_steps=6"]
    error = interrupted(run, tmp_path / "run", signal.SIGUSR2, step=4)
    assert (error.step, error.notice) == (4, signal.SIGUSR2)
    assert signal.getsignal(signal.SIGUSR2) is mine  # who had it before has it again, to requeue
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert read(last)["global_step"] == 4
    trained(run, tmp_path / "run", checkpoint=last)
    trained(run, tmp_path / "unbroken")
    broken, unbroken = (read(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("run", "unbroken"))
    for part in ("global_step", "state_dict", "optimizer_states", "batches_done", "PromptDataModule"):
        assert equal(broken[part], unbroken[part]), part
    logged = [
        {step: {k: v for k, v in row.items() if not k.startswith("speed/")} for step, row in figures(folder).items()}
        for folder in (tmp_path / "run", tmp_path / "unbroken")
    ]
    assert logged[0] == logged[1]


def test_term_saves_as_well(tmp_path, prompts, signals):  # noqa: F811
    before = signal.getsignal(signal.SIGTERM)
    error = interrupted([prompts, "trainer.max_steps=6"], tmp_path / "run", signal.SIGTERM, step=2)
    assert (error.step, error.notice) == (2, signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
    assert read(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 2


def test_a_notice_during_the_last_step_ends_the_run_as_usual(tmp_path, prompts, signals):  # noqa: F811
    run, _ = prepared([*SMALL, prompts, "trainer.max_steps=2"], tmp_path / "run")
    run.trainer.callbacks.append(SignalAt(2, signal.SIGTERM))
    run.trainer.fit(run.system, datamodule=run.data)
    assert run.system.global_step == 2


# Requeues


def ended(error: Exception) -> JobReturn:
    found = JobReturn()
    found.status, found.return_value = JobStatus.FAILED, error
    return found


def test_plain_srun_requeues_its_job(programs, tmp_path, in_job, signals):
    program(programs, "scontrol", f'echo "$@" >{tmp_path}/called')
    job.answer_notices()
    with pytest.raises(SystemExit) as left:
        SlurmJobs().on_job_end(None, job_return=ended(Interrupted(4, signal.SIGUSR2)))
    assert left.value.code == 0
    assert (tmp_path / "called").read_text() == "requeue 7\n"


def test_other_processes_leave_the_requeue_to_the_first(programs, tmp_path, in_job, signals, monkeypatch):
    program(programs, "scontrol", f'echo "$@" >{tmp_path}/called')
    monkeypatch.setenv("SLURM_PROCID", "1")
    job.answer_notices()
    for notice in (signal.SIGUSR2, signal.SIGTERM):
        with pytest.raises(SystemExit) as left:
            SlurmJobs().on_job_end(None, job_return=ended(Interrupted(4, notice)))
        assert left.value.code == 0  # anything else would make srun end the first
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    ("state", "preempted"), [("PreemptTime=2026-01-01T00:00:00", True), ("PreemptTime=None", False)]
)
def test_term_requeues_a_preempted_job_but_not_a_cancelled_one(programs, tmp_path, in_job, signals, state, preempted):
    shown = f"JobId=7 JobName=x JobState=RUNNING PreemptEligibleTime=2026-01-01T00:00:00 {state}"
    program(programs, "scontrol", f'[ "$1" = show ] && echo "{shown}" || echo "$@" >{tmp_path}/called')
    job.answer_notices()
    with pytest.raises(SystemExit) as left:
        SlurmJobs().on_job_end(None, job_return=ended(Interrupted(4, signal.SIGTERM)))
    assert left.value.code == (0 if preempted else 128 + signal.SIGTERM)
    assert (tmp_path / "called").exists() == preempted


def test_submitits_refusal_becomes_the_jobs_error(in_job, signals):
    def refuse(*_):
        raise ValueError("timed-out too many times")

    signal.signal(signal.SIGUSR2, refuse)
    result = ended(Interrupted(4, signal.SIGUSR2))
    SlurmJobs().on_job_end(None, job_return=result)
    assert str(result._return_value) == "timed-out too many times"


def test_a_requeued_job_goes_on_with_its_own_checkpoint(tmp_path, in_job, monkeypatch):
    own, other = (tmp_path / name / "checkpoints" / "last.ckpt" for name in ("own", "other"))
    for path in (own, other):
        path.parent.mkdir(parents=True)
        path.touch()
    assert find(None, tmp_path / "own") is None
    assert find(str(other), tmp_path / "own") == other
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert find(None, tmp_path / "own") == own
    assert find(str(other), tmp_path / "own") == own  # it began with other's; by now it has gone further
    assert find(None, tmp_path / "new") is None


def test_a_job_without_a_result_is_told_in_a_line():
    from submitit.core.utils import UncompletedJobError

    told = "Job 12_3 (task: 0) with path /s/12_3_0_result.pkl\nhas not produced any output (state: CANCELLED by 0)\nlog"
    assert explain(UncompletedJobError(told)) == (
        "job 12_3 ended without a result (CANCELLED by 0); see /s/12_3_0_log.err. Other jobs of the sweep go on."
    )
    assert "max_num_timeout" in str(explain(UncompletedJobError("Job not requeued because: timed-out too many times.")))


def test_records_name_the_job(in_job, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
    assert job.describe() == {"job": "7", "restarts": 0, "nodes": "n[1-2]"}
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    assert job.describe() == {"job": "5_2", "restarts": 3, "nodes": "n[1-2]"}
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID")
    monkeypatch.delenv("SLURM_JOB_ID")
    assert job.describe() is None


@pytest.mark.parametrize("script", ["train.sbatch", "sweep.sh", "one_host.sh"])
def test_scripts_are_bash(script):
    subprocess.run(["bash", "-n", str(ROOT / "slurm" / script)], check=True)
