"""Refuse a wrong configuration before anything is loaded or any job of a sweep starts."""

from collections.abc import Iterator
from typing import Annotated, Any

import hydra
from annotated_types import Ge
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scaledreamer.config.origin import origin_of
from scaledreamer.config.pairs import problems_of_pairs
from scaledreamer.config.signature import BUILT, Problem, problems_of_call
from scaledreamer.errors import UserError

SUPPLIED: dict[str, frozenset[str]] = {
    "generator": frozenset({"text_dim"}),
    "background": frozenset({"text_dim"}),
    "data": frozenset({"prompts", "embeddings", "batch_size", "seed"}),
    "optimizer": frozenset({"params"}),
    "trainer": frozenset({"callbacks", "logger", "directory"}),
    "guidance.rule": frozenset({"step"}),
}
"""What a run passes itself, by the node it passes it to (see :mod:`scaledreamer.training.build`)."""

SUPPLIED_BELOW: dict[str, frozenset[str]] = {
    "callbacks": frozenset({"directory", "config"}),
    "logger": frozenset({"directory", "config"}),
}


def run(
    *,
    name: str,
    seed: Annotated[int, Ge(0)],
    resume: str | None,
    generator: Any,
    background: Any,
    optimizer: Any,
    parameter_groups: dict[str, dict[str, Any]],
    losses: Any,
    guidance: Any,
    cameras: Any,
    corpus: Any,
    text: Any,
    data: Any,
    renderer: Any,
    trainer: Any,
    callbacks: dict[str, Any],
    logger: dict[str, Any],
) -> None:
    """The names at the top of a configuration; never called, its signature is the schema."""


def check(cfg: DictConfig) -> None:
    """Raise one :class:`UserError` that lists every mistake, each with its key, its file and the way out."""
    tree = plain(cfg)
    problems = [*problems_of_call(run, _shallow(tree), partial=False, supplied=frozenset())]
    for path, node in _targets(tree):
        problems += _problems_of_target(path, node)
    problems = problems or problems_of_pairs(tree)
    if problems:
        lines = [f"{p.key}: {p.message}{_where(cfg, p.key)}" for p in problems]
        head = "the configuration has a mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
        raise UserError(f"{head}:\n  " + "\n  ".join(lines))


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration without its ``hydra`` node, resolved to plain dicts, lists and scalars.

    Raises:
        UserError: an interpolation cannot be resolved, or a value marked ``???`` was not given.
    """
    node = OmegaConf.masked_copy(cfg, [k for k in cfg if k != "hydra"])
    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "the configuration"
        raise UserError(f"{key}: {str(error).splitlines()[0]}{_where(cfg, str(key))}") from error


def _problems_of_target(path: str, node: dict[str, Any]) -> list[Problem]:
    name = node["_target_"]
    try:
        target = hydra.utils.get_object(name)
    except Exception as error:
        reason = str(error).splitlines()[0]
        return [Problem(f"{path}._target_", f"'{name}' cannot be imported: {reason}")]
    supplied = SUPPLIED.get(path) or SUPPLIED_BELOW.get(path.partition(".")[0], frozenset())
    found = problems_of_call(target, _shallow(node), partial=bool(node.get("_partial_")), supplied=supplied)
    return [Problem(f"{path}.{p.key}", p.message) for p in found]


def _shallow(node: dict[str, Any]) -> dict[str, Any]:
    return {k: _built(v) for k, v in node.items() if k not in ("_target_", "_partial_", "_convert_", "_args_")}


def _built(value: Any) -> Any:
    """The value with every ``_target_`` node replaced by :data:`BUILT`."""
    if isinstance(value, dict):
        return BUILT if "_target_" in value else {k: _built(v) for k, v in value.items()}
    return [_built(v) for v in value] if isinstance(value, list) else value


def _targets(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from _targets(value, f"{path}.{key}" if path else key)
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _targets(value, f"{path}[{i}]")


def _where(cfg: DictConfig, key: str) -> str:
    origin = origin_of(cfg, key)
    return f" [{origin}]" if origin else ""
