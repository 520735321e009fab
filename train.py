"""Train a text-to-3D generator by score distillation.

python train.py generator=3dconv corpus=DF415 guidance=asd_sd
"""

import logging
import sys
from functools import partial
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from scaledreamer.cli import clear_errors
from scaledreamer.config import check, plain
from scaledreamer.errors import UserError
from scaledreamer.sweep.folder import started_again
from scaledreamer.sweep.marks import is_job_of_sweep

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Compose, check, build, train; the figure that ``objective`` names."""
    check(cfg)
    # Heavy imports come after the check, so that a mistake is answered at once.
    from lightning.pytorch.utilities import rank_zero_only

    from scaledreamer.training import checkpoints, loggers, outcome, processes, watch
    from scaledreamer.training.build import build_run
    from scaledreamer.training.directory import record

    processes.only_the_first_speaks()
    config = plain(cfg)
    directory = Path(HydraConfig.get().runtime.output_dir)
    # A job of a sweep that is started again goes on with its own.
    checkpoint = checkpoints.find(config["resume"], directory, again=is_job_of_sweep(HydraConfig.get()))
    if checkpoint is not None:
        checkpoints.require_same(checkpoint, config)
        log.info("Resuming from %s", checkpoint)
    with loggers.closing():
        run = build_run(config, directory, resumed=checkpoint is not None)
        if checkpoint is not None:
            checkpoints.require_same_prompts(checkpoint, run.data)
        # Only now, so that a refused launch leaves the run that it would have resumed as it was.
        rank_zero_only(record)(directory, config)
        loggers.log_options(run.trainer, config)
        with processes.launching(directory), watch.watching(run.trainer, ended=partial(_ended, directory)):
            run.trainer.fit(run.system, datamodule=run.data, ckpt_path=checkpoint, weights_only=True)
    if not run.trainer.is_global_zero:
        return None
    log.info("Done: %d steps. Checkpoints, previews, metrics and configuration: %s", run.system.global_step, directory)
    return outcome.finish(directory, config, run.trainer.callback_metrics)


def _ended(directory: Path, problem: str) -> None:
    """The last act of a process that cannot go on without another one."""
    from scaledreamer.training import loggers, outcome

    outcome.fail(directory, UserError(problem))
    loggers.finish(failed=True)


if __name__ == "__main__":
    with clear_errors():
        sys.argv[1:] = started_again(sys.argv[1:])
        main()
