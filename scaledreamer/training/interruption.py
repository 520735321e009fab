"""Save and leave when notice is given: a job's time is nearly up, another takes its place, or somebody ends it."""

import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import lightning.pytorch as pl

from scaledreamer.collectives import largest_number
from scaledreamer.constraints import PositiveInt
from scaledreamer.errors import Interrupted
from scaledreamer.slurm.job import NOTICES
from scaledreamer.training.callback import StepCallback
from scaledreamer.training.checkpoints import Checkpoints

log = logging.getLogger(__name__)

_STAY, _END, _COME_BACK = 0, 1, 2

LIGHTNINGS_AGREEMENT = "_broadcast_sigterm_tensor"
"""Method of Lightning's epoch loop since 2.6."""


class Interruptions(StepCallback):
    """Turns a signal into a checkpoint after the step that is under way, and an :class:`Interrupted`.

    ``TERM`` is heard everywhere, ``USR1`` and ``USR2`` where somebody has a handler for them: submitit, or
    :func:`scaledreamer.slurm.job.answer_notices`. The trainer calls it last.

    Args:
        every: optimiser steps between agreements of several processes, which hear the signal at different steps, or
            some of them never; they leave a step after. A single process leaves after the step.
    """

    def __init__(self, *, every: PositiveInt = 10) -> None:
        self.every = every
        self._heard = _STAY
        self._asked: Callable[[], int] | None = None
        self._leaving: Interrupted | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on there is something to save; a signal while loading is left to who listened before."""
        super().on_train_start(trainer, pl_module)
        if threading.current_thread() is not threading.main_thread():
            return
        asked = [s for s in NOTICES if callable(signal.getsignal(s))]
        self._before = {s: signal.signal(s, self._hear) for s in (*asked, signal.SIGTERM)}
        # Lightning would agree on SIGTERM, which it no longer hears, in every step, and wait for the device each time.
        vars(trainer.fit_loop.epoch_loop)[LIGHTNINGS_AGREEMENT] = lambda: None

    def on_step(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> None:
        """Save if this process has heard a signal, or another that shares the run has."""
        wish = self._agreed(trainer, step)
        if wish == _STAY or step >= trainer.max_steps:
            return
        for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(callback, Checkpoints):
                callback.save(trainer, step)
        self._leaving = Interrupted(step, self._notice() if wish == _COME_BACK else signal.SIGTERM)

    def on_train_batch_start(self, *_: Any) -> None:
        """Leave before the next step, when the figures of the last have been logged.

        Raises:
            Interrupted: on all processes, after the same step.
        """
        if self._leaving is not None:
            raise self._leaving

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before, self._asked = {}, None
        vars(trainer.fit_loop.epoch_loop).pop(LIGHTNINGS_AGREEMENT, None)

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        wish = _END if signum == signal.SIGTERM else _COME_BACK
        self._heard = max(self._heard, wish)
        log.info("%s: saving after this step.", signal.Signals(signum).name)

    def _agreed(self, trainer: pl.Trainer, step: int) -> int:
        if trainer.world_size == 1:
            return self._heard
        asked, self._asked = self._asked, None
        if step % self.every == 0:
            self._asked = largest_number(self._heard, trainer.strategy.root_device)
        # Of the step before: its answer is there while the device is busy with this one.
        return asked() if asked is not None else _STAY

    def _notice(self) -> signal.Signals:
        return next((s for s in NOTICES if s in self._before), NOTICES[0])
