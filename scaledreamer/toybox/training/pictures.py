"""Pictures of random toys from random sides, drawn once on the device and kept there.

Axes: N pictures, B pictures at a time, H W pixels.
"""

import logging
import time
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

    def __len__(self) -> int:
        return len(self.toy)

    def batch(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures [B, 3, 64, 64] in [-1, 1], float32, each on a plain colour of its own."""
        color, opacity = (self.rgba[index].float() / 255).split([3, 1], dim=1)
        background = torch.rand(len(index), 3, 1, 1, generator=generator, device=index.device)
        return 2 * (color + background * (1 - opacity)) - 1


def random_cameras(count: int, generator: torch.Generator) -> Cameras:
    """Cameras [count] all around, some of them overhead."""
    device = generator.device

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator, device=device)

    above = torch.rand(count, generator=generator, device=device) < OVERHEAD_SHARE
    return look_at_origin(
        azimuth=between(-180, 180),
        elevation=torch.where(above, between(*OVERHEAD), between(*ELEVATION)),
        distance=between(*DISTANCE),
        fovy=torch.full((count,), FOVY, device=device),
    )


def draw_pictures(count: int, *, seed: int, device: torch.device, batch: int = 256, compiled: bool = True) -> Pictures:
    """``count`` pictures of toys drawn evenly from all compositions.

    Args:
        count: rounded up to whole batches.
        seed: of toys and cameras.
        device: where they are drawn and kept.
        batch: drawn at a time; the GPU's memory follows it.
        compiled: compile the renderer, which pays from some thousands of pictures on.
    """
    generator = torch.Generator(device).manual_seed(seed)
    toys = every_toy()
    scene = Scene.of(toys, device)
    rgba = torch.empty(-(-count // batch) * batch, 4, SIZE, SIZE, dtype=torch.uint8, device=device)
    toy = torch.randint(len(toys), (len(rgba),), generator=generator, device=device)
    azimuth, elevation = torch.empty(len(rgba), device=device), torch.empty(len(rgba), device=device)
    start = time.monotonic()
    for begin in range(0, len(rgba), batch):
        part = slice(begin, begin + batch)
        cameras = random_cameras(batch, generator)
        with torch.no_grad():
            rgba[part] = _draw(scene[toy[part]], cameras, compiled)
        azimuth[part], elevation[part] = cameras.azimuth, cameras.elevation
    if device.type == "cuda":
        torch.cuda.synchronize()
    log.info("drew %d pictures in %.0f s", len(rgba), time.monotonic() - start)
    return Pictures(rgba=rgba, toy=toy, azimuth=azimuth, elevation=elevation)


def _draw(scene: Scene, cameras: Cameras, compiled: bool) -> Tensor:
    """uint8 [B, 4, H, W]."""
    black = torch.zeros(3, device=cameras.c2w.device)
    seen = render(scene, cameras, SIZE, background=black, compiled=compiled)
    return (torch.cat([seen.rgb, seen.opacity], dim=-1).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 3, 1, 2)
