"""How well generated toys agree with the truth and with their prompts.

Pictures are compared on a grey background, from V views on a circle, the first at the front, in equal steps.

Axes: P prompts, V views, H W pixels.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from scaledreamer.bootstrap import interval
from scaledreamer.cameras import Cameras

GREY = 0.5


@dataclass(frozen=True)
class Views:
    """Pictures of P toys from V views."""

    rgb: Tensor  # [P, V, H, W, 3]  in [0, 1], over grey
    opacity: Tensor  # [P, V, H, W]  in [0, 1]


@dataclass(frozen=True)
class Scores:
    """One number per prompt of each measure, float32 [P] on the CPU."""

    recall: Tensor  # 1 where the judge, having seen all views, names this prompt first among the gallery's, else 0
    view_recall: Tensor  # share of the views of which, each by itself, the judge does
    iou: Tensor  # of the silhouettes, mean over the views
    sphere_iou: Tensor  # that the initial sphere would have
    share: Tensor | None  # of the way from the spheres' mean IoU to the ceiling's; None where no ceiling is known
    color_error: Tensor  # mean absolute difference where both are, in [0, 1]
    upright: Tensor  # 1 where the truth fits best unturned, of the four quarter turns, else 0
    janus: Tensor  # 1 where the judge takes the view from behind for one of the front, else 0

    def select(self, index: slice) -> "Scores":
        """Those of some prompts."""
        chosen: dict[str, Any] = {name: values[index] for name, values in self.known().items()}
        return Scores(**{"share": None, **chosen})

    def summary(self) -> dict[str, tuple[float, float, float]]:
        """(mean, low, high) of each measure: a bootstrap interval of 95 % over the prompts."""
        return {name: interval(values) for name, values in self.known().items()}

    def known(self) -> dict[str, Tensor]:
        """The measures by their names."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}


def iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union [...] of silhouettes [..., H, W]: where opacity exceeds a half. 1 for two empty ones."""
    a, b = one > 0.5, other > 0.5
    union = (a | b).sum(dim=(-2, -1))
    return torch.where(union > 0, (a & b).sum(dim=(-2, -1)) / union.clamp(min=1), 1.0)


def share(found: Tensor, sphere: Tensor, *, ceiling: float) -> Tensor:
    """(IoU - mean IoU of the spheres) / (ceiling - mean IoU of the spheres), [P]; 0 is the start, 1 the ceiling."""
    start = sphere.mean()
    return (found - start) / (ceiling - start)


def color_error(ours: Views, truth: Views) -> Tensor:
    """Mean absolute difference [P] of colours where both are opaque; 1 where they are nowhere both."""
    both = ((ours.opacity > 0.5) & (truth.opacity > 0.5)).float()
    difference = ((ours.rgb - truth.rgb).abs().mean(dim=-1) * both).sum(dim=(1, 2, 3))
    pixels = both.sum(dim=(1, 2, 3))
    return torch.where(pixels > 0, difference / pixels.clamp(min=1), 1.0)


def upright(ours: Views, truth: Views) -> Tensor:
    """1.0 [P] where, of the four quarter turns of the truth, the one of 0 degrees has the nearest pictures."""
    views = ours.rgb.shape[1]
    if views % 4:
        raise ValueError(f"{views} views are not whole quarter turns")
    turned = [truth.rgb.roll(quarter * views // 4, dims=1) for quarter in range(4)]
    errors = torch.stack([(ours.rgb - t).abs().mean(dim=(1, 2, 3, 4)) for t in turned])  # [4, P]
    return (errors.argmin(dim=0) == 0).float()


def sphere_opacity(cameras: Cameras, size: int, *, radius: float) -> Tensor:
    """Silhouettes [V, H, W] of a ball about the origin."""
    rays = cameras.rays(size, size)
    along = (rays.origins * rays.directions).sum(dim=-1)
    closest = (rays.origins.square().sum(dim=-1) - along.square()).clamp(min=0).sqrt()
    return (closest < radius).float()


def against_truth(ours: Views, truth: Views, cameras: Cameras, *, sphere_radius: float) -> dict[str, Tensor]:
    """``iou``, ``sphere_iou``, ``color_error`` and ``upright`` of :class:`Scores`.

    Args:
        ours, truth: pictures of the same P toys by the same cameras.
        cameras: those V cameras.
        sphere_radius: of the ball that a generator begins with, world units.
    """
    sphere = sphere_opacity(cameras, truth.opacity.shape[-1], radius=sphere_radius).to(truth.opacity.device)
    return {
        "iou": iou(ours.opacity, truth.opacity).mean(dim=1),
        "sphere_iou": iou(sphere.expand_as(truth.opacity), truth.opacity).mean(dim=1),
        "color_error": color_error(ours, truth),
        "upright": upright(ours, truth),
    }
