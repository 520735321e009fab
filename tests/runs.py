"""Whole runs at sizes that take a second or two, for tests of what a run does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scaledreamer.config import check, compose, plain
from scaledreamer.training.build import Run, build_run
from scaledreamer.training.directory import record

SMALL = (
    "generator=3dconv",
    "guidance=asd_sd",
    "guidance/prior=tiny",
    "corpus=file",
    "trainer=cpu",
    "generator.resolution=8",
    "generator.widths=[16,8]",
    "generator.w_dim=16",
    "renderer.proposals=8",
    "renderer.samples=4",
    "cameras.image_size=8",
    "trainer.log_every_n_steps=1",
    "callbacks.progress=null",
    "callbacks.previews.size=8",
    "callbacks.previews.prompts=1",
    "callbacks.previews.views=2",
)
"""The paper's run made small, with a prior of random weights; ``corpus.path`` is to be added."""


def prepared(overrides: Sequence[str], directory: Path) -> tuple[Run, dict[str, Any]]:
    """What ``python train.py OVERRIDES`` builds for its folder, and the checked configuration."""
    cfg = compose(overrides)
    check(cfg)
    config = plain(cfg)
    record(directory, config)
    return build_run(config, directory), config


def trained_with(overrides: Sequence[str], directory: Path, *, checkpoint: Path | None = None) -> Run:
    """A run of these options after its last step."""
    run, _ = prepared(overrides, directory)
    run.trainer.fit(run.system, datamodule=run.data, ckpt_path=checkpoint, weights_only=True)
    return run


def trained(overrides: list[str], directory: Path, *, checkpoint: Path | None = None) -> Run:
    """The small run with these options over it, after its last step."""
    return trained_with([*SMALL, *overrides], directory, checkpoint=checkpoint)
