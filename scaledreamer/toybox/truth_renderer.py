"""Pictures of the toys as they are, by sphere tracing.

Every ray takes the same number of steps, so the renderer compiles into one graph, is captured as a CUDA graph and does
not wait for the GPU. The light is fixed in the world and the shading does not depend on the view, so that a field of
colours without view direction can represent it.

Axes: P toys, V views per toy, B = P * V images (the views of a toy consecutive), H W pixels, N rays of a toy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from scaledreamer.cameras import Cameras
from scaledreamer.toybox.scene import RADIUS, Scene

STEPS = 32
_RELAXATION = 1.4  # length of a step in units of the distance to the surface
_CHUNK = 4096  # rays at a time on a CPU: their distances stay in its cache
_BOUND = RADIUS + 0.05  # rays begin and end at this ball about the origin
_HIT = 0.004  # distance at which a ray has arrived, world units: an eighth of a pixel at 64 x 64
_NORMAL_EPS = 0.004
_SKY, _GROUND, _KEY = 0.68, 0.56, 0.36  # light from straight above, from below, and from the lamp
_WRAP = 0.4  # a wide lamp lights a little more than the half that faces it
_LAMP = (0.55, 0.45, 0.70)  # towards it: above, in front, to the toy's left
_OCCLUSION = ((0.06, 0.5), (0.16, 0.3))  # distances along the normal, and how much of the sky each can hide


@dataclass(frozen=True)
class TruthImages:
    """Images of B cameras, with the conventions of :class:`scaledreamer.renderers.base.Rendering`."""

    rgb: Tensor  # [B, H, W, 3]  in [0, 1], over the background
    opacity: Tensor  # [B, H, W, 1]  covered part of the pixel
    depth: Tensor  # [B, H, W, 1]  along the ray, world units, times opacity
    normal: Tensor  # [B, H, W, 3]  mean normal mapped to [0, 1], times opacity


def render(
    scene: Scene, cameras: Cameras, size: int, *, background: Tensor, supersample: int = 2, compiled: bool = False
) -> TruthImages:
    """Render B = P * V images, size x size.

    Memory grows with B * (size * supersample)^2 * parts; split large batches.

    Args:
        scene: P toys.
        cameras: B; the views of a toy consecutive.
        size: H and W.
        background: colours [3], [B, 3] or [B, H, W, 3].
        supersample: rays per side of a pixel.
        compiled: compile the inner functions on a GPU: 16 times as fast, after most of a minute. Compiling the whole
            takes minutes, and is faster by another third.
    """
    rays = cameras.rays(size * supersample, size * supersample)
    shape = rays.directions.shape  # [B, H', W', 3]
    directions = rays.directions.reshape(len(scene), -1, 3)  # [P, N, 3]
    origins = rays.origins.reshape(len(scene), -1, 3)
    sparse = directions.device.type == "cpu" and not torch.compiler.is_compiling()
    look = _look_sparse if sparse else _look  # [P, N, 8]
    features = look(scene, origins, directions, _compiled if compiled and not sparse else _as_it_is)
    image = features.reshape(*shape[:3], 8).permute(0, 3, 1, 2)
    pixels = F.avg_pool2d(image, supersample).permute(0, 2, 3, 1)  # [B, H, W, 8]
    rgb, opacity, depth, mean_normal = pixels.split([3, 1, 1, 3], dim=-1)
    if background.dim() == 2:
        background = background[:, None, None]
    return TruthImages(rgb=rgb + background * (1 - opacity), opacity=opacity, depth=depth, normal=mean_normal)


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=False)


Via = Callable[[Callable[..., Any]], Callable[..., Any]]


def _look(scene: Scene, origins: Tensor, directions: Tensor, via: Via) -> Tensor:
    """What rays [P, N, 3] see, [P, N, 8]: colour, one, distance, normal in [0, 1]; zeros where they see nothing."""
    t, end, meets = _span(origins, directions)
    step, gap = torch.zeros_like(t), torch.zeros_like(t)
    for _ in range(STEPS):
        t, step, gap = via(_advance)(scene, origins, directions, t, end, step, gap)
    points = origins + t[..., None] * directions
    hit = (scene.sdf(points) < _HIT) & meets
    return via(_shade)(scene, points, t) * hit[..., None]


def _advance(
    scene: Scene, origins: Tensor, directions: Tensor, t: Tensor, end: Tensor, step: Tensor, gap: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One step along rays, from distances t [P, N] that a step of length ``step`` led to, from a gap of ``gap``.

    Over-relaxed (Keinert et al. 2014, "Enhanced Sphere Tracing"): a step is longer than the gap, and taken back where
    the empty balls about its two ends do not meet, for something may be between them.

    Returns:
        The next t, the step to it (negative where it was taken back) and the gap before it.
    """
    found = scene.sdf(origins + t[..., None] * directions)
    step = torch.where(step > gap + found, gap - step, _RELAXATION * found)
    return (t + step).minimum(end), step, found


def _look_sparse(scene: Scene, origins: Tensor, directions: Tensor, via: Via) -> Tensor:
    """The same, several times as fast on a CPU: rays that have arrived or left are set aside."""
    seen = origins.new_zeros(*origins.shape[:2], 8)
    near, far, meets = _span(origins, directions)
    for p in range(len(scene)):
        toy = scene[p : p + 1].trimmed()
        for rays in meets[p].nonzero()[:, 0].split(_CHUNK):
            o, d, end, t = (x[None, p, rays] for x in (origins, directions, far, near))
            left = torch.arange(len(rays))  # of these rays: those still under way
            step, gap = torch.zeros_like(t), torch.zeros_like(t)
            for _ in range(STEPS):
                before = t[:, left]
                t[:, left], step, gap = _advance(toy, o[:, left], d[:, left], before, end[:, left], step, gap)
                under_way = ((step < 0) | ((gap > _HIT / 10) & (before < end[:, left])))[0]
                left, step, gap = left[under_way], step[:, under_way], gap[:, under_way]
            points = o + t[..., None] * d
            hit = (toy.sdf(points)[0] < _HIT).nonzero()[:, 0]
            seen[p, rays[hit]] = _shade(toy, points[:, hit], t[:, hit])[0]
    return seen


def _span(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distances [P, N] at which rays enter and leave the ball about all toys, and whether they meet it."""
    closest = -(origins * directions).sum(dim=-1)
    inside = closest.square() - origins.square().sum(dim=-1) + _BOUND**2
    half = inside.clamp(min=0).sqrt()
    return closest - half, closest + half, inside > 0


def _shade(scene: Scene, points: Tensor, t: Tensor) -> Tensor:
    """Colour, one, distance t and normal [P, N, 8] of surface points [P, N, 3]."""
    normal = _normal(scene, points)
    color = (scene.albedo(points) * _light(scene, points, normal)[..., None]).clamp(0, 1)
    return torch.cat([color, torch.ones_like(t)[..., None], t[..., None], (normal + 1) / 2], dim=-1)


def _normal(scene: Scene, points: Tensor) -> Tensor:
    """Unit normals [P, N, 3] by differences over the corners of a tetrahedron."""
    corners = points.new_tensor([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]])
    values = [scene.sdf(points + _NORMAL_EPS * corner)[..., None] * corner for corner in corners]
    return F.normalize(torch.stack(values).sum(dim=0), dim=-1)


def _light(scene: Scene, points: Tensor, normal: Tensor) -> Tensor:
    """Irradiance [P, N]: sky, ground and one lamp, with the sky hidden in corners; about 1 where all reach."""
    lamp = F.normalize(points.new_tensor(_LAMP), dim=0)
    sky = torch.lerp(points.new_tensor(_GROUND), points.new_tensor(_SKY), (normal[..., 2] + 1) / 2)
    open_ = torch.ones_like(sky)
    for distance, share in _OCCLUSION:
        seen = scene.sdf(points + distance * normal) / distance
        open_ = open_ - share * (1 - seen).clamp(0, 1)
    return sky * open_ + _KEY * ((normal * lamp).sum(dim=-1) + _WRAP).clamp(min=0) / (1 + _WRAP)
