"""A Lightning callback that thinks in optimiser steps, not in batches."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback


class StepCallback(Callback):
    """Calls :meth:`on_step` once after every optimiser step, never inside an accumulation of gradients."""

    _seen = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Steps of before a resume are not reported again."""
        self._seen = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Report the step if this batch finished one."""
        if trainer.global_step != self._seen:
            self._seen = trainer.global_step
            self.on_step(trainer, pl_module, self._seen)

    def on_step(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> None:
        """``step`` optimiser steps of the run are done; ``trainer.max_steps`` is the last."""
