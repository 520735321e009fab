"""Single passes over rows by Triton kernels, as operators of PyTorch that torch.compile leaves whole."""

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
from torch import Tensor

from scaledreamer.kernels import rows_kernels
from scaledreamer.kernels.launch import on, operator

kernels: Any = rows_kernels  # type checkers do not know that they are launched by an index

BLOCK = 2048
"""Numbers per program where rows do not matter."""

WARPS = 4


def _row(columns: int) -> dict[str, int]:
    """A program that holds a whole row: 16 numbers per thread."""
    block = triton.next_power_of_2(columns)
    return {"BLOCK": block, "num_warps": min(16, max(1, block // 512))}


@operator("add_bias", "(Tensor x, Tensor y, Tensor bias) -> Tensor")
def add(x: Tensor, y: Tensor, bias: Tensor) -> Tensor:
    """x + y + bias, of contiguous x and y [..., C] and bias [C]."""
    out = torch.empty_like(x)
    if x.numel():
        with torch.cuda.device_of(x):
            n, channels = x.numel() // x.shape[-1], x.shape[-1]
            cols = next((k for k in (128, 64) if channels % k == 0), min(128, triton.next_power_of_2(channels)))
            rows = BLOCK // cols
            grid = (triton.cdiv(n, rows), triton.cdiv(channels, cols))
            on(kernels.add, grid)(x, y, bias, out, n, C=channels, ROWS=rows, COLS=cols, num_warps=WARPS)
    return out


@add.register_fake
def _(x: Tensor, y: Tensor, bias: Tensor) -> Tensor:
    return torch.empty_like(x)


@operator("add_layer_norm", "(Tensor x, Tensor y, Tensor weight, Tensor bias, float eps) -> (Tensor, Tensor)")
def add_layer_norm(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + y and its layer norm, of contiguous tensors [..., C]."""
    out, normed = torch.empty_like(x), torch.empty_like(x)
    channels = x.shape[-1]
    n = x.numel() // channels
    cols = triton.next_power_of_2(channels)
    rows = max(1, BLOCK // cols)
    if n:
        with torch.cuda.device_of(x):
            on(kernels.add_layer_norm, (triton.cdiv(n, rows),))(
                *(x, y, weight, bias, out, normed, n, eps), C=channels, ROWS=rows, COLS=cols, num_warps=WARPS
            )
    return out, normed


@add_layer_norm.register_fake
def _(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


@operator("geglu", "(Tensor x) -> Tensor")
def geglu(x: Tensor) -> Tensor:
    """v * gelu(g) [..., C] of contiguous (v, g) [..., 2 C]."""
    channels = x.shape[-1] // 2
    out = _half(x)
    if out.numel():
        block = min(BLOCK, triton.next_power_of_2(channels))
        with torch.cuda.device_of(x):
            grid = (out.numel() // channels, triton.cdiv(channels, block))
            on(kernels.geglu, grid)(x, out, C=channels, BLOCK=block, num_warps=WARPS)
    return out


@geglu.register_fake
def _half(x: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], x.shape[-1] // 2))


@operator("softmax", "(Tensor x, float scale, ScalarType dtype) -> Tensor")
def softmax(x: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """Softmax of scale * x over the last axis of a contiguous tensor, in another type."""
    out = _like(x, scale, dtype)
    if x.numel():
        with torch.cuda.device_of(x):
            on(kernels.softmax, (x.numel() // x.shape[-1],))(x, out, scale, C=x.shape[-1], **_row(x.shape[-1]))
    return out


@softmax.register_fake
def _like(x: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(x, dtype=dtype)


@operator("softmax_gradient", "(Tensor p, Tensor grad, float factor) -> Tensor")
def softmax_gradient(p: Tensor, grad: Tensor, factor: float) -> Tensor:
    """factor * p * (grad - sum(p * grad)), over the last axis of contiguous tensors."""
    out = torch.empty_like(p)
    if p.numel():
        with torch.cuda.device_of(p):
            columns = p.shape[-1]
            on(kernels.softmax_gradient, (p.numel() // columns,))(p, grad, out, factor, C=columns, **_row(columns))
    return out


@softmax_gradient.register_fake
def _(p: Tensor, grad: Tensor, factor: float) -> Tensor:
    return torch.empty_like(p)
