"""What ``python -m scaledreamer.gallery`` can be told: names, types, ranges and defaults of ``conf/gallery.yaml``."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Len

from scaledreamer.config.signature import Part
from scaledreamer.constraints import PositiveFloat, PositiveInt
from scaledreamer.errors import UserError
from scaledreamer.render.options import PromptChoice, RunsChoice, Size


@dataclass(frozen=True, kw_only=True)
class GalleryOptions(PromptChoice, RunsChoice):
    """One gallery.

    Args:
        run: a run's folder, or a sweep's for all of its finished ones; or several, whose objects of the same prompts
            are put side by side.
        checkpoint: one of each run's checkpoints, by its file or its name; None for the newest.
        prompts: ``train``, ``val``, ``test`` or ``all`` of the run's; a prompt; or a list of prompts.
        sample: at most so many of the prompts that were trained on, and as many of the others, spread evenly.
        missing: ``render`` the videos and meshes that the run's folder lacks; or ``skip``: show what ``render.py`` has
            made of any prompts, which needs no checkpoint and loads no weights.
        meshes: whether objects can be turned in a viewer.
        title: of the page; None for the runs' names.
        image_size: side of videos that are rendered in pixels; None for that of the run's evaluation cameras.
        frames: of a video that is rendered.
        fps: frames per second of these.
        mesh: how meshes are extracted that are rendered.
        batch: prompts that are generated at a time; memory follows it.
        output: folder; None for ``RUN/gallery``, of several runs ``gallery`` in the folder that they share.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UserError: the options contradict each other or name what is not there.
    """

    prompts: str | Annotated[list[str], Len(1)] = "all"
    checkpoint: str | None = None
    sample: PositiveInt | None = 500
    missing: Literal["render", "skip"] = "render"
    meshes: bool = True
    title: str | None = None
    image_size: Size | None = None
    frames: PositiveInt = 48
    fps: PositiveFloat = 16.0
    mesh: Part
    batch: PositiveInt = 1
    output: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        PromptChoice.__post_init__(self)
        RunsChoice.__post_init__(self)
        if self.missing == "skip" and self.checkpoint is not None:
            raise UserError("checkpoint: missing=skip shows what was rendered last; leave it out, or missing=render.")

    @property
    def folder(self) -> Path:
        """Where the page goes."""
        if self.output is not None:
            return Path(self.output).expanduser()
        if len(self.runs) == 1:
            return self.runs[0] / "gallery"
        return Path(os.path.commonpath([run.resolve().parent for run in self.runs]), "gallery")
