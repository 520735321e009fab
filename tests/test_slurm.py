"""Drills on a real SLURM: arrays, nodes, time-outs, preemption, cancellation, failures.

All drills that were selected start together and wait for the cluster, not for each other; each is a test.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import ROOT, environment
from slurm_cluster import OPTIONS, PATIENCE, Cluster, RunFolder, one_host, until, why_not
from test_training import equal

from scaledreamer.training.checkpoints import read

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

LAST = 40
ON_N1, ON_N2 = (f"+hydra.launcher.additional_parameters.nodelist={node}" for node in ("n1", "n2"))
NO_GPU = "hydra.launcher.gpus_per_node=null"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    with one_host(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture(scope="module")
def drills(request, cluster, project) -> Iterator[dict[str, Future]]:
    """Every selected test's drill, under way."""
    chosen = [item.callspec.params["drill"] for item in request.session.items if item.module is request.module]
    with ThreadPoolExecutor(len(DRILLS)) as pool:
        yield {name: pool.submit(DRILLS[name], cluster, project) for name in chosen}


@pytest.fixture(scope="module")
def project(cluster) -> Path:
    return cluster.project("project")


@pytest.fixture(scope="module")
def unbroken(cluster, project) -> Iterator[Future]:
    """What the run of seed 0 learns in one go, without a cluster."""

    def train() -> object:
        folder = cluster.folder / "unbroken"
        command = [sys.executable, "train.py", *OPTIONS, f"hydra.run.dir={folder}"]
        subprocess.run(command, cwd=project, env=environment(cluster.folder), check=True, timeout=PATIENCE)
        return final(RunFolder(folder))

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(train)


def final(run: RunFolder) -> object:
    """What a finished run has learned, and the state of its optimiser."""
    checkpoint = read(run.path / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == LAST
    return [checkpoint["state_dict"], checkpoint["optimizer_states"]]


def lives(run: RunFolder, rank: int = 0) -> list[list[int]]:
    """The steps of each life of a job."""
    steps = run.steps(rank)
    return [[s["step"] for s in steps if s["restart"] == r] for r in sorted({s["restart"] for s in steps})]


def assert_none_repeated(run: RunFolder, rank: int = 0) -> None:
    """Every step of the run was done once, whatever interrupted it."""
    assert [step for life in lives(run, rank) for step in life] == list(range(1, LAST + 1)), lives(run, rank)


def array(cluster: Cluster, project: Path) -> object:
    """Three runs; edits after the submission, of code, options and the user's own module, do not reach them."""
    project = cluster.project("edited")
    sweep = cluster.sweep(
        "array", "seed=0,1,2", NO_GPU, ON_N1, "+hydra.launcher.additional_parameters.hold=true", project=project
    )
    job = sweep.job()
    for file in ("scaledreamer/system.py", "scaledreamer/slurm/jobs.py", "steps.py"):
        (project / file).write_text("raise RuntimeError('edited')\n")
    (project / "conf" / "trainer" / "cpu.yaml").write_text("accelerator: edited\n")
    assert not (sweep.folder / "run_0").exists()  # they have waited
    cluster("scontrol", "release", job)
    assert sweep.wait() == 0, sweep.log
    until(lambda: cluster.states(job) == ["COMPLETED"] * 3, what=str(cluster.states(job)))
    for i in range(3):
        run = sweep.run(i)
        final(run)
        assert_none_repeated(run)
        (launch,) = run.launches
        assert launch["slurm"] == {"job": f"{job}_{i}", "restarts": 0, "nodes": "n1"}
        assert f"seed={i}" in launch["command"]
        assert "Done: 40 steps" in run.printed
    return final(sweep.run(0))


def two_nodes(cluster: Cluster, project: Path) -> None:
    """One process on each of two nodes; a notice that only the second hears brings both back from the same step."""
    sweep = cluster.sweep(
        "two_nodes",
        *("hydra.launcher.nodes=2", "trainer.num_nodes=2", "trainer.devices=1", "trainer.strategy=ddp", NO_GPU),
        *("+callbacks.steps.seconds=0.3", "callbacks.interruptions.every=4"),
        project=project,
    )
    run = sweep.run()
    run.wait_for(3)
    second = until(lambda: run.steps(rank=1), what="there is no second process")[0]
    assert {run.steps()[0]["node"], second["node"]} == {"n1", "n2"}
    os.kill(second["pid"], signal.SIGUSR2)
    assert sweep.wait() == 0, sweep.log
    final(run)
    for rank in (0, 1):
        assert_none_repeated(run, rank)
        assert len(lives(run, rank)) == 2
    assert lives(run, 0) == lives(run, 1)
    assert len(lives(run)[0]) % 4 == 1  # they leave a step after they were asked
    assert [launch["slurm"]["restarts"] for launch in run.launches] == [0, 1]  # one process writes
    assert [launch["slurm"]["nodes"] for launch in run.launches] == ["n[1-2]"] * 2


def time_out(cluster: Cluster, project: Path) -> object:
    """A run that needs more than its time, again and again, until it is done."""
    sweep = cluster.sweep(
        "time_out",
        *("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=25", "+callbacks.steps.seconds=0.5"),
        *(NO_GPU, ON_N1),
        project=project,
    )
    assert sweep.wait() == 0, sweep.log
    run = sweep.run()
    assert len(lives(run)) >= 2
    assert_none_repeated(run)
    assert run.printed.count("this job is timed-out") >= len(lives(run)) - 1
    return final(run)


def preempted(cluster: Cluster, project: Path) -> object:
    """A job of a higher partition takes the GPUs; the run saves, waits, and goes on with the same W&B run."""
    sweep = cluster.sweep(
        "preempted",
        *("hydra.launcher.partition=main", "hydra.launcher.gpus_per_node=2", ON_N1),
        *("+callbacks.steps.seconds=0.3", "logger=[csv,wandb]", "logger.wandb.mode=offline"),
        project=project,
    )
    run = sweep.run()
    assert run.wait_for(4)["gpus"] == "0,1"
    high = cluster(
        *("sbatch", "--parsable", "--partition=high", "--nodelist=n1", "--gpus-per-node=2", "--output=/dev/null"),
        *("--wrap", "sleep 3"),
    )
    assert sweep.wait() == 0, sweep.log
    assert cluster.states(high) == ["COMPLETED"]
    assert len(lives(run)) == 2
    assert_none_repeated(run)
    assert "this job is preempted" in run.printed or "this job is timed-out" in run.printed
    wandb = sorted(folder.name.split("-")[-1] for folder in run.path.glob("wandb/offline-run-*"))
    assert len(wandb) == 2
    assert wandb[0] == wandb[1]
    return final(run)


def cancelled(cluster: Cluster, project: Path) -> None:
    """``scancel``: the run saves its last step and ends at once; whoever waits for it is told in a line."""
    sweep = cluster.sweep("cancelled", NO_GPU, ON_N1, "+callbacks.steps.seconds=0.5", project=project)
    run, job = sweep.run(), sweep.job()
    run.wait_for(3)
    cluster("scancel", job)
    asked = time.monotonic()
    until(lambda: not cluster("squeue", "-h", "-j", job), what="it lives on")
    assert time.monotonic() - asked < 5 + 3  # it ended itself: SLURM would have killed it after KillWait
    assert read(run.path / "checkpoints" / "last.ckpt")["global_step"] == run.steps()[-1]["step"] < LAST
    assert sweep.wait() == 1
    assert cluster.states(job) == ["CANCELLED"]
    assert f"error: job {job} ended without a result (CANCELLED" in sweep.log
    assert "Traceback" not in sweep.log


def node_down(cluster: Cluster, project: Path) -> object:
    """A node dies without notice: the run comes back and repeats less than an interval of checkpoints."""
    sweep = cluster.sweep("node_down", NO_GPU, ON_N2, "+callbacks.steps.hold_at=9", project=project)
    run, job = sweep.run(), sweep.job()
    run.wait_for(9)
    until(lambda: _alone_on_n2(cluster, job), what="other jobs stay on n2")
    cluster.crash("n2", job)
    until(lambda: cluster("squeue", "-h", "-j", job, "-o", "%T") == "PENDING", what="it is not requeued")
    cluster("slurmd", "-N", "n2")
    assert sweep.wait() == 0, sweep.log
    assert lives(run) == [list(range(1, 10)), list(range(6, LAST + 1))]  # last.ckpt was of step 5
    return final(run)


def _alone_on_n2(cluster: Cluster, job: str) -> bool:
    return cluster("squeue", "-h", "-w", "n2", "-o", "%A").split() == [job]


def failing(cluster: Cluster, project: Path) -> object:
    """One run of two fails: SLURM, its log and its folder say so; the other's results are there."""
    sweep = cluster.sweep("failing", NO_GPU, ON_N1, "+callbacks.steps.fail_at=3,0", project=project)
    job = sweep.job()
    assert sweep.wait() == 1
    until(lambda: sorted(cluster.states(job)) == ["COMPLETED", "FAILED"], what=str(cluster.states(job)))
    assert "this step was meant to fail" in sweep.log
    failed, good = sweep.run(0), sweep.run(1)
    assert lives(failed) == [[1, 2, 3]]
    for told in (failed.printed, (failed.path / "train.log").read_text()):
        assert "RuntimeError: this step was meant to fail" in told
    assert_none_repeated(good)
    return final(good)


def srun(cluster: Cluster, project: Path) -> None:
    """``train.sbatch``, two nodes without submitit: notice, requeue, the same folder."""
    run = RunFolder(cluster.folder / "sweeps" / "srun")
    command = [
        *("sbatch", "--parsable", "--nodes=2", "--gpus-per-node=0", "--cpus-per-task=1", "--time=60"),
        *("--output", str(cluster.folder / "sweeps" / "batch-%j.out"), str(ROOT / "slurm" / "train.sbatch")),
        *(*OPTIONS, "+callbacks.steps.seconds=0.3", "callbacks.interruptions.every=4"),
    ]
    more = {"RUN": str(run.path), "PYTHON": sys.executable}
    done = subprocess.run(
        command, cwd=project, env=cluster.environment | more, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    run.wait_for(3)
    cluster("scancel", "--signal=USR2", job)
    until(lambda: cluster.states(job) == ["COMPLETED"], what=f"{cluster.states(job)}\n{run.printed}")
    final(run)
    for rank in (0, 1):
        assert_none_repeated(run, rank)
        assert len(lives(run, rank)) == 2
    assert (run.path / "code" / "snapshot.json").exists()
    assert [launch["slurm"] for launch in run.launches] == [
        {"job": job, "restarts": restarts, "nodes": "n[1-2]"} for restarts in (0, 1)
    ]


def script(cluster: Cluster, project: Path) -> None:
    """``sweep.sh`` returns when the jobs are in the queue; a mistake is told, and submits nothing."""

    def submit(*overrides: str) -> "subprocess.CompletedProcess[str]":
        more = {"PYTHON": sys.executable}
        command = ["bash", "slurm/sweep.sh", *OPTIONS, NO_GPU, "seed=0,1", *overrides]
        return subprocess.run(
            command, cwd=project, env=cluster.environment | more, capture_output=True, text=True, timeout=PATIENCE
        )

    done = submit("+hydra.launcher.additional_parameters.hold=true", "name=held")
    assert done.returncode == 0, done.stderr
    found = re.match(r"2 runs in job (\d+): (\S+)\n", done.stdout)
    assert found is not None, done.stdout
    assert cluster("squeue", "-h", "-j", found[1], "-r", "-o", "%T") == "PENDING\nPENDING"
    assert "The jobs run from a copy" in (project / found[2] / "submit.log").read_text()
    cluster("scancel", found[1])
    wrong = submit("hydra.launcher.tasks_per_node=2", "name=wrong")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: trainer.devices: is 1, but hydra.launcher.tasks_per_node is 2")
    assert not (project / "multirun" / "wrong").exists()


DRILLS: dict[str, Callable[[Cluster, Path], object]] = {
    drill.__name__: drill
    for drill in (time_out, array, two_nodes, preempted, node_down, failing, cancelled, srun, script)
}


@pytest.mark.parametrize("drill", DRILLS)
def test_drill(drills, unbroken, drill):
    state = drills[drill].result()
    if state is not None:  # of seed 0: what no cluster has touched ends with the same numbers
        assert equal(state, unbroken.result())
