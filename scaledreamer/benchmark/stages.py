"""Takes a training step of a real run apart into generator, renderer, VAE, prior and optimiser."""

import time
from dataclasses import fields, is_dataclass
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from scaledreamer.benchmark.timeline import Stage, Timeline
from scaledreamer.priors.base import Prior
from scaledreamer.renderers.base import Rendering
from scaledreamer.system import TextTo3D

MEMORY_STEPS = 3
"""Steps after the timed ones, in which memory is tracked."""


class StageTimer(Callback):
    """Times the stages of every training step, forward and backward.

    A stage's backward pass begins when the gradient of its output is complete: hooks on the renders and on the field's
    tensors tell. What lies between the named stages is ``rest``: cameras, losses, guidance, the trainer.

    Args:
        warmup: steps that do not count.
        steps: steps that are timed.
    """

    def __init__(self, *, warmup: int, steps: int) -> None:
        self.warmup, self.steps = warmup, steps
        self._seen = 0
        self._started = self._stopped = 0.0
        self.timeline: Timeline

    @property
    def total_steps(self) -> int:
        """Steps that the trainer has to make."""
        return self.warmup + self.steps + MEMORY_STEPS

    @property
    def steps_per_second(self) -> float:
        """Of the timed steps, by the clock on the wall."""
        return self.steps / (self._stopped - self._started)

    def stages(self) -> dict[str, Stage]:
        """By name: "generator", "generator backward", ..., "rest" and the whole "step"."""
        return self.timeline.stages(repetitions=self.steps)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the hooks in; weights are loaded and nothing has run yet."""
        assert isinstance(pl_module, TextTo3D)
        self.timeline = Timeline(pl_module.device)
        enter = self.timeline.enter
        pl_module.generator.register_forward_pre_hook(lambda *_: enter("generator"))
        pl_module.generator.register_forward_hook(self._after_generator)
        pl_module.renderer.register_forward_hook(self._after_renderer)
        pl_module.guidance.prior = cast(Prior, _TimedPrior(pl_module.guidance.prior, self.timeline))

    def _after_generator(self, _module: Any, _inputs: Any, field: Any) -> None:
        tensors = [getattr(field, f.name) for f in fields(field)] if is_dataclass(field) else []
        for tensor in tensors:
            if isinstance(tensor, Tensor) and tensor.grad_fn is not None:
                tensor.register_hook(lambda _: self.timeline.enter("generator backward"))
        self.timeline.enter("renderer")

    def _after_renderer(self, _module: Any, _inputs: Any, rendering: Rendering) -> None:
        if rendering.rgb.requires_grad:
            rendering.rgb.register_hook(lambda _: self.timeline.enter("renderer backward"))

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """A step begins."""
        if self._seen == self.warmup:
            self.timeline.forget()
            self._started = self._clock()
        self.timeline.begin()

    def on_before_backward(self, *_: Any) -> None:
        """The loss is there."""
        self.timeline.enter("VAE backward")

    def on_after_backward(self, *_: Any) -> None:
        """All gradients are there."""
        self.timeline.enter("rest")

    def on_before_optimizer_step(self, *_: Any) -> None:
        """The optimiser is about to step."""
        self.timeline.enter("optimizer")

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """A step is done."""
        self.timeline.enter("end")
        self._seen += 1
        if self._seen == self.warmup + self.steps:
            self._stopped = self._clock()
            self.timeline.tracks_memory = True

    @staticmethod
    def _clock() -> float:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.perf_counter()


class _TimedPrior:
    """A prior that tells a timeline of its two calls."""

    def __init__(self, prior: Prior, timeline: Timeline) -> None:
        self._prior, self._timeline = prior, timeline

    def __getattr__(self, name: str) -> Any:
        return getattr(self._prior, name)

    def encode_images(self, images: Tensor, noise: Tensor) -> Tensor:
        self._timeline.enter("VAE")
        latents = self._prior.encode_images(images, noise)
        self._timeline.enter("rest")
        return latents

    def predict_noise(self, *inputs: Any, **options: Any) -> Tensor:
        self._timeline.enter("prior")
        noise = self._prior.predict_noise(*inputs, **options)
        self._timeline.enter("rest")
        return noise
