"""The one place where a checked configuration becomes objects."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from scaledreamer.corpora.corpus import Prompts
from scaledreamer.corpora.datamodule import PromptDataModule
from scaledreamer.guidance.distillation import ScoreDistillation
from scaledreamer.system import TextTo3D
from scaledreamer.training.previews import Previews


@dataclass(frozen=True)
class Run:
    """Everything that one call of ``trainer.fit`` needs."""

    system: TextTo3D
    data: PromptDataModule
    trainer: pl.Trainer


def build_run(config: dict[str, Any], directory: Path) -> Run:
    """Corpus, prior, text embeddings, system and trainer of a plain, checked configuration.

    Takes as long as reading the prompts and, the first time, embedding them; the denoiser loads when training starts.

    Raises:
        UserError: prompts, weights, devices or packages that the configuration names are not there.
    """
    trainer = build_trainer(config, directory)
    prompts: Prompts = instantiate(config["corpus"]).load()
    guidance: ScoreDistillation = instantiate(config["guidance"])
    guidance.prior.prepare()
    device = trainer.strategy.root_device
    text = instantiate(config["text"])
    embeddings = text.open(prompts.train, guidance.prior, guidance.views.templates, device=device)
    for callback in trainer.callbacks:
        if isinstance(callback, Previews):
            shown = list(prompts.val[: callback.prompts])
            callback.show(shown, text.encode(shown, guidance.prior, guidance.views.templates, device=device))
    guidance.embed_negative_prompt(device)
    if embeddings is not None:
        guidance.prior.release_text_encoder()
    system = build_system(config, guidance=guidance, encode=encode)
    data = instantiate(config["data"])(
        prompts=prompts.train, embeddings=embeddings, batch_size=config["corpus"]["batch_size"], seed=config["seed"]
    )
    return Run(system=system, data=data, trainer=trainer)
