"""Hydra's side of a sweep's job: what failed is written down where it happened."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from scaledreamer.cli import report
from scaledreamer.config.explain import explain
from scaledreamer.errors import UserError
from scaledreamer.slurm import job
from scaledreamer.training import outcome

log = logging.getLogger(__name__)


class MarkFailures(Callback):
    """Writes ``failed.json`` of jobs of a sweep; refuses ``sweep=`` where there is none."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """A single run has no sweep to go on with."""
        if config.get("sweep") is not None:
            report(UserError(f"sweep={config.sweep}: goes with -m alone; a run goes on with resume=."))
            sys.exit(1)

    def on_job_end(self, config: DictConfig, *, job_return: JobReturn, **kwargs: Any) -> None:
        """Mark the job, and print what went wrong before the next one starts."""
        error = job_return._return_value
        in_sweep = is_job_of_sweep(config.hydra)
        if job_return.status is not JobStatus.FAILED or not isinstance(error, Exception) or not in_sweep:
            return
        if job.is_first_process():
            outcome.fail(Path(config.hydra.runtime.output_dir), error)
        if "SUBMITIT_FOLDER" not in os.environ:  # there scaledreamer.slurm.jobs does
            known = explain(error) is not None
            log.error("%s", outcome.in_a_line(error), exc_info=None if known else error)


def is_job_of_sweep(hydra: Any) -> bool:
    """Whether a configuration is that of a job of a sweep: launchers number them."""
    return not OmegaConf.is_missing(hydra.job, "num")
