"""Pairs of options that cannot work together, found from what their classes say of themselves."""

from typing import Any

import hydra

from scaledreamer.config.signature import Problem
from scaledreamer.errors import UserError


def problems_of_pairs(tree: dict[str, Any]) -> list[Problem]:
    """Mistakes that no single signature can see, in a configuration whose nodes are right one by one."""
    return [*_field_kind(tree), *_views(tree), *_prompts(tree), *_bundled_prior(tree), *_precision(tree)]


def _field_kind(tree: dict[str, Any]) -> list[Problem]:
    generator, renderer = _target(tree["generator"]), _target(tree["renderer"])
    kind, rendered = getattr(generator, "field", None), getattr(renderer, "fields", None)
    if kind is None or rendered is None or kind in rendered:
        return []
    return [
        Problem(
            "renderer",
            f"{renderer.__name__} renders {' or '.join(rendered)} fields, but {generator.__name__} makes a {kind} "
            "field; choose another renderer= or generator=.",
        )
    ]


def _views(tree: dict[str, Any]) -> list[Problem]:
    prior = _target(tree["guidance"]["prior"])
    together = getattr(prior, "views", 1)
    shown = tree["cameras"].get("views_per_prompt", 1)
    if not isinstance(together, int) or shown % together == 0:
        return []
    return [
        Problem(
            "cameras.views_per_prompt",
            f"{prior.__name__} denoises {together} views of an object together, so this must be a multiple of "
            f"{together}, not {shown}.",
        )
    ]


def _prompts(tree: dict[str, Any]) -> list[Problem]:
    corpus = tree["corpus"]
    sources = [key for key in ("source", "path", "prompt") if corpus.get(key) is not None]
    if not sources and {"source", "path", "prompt"} <= set(corpus):
        return [Problem("corpus", "has no prompts; set corpus.prompt='\"a corgi\"' or corpus.path=prompts.txt.")]
    if {"path", "prompt"} <= set(sources):
        return [Problem("corpus", "corpus.path and corpus.prompt are both set; give one of them.")]
    return []


def _bundled_prior(tree: dict[str, Any]) -> list[Problem]:
    from scaledreamer.priors.locate import BUNDLED  # here, since it imports PyTorch

    corpus = tree["corpus"]
    own = str((corpus.get("source") or {}).get("_target_", "")).startswith("scaledreamer.toybox.")
    if tree["guidance"]["prior"].get("path") not in BUNDLED or corpus.get("path") is not None:
        return []  # a file's prompts are looked at when it is read
    from scaledreamer.toybox.vocabulary import ONLY_TOYS, require_toys

    if corpus.get("prompt") is not None:
        try:
            require_toys([corpus["prompt"]])
        except UserError as error:
            return [Problem("corpus.prompt", str(error))]
    elif corpus.get("source") is not None and not own:
        return [Problem("corpus", ONLY_TOYS)]
    return []


def _precision(tree: dict[str, Any]) -> list[Problem]:
    trainer = tree["trainer"]
    if trainer.get("accelerator") == "cpu" and str(trainer.get("precision", "")).startswith("16"):
        return [Problem("trainer.precision", "a CPU has no float16 training; use 32-true or bf16-mixed.")]
    return []


def _target(node: dict[str, Any]) -> Any:
    return hydra.utils.get_object(node["_target_"])
