"""A trained generator, rebuilt from a run's folder or from published weights: what pictures and figures start from.

Nothing of training is built (no trainer, no data module, no optimizer), and of the prior only the text encoder loads,
when the first prompt is embedded that is not stored. Everything is float32, whatever precision the run trained in.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml

from scaledreamer import __version__
from scaledreamer.config.check import problems_of_parts
from scaledreamer.corpora.corpus import Prompts
from scaledreamer.errors import UserError
from scaledreamer.guidance.base import Guidance
from scaledreamer.system import TextTo3D
from scaledreamer.text.embedding import TextEmbedding
from scaledreamer.text.settings import TextSettings
from scaledreamer.text.store import EmbeddingStore
from scaledreamer.training import checkpoints
from scaledreamer.training.build import PARTS, build, build_parts, build_system, require_known_prompts, wordings
from scaledreamer.training.saved_weights import SavedWeights, load_weights, read_weights

log = logging.getLogger(__name__)

NEEDED = (*PARTS, "guidance", "cameras", "losses", "optimizer", "corpus", "text")
"""Nodes of a run's configuration that are looked at here; a mistake in others, as in callbacks, does not matter."""


@dataclass(frozen=True)
class Trained:
    """A trained system that renders prompts, whether it was trained on them or not."""

    system: TextTo3D
    """In evaluation mode, on its device, without gradients; ``system.render(text, cameras, size)`` is deterministic."""
    config: dict[str, Any]
    """Resolved configuration of the run."""
    directory: Path | None
    """Of the run; None where the weights are no run's."""
    step: int
    """Optimiser steps that the weights were trained for, 0 where their file does not say."""

    @cached_property
    def prompts(self) -> Prompts:
        """Train, val and test prompts of the run's corpus, read when they are first asked for.

        Raises:
            UserError: they cannot be had.
        """
        return build(self.config["corpus"]).load()

    def embed(self, prompts: Sequence[str]) -> TextEmbedding:
        """Embeddings of any P prompts, float32 on the system's device: pooled [P, D], tokens [P, 1, L, D].

        The tokens are those of the first wording, the one that generators read. Where all prompts were trained
        on and this machine stores their embeddings, those are read; else the text encoder loads, and stays.

        Raises:
            UserError: the prior knows nothing of these prompts, or its text encoder is not there.
        """
        guidance, device = self.system.guidance, self.system.device
        require_known_prompts(self.config, prompts)
        store, place = self._stored
        if store is not None and all(prompt in place for prompt in prompts):
            found = store.rows([place[prompt] for prompt in prompts])
            first = TextEmbedding(pooled=found.pooled, tokens=found.tokens[:, :1], prompts=tuple(prompts))
            return first.to(device)
        templates = wordings(self.system.generator, guidance.views)[:1]
        return self._text.encode(prompts, guidance.prior, templates, device=device).to(device)

    @cached_property
    def _text(self) -> TextSettings:
        return build(self.config["text"])

    @cached_property
    def _stored(self) -> tuple[EmbeddingStore | None, dict[str, int]]:
        """Embeddings of the training prompts where this machine has them, and the row of each."""
        try:
            trained_on = self.prompts.train
        except UserError:  # the corpus is not on this machine, and neither are its embeddings
            return None, {}
        guidance = self.system.guidance
        store = self._text.stored(trained_on, guidance.prior, wordings(self.system.generator, guidance.views))
        return store, {prompt: row for row, prompt in enumerate(trained_on)} if store is not None else {}


def open_run(run: Path, *, checkpoint: Path | None = None, device: str = "auto") -> Trained:
    """Rebuild a run at its newest checkpoint, or another one.

    Args:
        run: its folder, ``outputs/NAME/TIME``; or a checkpoint file of a run, which has the configuration as well.
        checkpoint: a file, or the name of one in the run's folder ``checkpoints``; None for the newest.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UserError: no run, no checkpoint, a configuration that this version cannot build, or no such device.
    """
    where = choose_device(device)
    if run.is_file():
        if checkpoint is not None:
            raise UserError(f"run={run} is a checkpoint itself; checkpoint= picks one of a run's folder.")
        config, saved = checkpoints.read(run)["scaledreamer"]["config"], read_weights(run)
        folder = run.absolute().parents[1]
        source, directory = run, folder if (folder / "config.yaml").exists() else None
    else:
        source, directory = run / "config.yaml", run
        config, saved = configuration_of(run), read_weights(_checkpoint_of(run, checkpoint))
    _require_buildable(config, source, saved)
    return _opened(config, saved, directory=directory, device=where)


def open_config(config: dict[str, Any], *, checkpoint: Path, device: str = "auto") -> Trained:
    """Build what a configuration describes, with the weights of a file.

    Args:
        config: plain and checked, of a run whose generator, background and renderer fit the file.
        checkpoint: published weights of the paper's code or a checkpoint of ours.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UserError: the file does not fit the configuration, or no such device.
    """
    where = choose_device(device)
    return _opened(config, read_weights(checkpoint), directory=None, device=where)


def choose_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` means here.

    Raises:
        UserError: another name, or PyTorch sees no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f"device={name}: choose auto, cpu, cuda or cuda:N.")
    chosen = torch.device(name)
    if chosen.type == "cuda" and (chosen.index or 0) >= (seen := torch.cuda.device_count()):
        raise UserError(f"device={name}: PyTorch sees {seen or 'no'} GPU{'s' * (seen != 1)} here; use device=cpu.")
    return chosen


def _opened(config: dict[str, Any], saved: SavedWeights, *, directory: Path | None, device: torch.device) -> Trained:
    guidance: Guidance = build(config["guidance"])
    guidance.prior.prepare()
    parts = build_parts(config, text_dim=guidance.prior.text_dim)
    load_weights(parts, saved)
    system = build_system(config, guidance=guidance, parts=parts, null_tokens=None, encode=None)
    return Trained(
        system=system.eval().requires_grad_(False).to(device), config=config, directory=directory, step=saved.step
    )


def configuration_of(run: Path) -> dict[str, Any]:
    """Resolved configuration of a run's folder; :class:`UserError` where there is none."""
    path = run / "config.yaml"
    if not path.is_file():
        inside = sorted(run.glob("*/config.yaml"), key=lambda config: config.stat().st_mtime_ns)
        what = "is no run: it has no config.yaml" if run.exists() else "is not there"
        advice = f"its newest run is {inside[-1].parent}" if inside else "give the folder of a run, outputs/NAME/TIME"
        raise UserError(f"run={run} {what}; {advice}.")
    try:
        config = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}.") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is not the configuration of a run.")
    return config


def _checkpoint_of(run: Path, checkpoint: Path | None) -> Path:
    if checkpoint is None:
        if (newest := checkpoints.newest(run)) is not None:
            return newest
        raise UserError(f"run={run} has no checkpoint: it has not got to callbacks.checkpoints.last_every steps.")
    folder = run / "checkpoints"
    for path in (checkpoint, folder / checkpoint, folder / f"{checkpoint}.ckpt"):
        if path.is_file():
            return path
    kept = ", ".join(sorted(path.name for path in folder.glob("*.ckpt")))
    raise UserError(f"checkpoint={checkpoint}: no such file; run={run} has {kept or 'none'}.")


def _require_buildable(config: dict[str, Any], path: Path, saved: SavedWeights) -> None:
    """Raise :class:`UserError` where this version has not what a run's configuration names."""
    problems = problems_of_parts(config, NEEDED)
    version = str(saved.made_by.get("version", __version__))
    newer = _numbers(version) > _numbers(__version__)
    if problems:
        lines = [f"{problem.key}: {problem.message}" for problem in problems]
        advice = f" It was made by scaledreamer {version}, this is {__version__}" if version != __version__ else ""
        advice += "; update it." if newer else "." if advice else ""
        raise UserError(f"{path}: " + (lines[0] if len(lines) == 1 else "\n  ".join(["", *lines])) + advice)
    if newer:
        log.warning("%s was made by scaledreamer %s, this is %s", path, version, __version__)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
