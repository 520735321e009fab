"""How fast a run trains, and how much of the GPU's memory it takes."""

import time

import lightning.pytorch as pl
import torch

from scaledreamer.system import TextTo3D
from scaledreamer.training.callback import StepCallback


class Throughput(StepCallback):
    """Logs optimiser steps and prompts per second, and the most memory that was in use on the first process's GPU.

    Rates are those of the time since the last logged step, with the previews and checkpoints that fell into it. Only
    steps that are logged anyway are looked at, so that no step waits for the device.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Loading is not counted."""
        super().on_train_start(trainer, pl_module)
        self._since, self._at = time.monotonic(), trainer.global_step
        self._device = pl_module.device
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def on_step(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> None:
        """Log the rates of a step that is logged."""
        every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if step % every:
            return
        now = time.monotonic()
        rate = (step - self._at) / (now - self._since)
        self._since, self._at = now, step
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        prompts = data.batch_size * trainer.world_size * trainer.accumulate_grad_batches
        figures = {"speed/steps_per_second": rate, "speed/prompts_per_second": rate * prompts}
        if self._device.type == "cuda":
            figures["memory/gpu_peak_gib"] = torch.cuda.max_memory_allocated(self._device) / 2**30
        assert isinstance(module, TextTo3D)
        module.log_figures(figures, rank_zero_only=True)
