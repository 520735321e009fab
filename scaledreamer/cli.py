"""What every entry point shares: mistakes become a clear line and exit code 1, bugs keep their traceback."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from scaledreamer.config.explain import explain
from scaledreamer.config.resolvers import register_resolvers


@contextmanager
def clear_errors() -> Iterator[None]:
    """Print a user's mistake as a line and exit with code 1; let everything else through with its traceback."""
    # Hydra would otherwise print and leave by itself, before a line can be made of it.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    register_resolvers()
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not report(error):
            raise
        sys.exit(1)


class ReportMistake(Callback):
    """Hydra calls this when a run that is no job of a sweep has ended."""

    def on_run_end(self, config: DictConfig, *, job_return: JobReturn, **kwargs: Any) -> None:
        """Leave at a user's mistake, before Hydra adds a line of its own; other errors take their course."""
        error = job_return._return_value if job_return.status is JobStatus.FAILED else None
        if isinstance(error, Exception) and report(error):
            sys.exit(1)


def report(error: Exception) -> bool:
    """Print ``error`` to stderr if it is a user's mistake; False if it is not, and nothing was printed."""
    message = explain(error)
    if message is None:
        return False
    print(f"error: {message}", file=sys.stderr)
    return True
