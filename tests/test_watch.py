"""A process of a run dies: the others stop, and say why."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import ROOT, environment
from runs import SMALL

from scaledreamer.errors import UserError
from scaledreamer.training import watch

STOPS_WITHIN = 60.0  # seconds


def company(*codes: int | None) -> SimpleNamespace:
    """A trainer of the first process, and children that have ended with codes, or (None) have not."""
    waits = {code: f"import sys, time; sys.exit({code})" for code in codes} | {None: "import time; time.sleep(60)"}
    children = [subprocess.Popen([sys.executable, "-c", waits[code]]) for code in codes]
    launcher = SimpleNamespace(procs=children)
    return SimpleNamespace(world_size=1 + len(codes), local_rank=0, strategy=SimpleNamespace(launcher=launcher))


def test_an_error_of_a_collective_gets_its_cause():
    def fit() -> None:
        with watch.watching(company(0, 3)):
            time.sleep(1.0)
            raise RuntimeError("Connection closed by peer")

    with pytest.raises(UserError, match=r"process 2 of this machine \(PID \d+\) ended with code 3; its own output"):
        fit()


def test_own_errors_stay_their_own():
    trainer = company(None, 0)
    with pytest.raises(RuntimeError, match="mine"), watch.watching(trainer):
        raise RuntimeError("mine")
    trainer.strategy.launcher.procs[0].kill()
    with pytest.raises(RuntimeError, match="alone"), watch.watching(SimpleNamespace(world_size=1)):
        raise RuntimeError("alone")


def _waits(folder: Path) -> None:
    watch.GRACE = 0.5
    trainer = company(None)
    trainer.strategy.launcher.procs[0].kill()
    with watch.watching(trainer, ended=(folder / "told").write_text):
        time.sleep(60)


def test_who_hangs_in_a_collective_is_ended(tmp_path):
    process = get_context("fork").Process(target=_waits, args=(tmp_path,))
    start = time.monotonic()
    process.start()
    process.join(30)
    assert process.exitcode == 1
    assert time.monotonic() - start < 20
    assert "was killed by SIGKILL" in (tmp_path / "told").read_text()


def _orphaned(folder: Path) -> None:
    watch.GRACE = 0.5
    if os.fork():
        time.sleep(1.0)
        os._exit(0)
    with watch.watching(SimpleNamespace(world_size=2, local_rank=1), ended=(folder / "told").write_text):
        time.sleep(60)


def test_who_is_left_by_the_first_process_is_ended(tmp_path):
    get_context("fork").Process(target=_orphaned, args=(tmp_path,)).start()
    end = time.monotonic() + 20
    while not (tmp_path / "told").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert (tmp_path / "told").read_text() == "the process that started this one is gone"


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes as Linux lists them")
@pytest.mark.parametrize("victim", ["the first", "another"])
def test_a_killed_process_stops_the_run(tmp_path, victim):
    (tmp_path / "prompts.txt").write_text("a thing\nanother thing")
    run = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_steps=100000"]
    folder = tmp_path / "run"
    logged = ["callbacks.progress=null", "trainer.log_every_n_steps=1", f"hydra.run.dir={folder}"]
    with open(tmp_path / "output", "wb") as output:
        first = subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *SMALL, *run, *logged, f"corpus.path={tmp_path}/prompts.txt"],
            cwd=tmp_path,
            env=environment(tmp_path) | {"OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=output,
        )
    try:
        metrics, end = folder / "csv" / "metrics.csv", time.monotonic() + 120
        while not (metrics.exists() and metrics.read_text().count("\n") > 2):
            assert first.poll() is None, (tmp_path / "output").read_text()
            assert time.monotonic() < end, (tmp_path / "output").read_text()
            time.sleep(0.2)
        (other,) = (p for p in children(first.pid) if b"train.py" in Path(f"/proc/{p}/cmdline").read_bytes())
        dies, stops = (first.pid, other) if victim == "the first" else (other, first.pid)
        os.kill(dies, signal.SIGKILL)
        start = time.monotonic()
        while lives(stops) and time.monotonic() - start < STOPS_WITHIN:
            first.poll()
            time.sleep(0.2)
        assert not lives(stops)
    finally:
        first.kill()
        first.wait()
    told = (tmp_path / "output").read_text()
    if victim == "another":
        assert first.returncode == 1
        assert f"error: process 1 of this machine (PID {other}) was killed by SIGKILL; its own output says why." in told
    else:
        assert "the process that started this one is gone" in told
