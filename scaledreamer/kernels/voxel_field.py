"""A voxel field by Triton kernels: operators of PyTorch that are differentiable once.

Custom operators, which torch.compile leaves whole and CUDA graphs capture: nothing here waits for the GPU. Differences
between a point and the three next to it are computed as such (see :mod:`scaledreamer.kernels.heads`), in tf32; values
in three times tf32, which has float32's digits. Sums are float32 throughout.

Gradients are added in float32 by atomic additions; their order, hence the last bits of the sums, differs from run to
run.

Axes: P shapes, N points per shape, F features, H hidden values, R voxels per side.
"""

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
from torch import Tensor

from scaledreamer.kernels import voxel_field_kernels as kernels
from scaledreamer.kernels.launch import on, operator

FORWARD = {"M": 64, "num_warps": 4, "num_stages": 1}
"""Points per program and warps of the kernels without gradients."""

BACKWARD = {"M": 16, "num_warps": 2, "num_stages": 1}
"""The same of the backward pass; more points at a time do not fit into registers: an H100 takes 1.9 ms for 800 thousand
points, 3.0 ms with 64 at a time and 4 warps."""

COPIES = 64
"""Of the gradients to weights that programs add to, so that few of them wait for each other."""

PRECISION = "tf32x3"
"""Of distances and of the place where a hidden value starts to count."""


def query(
    table: Tensor,
    points: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    *,
    eps: float,
    radius: float,
    sphere_radius: float,
    clamp: bool,
    widening: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Signed distances [P, N], colours and gradients [P, N, 3] of :class:`scaledreamer.fields.voxel.VoxelField`.

    Differentiable with respect to the table and the weights, not to the points.

    Args:
        table: voxels [P, R, R, R, F], axes z y x, float32, float16 or bfloat16.
        points: [P, N, 3], world units.
        weights: of the heads, first and second of the distance [H, F] [1, H], the same of the colour [H, F] [3, H].
        eps: step of the finite differences, less than a voxel.
        widening: how far colours reach beyond 0 and 1.
    """
    return _query(table.contiguous(), points.float().contiguous(), *_ready(*weights),
                  eps, radius, sphere_radius, clamp, widening)  # fmt: skip


def distance(table: Tensor, points: Tensor, weights: tuple[Tensor, Tensor], *, radius: float, sphere_radius: float):
    """The signed distances [P, N] of :func:`query` alone; not differentiable."""
    first, second = _ready(*weights)
    return _distance(table.contiguous(), points.float().contiguous(), first, second, radius, sphere_radius)


def _ready(*weights: Tensor) -> list[Tensor]:
    return [weight.float().contiguous() for weight in weights]


def _launch(kernel: Any, programs: int, table: Tensor, *arguments: Any, first: Tensor, **options: Any) -> None:
    """``kernel`` over ``programs`` and shapes, for the sizes of the grid and of the first weight [H, F]."""
    hidden, features = first.shape
    sizes = {"SIDE": table.shape[1], "F": features, "H": hidden, "PRECISION": PRECISION}
    padded = {"FS": max(16, triton.next_power_of_2(features)), "HS": max(16, triton.next_power_of_2(hidden))}
    with torch.cuda.device_of(table):
        on(kernel, (programs, table.shape[0]))(table, *arguments, **sizes, **padded, **options)


def _scale(table: Tensor, radius: float) -> float:
    return table.shape[1] / (2 * radius)


# -- distances ---------------------------------------------------------------------------------------------------


@operator(
    "voxel_field_distance",
    "(Tensor table, Tensor points, Tensor s1, Tensor s2, float radius, float sphere_radius) -> Tensor",
)
def _distance(table: Tensor, points: Tensor, s1: Tensor, s2: Tensor, radius: float, sphere_radius: float) -> Tensor:
    sdf, n = points.new_empty(points.shape[:2]), points.shape[1]
    if sdf.numel():
        arguments = (points, s1, s2, sdf, n, _scale(table, radius), sphere_radius)
        _launch(kernels.distance, triton.cdiv(n, FORWARD["M"]), table, *arguments, first=s1, **FORWARD)
    return sdf


@_distance.register_fake
def _(table: Tensor, points: Tensor, s1: Tensor, s2: Tensor, radius: float, sphere_radius: float) -> Tensor:
    return points.new_empty(points.shape[:2])


# -- distances, colours and gradients ----------------------------------------------------------------------------

INPUTS = "Tensor table, Tensor points, Tensor s1, Tensor s2, Tensor c1, Tensor c2"


@operator(
    "voxel_field_query",
    f"({INPUTS}, float eps, float radius, float sphere_radius, bool clamp, float widening) -> (Tensor, Tensor, Tensor)",
)
def _query(
    table: Tensor, points: Tensor, s1: Tensor, s2: Tensor, c1: Tensor, c2: Tensor,
    eps: float, radius: float, sphere_radius: float, clamp: bool, widening: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    found, n = _samples(points), points.shape[1]
    if points.numel():
        numbers = (n, _scale(table, radius), eps, radius, sphere_radius, widening)
        options: dict[str, Any] = {"CLAMP": clamp, "first": s1, **FORWARD}
        programs = triton.cdiv(n, FORWARD["M"])
        _launch(kernels.query, programs, table, points, s1, s2, c1, c2, *found, *numbers, **options)
    return found


@_query.register_fake
def _(
    table: Tensor, points: Tensor, s1: Tensor, s2: Tensor, c1: Tensor, c2: Tensor,
    eps: float, radius: float, sphere_radius: float, clamp: bool, widening: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _samples(points)


def _samples(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return points.new_empty(points.shape[:2]), torch.empty_like(points), torch.empty_like(points)


@operator(
    "voxel_field_query_backward",
    f"({INPUTS}, Tensor g_sdf, Tensor g_color, Tensor g_gradient, float eps, float radius, bool clamp, float widening)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _query_backward(
    table: Tensor, points: Tensor, s1: Tensor, s2: Tensor, c1: Tensor, c2: Tensor,
    g_sdf: Tensor, g_color: Tensor, g_gradient: Tensor, eps: float, radius: float, clamp: bool, widening: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients to the table, in its type, and to the four weights."""
    of_table, n = torch.zeros_like(table, dtype=torch.float32), points.shape[1]
    copies = s1.new_zeros(COPIES, 2 * s1.numel() + 4 * len(s1))
    if points.numel():
        _launch(
            kernels.query_backward, triton.cdiv(n, BACKWARD["M"]), table, points, s1, s2, c1, c2,
            g_sdf.contiguous(), g_color.contiguous(), g_gradient.contiguous(), of_table, copies,
            n, _scale(table, radius), eps, radius, widening, CLAMP=clamp, COPIES=COPIES, first=s1, **BACKWARD,
        )  # fmt: skip
    of_s1, of_c1, of_s2, of_c2 = copies.sum(dim=0).split([s1.numel(), c1.numel(), s2.numel(), c2.numel()])
    # Each memory of its own, as an operator's results have to be.
    found = zip((of_s1, of_s2, of_c1, of_c2), (s1, s2, c1, c2), strict=True)
    of_s1, of_s2, of_c1, of_c2 = (of.view_as(weight).clone() for of, weight in found)
    return of_table.to(table.dtype), of_s1, of_s2, of_c1, of_c2


@_query_backward.register_fake
def _(
    table: Tensor, points: Tensor, s1: Tensor, s2: Tensor, c1: Tensor, c2: Tensor,
    g_sdf: Tensor, g_color: Tensor, g_gradient: Tensor, eps: float, radius: float, clamp: bool, widening: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    of_table, of_s1, of_s2, of_c1, of_c2 = (torch.empty_like(x) for x in (table, s1, s2, c1, c2))
    return of_table, of_s1, of_s2, of_c1, of_c2


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, eps, radius, _, clamp, widening = inputs
    ctx.save_for_backward(*tensors)
    ctx.numbers = eps, radius, clamp, widening


def _backward(ctx: Any, g_sdf: Tensor, g_color: Tensor, g_gradient: Tensor) -> tuple[Tensor | None, ...]:
    of_table, *of_weights = _query_backward(*ctx.saved_tensors, g_sdf, g_color, g_gradient, *ctx.numbers)
    asked = ctx.needs_input_grad
    weights = [of if ask else None for of, ask in zip(of_weights, asked[2:], strict=False)]
    return of_table if asked[0] else None, None, *weights, *(None,) * 5


_query.register_autograd(_backward, setup_context=_save)
