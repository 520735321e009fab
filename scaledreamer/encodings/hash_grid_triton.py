"""The hash grid by Triton kernels: operators of PyTorch that are differentiable once.

They are custom operators, which torch.compile leaves whole, and not of ``triton_op``, through which its compiler sees
the kernels and launches them itself: it could fuse nothing with a gather, the kernels depend on an option of their
launch, and PyTorch has custom operators since 2.4, the other since 2.6. Nothing here waits for the GPU but the first
call of a grid on a device, so that later ones can be captured in a CUDA graph.

Gradients to parameters are added in float32 by atomic additions, both or four features of an entry at once where the
GPU can (compute capability 9.0); their order, hence the last bits of the sums, differs from run to run. Where a
level's cells are large, so that many neighbours in ``points`` add to the same entries, they first add up among
themselves (:data:`MERGED_UP_TO`).
"""

from functools import lru_cache
from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
from torch import Tensor

from scaledreamer.encodings import hash_grid_kernels as kernels
from scaledreamer.encodings.backends import require_gpu
from scaledreamer.encodings.hash_grid import PRIMES, Level
from scaledreamer.kernels.launch import INTERPRETED, on

BLOCK = 128
"""Points per program: one per thread."""

WARPS = BLOCK // 32

GROUP = 4
"""Levels per program: points are read a quarter as often, and four tables of 2^19 entries still fit in the cache."""

MERGED_UP_TO = 128
"""Vertices per axis of the levels at which samples along a ray mostly share cells with their neighbours."""


def hash_encode_triton(
    points: Tensor,
    table: Tensor,
    levels: tuple[Level, ...],
    *,
    dtype: torch.dtype | None = None,
    out: torch.dtype | None = None,
) -> Tensor:
    """See :func:`scaledreamer.encodings.hash_grid.hash_encode`: the same numbers, computed in float32.

    Features are a view [N, L * F] of what is stored [L * F, N]; matrix products take either without a copy.

    Raises:
        UserError: the points are not on a GPU.
    """
    if not INTERPRETED:
        require_gpu("triton", points)
    scales, lattice = _numbers(levels)
    types = dtype or table.dtype, out or table.dtype
    return _encode(points.float().contiguous(), table.contiguous(), *types, scales, lattice).t()


def _numbers(levels: tuple[Level, ...]) -> tuple[list[float], list[int]]:
    """Scales [L], and level by level the ``kernels.FIELDS`` whole numbers that the kernels read."""
    lattice: list[int] = []
    for level in levels:
        strides = PRIMES[1:] if level.hashed else (level.resolution, level.resolution**2)
        flags = (int(level.hashed), int(level.resolution <= MERGED_UP_TO))
        lattice += [level.entries, level.offset, *(s - 2**32 if s >= 2**31 else s for s in strides), *flags]
    return [level.scale for level in levels], lattice


@lru_cache(maxsize=64)
def _on(device: torch.device, scales: tuple[float, ...], lattice: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    return (
        torch.tensor(scales, dtype=torch.float32, device=device),
        torch.tensor(lattice, dtype=torch.int32, device=device),
    )


def _launch(
    kernel: Any,
    points: Tensor,
    *tensors: Tensor,
    features: int,
    scales: list[float],
    lattice: list[int],
    strides: tuple[int, ...] = (),
) -> None:
    """One of the three kernels, over all points and levels."""
    n, dims = points.shape
    if n == 0:
        return
    grid = (triton.cdiv(n, BLOCK), triton.cdiv(len(scales), GROUP))
    numbers = _on(points.device, tuple(scales), tuple(lattice))
    with torch.cuda.device_of(points):
        on(kernel, grid)(
            *(points, *tensors, *numbers, n, len(scales), *strides),
            D=dims,
            F=features,
            GROUP=GROUP,
            BLOCK=BLOCK,
            num_warps=WARPS,
            enable_fp_fusion=False,
        )


def _operator(name: str, arguments: str) -> Any:
    """``scaledreamer::name`` of these arguments and the levels, which changes none of them and returns one tensor."""
    schema = f"({arguments}, float[] scales, int[] lattice) -> Tensor"
    return torch.library.custom_op(f"scaledreamer::{name}", mutates_args=(), schema=schema)


# -- features ----------------------------------------------------------------------------------------------------


@_operator("hash_encode", "Tensor points, Tensor table, ScalarType dtype, ScalarType out")
def _encode(
    points: Tensor, table: Tensor, dtype: torch.dtype, out: torch.dtype, scales: list[float], lattice: list[int]
) -> Tensor:
    """Features [L * F, N], in the type ``out``, of points [N, D] and the table [entries, F], read as ``dtype``."""
    found = _features(points, table, dtype, out, scales, lattice)
    read = table.to(dtype)
    _launch(kernels.encode, points, read, found, features=table.shape[1], scales=scales, lattice=lattice)
    return found


@_encode.register_fake
def _features(
    points: Tensor, table: Tensor, dtype: torch.dtype, out: torch.dtype, scales: list[float], lattice: list[int]
) -> Tensor:
    return points.new_empty((len(scales) * table.shape[1], points.shape[0]), dtype=out)


# -- gradients ---------------------------------------------------------------------------------------------------


@_operator("hash_encode_table_gradient", "Tensor points, Tensor grad, Tensor table")
def _table_gradient(points: Tensor, grad: Tensor, table: Tensor, scales: list[float], lattice: list[int]) -> Tensor:
    """[entries, F], in the table's type, of the gradient [L * F, N] of the features."""
    found = torch.zeros_like(table, dtype=torch.float32)
    options = {"features": table.shape[1], "scales": scales, "lattice": lattice, "strides": grad.stride()}
    _launch(kernels.table_gradient, points, grad, found, **options)
    return found.to(table.dtype)


@_table_gradient.register_fake
def _(points: Tensor, grad: Tensor, table: Tensor, scales: list[float], lattice: list[int]) -> Tensor:
    return torch.empty_like(table)


@_operator("hash_encode_point_gradient", "Tensor points, Tensor grad, Tensor table, ScalarType dtype")
def _point_gradient(
    points: Tensor, grad: Tensor, table: Tensor, dtype: torch.dtype, scales: list[float], lattice: list[int]
) -> Tensor:
    """[N, D] of the gradient [L * F, N] of the features."""
    found = points.new_empty((triton.cdiv(len(scales), GROUP), *points.shape))
    options = {"features": table.shape[1], "scales": scales, "lattice": lattice, "strides": grad.stride()}
    _launch(kernels.point_gradient, points, table.to(dtype), grad, found, **options)
    return found.sum(dim=0)  # of the groups of levels


@_point_gradient.register_fake
def _(
    points: Tensor, grad: Tensor, table: Tensor, dtype: torch.dtype, scales: list[float], lattice: list[int]
) -> Tensor:
    return torch.empty_like(points)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    points, table, *ctx.rest = inputs
    ctx.save_for_backward(points, table)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    points, table = ctx.saved_tensors
    dtype, _, scales, lattice = ctx.rest
    of_points = of_table = None
    if ctx.needs_input_grad[0]:
        of_points = _point_gradient(points, grad, table, dtype, scales, lattice)
    if ctx.needs_input_grad[1]:
        of_table = _table_gradient(points, grad, table, scales, lattice)
    return of_points, of_table, None, None, None, None


_encode.register_autograd(_backward, setup_context=_save)
