"""Check every job of a sweep before the first one starts."""

import itertools
import sys
import traceback
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from scaledreamer.cli import report
from scaledreamer.config.check import check
from scaledreamer.config.origin import task_overrides

LIMIT = 64
"""Jobs that are all checked; of larger sweeps every value is checked once, not every combination."""


class CheckSweep(Callback):
    """Hydra calls this before it starts the jobs of ``--multirun``.

    Args:
        schema: of the command, see :func:`scaledreamer.config.check.check`.
    """

    def __init__(self, *, schema: str = "scaledreamer.config.run") -> None:
        self.schema = schema

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Compose and check each job; leave with exit code 1 at the first mistake, before any job has started."""
        loader = GlobalHydra.instance().config_loader()
        own: list[str] = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)  # type: ignore[assignment]
        try:
            for overrides in jobs([*sweep_of(config.hydra), *task_overrides(config.hydra)]):
                job = loader.load_configuration(
                    config_name=config.hydra.job.config_name,
                    overrides=[*own, *overrides],
                    run_mode=RunMode.RUN,
                )
                HydraConfig.instance().set_config(job)  # `${hydra:...}` in the options is looked up there
                check(job, hydra.utils.get_object(self.schema))
            HydraConfig.instance().set_config(config)  # the sweep's folder follows from its own options, not a job's
            OmegaConf.set_readonly(config.hydra, False)
        except Exception as error:
            # Hydra turns an exception of a callback into a warning; leaving is the only way to stop the sweep.
            if not report(error):
                traceback.print_exc()
            sys.exit(1)


def sweep_of(hydra: DictConfig) -> list[str]:
    """Overrides that the configuration itself sweeps, as experiments do that are sweeps."""
    params: dict[str, Any] = OmegaConf.to_container(hydra.sweeper.get("params") or OmegaConf.create())  # type: ignore
    return [f"{key}={value}" for key, value in params.items()]


def jobs(overrides: list[str]) -> list[list[str]]:
    """The overrides of each job of a basic sweep, or of enough jobs to see every value when there are many.

    Of the intervals of a search both ends are seen.
    """
    axes = []
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.get_key_element()
        if override.is_interval_sweep():
            value = override.value()
            axes.append([f"{key}={end}" for end in (value.start, value.end)])  # type: ignore[union-attr]
        elif override.is_sweep_override():
            axes.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            axes.append([override.input_line or f"{key}={override.get_value_element_as_str()}"])
    count = 1
    for axis in axes:
        count *= len(axis)
    if count <= LIMIT:
        return [list(job) for job in itertools.product(*axes)]
    longest = max(len(axis) for axis in axes)
    return [[axis[min(i, len(axis) - 1)] for axis in axes] for i in range(longest)]
