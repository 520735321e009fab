"""Notice a run that no longer learns: fields that became empty or full, losses that are not numbers."""

import logging
import math

import lightning.pytorch as pl

from scaledreamer.constraints import PositiveInt, Probability
from scaledreamer.errors import UserError
from scaledreamer.training.callback import StepCallback

log = logging.getLogger(__name__)


class CollapseGuard(StepCallback):
    """Warns once when the renders stay empty or full; stops a run whose loss is not a number.

    Looks only at steps that are logged anyway, so it costs the training nothing.

    Args:
        empty, full: mean opacities below and above which a render shows no object.
        patience: optimiser steps that this may last before the warning.
    """

    def __init__(self, *, empty: Probability = 0.005, full: Probability = 0.98, patience: PositiveInt = 500) -> None:
        self.empty, self.full, self.patience = empty, full, patience
        self._since: int | None = None
        self._warned = False

    def on_step(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> None:
        """Judge the figures of a logged step."""
        figures = trainer.logged_metrics
        every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if "train/opacity" not in figures or step % every:
            return
        if not math.isfinite(float(figures["train/loss"])):
            raise UserError(
                f"the loss is {float(figures['train/loss'])} at step {step}: lower optimizer.lr or set "
                "trainer.gradient_clip_val=1, and resume from a kept checkpoint (resume=FILE)."
            )
        opacity = float(figures["train/opacity"])
        if self.empty <= opacity <= self.full:
            self._since = None
            return
        self._since = self._since if self._since is not None else step
        if step - self._since >= self.patience and not self._warned:
            self._warned = True
            what = "empty" if opacity < self.empty else "filled"
            log.warning(
                "The renders have been %s since step %d (mean opacity %.3f): the fields have collapsed. "
                "Lower optimizer.lr, set trainer.gradient_clip_val=1 or use more prompts per step.",
                what,
                self._since,
                opacity,
            )
