"""Refuse a wrong configuration before anything is loaded or any job of a sweep starts."""

import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import hydra
from annotated_types import Ge
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from scaledreamer.config.construct import problems_of_construction, problems_of_options
from scaledreamer.config.launcher import problems_of_launcher
from scaledreamer.config.origin import Origins
from scaledreamer.config.pairs import problems_of_fields, problems_of_pairs
from scaledreamer.config.signature import BUILT, Part, Problem, nearest, problems_of_call
from scaledreamer.errors import UserError
from scaledreamer.schedules import ShareSchedule

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

LATE = ("data", "callbacks")
"""Nodes whose classes are Lightning's, whose import takes seconds: a mistake elsewhere is answered without it."""


def run(
    *,
    name: str,
    seed: Annotated[int, Ge(0)],
    resume: str | None,
    checkpoint: str | None,
    generator: Part,
    background: Part,
    optimizer: Part,
    parameter_groups: dict[str, dict[str, Any]],
    lr_schedule: ShareSchedule,
    losses: Part,
    guidance: Part,
    cameras: Part,
    corpus: Part,
    text: Part,
    data: Part,
    renderer: Part,
    trainer: Part,
    callbacks: dict[str, Part | None],
    logger: dict[str, Part | None],
    sweep: str | None = None,
    objective: str | None = None,
) -> None:
    """The names at the top of a configuration; never called, its signature is the schema."""


def check(cfg: DictConfig, schema: Callable[..., Any] = run) -> None:
    """Raise one :class:`UserError` that lists the mistakes, each with its key, its file and the way out.

    Args:
        cfg: composed, with its ``hydra`` node or inside ``hydra.main``.
        schema: what has the names at the top as arguments: :func:`run`, or the options of another command.
    """
    tree = plain(cfg)
    problems = [*problems_of_call(schema, _shallow(tree), partial=False, supplied=frozenset())]
    # A generator brings values for its renderer: in another one their names are no more than a consequence.
    unfit = problems_of_fields(tree) if schema is run else []
    problems += unfit
    targets = [] if unfit else list(_targets(tree))
    for path, node in targets:
        if path.partition(".")[0] not in LATE:
            problems += _problems_of_target(path, node)
    problems = problems or [
        p for path, node in targets if path.partition(".")[0] in LATE for p in _problems_of_target(path, node)
    ]
    if schema is run:
        problems = problems or [*problems_of_pairs(tree), *problems_of_launcher(cfg, tree)]
        problems = problems or problems_of_construction(tree)
    else:
        problems = problems or problems_of_options(schema, tree)
    if problems:
        origins = Origins(cfg)
        lines = [f"{p.key}: {p.message}{_where(origins, p.key)}" for p in problems]
        raise UserError(lines[0] if len(lines) == 1 else f"{len(lines)} mistakes:\n  " + "\n  ".join(lines))


def problems_of_parts(tree: dict[str, Any], parts: Sequence[str]) -> list[Problem]:
    """Mistakes in some nodes of a plain configuration, where nothing else of it is going to be built."""
    present = {part: tree[part] for part in parts if part in tree}
    missing = [Problem(part, "is not there.") for part in parts if part not in tree]
    return missing + [p for path, node in _targets(present) for p in _problems_of_target(path, node)]


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration without its ``hydra`` node, resolved to plain dicts, lists and scalars.

    Raises:
        UserError: an interpolation cannot be resolved, or a value marked ``???`` was not given.
    """
    node = OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"])
    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "the configuration"
        missing = isinstance(error, MissingMandatoryValue)
        what = f"is required; set {key}=..." if missing else str(error).splitlines()[0]
        raise UserError(f"{key}: {what}{_where(Origins(cfg), str(key))}") from error


def _problems_of_target(path: str, node: dict[str, Any]) -> list[Problem]:
    name = node["_target_"]
    try:
        target = _imported(name)
    except Exception as error:
        return [Problem(f"{path}._target_", f"'{name}' cannot be imported: {_reason(name, error)}")]
    supplied = SUPPLIED.get(path) or SUPPLIED_BELOW.get(path.partition(".")[0], frozenset())
    found = problems_of_call(target, _shallow(node), partial=bool(node.get("_partial_")), supplied=supplied)
    return [Problem(f"{path}.{p.key}", p.message) for p in found]


def _imported(name: str) -> Any:
    log = logging.getLogger(hydra.utils.__name__)
    log.disabled = True  # it would print what we are about to say in one line
    try:
        return hydra.utils.get_object(name)
    finally:
        log.disabled = False


def _reason(name: str, error: Exception) -> str:
    """Why there is no ``name``, of which Hydra tells what its own search met."""
    module, _, attribute = name.rpartition(".")
    try:
        names = vars(importlib.import_module(module or name))
    except ModuleNotFoundError as missing:
        mine = "." not in (missing.name or ".")
        return f"{missing.msg}{'; for a folder of your own set PYTHONPATH=FOLDER' if mine else ''}."
    except Exception as broken:
        return f"{type(broken).__name__}: {next(iter(str(broken).splitlines()), '')}"
    if attribute in names:
        return str(error).splitlines()[0]
    public = [n for n in names if not n.startswith("_")]
    own = [n for n in public if getattr(names[n], "__module__", None) == module]
    return f"module '{module}' has no attribute '{attribute}'; {nearest(attribute, own or public)}"


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


def _where(origins: Origins, key: str) -> str:
    origin = origins.of(key)
    return f" [{origin}]" if origin else ""
