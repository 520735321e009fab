"""The one place where a checked configuration becomes objects."""

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import torch
from torch import nn

from scaledreamer.config.pairs import ONE_PROMPT, of_one_prompt
from scaledreamer.corpora.corpus import Prompts
from scaledreamer.corpora.datamodule import PromptDataModule
from scaledreamer.errors import UserError
from scaledreamer.guidance.base import Guidance
from scaledreamer.guidance.views import Views
from scaledreamer.priors import locate
from scaledreamer.system import TextTo3D
from scaledreamer.text.embedding import TextEmbedding
from scaledreamer.text.settings import TextSettings
from scaledreamer.training.callback import PromptCallback
from scaledreamer.training.processes import first_goes_first
from scaledreamer.training.saved_weights import load_weights, read_weights, warn_of_other_options

if TYPE_CHECKING:
    import lightning.pytorch as pl

log = logging.getLogger(__name__)

PARTS = ("generator", "background", "renderer")
"""What of a system has weights, as its checkpoints and the nodes of a configuration name it; in order of building."""

AS_IT_IS = ("{prompt}",)
"""The wording of texts that no camera looks at."""


@dataclass(frozen=True)
class Run:
    """Everything that one call of ``trainer.fit`` needs."""

    system: TextTo3D
    data: PromptDataModule
    trainer: "pl.Trainer"


def build(node: dict[str, Any], **offered: Any) -> Any:
    """The object that a ``_target_`` node describes, given those of ``offered`` that its constructor names."""
    parameters = inspect.signature(hydra.utils.get_object(node["_target_"])).parameters
    supplied = {name: value for name, value in offered.items() if name in parameters}
    # Supplied by our own call: Hydra would turn a list of 100,000 prompts into nodes of a configuration.
    constructor = hydra.utils.instantiate({**node, "_partial_": True}, _convert_="all")
    return partial(constructor, **supplied) if node.get("_partial_") else constructor(**supplied)


def build_trainer(config: dict[str, Any], directory: Path) -> "pl.Trainer":
    """The trainer with its callbacks and loggers."""
    offered = {"directory": directory, "config": config}
    return build(
        config["trainer"],
        callbacks=[build(node, **offered) for node in config["callbacks"].values() if node is not None],
        logger=[build(node, **offered) for node in config["logger"].values() if node is not None],
        directory=directory,
    )


def build_parts(config: dict[str, Any], *, text_dim: int) -> dict[str, nn.Module]:
    """What of a system has weights; they follow from ``config["seed"]`` alone."""
    torch.manual_seed(config["seed"])
    return {name: build(config[name], text_dim=text_dim) for name in PARTS}


def build_system(
    config: dict[str, Any], *, guidance: Guidance, parts: dict[str, Any] | None = None, **given: Any
) -> TextTo3D:
    """The system around a guidance; ``given`` are the rest of what :class:`TextTo3D` takes from a run.

    Args:
        config: plain and checked.
        guidance: built.
        parts: of :func:`build_parts`; None builds them.
    """
    return TextTo3D(
        **(parts if parts is not None else build_parts(config, text_dim=guidance.prior.text_dim)),
        guidance=guidance,
        cameras=build(config["cameras"]),
        losses=build(config["losses"]),
        optimizer=build(config["optimizer"]),
        parameter_groups=config["parameter_groups"],
        lr_schedule=config["lr_schedule"],
        seed=config["seed"],
        **given,
    )


def build_run(config: dict[str, Any], directory: Path, *, resumed: bool = False) -> Run:
    """Corpus, prior, text embeddings, system and trainer of a plain, checked configuration.

    Takes as long as reading the prompts and, the first time, embedding them; the denoiser loads when training starts.
    Of several processes the first one reads, downloads and embeds while the others wait for it.

    Args:
        config: of the run.
        directory: of the run.
        resumed: all weights will come from a checkpoint of the run: ``config["checkpoint"]`` does not count.

    Raises:
        UserError: prompts, weights, devices or packages that the configuration names are not there; or the first
            process failed, or gets nowhere.
    """
    trainer = build_trainer(config, directory)
    text: TextSettings = build(config["text"])
    everyone = {"rank": trainer.global_rank, "world_size": trainer.world_size}
    with first_goes_first(directory, **everyone, patience=text.patience):
        prompts: Prompts = build(config["corpus"]).load()
        guidance: Guidance = build(config["guidance"])
        prior = guidance.prior
        require_known_prompts(config, [*prompts.train, *prompts.val, *prompts.test])
        prior.prepare()
        parts = build_parts(config, text_dim=prior.text_dim)
        if config.get("checkpoint") is not None and not resumed:  # before any time is spent on embedding prompts
            saved = read_weights(Path(config["checkpoint"]))
            load_weights(parts, saved)
            warn_of_other_options(saved, config, PARTS)
            log.info("Initial weights from %s", saved.path)
        templates = wordings(parts["generator"], guidance.views)
        device = trainer.strategy.root_device
        store = text.open(prompts.train, prior, templates, device=device)
        for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(callback, PromptCallback):
                shown = callback.choose(prompts)
                callback.show(shown, _embedded(shown, text, guidance, templates, device))
        null = _embedded([prior.negative_prompt], text, guidance, AS_IT_IS, device)
        if store is not None:
            prior.release_text_encoder()
    system = build_system(
        config,
        guidance=guidance,
        parts=parts,
        null_tokens=null.tokens[0, 0],
        encode=text.live(prior, templates) if store is None else None,
    )
    data = build(
        config["data"],
        prompts=prompts.train,
        embeddings=store,
        batch_size=config["corpus"]["batch_size"],
        seed=config["seed"],
    )
    return Run(system=system, data=data, trainer=trainer)


def wordings(generator: Any, views: Views) -> tuple[str, ...]:
    """How prompts are worded to be embedded, the first time as the generator reads them, the last times as views ask.

    A generator that reads tokens reads those of the prompt as it is, whatever the views of the prior.
    """
    if generator.text == "global" or views.templates[:1] == AS_IT_IS:
        return views.templates
    return (*AS_IT_IS, *views.templates)


def require_known_prompts(config: dict[str, Any], prompts: Sequence[str]) -> None:
    """Check that a configuration's prior and generator know every prompt.

    Raises:
        UserError: the prior knows others only, or there is more than the one that the generator learns.
    """
    if config["guidance"]["prior"].get("path") in locate.BUNDLED:
        from scaledreamer.toybox.vocabulary import require_toys

        require_toys(prompts)
    alone, own = of_one_prompt(config), config["corpus"].get("prompt")
    if alone is None:
        return
    if (distinct := len(set(prompts))) > 1:
        raise UserError(f"{distinct} prompts are too many: {ONE_PROMPT.format(alone)}")
    if own is not None and any(prompt != own.strip() for prompt in prompts):
        raise UserError(f"{prompts[0]!r}: this {alone} has learned {own!r} alone.")


def _embedded(
    prompts: Sequence[str],
    text: TextSettings,
    guidance: Guidance,
    templates: Sequence[str],
    device: torch.device,
) -> TextEmbedding:
    """Embeddings of a few prompts, from the disk where they are known: the text encoder need not load then."""
    store = text.open(prompts, guidance.prior, templates, device=device)
    if store is not None:
        return store.rows(range(len(prompts)))
    return text.encode(prompts, guidance.prior, templates, device=device)
