"""What a person sees while a run trains: a bar on a terminal, a line now and then in a file."""

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from scaledreamer.constraints import PositiveFloat


class ProgressBar(LightningProgressBar):
    """Step, loss, opacity, steps per second and time left.

    Args:
        line_every: seconds between lines where the output is not a terminal (a file, SLURM).
    """

    def __init__(self, *, line_every: PositiveFloat = 30.0) -> None:
        super().__init__()
        self.line_every = line_every
        self._bar: Bar | None = None
        self._enabled = True

    def disable(self) -> None:
        """Called by Lightning on processes other than the first."""
        self._enabled = False

    def enable(self) -> None:
        """The opposite of :meth:`disable`."""
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar; the meter starts here, so loading is not counted."""
        if self._enabled:
            self._bar = Bar("step", trainer.max_steps, done=trainer.global_step, line_every=self.line_every)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Refresh; figures are those last logged, so that no step waits for the device."""
        if self._bar is not None:
            self._bar.update(trainer.global_step, lambda: _figures(trainer))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the terminal as it was, also after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _figures(trainer: pl.Trainer) -> list[str]:
    found = trainer.logged_metrics
    return [f"{n} {float(found[f'train/{n}']):.4g}" for n in ("loss", "opacity") if f"train/{n}" in found]


class Bar:
    """How far a loop is: a bar on a terminal, else a line now and then; shown from when it is made until ``stop``.

    Args:
        unit: what is counted: "step".
        total: how many there are.
        done: how many of them are done already.
        line_every: seconds between lines where stderr is not a terminal.
    """

    def __init__(self, unit: str, total: int, *, done: int = 0, line_every: float = 30.0) -> None:
        self.unit, self.total, self.done, self.line_every = unit, total, done, line_every
        self._console = Console(file=sys.stderr)
        self._meter = Meter()
        self._meter.tick(done, time.monotonic())
        self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn(f"{unit} {{task.completed:.0f}}/{{task.total:.0f}}"),
                BarColumn(),
                TextColumn("{task.description}"),
                console=self._console,
            )
            self._task = self._bar.add_task("starting", total=total, completed=done)
            self._bar.start()

    def update(self, done: int, figures: Callable[[], list[str]] = list) -> None:
        """``done`` are done; ``figures`` are asked for when they are shown."""
        self.done, now = done, time.monotonic()
        self._meter.tick(done, now)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=self._describe(done, figures))
        elif now - self._last_line >= self.line_every or done == self.total:
            self._last_line = now
            self._console.print(f"{self.unit} {done}/{self.total}  {self._describe(done, figures)}", highlight=False)

    def _describe(self, done: int, figures: Callable[[], list[str]]) -> str:
        parts, rate = figures(), self._meter.rate
        if rate:
            left = duration((self.total - done) / rate)
            parts += [f"{rate:.2f} {self.unit}s/s" if rate >= 1 else f"{1 / rate:.1f} s/{self.unit}", f"{left} left"]
        return "  ".join(parts)

    def advance(self, more: int) -> None:
        """``more`` are done than before."""
        self.update(self.done + more)

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Meter:
    """Steps per second over the last ``horizon`` seconds, and over ``least`` ticks at least.

    Without the second, a single tick after a pause (a preview, a checkpoint) would pass for the speed of the run.
    """

    def __init__(self, horizon: float = 30.0, least: int = 20) -> None:
        self.horizon, self.least = horizon, least
        self._ticks: deque[tuple[float, int]] = deque()  # (time, steps done)

    def tick(self, step: int, now: float) -> None:
        """``step`` optimiser steps are done at the time ``now`` (seconds)."""
        self._ticks.append((now, step))
        while len(self._ticks) > self.least and self._ticks[0][0] < now - self.horizon:
            self._ticks.popleft()

    @property
    def rate(self) -> float:
        """Steps per second; 0 before the first step is done."""
        if len(self._ticks) < 2 or self._ticks[-1][0] == self._ticks[0][0]:
            return 0.0
        (start, first), (end, last) = self._ticks[0], self._ticks[-1]
        return (last - first) / (end - start)


def duration(seconds: float) -> str:
    """``75`` -> ``1m15s``; ``90061`` -> ``1d1h``: the two largest units."""
    seconds = int(seconds)
    units = [(86400, "d"), (3600, "h"), (60, "m"), (1, "s")]
    parts = []
    for size, letter in units:
        if seconds >= size or parts or letter == "s":
            parts.append(f"{seconds // size}{letter}")
            seconds %= size
    return "".join(parts[:2])
