"""What a rendering looks like in a file, map by map.

=======  ==============================================================================================
rgb      colours in front of the learned background
rgba     colours and opacity, for any background; white is behind them where there is no fourth channel
normal   (x, y, z) of the mean normal, [-1, 1] -> [0, 1], world axes; black where there is nothing
depth    distance from the camera, near -> 0, far -> 1; 1 where the ray is likelier to pass (opacity < 0.5)
opacity  0 where a ray passes, 1 where it ends
=======  ==============================================================================================

Depth has 16 bits in pictures, all others have 8. Axes: B images, H W pixels, C channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from scaledreamer.pictures.png import quantised
from scaledreamer.render.options import Map
from scaledreamer.renderers.base import Rendering


@dataclass(frozen=True)
class Span:
    """Distances from the camera that are 0 and 1 in a depth map, world units."""

    near: float
    far: float

    @classmethod
    def around(cls, distance: float, radius: float) -> "Span":
        """Of a camera at a distance from the centre of a box [-radius, radius]^3, which it may be inside of."""
        reach = min(radius, distance)
        return cls(near=distance - reach, far=distance + reach)


def stored(name: Map, rendering: Rendering, span: Span) -> Tensor:
    """A map as pictures have it: [B, H, W, C] uint8, depth uint16."""
    opacity = rendering.opacity
    if name == "rgba":
        color = rendering.foreground / opacity.clamp_min(1e-4)
        return quantised(torch.cat([color, opacity], dim=-1))
    if name == "depth":
        depth = (rendering.depth / opacity.clamp_min(1e-4) - span.near) / (span.far - span.near)
        return quantised(torch.where(opacity < 0.5, 1.0, depth), torch.uint16)
    return quantised({"rgb": rendering.rgb, "normal": rendering.normal, "opacity": opacity}[name])


def shown(name: Map, rendering: Rendering, span: Span) -> Tensor:
    """A map as videos and sheets have it: [B, H, W, 3] uint8."""
    if name == "rgba":
        return quantised(rendering.foreground + 1 - rendering.opacity)
    picture = stored(name, rendering, span)
    if picture.dtype is torch.uint16:
        picture = (picture.int() >> 8).to(torch.uint8)
    return picture.expand(*picture.shape[:-1], 3)
