"""The jobs of a sweep: which are to be run, running them, and what became of them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from scaledreamer.config.check import plain
from scaledreamer.errors import UserError
from scaledreamer.sweep import folder as sweep_folder
from scaledreamer.sweep.leaves import leaves
from scaledreamer.sweep.names import digest, identity, key_of
from scaledreamer.training import outcome

log = logging.getLogger(__name__)

_STEPS = "trainer.max_steps"

Status = Literal["done", "skipped", "failed", "unknown"]


@dataclass(frozen=True)
class Job:
    """A job to be."""

    name: str
    overrides: list[str]
    folder: Path
    finished: bool


@dataclass(frozen=True)
class Outcome:
    """What became of a job; ``unknown`` where its launcher has lost sight of it."""

    name: str
    status: Status
    error: str | None = None
    figures: dict[str, float] = field(default_factory=dict)


class Jobs:
    """Runs jobs by a launcher; those that are finished already are not run again.

    Args:
        launcher: set up.
        loader: Hydra's.
        config: of the sweep.
        folder: of the sweep.
        overrides: of the sweep; jobs are called by those that are swept.
    """

    def __init__(
        self, *, launcher: Launcher, loader: Any, config: DictConfig, folder: Path, overrides: Sequence[Override]
    ) -> None:
        self.launcher, self.loader, self.config, self.folder = launcher, loader, config, folder
        self.outcomes: dict[str, Outcome] = {}
        self._constant = [key_of(o.get_key_element()) for o in overrides if not o.is_sweep_override()]
        self._earlier: dict[str, list[str]] = sweep_folder.read(folder)["jobs"]
        self._numbered = self._launched = 0

    def run(self, jobs: Sequence[Sequence[str]]) -> list[Outcome]:
        """Run the jobs with these overrides; their outcomes, in order.

        Raises:
            UserError: a job cannot be run in this folder.
        """
        prepared = self._prepare(jobs)
        sweep_folder.record_jobs(self.folder, {job.name: job.overrides for job in prepared})
        todo = {job.name: job for job in prepared if not job.finished}
        for job in {job.name: job for job in prepared if job.finished}.values():
            log.info("%s: finished, skipped", job.name)
            self._note(Outcome(job.name, "skipped", figures=_figures(job.folder)))
        if todo:
            self._launch(list(todo.values()))
        return [self.outcomes[job.name] for job in prepared]

    def summary(self) -> str:
        """``4 done, 1 skipped, 1 failed``, and a line for each that failed."""
        by: dict[str, list[Outcome]] = {}
        for found in self.outcomes.values():
            by.setdefault(found.status, []).append(found)
        counts = [f"{len(by.get(s, []))} {s}" for s in ("done", "skipped", "failed")]
        if "unknown" in by:
            counts.append(f"{len(by['unknown'])} not known to have ended")
        lines = [f"  {o.name}: {o.error}" for o in by.get("failed", [])]
        return "\n".join([", ".join(counts), *lines])

    @property
    def failed(self) -> int:
        """How many have."""
        return sum(o.status == "failed" for o in self.outcomes.values())

    def _launch(self, jobs: list[Job]) -> None:
        overrides = [[*job.overrides, f"hydra.sweep.subdir={_quoted(job.name)}"] for job in jobs]
        try:
            returned = self.launcher.launch(overrides, initial_job_idx=self._launched)
        except BaseException:  # of the launcher, or Ctrl-C: what the jobs have left tells of them
            for job in jobs:
                self._note(_seen(job))
            raise
        self._launched += len(jobs)
        for job, result in zip(jobs, returned, strict=True):
            self._note(_returned(job, result))

    def _note(self, found: Outcome) -> None:
        before = self.outcomes.get(found.name)
        if before is None or found.status != "skipped":  # a search may ask for the same twice
            self.outcomes[found.name] = found

    def _prepare(self, jobs: Sequence[Sequence[str]]) -> list[Job]:
        state = HydraConfig.instance().cfg
        try:
            prepared = [self._prepared(list(overrides), self._numbered + i) for i, overrides in enumerate(jobs)]
            self._numbered += len(jobs)
        finally:
            HydraConfig.instance().cfg = state
        by_name: dict[str, list[str]] = {}
        for job in prepared:
            if by_name.setdefault(job.name, job.overrides) != job.overrides:
                raise UserError(
                    f"hydra.sweep.subdir: two jobs would share the folder {job.name} ({' '.join(job.overrides)}); "
                    "leave it out, or name what differs."
                )
        return prepared

    def _prepared(self, overrides: list[str], number: int) -> Job:
        cfg = self.loader.load_sweep_config(self.config, overrides)
        with open_dict(cfg):
            cfg.hydra.job.num, cfg.hydra.job.id = number, str(number)
        HydraConfig.instance().set_config(cfg)  # `${hydra:...}` in the options is looked up there
        name = self._name(cfg, overrides)
        config, folder = plain(cfg), self.folder / name
        return Job(name, overrides, folder, finished=_is_finished(folder, config))

    def _name(self, cfg: DictConfig, overrides: list[str]) -> str:
        """What a job was called before, else what the sweep's options call it."""
        keys = list(cfg.hydra.job.config.override_dirname.exclude_keys)
        mine = identity(overrides, without=keys)
        known = {identity(of, without=keys): name for name, of in self._earlier.items()}
        if mine in known:
            return known[mine]
        with read_write(cfg.hydra), open_dict(cfg):
            cfg.hydra.job.config.override_dirname.exclude_keys = [*keys, *self._constant]
        HydraConfig.instance().set_config(cfg)
        name = str(OmegaConf.select(cfg, "hydra.sweep.subdir"))
        other = self._earlier.get(name)
        if other is None or {key_of(o) for o in {*mine} ^ {*identity(other, without=keys)}} == {_STEPS}:
            return name  # new, or one that is to go on for more steps
        return f"{name},{digest(repr(mine))}"


def _is_finished(folder: Path, config: dict[str, Any]) -> bool:
    """Whether the run in ``folder`` is done.

    Raises:
        UserError: it is another run's; or more steps are asked for than a finished one has, say: that goes on.
    """
    try:
        saved = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{folder / 'config.yaml'}: cannot be read ({error}); remove that folder.") from error
    old, new = leaves(saved), leaves(config)
    differs = [key for key in old if key in new and old[key] != new[key]]
    more = differs == [_STEPS] and new[_STEPS] > old[_STEPS]
    if differs and not more:
        lines = "\n  ".join(f"{key}: {old[key]!r} there, {new[key]!r} now" for key in differs)
        raise UserError(f"{folder} is a run with other options:\n  {lines}\nuse another hydra.sweep.dir.")
    return not more and outcome.read(folder, outcome.DONE) is not None


def _returned(job: Job, result: JobReturn) -> Outcome:
    if result.status is JobStatus.COMPLETED:
        return Outcome(job.name, "done", figures=_figures(job.folder))
    error = result._return_value
    outcome.fail(job.folder, error)
    return Outcome(job.name, "failed", error=outcome.in_a_line(error))


def _seen(job: Job) -> Outcome:
    """What a job's folder says of it."""
    if outcome.read(job.folder, outcome.DONE) is not None:
        return Outcome(job.name, "done", figures=_figures(job.folder))
    failed = outcome.read(job.folder, outcome.FAILED)
    return Outcome(job.name, "failed", error=failed["error"]) if failed else Outcome(job.name, "unknown")


def _figures(folder: Path) -> dict[str, float]:
    return (outcome.read(folder, outcome.DONE) or {}).get("figures", {})


def _quoted(name: str) -> str:
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"
