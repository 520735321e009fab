"""Several processes of one run: they compute what one would, and none waits for ever."""

import csv
import re
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from commands import ROOT, python, train
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from ranks import BATCH, PROMPTS, STEPS, WORLDS
from runs import SMALL

from scaledreamer import turns
from scaledreamer.errors import UserError
from scaledreamer.training import processes
from scaledreamer.training.checkpoints import read
from scaledreamer.training.interruption import LIGHTNINGS_AGREEMENT
from scaledreamer.training.processes import STATE, first_goes_first
from scaledreamer.turns import turn

MANY = WORLDS[1:]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("worlds")
    done = python(str(ROOT / "tests" / "ranks.py"), str(folder), folder=folder, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    return folder


def seen(worlds: Path, world: int) -> list[dict]:
    """By each process of a run."""
    return [torch.load(worlds / f"{world}-{rank}.pt", weights_only=True) for rank in range(world)]


@pytest.mark.parametrize("world", MANY)
def test_gradients_are_those_of_one_process(worlds, world):
    (alone,), together = seen(worlds, 1), seen(worlds, world)
    assert alone["gradients"]
    for name, expected in alone["gradients"].items():
        found = [of["gradients"][name] for of in together]
        assert all(torch.equal(found[0], other) for other in found[1:]), name
        # Sums in another order; importance sampling moves its samples with the last digits (seen: 7e-5).
        assert (found[0] - expected).norm() < 3e-4 * expected.norm(), name


@pytest.mark.parametrize("world", MANY)
def test_prompts_of_a_step_are_disjoint_and_those_of_one_process(worlds, world):
    (alone,), together = seen(worlds, 1), seen(worlds, world)
    for step in range(STEPS):
        parts = [of["prompts"][step] for of in together]
        assert {len(part) for part in parts} == {BATCH // world}
        joined = [prompt for part in parts for prompt in part]
        assert len(set(joined)) == BATCH
        assert joined == alone["prompts"][step]
    assert {p for step in alone["prompts"][:2] for p in step} == set(PROMPTS)  # an epoch has each once


@pytest.mark.parametrize("world", MANY)
def test_the_same_files_are_written_once(worlds, world):
    def files(of: int) -> list[str]:
        return sorted(str(f.relative_to(worlds / str(of))) for f in (worlds / str(of)).rglob("*") if f.is_file())

    assert files(world) == files(1)
    assert STATE not in files(world)
    assert len((worlds / str(world) / "launches.jsonl").read_text().splitlines()) == 1
    with open(worlds / str(world) / "csv" / "metrics.csv", newline="") as file:
        logged = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert logged == list(range(STEPS))


@pytest.mark.parametrize("world", MANY)
def test_one_process_embeds_and_the_others_find_it(worlds, world):
    alone = seen(worlds, 1)[0]["wrote"]
    assert alone > 0
    assert [of["wrote"] for of in seen(worlds, world)] == [alone, *[0] * (world - 1)]


@pytest.mark.parametrize("world", MANY)
def test_weights_end_as_those_of_one_process(worlds, world):
    one, other = (read(worlds / str(w) / "checkpoints" / "last.ckpt")["state_dict"] for w in (1, world))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("world", MANY)
def test_no_step_waits_for_an_agreement_of_lightnings(worlds, world):
    if not hasattr(_TrainingEpochLoop, LIGHTNINGS_AGREEMENT):
        pytest.skip("this Lightning has none")
    assert [of["broadcasts"] for of in seen(worlds, world)] == [0] * world


# -- waiting -------------------------------------------------------------------------------------------------------


def _take_part(rank: int, folder: Path, patience: float, act, later, told) -> None:
    start, problem = time.monotonic(), ""
    try:
        with first_goes_first(folder, rank=rank, world_size=3, patience=patience):
            act() if rank == 0 else later()
    except UserError as error:
        problem = str(error)
    told.put((rank, problem, time.monotonic() - start))


def take_part(
    folder: Path, patience: float, act, *, later=lambda: None, then=lambda: None
) -> dict[int, tuple[str, float]]:
    """rank -> (error, seconds) of three processes: the first does ``act`` while the others wait to do ``later``.

    ``then`` is called once two of them have ended.
    """
    context = get_context("fork")
    told = context.Queue()
    started = [context.Process(target=_take_part, args=(r, folder, patience, act, later, told)) for r in range(3)]
    for process in started:
        process.start()
    try:
        ends = [told.get(timeout=60), told.get(timeout=60)]
        then()
        ends.append(told.get(timeout=60))
        return {rank: (error, seconds) for rank, error, seconds in ends}
    finally:
        for process in started:
            process.terminate()
            process.join(60)


def test_the_others_are_told_that_the_first_failed(tmp_path):
    def fail():
        raise UserError("no room for the embeddings\nat all")

    found = take_part(tmp_path, 50.0, fail)
    for rank in (1, 2):
        error, seconds = found[rank]
        assert error == "the run's first process failed before training: no room for the embeddings"
        assert seconds < 50
    assert not (tmp_path / STATE).exists()  # a later launch must not take it for its own


def test_the_others_do_not_wait_for_ever(tmp_path):
    given_up = get_context("fork").Event()
    found = take_part(tmp_path, 1.0, lambda: given_up.wait(60), then=given_up.set)
    for rank in (1, 2):
        error, seconds = found[rank]
        assert error.startswith(
            "waited 1 s for the run's first process to prepare prompts, weights and text embeddings"
        )
        assert "text.patience=SECONDS" in error
        assert 1 < seconds < 60


def test_the_others_wait_while_the_first_gets_on(tmp_path):
    def wait_for_a_third():
        for _ in range(20):
            time.sleep(0.1)
            turns._growth += 1
        (tmp_path / "ready").touch()

    def go_on():
        if not (tmp_path / "ready").exists():
            raise UserError("too early")

    found = take_part(tmp_path, 1.2, wait_for_a_third, later=go_on)
    assert [found[rank][0] for rank in range(3)] == ["", "", ""]
    assert found[0][1] > 1.9  # longer than they wait where nothing happens


def test_processor_time_is_progress(tmp_path, monkeypatch):
    clock = iter([0.0, 0.1, 0.1, 0.1, 0.1])  # busy in the first interval, idle in the second
    monkeypatch.setattr(processes.time, "process_time", lambda: next(clock))
    written = []
    monkeypatch.setattr(processes, "_write", lambda path, state: written.append(state.beat))
    stopped = threading.Event()
    waits = iter([False, False, True])
    monkeypatch.setattr(stopped, "wait", lambda seconds: next(waits))
    processes._beat(tmp_path, stopped, 1.0)
    assert written == [1]


def test_processes_without_a_folder_in_common_are_told_so(tmp_path):
    with (
        pytest.raises(UserError, match=r"there is no .*need the same hydra.run.dir=DIR"),
        first_goes_first(tmp_path, rank=1, world_size=2, patience=0.2),
    ):
        raise AssertionError("it had no turn")


def test_a_turn_goes_to_the_next_when_its_holder_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), turn(tmp_path / "x", "to divide"):
        1 / 0  # noqa: B018
    with turn(tmp_path / "x", "to divide", patience=0.1):
        pass


# -- command lines -------------------------------------------------------------------------------------------------

SHARED = (*SMALL, "trainer=ddp", "trainer.accelerator=cpu", "trainer.max_steps=2", "callbacks.progress=null")


@pytest.mark.slow
def test_a_sweep_starts_processes_for_each_of_its_jobs(tmp_path):
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    run = [*SHARED, "trainer.devices=2", f"corpus.path={tmp_path}/prompts.txt", "hydra.sweep.dir=sweep"]
    done = train("-m", *run, "seed=0,1", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    ends = re.findall(r"Done: 2 steps", done.stdout)
    assert len(ends) == 2
    assert len(re.findall(r"corpus file: ", done.stdout)) == 2  # the first process of each job alone speaks
    folders = [file.parents[1] for file in (tmp_path / "sweep").rglob("checkpoints/last.ckpt")]
    assert len(folders) == 2
    assert {read(folder / "checkpoints" / "last.ckpt")["scaledreamer"]["config"]["seed"] for folder in folders} == {
        0,
        1,
    }
    assert all(len((folder / "launches.jsonl").read_text().splitlines()) == 1 for folder in folders)
    again = train("-m", *run, "trainer.max_steps=3", "seed=0,1", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert len(re.findall(r"Resuming from", again.stdout)) == 2
    assert [read(folder / "checkpoints" / "last.ckpt")["global_step"] for folder in folders] == [3, 3]


@pytest.mark.slow
@pytest.mark.parametrize("world", MANY)
def test_torchrun_trains_like_one_process(tmp_path, world):
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}", str(ROOT / "train.py")]
    run = [*SHARED, f"trainer.devices={world}", f"corpus.path={tmp_path}/prompts.txt", "hydra.run.dir=run"]
    done = python(*launch, *run, folder=tmp_path, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert len(re.findall("Done: 2 steps", done.stdout)) == 1
    assert len(re.findall("corpus file: ", done.stdout)) == 1
    assert not (tmp_path / "run" / STATE).exists()
