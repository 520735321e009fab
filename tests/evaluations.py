"""Runs that are ready to be scored, with a tiny CLIP, for tests of ``evaluate.py``."""

import functools
import json
from pathlib import Path
from typing import Any

import torch
from clips import write_tiny_clip
from runs import trained

from scaledreamer.config import check, compose, plain
from scaledreamer.evaluate.options import EvaluateOptions
from scaledreamer.training.trained import Trained, open_run

TRAIN, TEST = ("a cat", "a dog", "a red house", "a blue car"), ("a cat", "a tree", "a green bird on a rock")
PROMPTS = (*TRAIN, *TEST[1:])


def write_run(folder: Path) -> None:
    """A run of two steps in ``first/run``, its prompts and a tiny CLIP in ``clip``; text embeddings in ``data``."""
    (folder / "prompts.json").write_text(json.dumps({"train": TRAIN, "test": TEST}))
    options = ["callbacks.checkpoints.keep_every=1", "trainer.max_steps=2", "callbacks.previews=null"]
    trained([f"corpus.path={folder / 'prompts.json'}", *options], folder / "first" / "run")
    write_tiny_clip(folder / "clip")


def open_shaken(*arguments, **options) -> Trained:
    """``open_run``, with the weights shaken so that each prompt has a shape of its own."""
    found = open_run(*arguments, **options)
    torch.manual_seed(found.step)
    for parameter in found.system.generator.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return found


def options(base: Path, run: Path, *more: str, **given) -> EvaluateOptions:
    """Those of ``conf/evaluate.yaml`` and the command line, with few views and the tiny CLIP."""
    few = ("protocol=scaledreamer", "protocol.views=6", "protocol.size=16", f"protocol.clip={base / 'clip'}")
    return EvaluateOptions(**{**_composed("device=cpu", "run=x", *few, *more), "run": str(run), **given})


@functools.cache
def _composed(*overrides: str) -> dict[str, Any]:
    return plain(compose(overrides, config_name="evaluate"))


def composed(*overrides: str, **given) -> EvaluateOptions:
    """Checked options of a command line, on the CPU."""
    cfg = compose([*overrides, "device=cpu"], config_name="evaluate")
    check(cfg, EvaluateOptions)
    return EvaluateOptions(**{**plain(cfg), **given})


def rows_of(run: Path, protocol: str = "scaledreamer") -> dict[str, dict]:
    """The content of prompts.json."""
    content = json.loads((run / "evaluate" / protocol / "prompts.json").read_text())
    return {row["prompt"]: row for row in content["prompts"]}
