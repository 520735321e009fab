"""Files are written by threads while the next pictures are rendered."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class Writers:
    """A pool of threads that takes a limited number of jobs ahead, so that finished pictures cannot fill the memory.

    Leaving the ``with`` block waits for all jobs; after an error in it only for those that run.

    Args:
        threads: that write.
        ahead: jobs that are being written or wait; a further one waits outside.
    """

    def __init__(self, *, threads: int = 2, ahead: int = 4) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="writer")
        self._ahead = ahead
        self._jobs: deque[Future[None]] = deque()

    def submit(self, job: Callable[[], None]) -> None:
        """Have a job done; raises what an earlier one raised."""
        while self._jobs and (self._jobs[0].done() or len(self._jobs) >= self._ahead):
            self._jobs.popleft().result()
        self._jobs.append(self._pool.submit(job))

    def __enter__(self) -> "Writers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for job in self._jobs:
                job.result()
