"""Takes a training step of a real run apart into generator, renderer, VAE, prior and optimiser."""

import time
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from scaledreamer.benchmark.profiling import Profiler
from scaledreamer.benchmark.timeline import Stage, Timeline
from scaledreamer.priors.base import Prior
from scaledreamer.renderers.base import Rendering
from scaledreamer.system import TextTo3D

MEMORY_STEPS = 3
"""Steps after the timed ones, in which memory is tracked."""

PROFILED_STEPS = 3
"""Steps after those, where a profile is asked for."""


class StageHooks(Callback):
    """Is told when the stages of every training step begin, forward and backward.

    A stage's backward pass begins when the gradient of its output is complete: hooks on the renders and on the field's
    largest tensor tell. What lies between the named stages is ``rest``: cameras, losses, guidance, the trainer.
    """

    def __init__(self) -> None:
        self.seen = 0
        """Steps that are done."""
        self._undo: list[Callable[[], None]] = []

    def begin(self, module: pl.LightningModule) -> None:
        """A step begins, in the stage ``rest``."""
        raise NotImplementedError

    def enter(self, stage: str) -> None:
        """A stage of the step begins."""
        raise NotImplementedError

    def end(self) -> None:
        """The step, the next of :attr:`seen`, is done."""
        raise NotImplementedError

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the hooks in; weights are loaded and nothing has run yet."""
        assert isinstance(pl_module, TextTo3D)
        guidance, prior = pl_module.guidance, pl_module.guidance.prior
        hooks = [
            pl_module.generator.register_forward_pre_hook(lambda *_: self.enter("generator")),
            pl_module.generator.register_forward_hook(self._after_generator),
            pl_module.renderer.register_forward_hook(self._after_renderer),
        ]
        guidance.prior = cast(Prior, _ToldPrior(prior, self.enter))
        self._undo = [*(hook.remove for hook in hooks), lambda: setattr(guidance, "prior", prior)]

    def on_train_end(self, *_: Any) -> None:
        """Take them out."""
        for undo in self._undo:
            undo()
        self._undo = []  # they hold the prior and its weights

    def _after_generator(self, _module: Any, _inputs: Any, field: Any) -> None:
        made = [tensor for tensor in _tensors(field) if tensor.grad_fn is not None]
        if made:  # small ones, as of where a field stands, may be done before the others have begun
            max(made, key=Tensor.numel).register_hook(lambda _: self.enter("generator backward"))
        self.enter("renderer")

    def _after_renderer(self, _module: Any, _inputs: Any, rendering: Rendering) -> None:
        if rendering.rgb.requires_grad:
            rendering.rgb.register_hook(lambda _: self.enter("renderer backward"))

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """A step begins."""
        self.begin(pl_module)

    def on_before_backward(self, *_: Any) -> None:
        """The loss is there."""
        self.enter("VAE backward")

    def on_after_backward(self, *_: Any) -> None:
        """All gradients are there."""
        self.enter("rest")

    def on_before_optimizer_step(self, *_: Any) -> None:
        """The optimiser is about to step."""
        self.enter("optimizer")

    def on_train_batch_end(self, *_: Any) -> None:
        """A step is done."""
        self.end()
        self.seen += 1


class StageTimer(StageHooks):
    """Times the stages of every training step.

    Args:
        warmup: steps that do not count.
        steps: steps that are timed.
        age: seconds since whatever the first step is waited for from.
        profiler: of a few more steps.
    """

    def __init__(self, *, warmup: int, steps: int, age: Callable[[], float], profiler: Profiler | None = None) -> None:
        super().__init__()
        self.warmup, self.steps = warmup, steps
        self._age, self._profiler = age, profiler
        self.total_steps = self._unprofiled + (PROFILED_STEPS if profiler is not None else 0)
        """Steps that the trainer has to make."""
        self._started = self._stopped = 0.0
        self.timeline: Timeline
        self.first_steps: list[float] = []
        """Ages at which the first and the second step had ended."""

    @property
    def _unprofiled(self) -> int:
        return self.warmup + self.steps + MEMORY_STEPS

    @property
    def steps_per_second(self) -> float:
        """Of the timed steps, by the clock on the wall."""
        return self.steps / (self._stopped - self._started)

    def stages(self) -> dict[str, Stage]:
        """By name: "generator", "generator backward", ..., "rest" and the whole "step"."""
        return self.timeline.stages(repetitions=self.steps)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See :class:`StageHooks`."""
        super().on_train_start(trainer, pl_module)
        self.timeline = Timeline(pl_module.device)
        if trainer.global_rank:
            self._profiler = None  # one process writes the trace

    def enter(self, stage: str) -> None:
        """See :meth:`StageHooks.enter`."""
        self.timeline.enter(stage)
        if self._profiler is not None:
            self._profiler.mark(stage)

    def begin(self, module: pl.LightningModule) -> None:
        """See :meth:`StageHooks.begin`."""
        if self.seen == self.warmup:
            self.timeline.forget()
            self._started = self._clock()
        if self.seen == self._unprofiled and self._profiler is not None:
            self._profiler.start(module.device)
        self.timeline.begin()

    def end(self) -> None:
        """See :meth:`StageHooks.end`."""
        self.timeline.enter("end")
        done = self.seen + 1
        if done <= 2:
            self._clock()
            self.first_steps.append(self._age())
        if done == self.warmup + self.steps:
            self._stopped = self._clock()
        self.timeline.tracks_memory = self.warmup + self.steps <= done < self._unprofiled
        if done == self.total_steps and self._profiler is not None:
            self._clock()
            self._profiler.stop(PROFILED_STEPS)

    @staticmethod
    def _clock() -> float:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.perf_counter()


def _tensors(field: Any) -> Iterator[Tensor]:
    """All tensors of a field, and of the field that it may be made of."""
    if isinstance(field, Tensor):
        yield field
    elif is_dataclass(field):
        for f in fields(field):
            yield from _tensors(getattr(field, f.name))


class _ToldPrior:
    """A prior that tells of its two calls."""

    def __init__(self, prior: Prior, enter: Callable[[str], None]) -> None:
        self._prior, self._enter = prior, enter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._prior, name)

    def encode_images(self, images: Tensor, noise: Tensor) -> Tensor:
        self._enter("VAE")
        latents = self._prior.encode_images(images, noise)
        self._enter("rest")
        return latents

    def predict_noise(self, *inputs: Any, **options: Any) -> Tensor:
        self._enter("prior")
        noise = self._prior.predict_noise(*inputs, **options)
        self._enter("rest")
        return noise
