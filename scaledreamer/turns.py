"""One of several processes does something once, and the others wait for it: ranks of a run, jobs of a sweep."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from scaledreamer.errors import UserError

log = logging.getLogger(__name__)

PATIENCE = 600.0
"""Seconds that a process waits for another one without seeing it get on."""

_growth = 0


def growth() -> int:
    """A number that changes whenever this process sees that one it waits for has made progress."""
    return _growth


@contextmanager
def turn(
    path: Path, what: str, *, grown: Callable[[], int] = lambda: 0, patience: float = PATIENCE, poll: float = 5.0
) -> Iterator[None]:
    """Hold the lock of ``path``, or wait for the process that does; look whether its work is done before doing it.

    A process that dies gives its turn to the next, since the system frees its lock.

    Args:
        path: of what is made; ``.lock`` appears beside it.
        what: the holder is doing, for messages: "to write x".
        grown: bytes that the holder has made so far; a change counts as progress.
        patience: seconds to wait without progress.
        poll: seconds between looks.

    Raises:
        UserError: the holder makes no progress.
    """
    global _growth
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    seen, since = -1, time.monotonic()
    while True:
        try:
            lock.acquire(timeout=min(poll, patience))
            break
        except Timeout:
            now = grown()
            if now != seen:
                seen, since = now, time.monotonic()
                _growth += 1
                log.info("waiting for another process %s (%.2f GB so far)", what, now / 1e9)
            elif time.monotonic() - since > patience:
                raise UserError(
                    f"waited {patience:.0f} s for another process {what}, without progress; end that process "
                    f"(it holds {lock.lock_file}) and start again."
                ) from None
    try:
        yield
    finally:
        lock.release()
