"""Pairs of options that cannot work together, found from what their classes say of themselves."""

from pathlib import Path
from typing import Any

import hydra

from scaledreamer.config.signature import Problem
from scaledreamer.errors import UserError


def problems_of_fields(tree: dict[str, Any]) -> list[Problem]:
    """A generator and a renderer that do not fit, as far as both can be found."""
    try:
        return _field_kind(tree)
    except Exception:  # what is wrong with their nodes is told by whoever looks at those
        return []


def problems_of_pairs(tree: dict[str, Any]) -> list[Problem]:
    """Mistakes that no single signature can see, in a configuration whose nodes are right one by one."""
    looks = (
        _initial_weights, _field_kind, _regularisers, _views, _prompts, _one_prompt, _bundled_prior, _precision,
        _strategy, _encodings,
    )  # fmt: skip
    return [problem for look in looks for problem in look(tree)]


def _initial_weights(tree: dict[str, Any]) -> list[Problem]:
    file, resume = tree.get("checkpoint"), tree.get("resume")
    if file is None or resume == "auto":  # what goes on by itself does not look at the file again
        return []
    if resume is not None:
        return [
            Problem(
                "checkpoint",
                "gives initial weights, but resume= goes on with a run's own; give one of them (with resume=auto a run "
                "starts from checkpoint= and goes on with its own).",
            )
        ]
    return [] if Path(file).is_file() else [Problem("checkpoint", f"there is no file {file}.")]


def _field_kind(tree: dict[str, Any]) -> list[Problem]:
    generator, renderer = _target(tree["generator"]), _target(tree["renderer"])
    kind, rendered = getattr(generator, "field", None), getattr(renderer, "fields", None)
    if kind is None or rendered is None or kind in rendered:
        return []
    return [
        Problem(
            "renderer",
            f"{renderer.__name__} renders {' or '.join(rendered)} fields, but {generator.__name__} makes {kind} "
            "fields; choose another renderer= or generator=.",
        )
    ]


def _regularisers(tree: dict[str, Any]) -> list[Problem]:
    """Losses that the renderer's renders have nothing for, and that would be left out in silence."""
    renderer = _target(tree["renderer"])
    known: dict[str, str | None] | None = getattr(renderer, "regularisers", None)
    if known is None or _field_kind(tree):
        return []
    found = []
    for name, weight in tree["losses"].items():
        if name.startswith("_") or name == "distillation" or not _ever(weight):
            continue
        option = known.get(name)
        if name not in known:
            found.append(Problem(f"losses.{name}", f"{renderer.__name__} renders nothing for it; set it to 0."))
        elif option is not None and not tree["renderer"].get(option):
            found.append(Problem(f"losses.{name}", f"needs renderer.{option}=true."))
    return found


def _ever(schedule: Any) -> bool:
    """Whether a weight over the run is not always 0."""
    return any(value for _, value in schedule) if isinstance(schedule, list) else bool(schedule)


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


def _one_prompt(tree: dict[str, Any]) -> list[Problem]:
    corpus = tree["corpus"]
    alone = of_one_prompt(tree)
    named = any(corpus.get(key) is not None for key in ("prompt", "path"))  # a file is counted when it is read
    if alone is None or named or corpus.get("source") is None or corpus.get("max_prompts") == 1 or _field_kind(tree):
        return []
    return [Problem("corpus", ONE_PROMPT.format(alone))]


ONE_PROMPT = "{} serves one prompt per run; name it with corpus=prompt 'corpus.prompt=\"a corgi\"'."


def of_one_prompt(tree: dict[str, Any]) -> str | None:
    """The class of a plain configuration that serves the prompt of its run alone, if one does."""
    parts = (_target(tree[part]) for part in ("generator", "renderer"))
    return next((part.__name__ for part in parts if getattr(part, "one_prompt", False)), None)


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


def _strategy(tree: dict[str, Any]) -> list[Problem]:
    """Ways to start processes from within the run: what they learn and count stays in them."""
    strategy = str(tree["trainer"].get("strategy"))
    if not any(word in strategy for word in ("spawn", "fork", "notebook")):
        return []
    return [Problem("trainer.strategy", f"{strategy} leaves the trained weights in the processes it starts; use ddp.")]


def _encodings(tree: dict[str, Any]) -> list[Problem]:
    """Encodings that only a GPU computes."""
    if tree["trainer"].get("accelerator") != "cpu":
        return []
    encodings = {f"{part}.encoding": tree[part].get("encoding") for part in ("generator", "background")}
    return [
        Problem(
            f"{key}.backend", f"{node['backend']} needs a GPU, and trainer.accelerator is cpu; choose auto or torch."
        )
        for key, node in encodings.items()
        if node and node.get("backend") in getattr(_target(node), "gpu_backends", ())
    ]


def _target(node: dict[str, Any]) -> Any:
    return hydra.utils.get_object(node["_target_"])
