"""The kinds of files that are made of prompts. Each says what is missing, and gives jobs that write it.

Contact sheets are in :mod:`scaledreamer.render.pages`, meshes in :mod:`scaledreamer.render.meshes`.

Axes: P prompts, V views, H W pixels, C channels.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from scaledreamer.fields.base import Field
from scaledreamer.pictures.png import save_png
from scaledreamer.pictures.video import save_video
from scaledreamer.render.index import Index
from scaledreamer.render.items import Item
from scaledreamer.render.maps import Span
from scaledreamer.render.options import Map
from scaledreamer.render.shots import Shot, joined
from scaledreamer.system import TextTo3D
from scaledreamer.text.embedding import TextEmbedding

Job = Callable[[], None]


class Output:
    """A kind of files.

    Args:
        index: of the folder.
        recipe: what the files are made with; those made with another are made anew.
    """

    kind: ClassVar[str]
    pictures: int = 1
    """Of a prompt, as progress counts them."""

    def __init__(self, *, index: Index, recipe: dict[str, Any]) -> None:
        self.index, self.recipe = index, {"kind": self.kind, **recipe}

    def missing(self, items: Sequence[Item]) -> set[str]:
        """Names of the prompts that have to be rendered for this."""
        return {i.name for i in items if not self.index.has("prompts", i.name, self.kind, self.recipe)}

    def jobs(
        self, system: TextTo3D, field: Field, text: TextEmbedding, items: Sequence[Item], tick: Callable[[int], None]
    ) -> Iterator[Job]:
        """Render the fields of P prompts and say how to write them, one job after the other.

        Args:
            system: that is rendered.
            field, text: of P prompts.
            items: the prompts.
            tick: to be told how many pictures were rendered.
        """
        raise NotImplementedError

    def record(self, item: Item, files: Sequence[Path], **about: Any) -> None:
        """The files of a prompt are whole."""
        about = {"prompt": item.prompt, "splits": item.splits, **about}
        self.index.add("prompts", item.name, self.kind, self.recipe, files, **about)


class Pictured(Output):
    """Files that are made of images.

    Args:
        shot: the images.
        index, recipe: see :class:`Output`.
    """

    def __init__(self, *, shot: Shot, index: Index, recipe: dict[str, Any]) -> None:
        super().__init__(index=index, recipe={"maps": list(shot.maps), "size": shot.size, **recipe})
        self.shot, self.pictures = shot, len(shot.cameras)

    def jobs(
        self, system: TextTo3D, field: Field, text: TextEmbedding, items: Sequence[Item], tick: Callable[[int], None]
    ) -> Iterator[Job]:
        """See :meth:`Output.jobs`."""
        parts = []
        for images in self.shot.take(system, field, text):
            parts.append(images)
            tick(len(items) * images.views)
        span = Span.around(system.cameras.test_distance, field.radius)
        for place, item in enumerate(items):
            yield partial(self._write, item, parts, place, span)

    def _write(self, item: Item, parts: list[Any], place: int, span: Span) -> None:
        self.write(item, joined(parts, place), span)

    def write(self, item: Item, maps: dict[Map, Tensor], span: Span) -> None:
        """Write maps [V, H, W, C] of a prompt and record it; called by any thread."""
        raise NotImplementedError


class Videos(Pictured):
    """``videos/NAME.mp4``: a turn, the maps side by side."""

    kind = "video"

    def __init__(self, *, fps: float, shot: Shot, index: Index, recipe: dict[str, Any]) -> None:
        super().__init__(shot=shot, index=index, recipe={"fps": fps, **recipe})
        self.fps = fps

    def write(self, item: Item, maps: dict[Map, Tensor], span: Span) -> None:
        """See :meth:`Pictured.write`."""
        path = self.index.folder / "videos" / f"{item.name}.mp4"
        save_video(torch.cat(list(maps.values()), dim=2), path, fps=self.fps)
        self.record(item, [path])


class Views(Pictured):
    """``views/NAME/MAP-090.png``: the map and the camera's azimuth in degrees, 0 at the front."""

    kind = "views"

    def __init__(self, *, shot: Shot, index: Index, recipe: dict[str, Any]) -> None:
        super().__init__(shot=shot, index=index, recipe=recipe)
        degrees = [round(float(azimuth), 1) for azimuth in shot.cameras.azimuth]
        self._azimuths = [f"{d:03.0f}" if d.is_integer() else f"{d:05.1f}" for d in degrees]

    def write(self, item: Item, maps: dict[Map, Tensor], span: Span) -> None:
        """See :meth:`Pictured.write`."""
        files = []
        for name, images in maps.items():
            for azimuth, image in zip(self._azimuths, images, strict=True):
                files.append(self.index.folder / "views" / item.name / f"{name}-{azimuth}.png")
                save_png(image, files[-1])
        depth = {"depth": {"0": span.near, "65535": span.far}} if "depth" in maps else {}
        self.record(item, files, **depth)
