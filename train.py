"""Train a text-to-3D generator by score distillation.

python train.py generator=3dconv corpus=DF415 guidance=asd_sd
"""

import logging
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from scaledreamer.cli import clear_errors
from scaledreamer.config import check, plain

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """Compose, check, build, train."""
    check(cfg)
    # Heavy imports come after the check, so that a mistake is answered at once.
    from lightning.pytorch.utilities import rank_zero_only

    from scaledreamer.training import checkpoints, loggers
    from scaledreamer.training.build import build_run
    from scaledreamer.training.directory import record

    config = plain(cfg)
    directory = Path(HydraConfig.get().runtime.output_dir)
    checkpoint = checkpoints.find(config["resume"], directory)
    if checkpoint is not None:
        checkpoints.require_same(checkpoint, config)
        log.info("Resuming from %s", checkpoint)
    try:
        run = build_run(config, directory, resumed=checkpoint is not None)
        if checkpoint is not None:
            checkpoints.require_same_prompts(checkpoint, run.data)
        # Only now, so that a refused launch leaves the run that it would have resumed as it was.
        rank_zero_only(record)(directory, config)
        run.trainer.fit(run.system, datamodule=run.data, ckpt_path=checkpoint, weights_only=True)
    finally:
        loggers.finish()
    if run.trainer.is_global_zero:
        log.info(
            "Done: %d steps. Checkpoints, previews, metrics and configuration: %s",
            run.system.global_step,
            directory,
        )


if __name__ == "__main__":
    with clear_errors():
        main()
