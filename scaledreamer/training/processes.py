"""Several processes of one run, before and around ``trainer.fit``, where they have no process group to talk through.

Lightning starts the others of a machine (``trainer=ddp``) when the first has everything ready; SLURM and torchrun start
all at once. Either way the first one downloads, converts and embeds, and the others find it done.
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_only

from scaledreamer import turns
from scaledreamer.errors import UserError
from scaledreamer.training.checkpoints import newest

STATE = ".preparing"
"""File in the run's folder in which the first process says how far it is; gone when the run has ended."""

_SHOWN = 2.0  # seconds that a failure can be read before the file is removed: a later launch must not find it
_BUSY = 0.002  # share of a processor that says: it gets on. Downloads take more, waiting for a dead connection less
_OF_SWEEPS = ("hydra.mode=", "sweep=")  # overrides that one job has no use for
_STARTED_WITH = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")


@dataclass(frozen=True)
class _State:
    stage: Literal["working", "done", "failed"]
    beat: int = 0
    message: str = ""


def only_the_first_speaks() -> None:
    """Leave what a run says of itself to its first process; errors of the others are still told."""
    if rank_zero_only.rank:
        logging.disable(logging.WARNING)  # also of Lightning's loggers, whose levels are their own


@contextmanager
def first_goes_first(directory: Path, *, rank: int, world_size: int, patience: float) -> Iterator[None]:
    """The first process runs the block while the others wait; these run it when it has, to find everything there.

    Whether the first one gets on is seen by the processor time that it takes, whatever it does.

    Args:
        directory: of the run, the same for all processes.
        rank, world_size: this process among them.
        patience: seconds that the others wait without seeing the first one get on.

    Raises:
        UserError: in the others, when the first one fails or gets nowhere.
    """
    path = directory / STATE
    if world_size == 1:
        yield
        return
    if rank > 0:
        _wait(path, patience)
        yield
        return
    stopped = threading.Event()
    _write(path, _State("working"))
    beats = threading.Thread(target=_beat, args=(path, stopped, min(1.0, patience / 4)), daemon=True)
    beats.start()
    try:
        yield
    except BaseException as error:
        stopped.set()
        beats.join()
        _write(path, _State("failed", message=next(iter(str(error).splitlines()), type(error).__name__)))
        time.sleep(_SHOWN)
        path.unlink(missing_ok=True)
        raise
    stopped.set()
    beats.join()
    _write(path, _State("done"))


def _beat(path: Path, stopped: threading.Event, every: float) -> None:
    """Say that this process gets on, as long as it does."""
    count, used, others = 0, time.process_time(), turns.growth()
    while not stopped.wait(every):
        now, grown = time.process_time(), turns.growth()
        if now - used > _BUSY * every or grown != others:
            count += 1
            _write(path, _State("working", count))
            now = time.process_time()  # the writing itself does not count
        used, others = now, grown


def _wait(path: Path, patience: float) -> None:
    seen, since = _read(path), time.monotonic()
    while True:
        state = _read(path)
        if state is not None and state.stage == "done":
            return
        if state is not None and state.stage == "failed":
            raise UserError(f"the run's first process failed before training: {state.message}")
        if state != seen:
            seen, since = state, time.monotonic()
        elif time.monotonic() - since > patience:
            raise UserError(
                f"waited {patience:.0f} s for the run's first process to prepare prompts, weights and text embeddings, "
                f"without progress{_hint(path, seen)}; see its log. text.patience=SECONDS waits longer."
            )
        time.sleep(min(0.2, patience / 4))


def _hint(path: Path, seen: _State | None) -> str:
    if seen is not None:
        return ""
    return f" (there is no {path}: processes that Lightning has not started need the same hydra.run.dir=DIR)"


def _write(path: Path, state: _State) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(asdict(state)), "utf-8")
    os.replace(part, path)


def _read(path: Path) -> _State | None:
    try:
        return _State(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):  # not there; on some file systems a file that is being replaced
        return None


@contextmanager
def launching(directory: Path) -> Iterator[None]:
    """Around ``trainer.fit``: processes that it starts do this job alone, not the sweep it belongs to; then tidy up.

    Args:
        directory: of the run.
    """
    argv, before = sys.argv, {name: os.environ.get(name) for name in _STARTED_WITH}
    with _alone(directory) as in_sweep:
        try:
            yield
        finally:
            sys.argv = argv
            if rank_zero_only.rank == 0:
                (directory / STATE).unlink(missing_ok=True)
            if in_sweep:
                _forget_the_others(before)


@contextmanager
def _alone(directory: Path) -> Iterator[bool]:
    """Within, Lightning's copy of this command line is that of one run; gives whether this is a job of a sweep."""
    from hydra._internal.utils import get_args_parser
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf, read_write

    hydra: Any = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra is None or hydra.mode != RunMode.MULTIRUN:
        yield False
        return
    given = get_args_parser().parse_args(sys.argv[1:])
    files = {name: getattr(given, name) for name in ("config_path", "config_name", "config_dir")}
    chosen = [f"--{name.replace('_', '-')}={value}" for name, value in files.items() if value]
    overrides = OmegaConf.to_container(hydra.overrides, resolve=False)
    kept = [o for of in ("hydra", "task") for o in overrides[of] if not o.startswith(_OF_SWEEPS)]  # type: ignore
    # A job that goes on does so without being told to; the others have to be.
    resumed = ["resume=auto"] if newest(directory) is not None else []
    sys.argv = [sys.argv[0], *chosen, *kept, *resumed, "hydra.mode=RUN"]
    node = hydra._get_node("run")
    usual = node._get_node("dir")._value()
    with read_write(hydra):
        node.dir = str(directory)  # where Lightning has the others write to
    try:
        yield True
    finally:
        with read_write(hydra):
            node.dir = usual


def _forget_the_others(before: dict[str, str | None]) -> None:
    """Let the next job of a sweep, in this process, start others of its own."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
