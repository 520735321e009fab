"""A callback for runs on a cluster: writes down which process did which step, and takes its time over it."""

import json
import os
import time
from pathlib import Path

import lightning.pytorch as pl

from scaledreamer.constraints import NonNegativeFloat, NonNegativeInt
from scaledreamer.training.callback import StepCallback


class Steps(StepCallback):
    """A line of JSON per step and process in ``steps.jsonl`` of the run's folder.

    Args:
        seconds: that each step takes longer.
        fail_at: step after which the run fails; 0 never.
        hold_at: step after which the first life of the job does nothing more; 0 never.
    """

    def __init__(
        self,
        *,
        seconds: NonNegativeFloat = 0.0,
        fail_at: NonNegativeInt = 0,
        hold_at: NonNegativeInt = 0,
        directory: Path,
    ) -> None:
        self.seconds, self.fail_at, self.hold_at = seconds, fail_at, hold_at
        self.path = directory / "steps.jsonl"

    def on_step(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> None:
        line = {
            "step": step,
            "rank": trainer.global_rank,
            "pid": os.getpid(),
            "restart": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
            "node": os.environ.get("SLURMD_NODENAME"),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if step == self.fail_at:
            raise RuntimeError("this step was meant to fail")
        time.sleep(300 if step == self.hold_at and not line["restart"] else self.seconds)
