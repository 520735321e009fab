"""Cameras and rays.

World: right-handed, +z up; azimuth is measured from +x towards +y (0 is the front), elevation from the xy plane.
Cameras look at the origin. ``c2w`` is OpenGL style: columns right, up, backward, position. Angles are in degrees.

Axes: P prompts, V views per prompt, B = P * V cameras (views of a prompt consecutive), H W pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from scaledreamer.constraints import PositiveFloat, PositiveInt, Range
from scaledreamer.errors import UserError
from scaledreamer.randomness import StepRandom
from scaledreamer.schedules import ShareSchedule, StepSchedule, step_at, value_at


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

    def select(self, index: Sequence[int] | slice) -> "Cameras":
        """Some of the cameras."""
        chosen = index if isinstance(index, slice) else list(index)
        return Cameras(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    def repeat(self, prompts: int) -> "Cameras":
        """The same cameras [P * V] for each of P prompts."""
        made = {f.name: getattr(self, f.name) for f in fields(self)}
        return Cameras(**{name: v.repeat(prompts, *(1,) * (v.ndim - 1)) for name, v in made.items()})

    def at_elevation(self, elevation: float) -> "Cameras":
        """The same cameras moved up or down to an elevation in degrees, at their distance."""
        raised = torch.full_like(self.elevation, elevation)
        return look_at_origin(azimuth=self.azimuth, elevation=raised, distance=self.distance, fovy=self.fovy)

    def rays(self, height: int, width: int) -> Rays:
        """Rays of all pixels; (i, j) maps to ((i + 0.5 - W/2)/f, -(j + 0.5 - H/2)/f, -1) in camera space."""
        device = self.c2w.device
        focal = 0.5 * height / torch.tan(torch.deg2rad(self.fovy) / 2).view(-1, 1, 1, 1)  # [B, 1, 1, 1] pixels
        x = (torch.arange(width, device=device) + 0.5 - width / 2).view(1, 1, -1, 1) / focal  # [B, 1, W, 1]
        y = -(torch.arange(height, device=device) + 0.5 - height / 2).view(1, -1, 1, 1) / focal  # [B, H, 1, 1]
        right, up, backward, position = self.c2w[:, None, None, :3].unbind(dim=-1)  # [B, 1, 1, 3] each
        # Spelled out, because autocast and TF32 would round a matrix product.
        directions = F.normalize(x * right + y * up - backward, dim=-1)
        return Rays(origins=position.expand_as(directions), directions=directions)


def look_at_origin(*, azimuth: Tensor, elevation: Tensor, distance: Tensor, fovy: Tensor) -> Cameras:
    """Cameras [B] from angles in degrees [B] and distances [B]; elevations of exactly +-90 are undefined."""
    a, e = torch.deg2rad(azimuth), torch.deg2rad(elevation)
    backward = torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin()], dim=-1)  # [B, 3]
    right = torch.stack([-a.sin(), a.cos(), torch.zeros_like(a)], dim=-1)
    up = torch.linalg.cross(backward, right, dim=-1)
    c2w = torch.eye(4, device=a.device, dtype=a.dtype).repeat(a.shape[0], 1, 1)
    c2w[:, :3] = torch.stack([right, up, backward, backward * distance[:, None]], dim=-1)
    return Cameras(c2w=c2w, fovy=fovy, azimuth=azimuth, elevation=elevation, distance=distance)


class RandomCameras:
    """How training cameras are drawn, where evaluation cameras stand, and how large their pictures are.

    Args:
        distance: from the origin, world units; with ``relative_distance`` in units of 1 / tan(fovy / 2), so that an
            object fills the same part of the picture whatever the field of view.
        fovy, azimuth, elevation: ranges in degrees.
        azimuth_share: how much of the azimuth range independent cameras come from, over the run. A share s < 1 leaves
            those within s / 4 of the range around its middle, and around its ends: with the whole circle the front and
            the back. With a small one at first an object gets its front and back before its sides, and is turned the
            right way: a picture "from the side" may show it facing either way.
        views_per_prompt: V.
        layout: ``independent`` draws every camera by itself; ``ring`` draws one and turns it in equal steps, ring after
            ring. Azimuths are stratified with both: views of a prompt fall into the V parts of the range, and within
            its part each prompt of the global batch into a strip of its own.
        views_per_ring: a divisor of V; None for one ring of all views.
        image_size: side of a training render in pixels, over the run.
        test_distance, test_fovy, test_elevation: of the evaluation circle.
        test_image_size: side of an evaluation render in pixels.
    """

    def __init__(
        self,
        *,
        distance: Range = (1.0, 1.5),
        relative_distance: bool = False,
        fovy: Range = (40.0, 70.0),
        azimuth: Range = (-180.0, 180.0),
        azimuth_share: ShareSchedule = 1.0,
        elevation: Range = (-10.0, 45.0),
        views_per_prompt: PositiveInt = 1,
        layout: Literal["independent", "ring"] = "independent",
        views_per_ring: PositiveInt | None = None,
        image_size: StepSchedule = 64,
        test_distance: PositiveFloat = 1.5,
        test_fovy: PositiveFloat = 70.0,
        test_elevation: float = 15.0,
        test_image_size: PositiveInt = 512,
    ) -> None:
        self.distance, self.relative_distance = distance, relative_distance
        self.fovy, self.azimuth, self.elevation = fovy, azimuth, elevation
        self.views_per_prompt, self.layout = views_per_prompt, layout
        self.views_per_ring = (views_per_ring or views_per_prompt) if layout == "ring" else 1
        if views_per_prompt % self.views_per_ring:
            raise UserError(
                f"cameras.views_per_ring: {views_per_ring} does not divide cameras.views_per_prompt={views_per_prompt}."
            )
        if layout == "ring" and azimuth_share != 1:
            raise UserError(
                "cameras.azimuth_share: a ring goes all around; leave it at 1.0, or set cameras.layout=independent."
            )
        self.azimuth_share = azimuth_share
        self.image_size, self.test_image_size = image_size, test_image_size
        self.test_distance, self.test_fovy, self.test_elevation = test_distance, test_fovy, test_elevation

    def size_at(self, progress: float) -> int:
        """Side of a training render in pixels when the fraction ``progress`` of the run is done."""
        return step_at(self.image_size, progress)

    def sample(self, prompts: int, random: StepRandom, *, progress: float = 1.0) -> Cameras:
        """Training cameras [P * V] of P prompts, when the fraction ``progress`` of the run is done."""
        views, ring = self.views_per_prompt, self.views_per_ring
        rings = views // ring
        draws = random.uniform(prompts, rings, 5).repeat_interleave(ring, dim=1).unbind(dim=-1)  # 5 of [P, V]
        fovy, distance = _between(self.fovy, draws[0]), _between(self.distance, draws[1])
        if self.relative_distance:
            distance = distance / torch.tan(torch.deg2rad(fovy) / 2)
        strip = (random.global_rows(prompts)[:, None] + draws[2]) / (random.world_size * prompts)
        view = torch.arange(views, device=random.device)
        turn = (view % ring * rings + view // ring + strip) / views  # [P, V] in [0, 1)
        if (share := value_at(self.azimuth_share, progress)) < 1:
            nearest = (2 * turn + 0.5).floor()  # 0 and 2 the ends, 1 the middle
            turn = (nearest + share * (2 * turn - nearest)) / 2
        return look_at_origin(
            azimuth=_between(self.azimuth, turn).flatten(),
            elevation=self._elevation(draws[3], draws[4]).flatten(),
            distance=distance.flatten(),
            fovy=fovy.flatten(),
        )

    def _elevation(self, share: Tensor, coin: Tensor) -> Tensor:
        """Half of the cameras uniform in angle, half uniform on the sphere between the two parallels."""
        angle = _between(self.elevation, share)
        low, high = (math.sin(math.radians(e)) for e in self.elevation)
        sphere = torch.rad2deg(torch.asin(_between((low, high), share)))
        return torch.where(coin < 0.5, angle, sphere)

    def orbit(self, views: int, *, turn: float = 360.0, device: torch.device | str = "cpu") -> Cameras:
        """Evaluation cameras [views] that go round in equal steps, the first one at the front.

        Args:
            views: how many.
            turn: degrees between the first and the one that would follow the last: 360 is a closed circle.
            device: of the cameras.
        """
        azimuth = torch.arange(views, device=device) * (turn / views)
        ones = torch.ones_like(azimuth)
        return look_at_origin(
            azimuth=azimuth,
            elevation=self.test_elevation * ones,
            distance=self.test_distance * ones,
            fovy=self.test_fovy * ones,
        )


def _between(span: tuple[float, float], share: Tensor) -> Tensor:
    low, high = span
    return low + (high - low) * share
