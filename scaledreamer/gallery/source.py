"""The objects of a run: what ``render.py`` has made of them by now, after what is missing has been rendered."""

import hashlib
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from scaledreamer.errors import UserError
from scaledreamer.gallery.options import GalleryOptions
from scaledreamer.render.index import Index
from scaledreamer.render.items import Item, sampled, select
from scaledreamer.render.job import render
from scaledreamer.render.options import SPLITS, Kind, RenderOptions
from scaledreamer.render.source import identity
from scaledreamer.training.trained import Trained, configuration_of, open_run

log = logging.getLogger(__name__)

IDENTITY = ("step", "weights", "config")
"""What of a recipe tells one generator from another (:func:`scaledreamer.render.source.identity`)."""

KINDS: tuple[Kind, ...] = ("video", "mesh")


@dataclass(frozen=True)
class Object:
    """What a run has made of a prompt."""

    item: Item
    video: Path | None
    maps: tuple[str, ...]
    """Side by side in the video."""
    mesh: Path | None
    """GLB; None where there is no surface, or none was asked for."""

    @cached_property
    def video_name(self) -> str | None:
        """Of the files that a gallery makes of the video, without their suffixes: other content has another name."""
        return self._name(self.video)

    @cached_property
    def mesh_name(self) -> str | None:
        """Of the file that a gallery makes of the mesh."""
        return self._name(self.mesh)

    def _name(self, file: Path | None) -> str | None:
        return None if file is None else f"{self.item.name}-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Source:
    """A run and its objects, in the order of their prompts."""

    directory: Path  # absolute
    config: dict[str, Any]
    made_by: dict[str, Any]
    """What of recipes these objects share: see :data:`IDENTITY`."""
    objects: tuple[Object, ...]


def open_source(run: Path, options: GalleryOptions) -> Source:
    """The objects of a run that the options ask for.

    Raises:
        UserError: the run has no checkpoint, cannot be built or its folder cannot be written; or, where nothing is to
            be rendered, nothing is there.
    """
    if options.missing == "skip":
        return _found(run, options)
    checkpoint = Path(options.checkpoint) if options.checkpoint is not None else None
    trained = open_run(run, checkpoint=checkpoint, device=options.device)
    items = sampled(select(trained, options).items, options.sample)
    shelf = Shelf(run / "render", made_by=identity(trained))
    _complete(trained, items, shelf, options)
    shelf = Shelf(run / "render", made_by=shelf.made_by)
    objects = tuple(shelf.object(item) for item in items)
    return Source(run.resolve(), trained.config, shelf.made_by, objects)


class Shelf:
    """The renders of a generator in a folder.

    Args:
        folder: of ``render.py``.
        made_by: the generator; None for that with most renders, the newest among equals.
    """

    def __init__(self, folder: Path, *, made_by: dict[str, Any] | None) -> None:
        self._index = Index(folder)
        self.made_by = made_by if made_by is not None else self._main()

    @property
    def items(self) -> list[Item]:
        """Prompts of which there is a video or a mesh, in the order of their first words."""
        entries = self._index.content["prompts"].values()
        items = [Item(e["prompt"], None if e["splits"] is None else tuple(e["splits"])) for e in entries]
        return [item for item in items if any(self.has(item, kind) for kind in KINDS)]

    def has(self, item: Item, kind: Kind) -> bool:
        """Whether there is one that a page can show."""
        recipe = self._recipe(item.name, kind)
        if {key: recipe.get(key) for key in IDENTITY} != self.made_by:
            return False
        return recipe.get("format") in (None, "glb") and all(file.is_file() for file in self._files(item, kind))

    def object(self, item: Item) -> Object:
        """What there is of a prompt."""
        video, mesh = [self._files(item, kind) if self.has(item, kind) else [] for kind in KINDS]
        maps = self._recipe(item.name, "video").get("maps", ())
        return Object(item, next(iter(video), None), tuple(maps), next(iter(mesh), None))

    def _recipe(self, name: str, kind: Kind) -> dict[str, Any]:
        made = self._index.content["prompts"].get(name, {}).get("made", {})
        return self._index.content["recipes"].get(made.get(kind), {})

    def _files(self, item: Item, kind: Kind) -> list[Path]:
        entry = self._index.content["prompts"].get(item.name, {})
        return [self._index.folder / file for file in entry.get("files", {}).get(kind, ())]

    def _main(self) -> dict[str, Any]:
        """The generator of most renders, the one that was trained longest among equals."""
        counts: dict[tuple[Any, ...], int] = {}
        for name, kind in itertools.product(self._index.content["prompts"], KINDS):
            if recipe := self._recipe(name, kind):
                key = tuple(recipe.get(part) for part in IDENTITY)
                counts[key] = counts.get(key, 0) + 1
        best = max(counts, key=lambda key: (counts[key], key[0] or 0), default=(None,) * len(IDENTITY))
        return dict(zip(IDENTITY, best, strict=True))


def _complete(trained: Trained, items: Sequence[Item], shelf: Shelf, options: GalleryOptions) -> None:
    """Render what the shelf lacks: once for all prompts that lack the same."""
    wanted: tuple[Kind, ...] = KINDS if options.meshes else KINDS[:1]
    lacking: dict[tuple[Kind, ...], list[str]] = {}
    for item in items:
        kinds: tuple[Kind, ...] = tuple(kind for kind in wanted if not shelf.has(item, kind))
        if kinds:
            lacking.setdefault(kinds, []).append(item.prompt)
    for kinds, prompts in lacking.items():
        shared = ("checkpoint", "image_size", "frames", "fps", "mesh", "batch", "device")
        given = {name: getattr(options, name) for name in shared}
        render(trained, RenderOptions(run=str(trained.directory), prompts=prompts, outputs=list(kinds), **given))


def _found(run: Path, options: GalleryOptions) -> Source:
    """What is there of any prompts, of one generator."""
    shelf = Shelf(run / "render", made_by=None)
    listed, items = options.listed(), shelf.items
    if listed is not None:
        items = [item for item in items if item.prompt in listed]
    elif options.prompts != SPLITS[-1]:
        items = [item for item in items if item.splits is not None and options.prompts in item.splits]
    if not items:
        raise UserError(
            f"missing: {run / 'render'} has no video or mesh of these prompts to show; leave out missing=skip to make "
            "them."
        )
    objects = tuple(shelf.object(item) for item in sampled(items, options.sample))
    return Source(run.resolve(), configuration_of(run), shelf.made_by, objects)
