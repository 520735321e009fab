"""Search instead of a grid: Optuna asks for jobs by the results of others, in what Hydra's overrides say is swept.

    optimizer.lr='tag(log, interval(0.001, 0.1))'   numbers between these, evenly in their logarithms
    guidance.rule.eta='interval(0.0, 1.0)'          numbers between these; integers: int(interval(1, 8))
    generator.volumes='range(16, 65, 16)'           16, 32, 48, 64
    guidance=asd_toy,sds_toy                        one of these
    seed=0,1,2                                      not searched: every trial runs them all and counts by the mean

hydra-optuna-sweeper 1.3.0 wants Optuna < 3 and keeps its studies in memory; hypersweeper 0.2.3 pins NumPy 1.24 and W&B
0.16; hydra-optuna-mlflow-sweeper 0.1.3 brings MLflow and one launcher with it. Optuna itself is kept, and asking and
telling it is what follows.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from scaledreamer.constraints import NonNegativeInt, PositiveInt
from scaledreamer.errors import UserError
from scaledreamer.sweep.jobs import Outcome
from scaledreamer.training.outcome import no_figure

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

log = logging.getLogger(__name__)

Launch = Callable[[Sequence[Sequence[str]]], list[Outcome]]

STUDY = "study.log"
"""Of a sweep's folder; to be opened with ``optuna.storages.JournalStorage``. One process writes it, and no database."""


@dataclass(frozen=True)
class Space:
    """What is searched, what is the same in all trials, and the seeds of each."""

    searched: "dict[str, BaseDistribution]"
    fixed: list[str]
    seeds: list[str]

    def jobs(self, params: dict[str, Any]) -> list[list[str]]:
        """The jobs of one trial."""
        own = [f"{key}={_text(value, self.searched[key])}" for key, value in params.items()]
        return [[*self.fixed, *own, *seed] for seed in ([[s] for s in self.seeds] or [[]])]


class Search:
    """Trials in batches; a search that was stopped goes on with the same study.

    Args:
        objective: a final figure of the runs, as ``metrics.csv`` names it.
        direction: which way it is better.
        trials: that came to a result, when the search ends; those that fail in this launch count as well.
        parallel: trials that run at the same time, by the launcher.
        sampler: called with a seed; None for Optuna's TPE.
        seed: of the sampler.

    Raises:
        UserError: there is no objective, or no Optuna.
    """

    def __init__(
        self,
        *,
        objective: str | None,
        direction: Literal["maximize", "minimize"] = "maximize",
        trials: PositiveInt = 20,
        parallel: PositiveInt = 1,
        sampler: "Callable[..., BaseSampler] | None" = None,
        seed: NonNegativeInt = 0,
    ) -> None:
        try:
            import optuna
        except ImportError as error:
            raise UserError("hydra.sweeper.search: needs Optuna; pip install 'scaledreamer[search]'.") from error
        if not objective:
            raise UserError("objective: name the figure to search by, e.g. objective=toybox/unseen/iou.")
        self.direction: Literal["maximize", "minimize"] = direction
        self.objective, self.trials, self.parallel = objective, trials, parallel
        self.sampler, self.seed = sampler or optuna.samplers.TPESampler, seed

    def run(self, overrides: Sequence[Override], *, folder: Path, launch: Launch) -> "Study":
        """Run trials until there are enough.

        Args:
            overrides: of the command line.
            folder: of the sweep.
            launch: runs jobs, given their overrides.

        Raises:
            UserError: nothing is searched, or the runs have no such figure.
        """
        from optuna.trial import TrialState

        space, study = space_of(overrides), self._open(folder)
        tried = study.get_trials(states=(TrialState.COMPLETE,))
        for trial in study.get_trials(states=(TrialState.FAIL, TrialState.RUNNING)):
            # What failed, or was under way when the search was stopped, is tried again: its folder goes on.
            if trial.state is TrialState.RUNNING:
                study.tell(trial.number, state=TrialState.FAIL)
            fits = trial.params.keys() == space.searched.keys()
            if fits and all(trial.params != other.params for other in tried):
                study.enqueue_trial(trial.params, skip_if_exists=False)
                tried.append(trial)
        failed = 0
        while (left := self.trials - failed - len(study.get_trials(states=(TrialState.COMPLETE,)))) > 0:
            asked = [study.ask(space.searched) for _ in range(min(self.parallel, left))]
            jobs = [space.jobs(trial.params) for trial in asked]
            outcomes = iter(launch([job for of in jobs for job in of]))
            for trial, of in zip(asked, jobs, strict=True):
                value = self._value([next(outcomes) for _ in of])
                failed += value is None
                study.tell(trial, value, state=TrialState.FAIL if value is None else None)
        self._conclude(study, space)
        return study

    def _open(self, folder: Path) -> "Study":
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = JournalStorage(JournalFileBackend(str(folder / STUDY)))
        study = optuna.create_study(storage=storage, study_name="sweep", direction=self.direction, load_if_exists=True)
        if study.direction.name.lower() != self.direction:
            raise UserError(f"hydra.sweeper.search.direction: the study in {folder} goes the other way.")
        # A sampler that begins with the same seed again would ask for the same again.
        study.sampler = self.sampler(seed=self.seed + len(study.trials))
        return study

    def _value(self, outcomes: list[Outcome]) -> float | None:
        """The mean over seeds; None where a job failed."""
        ended = [o for o in outcomes if o.status in ("done", "skipped")]
        for outcome in ended:
            if outcome.figures and self.objective not in outcome.figures:
                raise UserError(f"objective: {no_figure(self.objective, outcome.figures)}")
        values = [o.figures.get(self.objective) for o in ended]
        known = [v for v in values if v is not None]
        return sum(known) / len(known) if len(known) == len(outcomes) else None

    def _conclude(self, study: "Study", space: Space) -> None:
        from optuna.trial import TrialState

        if study.get_trials(states=(TrialState.COMPLETE,)):
            best = space.jobs(study.best_params)[0]
            shown = " ".join(o for o in best if o not in space.fixed and not o.startswith("seed="))
            log.info("Best %s: %.5g with %s", self.objective, study.best_value, shown)


def space_of(overrides: Sequence[Override]) -> Space:
    """The space that overrides describe.

    Raises:
        UserError: they sweep nothing but seeds.
    """
    searched, fixed, seeds = {}, [], []
    for key, override in {o.get_key_element(): o for o in overrides}.items():  # the last of a key counts
        if not override.is_sweep_override():
            fixed.append(f"{key}={override.get_value_element_as_str()}")
        elif key == "seed":
            seeds = [f"seed={value}" for value in override.sweep_string_iterator()]
        else:
            searched[key] = _distribution(key, override)
    if not searched:
        raise UserError("a search: nothing to search; e.g. optimizer.lr='tag(log, interval(0.001, 0.1))'.")
    return Space(searched, fixed, seeds)


def _distribution(key: str, override: Override) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    try:
        if isinstance(value, IntervalSweep):
            ends, logarithmic = (value.start, value.end), "log" in value.tags
            if all(isinstance(end, int) for end in ends):
                return IntDistribution(int(ends[0] or 0), int(ends[1] or 0), log=logarithmic)
            return FloatDistribution(float(ends[0] or 0), float(ends[1] or 0), log=logarithmic)
        if isinstance(value, RangeSweep):
            numbers = sorted(value.range())
            step = abs(value.step)
            if all(isinstance(number, int) for number in numbers):
                return IntDistribution(int(numbers[0]), int(numbers[-1]), step=int(step))
            return FloatDistribution(float(numbers[0]), float(numbers[-1]), step=float(step))
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except (ValueError, IndexError) as error:
        raise UserError(f"{key}: cannot be searched ({error}).") from error


def _text(value: Any, distribution: Any) -> str:
    """A value as an override: floats by five digits, so that folders can be read, but not beyond the ends."""
    if not isinstance(value, float):
        return str(value)
    return repr(min(max(float(f"{value:.5g}"), distribution.low), distribution.high))
