"""A triplane's field by Triton kernels: operators of PyTorch, differentiable once, in planes and heads, not in points.

The first layer of a head reads features that are linear in the planes, so it is applied to the planes: to R^2 pixels
instead of N points. Nothing of N times H numbers is ever written: the way back computes hidden features again.
Gradients to planes are added in float32 by atomic additions, after points of a block that share a pixel have added up
among themselves; the order of the rest, hence the last bits, differs from run to run.

Custom operators and not ``triton_op``, for the reasons in :mod:`scaledreamer.encodings.hash_grid_triton`. Nothing waits
for the GPU: all can be captured in a CUDA graph.

Axes: P shapes, N points per shape, C features per plane, R pixels per side, H hidden features.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
from torch import Tensor
from torch.nn import functional as F

from scaledreamer.kernels import triplane_kernels as kernels
from scaledreamer.kernels.launch import on, operator

VALUES = "tf32x3"
"""Products behind distances and colours themselves: three of tf32, nearly float32."""

SLOPES = "tf32"
"""Products of differences and of gradients."""

FORWARD = {"BLOCK": 64, "num_warps": 4, "num_stages": 1}
BACKWARD = {"BLOCK": 16, "num_warps": 4, "num_stages": 1}
COLOR_BACKWARD = {"BLOCK": 32, "num_warps": 4, "num_stages": 1}
"""Points per program and warps, the fastest of those tried on an H100 at H = 64. Blocks of 64 points keep too much in
registers on the way back: 19.4 ms instead of 3.9 for 800 thousand points."""

PROGRAMS = 1056
"""Of the way back: eight per multiprocessor of an H100. Each adds up its shares in the layers before it writes them."""


def distances(
    points: Tensor, planes: Tensor, weights: Sequence[Tensor], *, radius: float, sphere_radius: float
) -> Tensor:
    """Signed distances [P, N] at points [P, N, 3], without gradients; see :func:`differences`."""
    return _distances(points.contiguous(), *_hidden(planes, weights), radius, sphere_radius)


def differences(
    points: Tensor,
    planes: Tensor,
    weights: Sequence[Tensor],
    *,
    radius: float,
    sphere_radius: float,
    eps: float,
    clamp: bool,
) -> tuple[Tensor, Tensor]:
    """Signed distances [P, N] and their gradients [P, N, 3] by forward differences.

    Args:
        points: [P, N, 3], float32, world units.
        planes: [P, 3, C, R, R], see :class:`scaledreamer.fields.triplane.TriplaneField`.
        weights: of a head of three layers, [H, 3 C], [H, H] and [1, H]; H up to 128.
        radius: half the side of the box that the planes span.
        sphere_radius: of the sphere whose distance is added.
        eps: step of the differences.
        clamp: whether moved points are kept in the box.
    """
    hidden, second, last = _hidden(planes, weights)
    return _differences(points.contiguous(), hidden, second, last, radius, sphere_radius, eps, clamp)


def colors(points: Tensor, planes: Tensor, weights: Sequence[Tensor], *, radius: float, widening: float) -> Tensor:
    """Colours [P, N, 3] that reach ``widening`` beyond 0 and 1; see :func:`differences`, with last weights [3, H]."""
    return _colors(points.contiguous(), *_hidden(planes, weights), radius, widening)


def _hidden(planes: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Framed planes [P, 3, R + 2, R + 2, H] behind the first layer, and the other two; H a power of two from 16 on."""
    first, second, last = (weight.float() for weight in weights)
    more = max(16, triton.next_power_of_2(first.shape[0])) - first.shape[0]
    if more:
        first, second, last = F.pad(first, (0, 0, 0, more)), F.pad(second, (0, more, 0, more)), F.pad(last, (0, more))
    # In float64, of which there is little: TF32 would round each pixel's features, and slopes are their differences.
    rows = planes.double().movedim(2, -1).flatten(2, 3)  # [P, 3, R^2, C]
    hidden = rows @ first.double().view(first.shape[0], 3, -1).permute(1, 2, 0)  # [P, 3, R^2, H]
    hidden = hidden.float().unflatten(2, planes.shape[-2:])
    return F.pad(hidden, (0, 0, 1, 1, 1, 1)), second.contiguous(), last.contiguous()


def _sizes(hidden: Tensor) -> dict[str, int]:
    return {"R": hidden.shape[2] - 2, "H": hidden.shape[4]}


FIELD = "Tensor points, Tensor planes, Tensor second, Tensor last, float radius"
GRADIENTS = "(Tensor, Tensor, Tensor)"


# -- values ------------------------------------------------------------------------------------------------------


@operator("triplane_distances", f"({FIELD}, float sphere_radius) -> Tensor")
def _distances(
    points: Tensor, planes: Tensor, second: Tensor, last: Tensor, radius: float, sphere_radius: float
) -> Tensor:
    sdf = points.new_empty(points.shape[:2])
    _launch_distance(points, planes, second, last, sdf, sdf, radius, sphere_radius, 1.0, differences=False, clamp=False)
    return sdf


@_distances.register_fake
def _(points: Tensor, planes: Tensor, second: Tensor, last: Tensor, radius: float, sphere_radius: float) -> Tensor:
    return points.new_empty(points.shape[:2])


@operator("triplane_differences", f"({FIELD}, float sphere_radius, float eps, bool clamp) -> (Tensor, Tensor)")
def _differences(
    points: Tensor,
    planes: Tensor,
    second: Tensor,
    last: Tensor,
    radius: float,
    sphere_radius: float,
    eps: float,
    clamp: bool,
) -> tuple[Tensor, Tensor]:
    sdf, gradient = points.new_empty(points.shape[:2]), torch.empty_like(points)
    numbers = radius, sphere_radius, eps
    _launch_distance(points, planes, second, last, sdf, gradient, *numbers, differences=True, clamp=clamp)
    return sdf, gradient


@_differences.register_fake
def _(points: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return points.new_empty(points.shape[:2]), torch.empty_like(points)


def _launch_distance(points: Tensor, planes: Tensor, *rest: Any, differences: bool, clamp: bool) -> None:
    second, last, sdf, gradient, *numbers = rest
    if not points.numel():
        return
    grid = triton.cdiv(points.shape[1], FORWARD["BLOCK"]), points.shape[0]
    modes = {"DIFFERENCES": differences, "CLAMP": clamp, "VALUES": VALUES, "SLOPES": SLOPES}
    kernel: Any = kernels.distance
    with torch.cuda.device_of(points):
        on(kernel, grid)(
            *(points, planes, second, last, sdf, gradient, points.shape[1], *numbers),
            **_sizes(planes),
            **modes,
            **FORWARD,
        )


@operator("triplane_colors", f"({FIELD}, float widening) -> Tensor")
def _colors(points: Tensor, planes: Tensor, second: Tensor, last: Tensor, radius: float, widening: float) -> Tensor:
    found = torch.empty_like(points)
    if points.numel():
        grid = triton.cdiv(points.shape[1], FORWARD["BLOCK"]), points.shape[0]
        kernel: Any = kernels.color
        with torch.cuda.device_of(points):
            on(kernel, grid)(
                *(points, planes, second, last, found, points.shape[1], radius, widening),
                **_sizes(planes),
                VALUES=VALUES,
                **FORWARD,
            )
    return found


@_colors.register_fake
def _(points: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(points)


# -- gradients ---------------------------------------------------------------------------------------------------


def _zeros(*like: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.zeros_like(tensor) for tensor in like)


def _launch_gradient(kernel: Any, launch: dict[str, int], points: Tensor, *rest: Any, **modes: Any) -> None:
    """A kernel of the way back; ``rest`` ends with its numbers behind the blocks."""
    *tensors, radius, number = rest
    if not points.numel():
        return
    blocks = triton.cdiv(points.shape[1], launch["BLOCK"])
    grid = min(blocks, triton.cdiv(PROGRAMS, points.shape[0])), points.shape[0]
    with torch.cuda.device_of(points):
        on(kernel, grid)(
            *(points, *tensors, points.shape[1], blocks, radius, number),
            **_sizes(tensors[0]),
            VALUES=VALUES,
            SLOPES=SLOPES,
            **modes,
            **launch,
        )


@operator(
    "triplane_differences_gradient",
    f"(Tensor grad_sdf, Tensor grad_gradient, {FIELD}, float eps, bool clamp) -> {GRADIENTS}",
)
def _differences_gradient(
    grad_sdf: Tensor,
    grad_gradient: Tensor,
    points: Tensor,
    planes: Tensor,
    second: Tensor,
    last: Tensor,
    radius: float,
    eps: float,
    clamp: bool,
) -> tuple[Tensor, ...]:
    found = _zeros(planes, second, last)
    near = not clamp and 0 < eps * (planes.shape[2] - 2) / (2 * radius) < 0.99
    tensors = planes, second, last, grad_sdf.contiguous(), grad_gradient.contiguous(), *found
    _launch_gradient(kernels.distance_gradient, BACKWARD, points, *tensors, radius, eps, CLAMP=clamp, NEAR=near)
    return found


@_differences_gradient.register_fake
def _(_sdf: Tensor, _gradient: Tensor, _points: Tensor, *fields: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(tensor) for tensor in fields[:3])


@operator("triplane_colors_gradient", f"(Tensor grad, {FIELD}, float widening) -> {GRADIENTS}")
def _colors_gradient(
    grad: Tensor, points: Tensor, planes: Tensor, second: Tensor, last: Tensor, radius: float, widening: float
) -> tuple[Tensor, ...]:
    found = _zeros(planes, second, last)
    tensors = planes, second, last, grad.contiguous(), *found
    _launch_gradient(kernels.color_gradient, COLOR_BACKWARD, points, *tensors, radius, widening)
    return found


@_colors_gradient.register_fake
def _(_grad: Tensor, _points: Tensor, *fields: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(tensor) for tensor in fields[:3])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.numbers = inputs[4:]


def _differences_backward(ctx: Any, grad_sdf: Tensor, grad_gradient: Tensor) -> tuple[Tensor | None, ...]:
    radius, _, eps, clamp = ctx.numbers
    found = _differences_gradient(grad_sdf, grad_gradient, *ctx.saved_tensors, radius, eps, clamp)
    return None, *found, None, None, None, None


def _colors_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return None, *_colors_gradient(grad, *ctx.saved_tensors, *ctx.numbers), None, None


_differences.register_autograd(_differences_backward, setup_context=_save)
_colors.register_autograd(_colors_backward, setup_context=_save)
