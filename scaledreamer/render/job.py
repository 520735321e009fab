"""A call of ``render.py``: what is missing is rendered batch by batch, and written meanwhile."""

import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from filelock import FileLock, Timeout

from scaledreamer.errors import UserError
from scaledreamer.render import maps
from scaledreamer.render.index import Index
from scaledreamer.render.interpolation import interpolate
from scaledreamer.render.items import Item, Selection, select
from scaledreamer.render.meshes import Meshes
from scaledreamer.render.options import Kind, RenderOptions
from scaledreamer.render.outputs import Output, Videos, Views
from scaledreamer.render.pages import Sheets
from scaledreamer.render.shots import Shot
from scaledreamer.render.source import identity
from scaledreamer.render.writers import Writers
from scaledreamer.training.build import build
from scaledreamer.training.progress import Bar
from scaledreamer.training.trained import Trained

log = logging.getLogger(__name__)

Made = dict[str, tuple[int, int]]
"""By kind of output how many prompts' were made now, and how many were there already."""


@torch.no_grad()
def render(trained: Trained, options: RenderOptions) -> Made:
    """Make what the options ask for and is not there yet.

    Raises:
        UserError: prompts that the generator or its prior cannot know, or a folder that cannot be written or in which
            another process is at work.
    """
    folder = options.folder
    selection = select(trained, options, limit=options.limit) if options.ends is None else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            index = Index(folder, overwrite=options.overwrite)
            try:
                if selection is None:
                    return interpolate(trained, options, index)
                return _rendered(trained, options, index, selection)
            finally:
                index.save()
    except Timeout as error:
        raise UserError(f"output: another process renders into {folder}; wait for it or set output=FOLDER.") from error
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror or error}; set output=FOLDER.") from error


def _rendered(trained: Trained, options: RenderOptions, index: Index, selection: Selection) -> Made:
    items, outputs = selection.items, _outputs(trained, options, index, selection)
    missing = {output: output.missing(items) for output in outputs}
    made = {output.kind: (len(names), len(items) - len(names)) for output, names in missing.items()}
    log.info("prompts: %d, step: %d; %s", len(items), trained.step, in_words(made))
    bar = Bar("picture", sum(output.pictures * len(names) for output, names in missing.items()))
    try:
        with Writers() as writers:
            for batch, needed in _batches(items, missing, options.batch):
                text = trained.embed([item.prompt for item in batch])
                field = trained.system.field(text)
                for output in needed:
                    for job in output.jobs(trained.system, field, text, batch, bar.advance):
                        writers.submit(job)
    finally:
        bar.stop()
    return made


def in_words(made: Made) -> str:
    """``video 3 new, 5 kept; sheet 8 new, 0 kept``."""
    return "; ".join(f"{kind} {new} new, {kept} kept" for kind, (new, kept) in made.items())


def _batches(
    items: Sequence[Item], missing: dict[Output, set[str]], most: int
) -> Iterator[tuple[list[Item], list[Output]]]:
    """Neighbours that need the same outputs, at most so many at a time; those that need none are left out."""
    for needed, group in itertools.groupby(items, key=lambda item: [o for o in missing if item.name in missing[o]]):
        same = list(group)
        if needed:
            yield from ((same[i : i + most], needed) for i in range(0, len(same), most))


def _outputs(trained: Trained, options: RenderOptions, index: Index, selection: Selection) -> list[Output]:
    cameras, device = trained.system.cameras, trained.system.device
    circle = cameras.orbit(options.views, device=device)
    size, shown = options.image_size or cameras.test_image_size, options.chosen_maps
    base = identity(trained)

    given = {"index": index}

    def made(kind: Kind) -> Output:
        if kind == "mesh":
            node: Any = options.mesh
            return Meshes(extractor=build(node), suffix=options.mesh_format, recipe={**base, "mesh": node}, **given)
        if kind == "video":
            turn = cameras.orbit(options.frames, turn=options.turn, device=device)
            recipe = {**base, "frames": options.frames, "turn": options.turn}
            return Videos(fps=options.fps, shot=Shot(turn, size, shown, maps.shown), recipe=recipe, **given)
        recipe = {**base, "views": options.views}
        if kind == "views":
            return Views(shot=Shot(circle, size, shown, maps.stored), recipe=recipe, **given)
        shot, page = Shot(circle, options.tile, shown, maps.shown), (options.columns, options.rows)
        return Sheets(selection=selection, page=page, shot=shot, recipe=recipe, **given)

    return [made(kind) for kind in options.chosen_outputs]
