"""Pictures of random toys from random sides, drawn once on the device and kept there.

Axes: N pictures, B pictures at a time, H W pixels.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scaledreamer.cameras import Cameras, look_at_origin
from scaledreamer.toybox.scene import Scene
from scaledreamer.toybox.truth_renderer import render
from scaledreamer.toybox.vocabulary import every_toy

log = logging.getLogger(__name__)

SIZE = 64
DISTANCE, FOVY = (2.8, 3.2), 40.0
ELEVATION = (-15.0, 50.0)
OVERHEAD = (62.0, 85.0)
OVERHEAD_SHARE = 0.06


@dataclass(frozen=True)
class Pictures:
    """N pictures and what they show."""

    rgba: Tensor  # [N, 4, 64, 64] uint8, colours premultiplied by opacity
    toy: Tensor  # [N] int64, place in every_toy()
    azimuth: Tensor  # [N] degrees
    elevation: Tensor  # [N] degrees
    c2w: Tensor  # [N, 4, 4]

    def __len__(self) -> int:
        return len(self.toy)

    def batch(self, index: Tensor, generator: torch.Generator, *, together: int = 1) -> Tensor:
        """Pictures [B, 3, 64, 64] in [-1, 1], float32, each ``together`` consecutive ones on a plain colour."""
        color, opacity = (self.rgba[index].float() / 255).split([3, 1], dim=1)
        background = torch.rand(len(index) // together, 3, 1, 1, generator=generator, device=index.device)
        return 2 * (color + background.repeat_interleave(together, dim=0) * (1 - opacity)) - 1


def random_cameras(count: int, generator: torch.Generator) -> Cameras:
    """Cameras [count] all around, some of them overhead."""
    device = generator.device
    between = _uniform(count, generator)
    above = torch.rand(count, generator=generator, device=device) < OVERHEAD_SHARE
    return look_at_origin(
        azimuth=between(-180, 180),
        elevation=torch.where(above, between(*OVERHEAD), between(*ELEVATION)),
        distance=between(*DISTANCE),
        fovy=torch.full((count,), FOVY, device=device),
    )


def ring_cameras(count: int, views: int, generator: torch.Generator) -> Cameras:
    """Cameras [count], each ``views`` consecutive ones at the same height in equal steps around, none overhead."""
    device = generator.device
    between = _uniform(count // views, generator)
    first, elevation, distance = (
        between(*span).repeat_interleave(views) for span in ((-180.0, 180.0), ELEVATION, DISTANCE)
    )
    steps = torch.arange(views, device=device).repeat(count // views) * (360 / views)
    return look_at_origin(
        azimuth=first + steps, elevation=elevation, distance=distance, fovy=torch.full((count,), FOVY, device=device)
    )


def _uniform(count: int, generator: torch.Generator) -> Callable[[float, float], Tensor]:
    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)

    return between


def draw_pictures(
    count: int, *, seed: int, device: torch.device, views: int = 1, batch: int = 256, compiled: bool = True
) -> Pictures:
    """``count`` pictures of toys drawn evenly from all compositions.

    Args:
        count: rounded up to whole batches.
        seed: of toys and cameras.
        views: consecutive pictures of one toy, from a ring of cameras.
        device: where they are drawn and kept.
        batch: drawn at a time; the GPU's memory follows it.
        compiled: compile the renderer, which pays from some thousands of pictures on.
    """
    generator = torch.Generator(device).manual_seed(seed)
    toys = every_toy()
    scene = Scene.of(toys, device)
    rgba = torch.empty(-(-count // batch) * batch, 4, SIZE, SIZE, dtype=torch.uint8, device=device)
    toy = torch.randint(len(toys), (len(rgba) // views,), generator=generator, device=device).repeat_interleave(views)
    azimuth, elevation = torch.empty(len(rgba), device=device), torch.empty(len(rgba), device=device)
    c2w = torch.empty(len(rgba), 4, 4, device=device)
    start = time.monotonic()
    for begin in range(0, len(rgba), batch):
        part = slice(begin, begin + batch)
        cameras = random_cameras(batch, generator) if views == 1 else ring_cameras(batch, views, generator)
        with torch.no_grad():
            rgba[part] = _draw(scene[toy[part]], cameras, compiled)
        azimuth[part], elevation[part], c2w[part] = cameras.azimuth, cameras.elevation, cameras.c2w
    if device.type == "cuda":
        torch.cuda.synchronize()
    log.info("drew %d pictures in %.0f s", len(rgba), time.monotonic() - start)
    return Pictures(rgba=rgba, toy=toy, azimuth=azimuth, elevation=elevation, c2w=c2w)


def _draw(scene: Scene, cameras: Cameras, compiled: bool) -> Tensor:
    """uint8 [B, 4, H, W]."""
    black = torch.zeros(3, device=cameras.c2w.device)
    seen = render(scene, cameras, SIZE, background=black, compiled=compiled)
    return (torch.cat([seen.rgb, seen.opacity], dim=-1).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 3, 1, 2)
