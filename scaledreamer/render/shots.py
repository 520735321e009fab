"""What cameras see of fields, a part at a time, on its way to the host.

Axes: P prompts, V views, H W pixels, C channels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scaledreamer.cameras import Cameras
from scaledreamer.fields.base import Field
from scaledreamer.render.maps import Span
from scaledreamer.render.options import Map
from scaledreamer.renderers.base import Rendering
from scaledreamer.system import TextTo3D
from scaledreamer.text.embedding import TextEmbedding

PIXELS = 2**18
"""Rendered at a time where an image has fewer: 64 of 64 x 64, one of 512 x 512. Memory follows it."""


def parts(views: int, *, prompts: int, size: int) -> list[slice]:
    """The views in parts that are rendered at a time of each of P prompts, in images of ``size`` pixels."""
    step = max(1, PIXELS // (prompts * size**2))
    return [slice(first, min(first + step, views)) for first in range(0, views, step)]


@dataclass(frozen=True)
class Shot:
    """Cameras and what is wanted of their images."""

    cameras: Cameras  # V
    size: int  # pixels
    maps: tuple[Map, ...]
    develop: Callable[[Map, Rendering, Span], Tensor]  # of scaledreamer.render.maps: stored, shown

    def take(self, system: TextTo3D, field: Field, text: TextEmbedding) -> "Iterator[Images]":
        """The images of P prompts, part by part."""
        prompts = text.pooled.shape[0]
        span = Span.around(system.cameras.test_distance, field.radius)
        for part in parts(len(self.cameras), prompts=prompts, size=self.size):
            rendering = system.look(field, text, self.cameras.select(part).repeat(prompts), self.size)
            yield Images.of({name: self.develop(name, rendering, span) for name in self.maps}, prompts)


@dataclass(frozen=True)
class Images:
    """Images that are being copied to the host while the device goes on."""

    maps: dict[Map, Tensor]  # each [P, V, H, W, C]
    copied: torch.cuda.Event | None

    @classmethod
    def of(cls, maps: dict[Map, Tensor], prompts: int) -> "Images":
        """Copies of images [P * V, H, W, C]; on a GPU they are there when :meth:`of_prompt` returns them."""
        on_gpu = any(images.is_cuda for images in maps.values())
        host: dict[Map, Tensor] = {
            name: images.to("cpu", non_blocking=True).unflatten(0, (prompts, -1)) for name, images in maps.items()
        }
        event = torch.cuda.Event() if on_gpu else None
        if event is not None:
            event.record()
        return cls(host, event)

    @property
    def views(self) -> int:
        """V."""
        return next(iter(self.maps.values())).shape[1]

    def of_prompt(self, place: int) -> dict[Map, Tensor]:
        """Maps [V, H, W, C] of one prompt; waits for the copy."""
        if self.copied is not None:
            self.copied.synchronize()
        return {name: images[place] for name, images in self.maps.items()}


def joined(parts: list[Images], place: int) -> dict[Map, Tensor]:
    """All views of one prompt: maps [V, H, W, C]."""
    found = [part.of_prompt(place) for part in parts]
    return {name: torch.cat([maps[name] for maps in found]) for name in found[0]}
