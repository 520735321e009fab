"""Mistakes that no signature shows and only a constructor notices, found without memory or files."""

import inspect
from collections.abc import Callable
from typing import Any

import hydra
from hydra.errors import InstantiationException

from scaledreamer.config.signature import Problem, problems_of_call
from scaledreamer.errors import UserError

PARTS = ("generator", "background", "renderer", "guidance", "cameras", "losses", "corpus", "text")
"""Nodes whose constructors are cheap and need nothing of a run but a text width."""

TEXT_DIM = 64
"""A width of text embeddings to construct with; the true one is in the prior's files."""


def problems_of_construction(tree: dict[str, Any]) -> list[Problem]:
    """Complaints of the constructors, in a configuration whose values are right one by one."""
    found = [problem for key in PARTS if (problem := _complaint(key, tree[key])) is not None]
    return [*found, *_optimizer(tree["optimizer"], tree["parameter_groups"])]


def problems_of_options(schema: Callable[..., Any], tree: dict[str, Any]) -> list[Problem]:
    """What the options of a command and the parts among them, whose values are right one by one, say of each other.

    The options themselves begin with the key: ``key: message``.
    """
    try:
        schema(**tree)
    except UserError as error:
        key, _, message = str(error).partition(": ")
        return [Problem(key, message)]
    parts = [key for key, value in tree.items() if isinstance(value, dict) and "_target_" in value]
    return [problem for key in parts if (problem := _complaint(key, tree[key])) is not None]


def _complaint(key: str, node: dict[str, Any]) -> Problem | None:
    import torch

    needs_width = "text_dim" in inspect.signature(hydra.utils.get_object(node["_target_"])).parameters
    try:
        with torch.device("meta"):  # parameters without memory
            hydra.utils.instantiate(node, **({"text_dim": TEXT_DIM} if needs_width else {}), _convert_="all")
    except Exception as error:
        complaint = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(complaint, UserError):
            begin, colon, rest = str(complaint).partition(": ")
            return Problem(begin, rest) if colon and begin.startswith(key) else Problem(key, str(complaint))
        # Anything else is a bug or a constructor that the meta device does not suit: the run itself will show.
    return None


def _optimizer(node: dict[str, Any], groups: dict[str, dict[str, Any]]) -> list[Problem]:
    """The optimizer and the options of each parameter group, tried on one number."""
    import torch

    target = hydra.utils.get_object(node["_target_"])
    options = {k: v for k, v in node.items() if not k.startswith("_")}
    found = []
    for key, own in {"": {}, **groups}.items():
        path = f"parameter_groups.{key}" if key else "optimizer"
        wrong = problems_of_call(target, own, partial=True, supplied=frozenset({"params"}))
        found += [Problem(f"{path}.{p.key}", p.message) for p in wrong]
        if not wrong:
            try:
                target([{"params": [torch.nn.Parameter(torch.zeros(1))]}], **{**options, **own})
            except (ValueError, TypeError) as error:  # how torch's optimizers refuse their arguments
                found.append(Problem(path, f"{node['_target_']} refuses its arguments: {error}."))
                break
    return found
