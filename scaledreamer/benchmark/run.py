"""A few training steps of any configuration, without corpus, text encoder or downloads."""

import logging
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from scaledreamer.benchmark.stages import StageTimer
from scaledreamer.benchmark.timeline import Stage, process_peak_gib
from scaledreamer.config import check, compose, plain
from scaledreamer.corpora.dataset import PromptBatch, as_fetched
from scaledreamer.guidance.base import Guidance
from scaledreamer.priors.locate import stand_in
from scaledreamer.schedules import step_at
from scaledreamer.text.embedding import TextEmbedding

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """What was measured, and of what."""

    stages: dict[str, Stage]
    steps_per_second: float
    process_peak_gib: float
    generator_parameters: int
    settings: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)


class _RandomPrompts(IterableDataset[PromptBatch]):
    """The same batch of prompts that nobody wrote, again and again."""

    def __init__(self, *, prompts: int, templates: int, length: int, width: int) -> None:
        draws = torch.Generator().manual_seed(0)
        self.batch = PromptBatch(
            index=torch.arange(prompts),
            prompts=[f"prompt {i}" for i in range(prompts)],
            text=TextEmbedding(
                pooled=torch.randn(prompts, width, generator=draws),
                tokens=torch.randn(prompts, templates, length, width, generator=draws),
            ),
        )

    def __iter__(self) -> Iterator[PromptBatch]:
        while True:
            yield self.batch


def benchmark(overrides: Sequence[str] = (), *, steps: int = 20, warmup: int = 5) -> Report:
    """Train ``warmup + steps`` steps with random text, and say where the time went.

    Callbacks and loggers are left out: nothing but the step is measured.

    A prior that is not on this machine is replaced by random weights of its sizes, unless the overrides name it.
    Renders have the size that they have at the end of a run.

    Args:
        overrides: as of ``train.py``.
        steps: that are timed.
        warmup: steps before them.

    Raises:
        UserError: the configuration is wrong, or cannot run here.
    """
    timer = StageTimer(warmup=warmup, steps=steps)
    cfg = compose([*overrides, f"trainer.max_steps={timer.total_steps}"])
    check(cfg)
    config = plain(cfg)
    if not any(o.startswith("guidance.prior.path=") for o in overrides):
        config["guidance"]["prior"]["path"] = stand_in(config["guidance"]["prior"]["path"])
    config["cameras"]["image_size"] = step_at(config["cameras"]["image_size"], 1.0)
    # Heavy imports come after the check, so that a mistake is answered at once.
    from scaledreamer.training.build import build, build_system, wordings

    trainer = build(
        {**config["trainer"], "lightning": {**config["trainer"]["lightning"], "enable_progress_bar": False}},
        callbacks=[timer],
        logger=[],
        directory=Path.cwd(),
    )
    guidance: Guidance = build(config["guidance"])
    prior = guidance.prior
    prior.prepare()
    null = torch.zeros(prior.text_length, prior.text_dim)
    system = build_system(config, guidance=guidance, null_tokens=null, encode=None)
    batches = _RandomPrompts(
        prompts=config["corpus"]["batch_size"],
        templates=len(wordings(system.generator, guidance.views)),
        length=prior.text_length,
        width=prior.text_dim,
    )
    gpu = trainer.strategy.root_device.type == "cuda"
    trainer.fit(system, DataLoader(batches, batch_size=None, collate_fn=as_fetched, pin_memory=gpu))
    return Report(
        stages=timer.stages(),
        steps_per_second=timer.steps_per_second,
        process_peak_gib=process_peak_gib(),
        generator_parameters=sum(p.numel() for p in system.generator.parameters()),
        settings={
            "device": torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads",
            "processes": trainer.world_size,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "prior": config["guidance"]["prior"]["path"],
            "precision": config["trainer"]["precision"],
            "prompts_per_step": config["corpus"]["batch_size"],
            "views_per_prompt": config["cameras"]["views_per_prompt"],
            "image_size": config["cameras"]["image_size"],
            "steps": steps,
            "overrides": list(overrides),
        },
    )
