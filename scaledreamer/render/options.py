"""What ``render.py`` can be told: names, types, ranges and defaults of ``conf/render.yaml``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le, Len, MultipleOf

from scaledreamer.config.signature import Part, nearest
from scaledreamer.constraints import NonNegativeFloat, PositiveFloat, PositiveInt
from scaledreamer.errors import UserError
from scaledreamer.sweep.runs import finished_jobs

Kind = Literal["video", "views", "sheet", "mesh"]
Map = Literal["rgb", "rgba", "normal", "depth", "opacity"]
Size = Annotated[int, Ge(8), Le(4096), MultipleOf(2)]
"""Pixels; even, as videos want it."""

SPLITS = ("train", "val", "test", "all")


@dataclass(frozen=True, kw_only=True)
class PromptChoice:
    """Which prompts a command is about.

    Args:
        prompts: ``train``, ``val``, ``test`` or ``all`` of the run's; a prompt; or a list of prompts.

    Raises:
        UserError: they are none of these.
    """

    prompts: str | Annotated[list[str], Len(1)]

    def __post_init__(self) -> None:
        if isinstance(self.prompts, str) and self.prompts not in SPLITS and " " not in self.prompts.strip():
            raise UserError(
                f"prompts: '{self.prompts}' is no split, {nearest(self.prompts, SPLITS)} A prompt of one word is "
                f"written as a list: 'prompts=[\"{self.prompts.strip()}\"]'."
            )
        for i, prompt in enumerate(self.prompts if not isinstance(self.prompts, str) else []):
            if not prompt.strip():
                raise UserError(f"prompts: number {i + 1} is blank; write one.")

    def listed(self) -> Sequence[str] | None:
        """The prompts where they are given themselves, each once; None where a split is named."""
        if isinstance(self.prompts, str):
            return None if self.prompts in SPLITS else [self.prompts.strip()]
        return list(dict.fromkeys(prompt.strip() for prompt in self.prompts))


def require_run(folder: str) -> None:
    """Raise :class:`UserError` for what is no folder of a run."""
    if not Path(folder, "config.yaml").is_file():
        what = "is no folder of a run: it has no config.yaml" if Path(folder).is_dir() else "is no folder"
        raise UserError(f"run: {folder} {what}; give one that train.py has made, run=outputs/NAME/TIME.")


@dataclass(frozen=True, kw_only=True)
class RunsChoice:
    """Which runs a command puts side by side.

    Args:
        run: a run's folder, or a sweep's for all of its finished ones; or several.

    Raises:
        UserError: one of them is not there, or a sweep has none that is finished.
    """

    run: str | Annotated[list[str], Len(1)]

    def __post_init__(self) -> None:
        for run in self.runs:
            require_run(str(run))

    @cached_property  # a sweep may go on meanwhile
    def runs(self) -> list[Path]:
        """Their folders, each once."""
        given = [self.run] if isinstance(self.run, str) else self.run
        return list(dict.fromkeys(run for folder in map(Path, given) for run in _runs_of(folder)))


def _runs_of(folder: Path) -> list[Path]:
    jobs = finished_jobs(folder)
    if jobs is None:
        return [folder]
    if not jobs:
        raise UserError(f"run: {folder} is a sweep without a finished run; give one of its runs, or wait.")
    return jobs


@dataclass(frozen=True, kw_only=True)
class WeightsChoice:
    """Which trained generator a command opens.

    Args:
        run: a run's folder.
        checkpoint: one of its checkpoints, by its file or its name; None for the newest. Without ``run``: any weights.
        train: options of ``train.py``, in one line, that describe what the weights of ``checkpoint`` belong to.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UserError: the options contradict each other, or the run is not there.
    """

    run: str | None
    checkpoint: str | None = None
    train: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.run is not None:
            if self.train is not None:
                raise UserError("train: describes weights that are no run's; leave it out, or run=.")
            require_run(self.run)
        elif self.train is None or self.checkpoint is None:
            raise UserError(
                "run: give a run's folder, run=outputs/NAME/TIME; or, of weights that are no run's, the file and the "
                "options to train with: checkpoint=FILE 'train=\"generator=3dconv corpus=DF415 guidance=asd_sd\"'."
            )


@dataclass(frozen=True, kw_only=True)
class RenderOptions(PromptChoice, WeightsChoice):
    """One call of ``render.py``.

    Args:
        run, checkpoint, train, device: see :class:`WeightsChoice`.
        prompts: ``train``, ``val``, ``test`` or ``all`` of the run's; a prompt; or a list of prompts.
        limit: only the first so many of them.
        interpolate: ``from`` and ``to``, two prompts: instead of the prompts, the way from one to the other.
        outputs: kinds of files.
        maps: what pictures show (:mod:`scaledreamer.render.maps`); side by side in videos, one below the other in
            sheets.
        image_size: side of pictures and videos in pixels; None for that of the run's evaluation cameras.
        views: of a prompt in pictures and sheets, on a circle.
        frames: of a video.
        turn: degrees that the camera goes round the object in a video.
        fps: frames per second.
        tile: side of a picture on a sheet, pixels.
        columns, rows: prompts on a page of sheets.
        batch: prompts (of an interpolation: frames) that are generated at a time; memory follows it.
        mesh: how meshes are extracted.
        mesh_format: of their files.
        overwrite: make anew what is there already.
        output: folder; None for ``RUN/render``.

    Raises:
        UserError: the options contradict each other or name what is not there.
    """

    prompts: str | Annotated[list[str], Len(1)] = "val"
    limit: PositiveInt | None = None
    interpolate: dict[str, str | None] = field(default_factory=dict)
    outputs: Kind | Annotated[list[Kind], Len(1)] = field(default_factory=lambda: ["video", "views", "sheet"])
    maps: Map | Annotated[list[Map], Len(1)] = field(default_factory=lambda: ["rgb"])
    image_size: Size | None = None
    views: PositiveInt = 4
    frames: PositiveInt = 48
    turn: NonNegativeFloat = 360.0
    fps: PositiveFloat = 16.0
    tile: Size = 128
    columns: PositiveInt = 3
    rows: PositiveInt = 8
    batch: PositiveInt = 1
    mesh: Part
    mesh_format: Literal["glb", "obj", "ply"] = "glb"
    overwrite: bool = False
    output: str | None = None

    def __post_init__(self) -> None:
        WeightsChoice.__post_init__(self)
        if self.run is None and self.output is None:
            raise UserError("output: weights that are no run's have no folder of their own; set output=FOLDER.")
        PromptChoice.__post_init__(self)
        self._check_interpolation()

    def _check_interpolation(self) -> None:
        unknown = [name for name in self.interpolate if name not in ("from", "to")]
        if unknown:
            raise UserError(f"interpolate.{unknown[0]}: no such option; {nearest(unknown[0], ('from', 'to'))}")
        given = {name: prompt for name, prompt in self.interpolate.items() if prompt is not None}
        if len(given) == 1:
            other = "to" if "from" in given else "from"
            raise UserError(f"interpolate.{other}: is required beside interpolate.{next(iter(given))}.")
        blank = [name for name, prompt in given.items() if not prompt.strip()]
        if blank:
            raise UserError(f"interpolate.{blank[0]}: is blank; write a prompt.")
        if given and not {"video", "sheet"} & set(self.chosen_outputs):
            raise UserError("outputs: of an interpolation there are video and sheet.")

    @property
    def chosen_outputs(self) -> tuple[Kind, ...]:
        """Kinds of files, each once."""
        return (self.outputs,) if isinstance(self.outputs, str) else tuple(dict.fromkeys(self.outputs))

    @property
    def chosen_maps(self) -> tuple[Map, ...]:
        """Maps, each once."""
        return (self.maps,) if isinstance(self.maps, str) else tuple(dict.fromkeys(self.maps))

    @property
    def ends(self) -> tuple[str, str] | None:
        """The prompts to interpolate between, in this direction; None where none are."""
        start, end = self.interpolate.get("from"), self.interpolate.get("to")
        return (start.strip(), end.strip()) if start is not None and end is not None else None

    @property
    def folder(self) -> Path:
        """Where the files go."""
        return Path(self.output) if self.output is not None else Path(self.run or ".", "render")
