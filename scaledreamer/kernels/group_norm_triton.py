"""Group normalisation by Triton kernels, as operators of PyTorch that torch.compile leaves whole.

Nothing here waits for the GPU, so all of it can be recorded in CUDA graphs.
"""

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
from torch import Tensor

from scaledreamer.kernels import group_norm_kernels
from scaledreamer.kernels.launch import on, operator

kernels: Any = group_norm_kernels  # type checkers do not know that they are launched by an index

TILE = 4096
"""Numbers that a program holds at a time: positions times channels."""

CHANNELS = 128
"""Channels of a program at most: a line of 256 bytes."""

PROGRAMS = 1056
"""Programs to aim for: eight on each of an H100's 132 processors."""

WARPS = 4
JOINED = 1024  # parts times channels that a joining program holds at a time


def _shape(x: Tensor) -> tuple[tuple[int, int, int], int, dict[str, int]]:
    """Of a launch over x [B, N, C]: its grid, positions per part, and the shape of a program."""
    batch, n, channels = x.shape
    cols = next((k for k in (CHANNELS, CHANNELS // 2) if channels % k == 0), None)
    cols = cols or min(CHANNELS, triton.next_power_of_2(channels))
    rows, blocks = TILE // cols, triton.cdiv(channels, cols)
    wanted = max(1, PROGRAMS // (batch * blocks))
    per = rows * triton.cdiv(n, rows * wanted)
    return (triton.cdiv(n, per), blocks, batch), per, {"ROWS": rows, "COLS": cols, "num_warps": WARPS}


def _joining(per_group: int, splits: int) -> dict[str, int]:
    cols = triton.next_power_of_2(per_group)
    return {"ROWS": min(triton.next_power_of_2(splits), max(1, JOINED // cols)), "COLS": cols, "num_warps": WARPS}


def _stride(x: Tensor, shift: Tensor | None) -> int:
    """Between the shifts of two samples."""
    return 0 if shift is None or shift.shape[0] == 1 else x.shape[2]


@operator(
    "group_norm",
    "(Tensor x, Tensor weight, Tensor bias, Tensor? shift, int groups, float eps, bool silu)"
    " -> (Tensor, Tensor, Tensor)",
)
def group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor | None, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """y [B, N, C], mean [B, G], rstd [B, G] of contiguous x [B, N, C]."""
    found = _outputs(x, weight, bias, shift, groups, eps, silu)
    if x.numel() == 0:
        return found
    y, mean, rstd = found
    (batch, n, channels), (grid, per, tile) = x.shape, _shape(x)
    each, splits, stride = channels // groups, grid[0], _stride(x, shift)
    with torch.cuda.device_of(x):
        parts = x.new_empty((2, batch, splits, channels), dtype=torch.float32)
        on(kernels.moments, grid)(x, parts, n, channels, per, **tile)
        on(kernels.join_moments, (groups, batch))(
            *(parts, shift, mean, rstd, n, channels, per, splits, stride, eps),
            PER=each,
            SHIFTED=shift is not None,
            **_joining(each, splits),
        )
        on(kernels.normalise, grid)(
            *(x, shift, mean, rstd, weight, bias, y, n, channels, per, stride, groups),
            PER=each,
            SHIFTED=shift is not None,
            SILU=silu,
            **tile,
        )
    return y, mean, rstd


@group_norm.register_fake
def _outputs(
    x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor | None, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    statistics = {"size": (x.shape[0], groups), "dtype": torch.float32}
    return torch.empty_like(x), x.new_empty(**statistics), x.new_empty(**statistics)


@operator(
    "group_norm_gradient",
    "(Tensor grad, Tensor x, Tensor mean, Tensor rstd, Tensor weight, Tensor bias, Tensor? shift, Tensor? skip,"
    " bool silu) -> Tensor",
)
def group_norm_gradient(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    bias: Tensor,
    shift: Tensor | None,
    skip: Tensor | None,
    silu: bool,
) -> Tensor:
    """The gradient with respect to x, plus ``skip``, of contiguous tensors [B, N, C]."""
    out = torch.empty_like(x)
    if x.numel() == 0:
        return out
    (batch, n, channels), (grid, per, tile) = x.shape, _shape(x)
    groups, splits, stride = mean.shape[1], grid[0], _stride(x, shift)
    each, shifted = channels // groups, shift is not None
    with torch.cuda.device_of(x):
        parts = x.new_empty((2, batch, splits, channels), dtype=torch.float32)
        sums = x.new_empty((2, batch, groups), dtype=torch.float32)
        given, sizes = (grad, x, shift, mean, rstd, weight, bias), (n, channels, per, stride, groups)
        on(kernels.gradient_sums, grid)(*given, parts, *sizes, PER=each, SHIFTED=shifted, SILU=silu, **tile)
        on(kernels.join_sums, (groups, batch))(
            parts, weight, sums, n, channels, splits, PER=each, **_joining(each, splits)
        )
        on(kernels.gradient, grid)(
            *(*given, sums, skip, out, *sizes),
            PER=each,
            SHIFTED=shifted,
            SKIP=skip is not None,
            SILU=silu,
            **tile,
        )
    return out


@group_norm_gradient.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    bias: Tensor,
    shift: Tensor | None,
    skip: Tensor | None,
    silu: bool,
) -> Tensor:
    return torch.empty_like(x)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, shift, _, _, ctx.silu = inputs
    ctx.save_for_backward(x, *output[1:], weight, bias, shift)


def _backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, mean, rstd, weight, bias, shift = ctx.saved_tensors
    found = group_norm_gradient(grad.contiguous(), x, mean, rstd, weight, bias, shift, None, ctx.silu)
    return found, None, None, None, None, None, None


group_norm.register_autograd(_backward, setup_context=_save)
