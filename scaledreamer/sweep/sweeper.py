"""The sweeper behind ``--multirun``: Hydra's grid, or a search, with jobs that are not done twice."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from scaledreamer.constraints import PositiveInt
from scaledreamer.errors import UserError
from scaledreamer.sweep.folder import command, record_launch
from scaledreamer.sweep.jobs import Jobs

if TYPE_CHECKING:
    from scaledreamer.sweep.search import Search

log = logging.getLogger(__name__)


class ResumableSweep(Sweeper):
    """Runs every job; one that fails does not stop the others. Started again, it does what is left.

    Args:
        params: key -> what is swept, beside the command line's, which goes first.
        max_batch_size: jobs that are launched together; None for all.
        search: asks for jobs by the results of others; None for the grid.
    """

    def __init__(
        self,
        *,
        params: dict[str, Any] | None = None,
        max_batch_size: PositiveInt | None = None,
        search: "Search | None" = None,
    ) -> None:
        self.params, self.max_batch_size, self.search = params or {}, max_batch_size, search

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra calls this first."""
        self._config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def sweep(self, arguments: list[str]) -> Any:
        """Run the jobs that ``arguments`` and ``params`` ask for; their outcomes by name.

        Raises:
            UserError: some jobs failed, or the sweep cannot be run in its folder.
        """
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        folder = self._pin_folder()
        context = self.hydra_context
        assert context is not None, "Hydra calls setup first"
        loader = context.config_loader
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=self.task_function, config=self._config
        )
        overrides = OverridesParser.create(config_loader=loader).parse_overrides(
            [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        )
        record_launch(folder)
        OmegaConf.save(self._config, folder / "multirun.yaml")
        jobs = Jobs(launcher=launcher, loader=loader, config=self._config, folder=folder, overrides=overrides)
        try:
            if self.search is None:
                for batch in BasicSweeper.split_arguments(overrides, self.max_batch_size):
                    jobs.run(batch)
            else:
                self.search.run(overrides, folder=folder, launch=jobs.run)
        except BaseException as error:
            # Not one of a job's: Ctrl-C, a launcher that gave up, a folder of another sweep.
            if jobs.outcomes or not isinstance(error, UserError):
                log.info("The sweep stopped: %s\nGo on with: %s", jobs.summary(), command(folder))
            raise
        return self._concluded(jobs, folder)

    def _concluded(self, jobs: Jobs, folder: Path) -> dict[str, Any]:
        if jobs.failed:
            raise UserError(f"sweep: {jobs.summary()}\nGo on with: {command(folder)}")
        log.info("Sweep: %s. Its table: python -m scaledreamer.sweep %s", jobs.summary(), folder)
        return jobs.outcomes

    def _pin_folder(self) -> Path:
        """The sweep's folder, the same for all its jobs, whose own options could give it another name."""
        HydraConfig.instance().set_config(self._config)  # `${hydra:...}` in the options is looked up there
        folder = Path(str(self._config.hydra.sweep.dir))
        given: Sequence[str] = OmegaConf.to_container(self._config.hydra.overrides.hydra)  # type: ignore[assignment]
        quoted = str(folder).replace("'", "\\'")
        with read_write(self._config), read_write(self._config.hydra), open_dict(self._config):
            self._config.hydra.sweep.dir = str(folder)
            own = [o for o in given if not o.startswith("hydra.sweep.dir=")]
            self._config.hydra.overrides.hydra = [*own, f"hydra.sweep.dir='{quoted}'"]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: {error.strerror or error}; choose another with hydra.sweep.dir=DIR.") from error
        return folder
