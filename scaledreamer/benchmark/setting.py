"""What is measured: any configuration, without corpus, text encoder or downloads."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import IterableDataset

from scaledreamer.config import check, compose, plain
from scaledreamer.corpora.dataset import PromptBatch
from scaledreamer.errors import UserError
from scaledreamer.priors.locate import stand_in
from scaledreamer.schedules import step_at
from scaledreamer.system import TextTo3D
from scaledreamer.text.embedding import TextEmbedding

TRUE_RENDERS = "scaledreamer.toybox.supervision.TrueRenders"
"""The guidance whose targets follow from the prompts' words."""


def configuration(overrides: Sequence[str], steps: int) -> dict[str, Any]:
    """The plain configuration of so many steps, with a prior that is on this machine.

    Raises:
        UserError: the configuration is wrong, or its targets follow from prompts.
    """
    cfg = compose([*overrides, f"trainer.max_steps={steps}"])
    check(cfg)
    config = plain(cfg)
    if config["guidance"]["_target_"] == TRUE_RENDERS:
        raise UserError(
            "guidance: true pictures are rendered of toys, and the prompts of a benchmark are random; choose another "
            "guidance=."
        )
    prior = config["guidance"]["prior"]
    if not any(o.startswith("guidance.prior.path=") for o in overrides):
        prior["path"] = stand_in(prior["path"])
    config["cameras"]["image_size"] = step_at(config["cameras"]["image_size"], 1.0)
    return config


def trainer_of(config: dict[str, Any], callback: Callback) -> Trainer:
    """The trainer of a configuration, with that callback and the one that hears signals."""
    from scaledreamer.training.build import build
    from scaledreamer.training.interruption import Interruptions

    options = {**config["trainer"]["lightning"], "enable_progress_bar": False}
    node = {**config["trainer"], "lightning": options}
    # How processes agree to leave is part of their step.
    return build(node, callbacks=[callback, Interruptions()], logger=[], directory=Path.cwd())


class RandomPrompts(IterableDataset[PromptBatch]):
    """The same batch again and again."""

    def __init__(self, batch: PromptBatch) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[PromptBatch]:
        while True:
            yield self.batch


def random_prompts(config: dict[str, Any], system: TextTo3D) -> PromptBatch:
    """A step's prompts, which nobody wrote, as a system of that configuration reads them."""
    from scaledreamer.training.build import wordings

    draws = torch.Generator().manual_seed(0)
    prompts: int = config["corpus"]["batch_size"]
    templates = len(wordings(system.generator, system.guidance.views))
    length, width = system.guidance.prior.text_length, system.guidance.prior.text_dim
    return PromptBatch(
        index=torch.arange(prompts),
        prompts=[f"prompt {i}" for i in range(prompts)],
        text=TextEmbedding(
            pooled=torch.randn(prompts, width, generator=draws),
            tokens=torch.randn(prompts, templates, length, width, generator=draws),
        ),
    )
