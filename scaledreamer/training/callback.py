"""Lightning callbacks that think in optimiser steps, not in batches, and in prompts."""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from scaledreamer.corpora.corpus import Prompts
from scaledreamer.text.embedding import TextEmbedding


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


class PromptCallback(StepCallback):
    """A callback that makes something of prompts of its own choice."""

    shown: Sequence[str] = ()
    text: TextEmbedding | None = None

    def choose(self, prompts: Prompts) -> Sequence[str]:
        """Which prompts it wants embedded."""
        raise NotImplementedError

    def show(self, prompts: Sequence[str], text: TextEmbedding) -> None:
        """Give the chosen prompts and their embeddings [P]; called once, before training."""
        self.shown, self.text = list(prompts), text

    def embedding(self, index: int) -> TextEmbedding:
        """Of one prompt, on the CPU."""
        assert self.text is not None
        one = slice(index, index + 1)
        return TextEmbedding(pooled=self.text.pooled[one], tokens=self.text.tokens[one])
