"""Weights of a generator, its background and its renderer, from the paper's checkpoints or from ours.

The paper's are files of Lightning (``.pth``, ``.ckpt``) whose ``state_dict`` names begin with ``geometry.``,
``background.`` and ``renderer.``; in ours ``generator.`` stands for the first. What lies below a part and is named
otherwise there, and what must agree with the options, each part says of itself (:mod:`scaledreamer.published`). The
rest is loaded, all of it or nothing.

Of the paper's buffers the fields' boxes and VolSDF's deviation are compared, and spherical harmonics must have no
parameters; the stored noise, ``w_avg`` and occupied cells are loaded; a renderer's box and the sizes of its cells are
dropped, since the field has the one and the cells show the others.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scaledreamer.errors import UserError
from scaledreamer.training import checkpoints
from scaledreamer.training.names import MOST, listed

log = logging.getLogger(__name__)

PART_OF = {"geometry": "generator", "generator": "generator", "background": "background", "renderer": "renderer"}
"""Which part of a system the first word of a name stands for."""

MARKS = {
    "synthesis": "3dconv",
    "pos_embed": "triplane_transformer",
    "hypernet": "hyper_ingp",
    "density_network": "ingp",
    "coarse": "3dconv_toy",
}
"""A word in the names of a generator's parameters that only this option's have."""


@dataclass(frozen=True)
class SavedWeights:
    """What a file holds of a system."""

    path: Path
    tensors: Mapping[str, Tensor]
    """By their names in the file; on the CPU, read from the disk when they are copied."""
    step: int
    """Optimiser steps that were done, 0 where the file does not say."""
    made_by: Mapping[str, Any]
    """``version`` of this package and ``config`` of the run; empty where the file is not of a run of ours."""


def read_weights(path: Path) -> SavedWeights:
    """The weights of a Lightning checkpoint, or of a file that holds nothing but a ``state_dict``.

    Raises:
        UserError: no such file, one that holds no weights, or one that would run code.
    """
    content = checkpoints.load(path)
    whole = isinstance(content, dict) and isinstance(content.get("state_dict"), dict)
    tensors = content["state_dict"] if whole else content
    if not (isinstance(tensors, dict) and tensors and all(isinstance(v, Tensor) for v in tensors.values())):
        raise UserError(f"{path} holds no weights: neither a checkpoint of Lightning nor a state_dict of tensors.")
    return SavedWeights(
        path=path,
        tensors=tensors,
        step=int(content.get("global_step") or 0) if whole else 0,
        made_by=content.get("scaledreamer", {}) if whole else {},
    )


def load_weights(parts: Mapping[str, nn.Module], saved: SavedWeights) -> None:
    """Give the parts the weights of a file, cast to their types; on any mistake nothing is changed.

    Args:
        parts: generator, background and renderer by these names.
        saved: the file's content.

    Raises:
        UserError: names every weight that is missing, unknown or of another shape, and every constant that differs;
            or the generator that the file looks like where it is of another kind.
    """
    fit = _fit(parts, saved.tensors)
    if fit.mistakes:
        there, here = _kind(_below(saved.tensors, "generator")), _kind(parts["generator"].state_dict())
        kind, own = type(parts["generator"]).__name__, _class_in(saved.made_by)
        if there is not None and there != here:
            raise UserError(
                f"{saved.path} looks like a checkpoint of generator={there}, but the generator here is {kind}; "
                f"choose generator={there} or one of its kind, or another file."
            )
        if own is not None and own != kind:
            raise UserError(f"{saved.path} is a checkpoint of {own}, but the generator here is {kind}.")
        raise UserError(
            f"{saved.path} does not fit the generator, background and renderer of this run:\n  "
            + "\n  ".join(fit.mistakes)
            + "\nIt loads with the options it was trained with: generator= sets sizes, guidance= the text's width."
        )
    for name, part in parts.items():
        part.load_state_dict(fit.states[name], strict=True)


def warn_of_other_options(saved: SavedWeights, config: Mapping[str, Any], parts: Iterable[str]) -> None:
    """Log what a run of ours was told of these parts otherwise: the same weights may mean another thing then."""
    if saved.made_by:
        differences = checkpoints.differences_of(saved.made_by["config"], config, parts)
        told = ", ".join(f"{key} was {old!r}, is {new!r}" for key, old, new in differences)
        if told:
            log.warning("%s was trained with other options: %s", saved.path, told)


@dataclass(frozen=True)
class _Fit:
    states: dict[str, dict[str, Tensor]]  # of each part, by our names
    mistakes: list[str]  # a line for each kind


def _fit(parts: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> _Fit:
    """Sort tensors by the parts that they belong to, and note what keeps them from being loaded."""
    expected = {name: part.state_dict() for name, part in parts.items()}
    constants = {name: getattr(part, "constants", dict)() for name, part in parts.items()}
    states: dict[str, dict[str, Tensor]] = {name: {} for name in parts}
    unknown: list[str] = []
    differ: dict[str, list[str]] = {}  # what differs -> the names of those
    for name, value in tensors.items():
        word, _, below = name.partition(".")
        part = PART_OF.get(word, "")
        ours = _our_name(parts[part], below) if part in parts else below
        if ours is None:
            continue
        wanted = constants.get(part, {}).get(ours, expected.get(part, {}).get(ours))
        if wanted is None or ours in states[part]:
            unknown.append(name)
            continue
        states[part][ours] = value
        if (difference := _difference(value, wanted, constant=ours in constants[part])) is not None:
            differ.setdefault(difference, []).append(name)
    missing = [f"{part}.{name}" for part in parts for name in expected[part] if name not in states[part]]
    mistakes = [f"missing in the file: {listed(missing)}"] if missing else []
    mistakes += [f"only in the file: {listed(unknown)}"] if unknown else []
    mistakes += [f"{listed(names)}: {difference}" for difference, names in list(differ.items())[:MOST]]
    left = sum(len(names) for names in list(differ.values())[MOST:])
    mistakes += [f"and {left} more that differ"] if left else []
    loaded = {part: {n: v for n, v in state.items() if n in expected[part]} for part, state in states.items()}
    return _Fit(loaded, mistakes)


def _our_name(part: nn.Module, name: str) -> str | None:
    """What a part calls a parameter that a file calls ``name``; None where it has no such."""
    for theirs, ours in getattr(part, "published_names", {}).items():
        if name.startswith(theirs):
            return None if ours is None else ours + name.removeprefix(theirs)
    return name


def _difference(value: Tensor, wanted: Tensor, *, constant: bool) -> str | None:
    if value.shape != wanted.shape:
        return f"{list(value.shape)} in the file, {list(wanted.shape)} here"
    if value.is_floating_point() != wanted.is_floating_point():
        return f"{value.dtype} in the file, {wanted.dtype} here".replace("torch.", "")
    if constant and not torch.allclose(value.float(), wanted.cpu().float(), rtol=1e-5):
        return f"{_numbers(value)} in the file, {_numbers(wanted)} by the options here"
    return None


def _numbers(values: Tensor) -> Any:
    return torch.round(values.double(), decimals=6).tolist()


def _below(tensors: Mapping[str, Tensor], part: str) -> list[str]:
    """Names of a part's tensors, without its own."""
    split = (name.partition(".") for name in tensors)
    return [below for word, _, below in split if PART_OF.get(word) == part]


def _kind(names: Iterable[str]) -> str | None:
    """The option whose generator has parameters of these names."""
    words = {word for name in names for word in name.split(".")}
    return next((option for mark, option in MARKS.items() if mark in words), None)


def _class_in(made_by: Mapping[str, Any]) -> str | None:
    """The class of the generator of the run that a file is of."""
    return made_by["config"]["generator"]["_target_"].rpartition(".")[2] if made_by else None
