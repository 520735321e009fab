"""Pictures of fixed prompts while a run trains, on disk and in the loggers.

Axes: P prompts, V views per prompt, H W pixels.
"""

from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor

from scaledreamer.constraints import PositiveInt
from scaledreamer.corpora.corpus import Prompts
from scaledreamer.pictures.png import save_png
from scaledreamer.system import TextTo3D
from scaledreamer.training.callback import PromptCallback
from scaledreamer.training.loggers import log_image


class Previews(PromptCallback):
    """Renders a grid (a row per prompt, a column per view) every N steps and at the end.

    Args:
        every: optimiser steps between grids.
        prompts: how many of the corpus's validation prompts are shown.
        views: per prompt, on a circle.
        size: side of each picture in pixels.
        directory: of the run.
    """

    def __init__(
        self, *, every: PositiveInt, prompts: PositiveInt, views: PositiveInt, size: PositiveInt, directory: Path
    ) -> None:
        self.every, self.prompts, self.views, self.size = every, prompts, views, size
        self.folder = directory / "previews"

    def choose(self, prompts: Prompts) -> Sequence[str]:
        """The first of the corpus's validation prompts."""
        return prompts.val[: self.prompts]

    def on_step(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> None:
        """Render when due and at the end, on the first process."""
        if trainer.is_global_zero and (step % self.every == 0 or step >= trainer.max_steps):
            assert isinstance(module, TextTo3D)
            picture, opacity = self.render(module)
            save_png(picture, self.folder / f"step-{step:07d}.png")
            for logger in trainer.loggers:
                logger.log_metrics({"val/opacity": opacity}, step=step)
                log_image(logger, "val/preview", picture, step=step, caption=" | ".join(self.shown))

    @torch.no_grad()
    def render(self, system: TextTo3D) -> tuple[Tensor, float]:
        """(grid [P * size, V * size, 3] in [0, 1] on the CPU, mean opacity); leaves the system's mode as it was."""
        training = system.training
        system.eval()
        cameras = system.cameras.orbit(self.views, device=system.device)
        rows, opacity = [], 0.0
        for i in range(len(self.shown)):  # one at a time: a preview must not need more memory than a step
            with system.trainer.precision_plugin.forward_context():
                rendering = system.render(self.embedding(i).to(system.device), cameras, self.size)
            rows.append(torch.cat(list(rendering.rgb.float().clamp(0, 1)), dim=1).cpu())
            opacity += float(rendering.opacity.mean()) / len(self.shown)
        system.train(training)
        return torch.cat(rows), opacity
