"""A real SLURM for tests, brought up on this host, and sweeps that are submitted to it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commands import ROOT, environment
from runs import SMALL

OPTIONS = (
    *SMALL,
    "corpus.path=prompts.txt",
    "trainer.max_steps=40",
    "trainer.threads=1",
    "callbacks.previews=null",
    "callbacks.checkpoints.last_every=5",
    "+callbacks.steps._target_=steps.Steps",
)
"""Of every run here: 40 steps of milliseconds, each of them written down."""

PATIENCE = 600.0
"""Seconds that anything is waited for: the nine drills share a machine that may be busy besides."""

ONE_HOST = ROOT / "slurm" / "one_host.sh"
PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd")


def why_not() -> str | None:
    """What keeps a SLURM from being brought up here; None if nothing does."""
    if os.geteuid() != 0:
        return "no SLURM: bringing one up needs root"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"no SLURM: {', '.join(missing)} not installed (see slurm/one_host.sh)" if missing else None


@contextmanager
def one_host(folder: Path) -> Iterator["Cluster"]:
    """Two nodes on this host, up inside the block."""
    up = subprocess.run([ONE_HOST, "up", folder / "slurm"], capture_output=True, text=True, timeout=PATIENCE)
    assert up.returncode == 0, up.stderr
    cluster = Cluster(folder)
    try:
        yield cluster
    finally:
        for driver in cluster.drivers:  # of a drill that failed: it would wait for ever
            driver.kill()
        subprocess.run([ONE_HOST, "down", folder / "slurm"], timeout=PATIENCE, check=True)


def until(condition: Callable[[], Any], *, what: str) -> Any:
    """The first value of ``condition`` that counts as true."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"after {PATIENCE} s: {what}"
        time.sleep(0.25)
    return value


@dataclass(frozen=True)
class Cluster:
    """The nodes n1 and n2, partitions main and high.

    Args:
        folder: everything of the tests is below it; the SLURM is in ``slurm/``.
    """

    folder: Path
    drivers: "list[subprocess.Popen[bytes]]" = field(default_factory=list, init=False, compare=False)

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.folder) | {"SLURM_CONF": str(self.folder / "slurm" / "slurm.conf")}

    def __call__(self, *command: str) -> str:
        """What a command of SLURM's prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def states(self, job: str) -> list[str]:
        """Of the jobs in an array, or of one job: how they are, or ended."""
        shown = self("sacct", "-X", "-n", "-P", "-o", "State", "-j", job)
        return [line.split()[0] for line in shown.splitlines()]

    def crash(self, node: str, job: str) -> None:
        """All that runs on a node dies at once, its daemon first; ``job`` is the only one there."""
        daemon = int((self.folder / "slurm" / "run" / f"slurmd-{node}.pid").read_text())
        steps = [p for p, title in _processes() if title.startswith(f"slurmstepd: [{job}.")]
        assert steps
        for pid in (daemon, *steps, *(child for step in steps for child in _below(step))):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # What the controller would find out by itself after SlurmdTimeout, which is minutes.
        self("scontrol", "update", f"nodename={node}", "state=down", "reason=crashed")

    def project(self, name: str) -> Path:
        """A copy of this project to submit from: a folder with the package in it, as a checkout is."""
        copy = self.folder / name
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "scaledreamer", copy / "scaledreamer", ignore=skip)
        for folder in ("conf", "hydra_plugins", "slurm"):
            shutil.copytree(ROOT / folder, copy / folder, ignore=skip)
        shutil.copy(ROOT / "train.py", copy)
        shutil.copy(ROOT / "tests" / "steps.py", copy)
        (copy / "prompts.txt").write_text("a cat\na dog\na red house\n")
        return copy

    def sweep(self, name: str, *overrides: str, project: Path) -> "Sweep":
        """``python train.py -m hydra/launcher=slurm OVERRIDES`` of small runs, under way."""
        folder = self.folder / "sweeps" / name
        folder.mkdir(parents=True)
        command = [
            *(sys.executable, "train.py", "-m", *OPTIONS, "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1"),
            *(f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=run_${hydra.job.num}", *overrides),
        ]
        with (folder / "driver.log").open("w") as log:
            driver = subprocess.Popen(
                command, cwd=project, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.drivers.append(driver)
        return Sweep(self, folder, driver)


@dataclass(frozen=True)
class Sweep:
    """A submitted sweep: its folder, and the process that waits for its jobs."""

    cluster: Cluster
    folder: Path
    driver: "subprocess.Popen[bytes]"

    @property
    def log(self) -> str:
        return (self.folder / "driver.log").read_text()

    def job(self) -> str:
        """Number of the job, once it is submitted."""

        def submitted() -> str | None:
            assert self.driver.poll() is None, self.log
            return next((p.name.split("_")[0] for p in self.folder.glob(".submitit/*/*_submission.sh")), None)

        return until(submitted, what=f"nothing was submitted\n{self.log}")

    def run(self, number: int = 0) -> "RunFolder":
        return RunFolder(self.folder / f"run_{number}")

    def wait(self) -> int:
        """Exit code of the driver, which ends when the jobs have."""
        try:
            return self.driver.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.driver.kill()
            raise AssertionError(f"not done after {PATIENCE} s:\n{self.log}\n{self.run().printed}") from None


@dataclass(frozen=True)
class RunFolder:
    """What a run of a sweep has left."""

    path: Path

    def steps(self, rank: int = 0) -> list[dict[str, Any]]:
        """Every step that a process of the run did, restarts included."""
        file = self.path / "steps.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in map(json.loads, lines) if line["rank"] == rank]

    def wait_for(self, step: int, *, restart: int = 0) -> dict[str, Any]:
        """The first line of that step or a later one, in that life of the job or a later one."""

        def reached() -> dict[str, Any] | None:
            return next((s for s in self.steps() if s["step"] >= step and s["restart"] >= restart), None)

        return until(reached, what=f"step {step} of {self.path} is not done\n{self.printed}")

    @property
    def launches(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / "launches.jsonl").read_text().splitlines()]

    @property
    def printed(self) -> str:
        """What the processes of the run have printed, by the links in its folder."""
        return "\n".join(path.read_text() for path in sorted(self.path.glob("slurm-*")))


def _processes() -> list[tuple[int, str]]:
    shown = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [(int(pid), title) for pid, title in (line.split(maxsplit=1) for line in shown.splitlines())]


def _below(pid: int) -> list[int]:
    """Children of a process, and theirs."""
    shown = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [found for child in map(int, shown.split()) for found in (child, *_below(child))]
