"""Whether the other processes of a run still live: a collective waits half an hour for one that does not."""

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

import torch

from scaledreamer.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

log = logging.getLogger(__name__)

EVERY = 0.5  # seconds between looks
GRACE = 20.0
"""Seconds for a process whose company is gone to fail by itself, in order, before it is ended."""


_OBSERVER = "_launch_process_observer"


@contextmanager
def watching(trainer: "Trainer", *, ended: Callable[[str], None] = lambda problem: None) -> Iterator[None]:
    """Around ``trainer.fit``: when a process of this machine dies, the others stop and say so.

    The first process looks after those that Lightning starts; each of the others, after the one that started it. Who
    waits in a collective of NCCL is freed by ending its communicator, or ends after ``GRACE`` seconds with exit code 1.

    Args:
        ended: called with what happened, in a process that has to be ended.

    Raises:
        UserError: another process died.
    """
    if trainer.world_size == 1:
        yield
        return
    parent = os.getppid()

    def problem() -> str | None:
        if trainer.local_rank:
            return None if os.getppid() == parent else "the process that started this one is gone"
        children = getattr(trainer.strategy.launcher, "procs", ())  # none before it has started them
        ours = ((n, child) for n, child in enumerate(children, start=1) if isinstance(child, subprocess.Popen))
        return next((_told(n, child) for n, child in ours if child.poll()), None)

    seen: list[str] = []
    stopped = threading.Event()
    thread = threading.Thread(target=_watch, args=(problem, seen, stopped, ended), daemon=True, name="watch")
    thread.start()
    try:
        with _only_ours():
            yield
    except Exception as error:
        stopped.wait(3 * EVERY)  # an error of a collective comes before its cause is seen
        if seen:
            raise UserError(f"{seen[0]}; its own output says why.") from error
        raise
    finally:
        stopped.set()


def _told(place: int, child: subprocess.Popen) -> str:
    code = child.returncode
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return f"process {place} of this machine (PID {child.pid}) {how}"


def _watch(
    problem: Callable[[], str | None], seen: list[str], stopped: threading.Event, ended: Callable[[str], None]
) -> None:
    while not stopped.wait(EVERY):
        found = problem()
        if found is None:
            continue
        seen.append(found)
        if stopped.wait(GRACE / 2):
            return
        _free_from_collectives()
        if stopped.wait(GRACE / 2):
            return
        log.error("%s; this one cannot go on without it.", found)
        ended(found)
        os._exit(1)


def _free_from_collectives() -> None:
    """Have NCCL's kernels give up; other backends notice by themselves."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_backend() == "nccl"):
        return
    try:
        distributed.group.WORLD.abort()  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    except Exception as error:
        log.debug("NCCL's communicator could not be ended: %s", error)


@contextmanager
def _only_ours() -> Iterator[None]:
    """Without Lightning's observer, which kills everything, a sweep as well, and says nothing."""
    module = import_module("lightning.pytorch.strategies.launchers.subprocess_script")
    theirs = getattr(module, _OBSERVER, None)  # its own affair: another release may not have it
    setattr(module, _OBSERVER, lambda processes: None)
    try:
        yield
    finally:
        setattr(module, _OBSERVER, theirs)
