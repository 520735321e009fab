"""Cameras and rays.

World: right-handed, +z up; azimuth is measured from +x towards +y (0 is the front), elevation from the xy plane.
Cameras look at the origin. ``c2w`` is OpenGL style: columns right, up, backward, position. Angles are in degrees.

Axes: B cameras, H W pixels.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Rays:
    """One ray through the centre of each pixel."""

    origins: Tensor  # [B, H, W, 3]
    directions: Tensor  # [B, H, W, 3]  unit length


@dataclass(frozen=True)
class Cameras:
    """Pinhole cameras that look at the origin, with the angles they were made from."""

    c2w: Tensor  # [B, 4, 4]
    fovy: Tensor  # [B]  vertical field of view, degrees
    azimuth: Tensor  # [B]  degrees
    elevation: Tensor  # [B]  degrees
    distance: Tensor  # [B]  from the origin, world units

    def __len__(self) -> int:
        return self.c2w.shape[0]

    def rays(self, height: int, width: int) -> Rays:
        """Rays of all pixels; (i, j) maps to ((i + 0.5 - W/2)/f, -(j + 0.5 - H/2)/f, -1) in camera space."""
        raise NotImplementedError
