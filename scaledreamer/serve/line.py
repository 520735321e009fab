"""The line in front of the workshop: one job at a time, in order, a limited number waits."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from scaledreamer.errors import UserError
from scaledreamer.serve.shelf import Made

log = logging.getLogger(__name__)


class Full(UserError):
    """Too many wait already."""


class Cancelled(Exception):
    """Nobody wants it any more."""


@dataclass(eq=False)
class Job:
    """Something that someone waits for."""

    made: Made
    stage: str = "waiting"
    error: str | None = None
    """Why there is none, in a line for who asked."""
    over: threading.Event = field(default_factory=threading.Event)
    cancelled: bool = False

    def enter(self, stage: str) -> None:
        """The next stage begins.

        Raises:
            Cancelled: it need not.
        """
        if self.cancelled:
            raise Cancelled
        self.stage = stage


class Line:
    """A thread that does jobs; an error of one is that job's alone.

    Args:
        work: what is done with a job.
        waiting: most jobs that wait.
    """

    def __init__(self, work: Callable[[Job], None], *, waiting: int) -> None:
        self._work, self._most = work, waiting
        self._waiting: deque[Job] = deque()
        self._current: Job | None = None
        self._changed = threading.Condition()
        self._open = True
        # A daemon, so that a stage that takes minutes does not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="workshop", daemon=True)
        self._thread.start()

    def add(self, job: Job) -> None:
        """Let a job wait for its turn.

        Raises:
            Full: too many wait already.
        """
        with self._changed:
            if len(self._waiting) >= self._most:
                raise Full(f"{len(self._waiting)} prompts are waiting already; try again in a while.")
            self._waiting.append(job)
            self._changed.notify()

    def ahead(self, job: Job) -> int:
        """How many jobs come before one that waits; 0 for others."""
        with self._changed:
            return self._waiting.index(job) + (self._current is not None) if job in self._waiting else 0

    def cancel(self, job: Job) -> None:
        """Take a job out of the line; the one that is being done ends before its next stage."""
        with self._changed:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)
                job.over.set()

    def close(self, *, patience: float = 5.0) -> None:
        """Cancel all jobs and wait so many seconds for the one that is being done."""
        with self._changed:
            self._open = False
            jobs = [*self._waiting, *([self._current] if self._current is not None else [])]
            self._changed.notify()
        for job in jobs:
            self.cancel(job)
        self._thread.join(patience)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or not self._open)
                if not self._open:
                    return
                job = self._current = self._waiting.popleft()
            try:
                self._work(job)
            except Cancelled:
                job.cancelled = True
            except UserError as error:
                job.error = str(error)
            except Exception:
                log.exception("'%s' failed", job.made.prompt)
                job.error = "Something went wrong, this one cannot be made; the server's log says what happened."
            finally:
                with self._changed:
                    self._current = None
                job.over.set()
