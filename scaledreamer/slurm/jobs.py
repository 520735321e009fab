"""Hydra's side of SLURM: what happens at submission, when a job starts and when it ends."""

import atexit
import itertools
import logging
import os
import shlex
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra._internal.config_repository import ConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from scaledreamer.cli import report
from scaledreamer.config.explain import explain
from scaledreamer.config.launcher import is_slurm
from scaledreamer.config.resolvers import register_resolvers
from scaledreamer.errors import Interrupted, UserError
from scaledreamer.slurm import job
from scaledreamer.slurm.snapshot import Snapshot, python_path, take

log = logging.getLogger(__name__)


class SlurmJobs(Callback):
    """Submits from a snapshot of the code; closes and requeues jobs that were interrupted.

    It does nothing where there is no SLURM: neither its launcher nor one of its jobs.
    """

    submitted_from: str | None = None
    """Working folder of the submission, in the jobs as well: relative paths in options are meant from there."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickled at the start of a job, before anything is resolved there."""
        self.__dict__.update(state)
        register_resolvers()

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse a launcher without a sweep, which Hydra would leave unused; listen for notices in a job."""
        if is_slurm(config.hydra.launcher):
            choice = config.hydra.runtime.choices.get("hydra/launcher")
            report(UserError(f"hydra/launcher={choice} submits with -m alone: python {Path(sys.argv[0]).name} -m ..."))
            sys.exit(1)
        job.answer_notices()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Have the jobs run from a snapshot."""
        if not is_slurm(config.hydra.launcher):
            return
        try:
            if shutil.which("sbatch") is None:
                raise UserError("hydra/launcher: there is no SLURM here (no sbatch); submit from a login node.")
            self.submitted_from = os.getcwd()
            folder = Path(config.hydra.sweep.dir).absolute()
            snapshot = take(_new(folder / "code"), conf=_option_folders(config), python=python_path())
            _run_from(snapshot, folder, config)
        except Exception as error:
            # Hydra turns an exception of a callback into a warning; leaving is the only way to stop the sweep.
            if not report(error):
                raise SystemExit(f"the code could not be copied: {error!r}") from error
            sys.exit(1)
        log.info("The jobs run from a copy of the code: %s", snapshot.root)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """In a job: go to where it was submitted from, and say in the run's folder where its log is."""
        if self.submitted_from is None or "SUBMITIT_FOLDER" not in os.environ:
            return
        os.chdir(self.submitted_from)
        with read_write(config.hydra.runtime):
            config.hydra.runtime.cwd = self.submitted_from
        sys.argv = [
            f"{config.hydra.job.name}.py",
            *config.hydra.overrides.task,
        ]  # for its records; it was submitit's
        _link_logs(Path(config.hydra.runtime.output_dir))

    def on_job_end(self, config: DictConfig, *, job_return: JobReturn, **kwargs: Any) -> None:
        """Answer the signal that interrupted a run; make a failed job one that SLURM knows to have failed."""
        error = job_return._return_value
        if job_return.status is not JobStatus.FAILED or not isinstance(error, Exception):
            return
        if isinstance(error, Interrupted):
            job_return.return_value = _close(error)
        elif "SUBMITIT_FOLDER" in os.environ:
            # Submitit hands the error to who submitted and ends well; the log and SLURM should know as well.
            log.error("%s", explain(error) or "The run failed.", exc_info=None if explain(error) else error)
            atexit.register(_fail)


def _option_folders(config: DictConfig) -> list[Path]:
    return [Path(s.path) for s in config.hydra.runtime.config_sources if s.schema == "file"]


def _new(folder: Path) -> Path:
    """``folder``, or with a number where a sweep is submitted again: jobs of before may still run from theirs."""
    numbered = (folder.with_name(f"{folder.name}_{i}") for i in itertools.count(2))
    return next(f for f in itertools.chain([folder], numbered) if not f.exists())


def _run_from(snapshot: Snapshot, folder: Path, config: DictConfig) -> None:
    """Point everything that the jobs will be given at the snapshot.

    Submitit pickles Hydra's loader with its search path, and the overrides; both are read again in the job. It starts
    ``python -m``, which puts the working folder before everything else: the jobs start in the snapshot.
    """
    search = ConfigSearchPathImpl()
    for source in config.hydra.runtime.config_sources:
        path = snapshot.conf[Path(source.path).resolve()] if source.schema == "file" else source.path
        search.append(source.provider, f"{source.schema}://{path}")
    loader: Any = GlobalHydra.instance().config_loader()
    loader.config_search_path, loader.repository = search, ConfigRepository(search)
    launcher = config.hydra.launcher
    given = [o for o in OmegaConf.to_container(config.hydra.overrides.hydra) if not o.startswith(_REWRITTEN)]  # type: ignore[union-attr]
    with read_write(config), open_dict(config):
        config.hydra.sweep.dir = str(folder)
        config.hydra.overrides.hydra = [*given, f"hydra.sweep.dir='{folder}'"]
        launcher.setup = [*(launcher.get("setup") or []), *_setup(snapshot)]


_REWRITTEN = ("hydra.searchpath=", "hydra.sweep.dir=")


def _setup(snapshot: Snapshot) -> list[str]:
    """Lines of the batch script before ``srun``, after the site's own."""
    python = os.pathsep.join(shlex.quote(str(p)) for p in (snapshot.root, *snapshot.python))
    return [
        '[ -z "$PYTHONPATH" ] || PYTHONPATH=:$PYTHONPATH',  # braces would be an interpolation of Hydra's
        f"export PYTHONPATH={python}$PYTHONPATH",
        # Since 22.05 srun does not take this over from the job.
        '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK',
        "export SLURM_KILL_BAD_EXIT=1",  # a process that fails would leave the others waiting for it
        f"cd {shlex.quote(str(snapshot.root))}",
    ]


def _link_logs(run: Path) -> None:
    """``slurm-JOB_RANK.out`` and ``.err`` in the run's folder lead to what this process prints."""
    from submitit import JobEnvironment

    paths = JobEnvironment().paths
    for file in (paths.stdout, paths.stderr):
        name = run / f"slurm-{paths.job_id}_{paths.task_id}{file.suffix}"
        with suppress(OSError):  # a file system without links, or the link of before a requeue
            name.symlink_to(os.path.relpath(file, run))


def _close(error: Any) -> Exception:
    """End the process, after a requeue by whoever owns the signal; the error that a refused requeue ends with."""
    log.info("%d steps are saved; this process ends.", error.step)
    if not job.is_first_process():
        sys.exit(0)  # another code would end the first process before it has requeued
    notice = error.notice
    if notice == signal.SIGTERM and job.is_preempted():
        notice = next((s for s in job.NOTICES if callable(signal.getsignal(s))), notice)
    handler = signal.getsignal(notice)
    if notice in job.NOTICES and callable(handler):
        try:
            handler(notice, None)
        except Exception as refused:
            return refused
    sys.exit(128 + notice)


def _fail() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
