"""Triton kernels that pass once over rows: sums, layer normalisation, GEGLU, softmax and its gradient.

Rows are contiguous; what is added, averaged or exponentiated is float32.
"""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]


@triton.jit
def add(x, y, bias, out, n, C: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Writes x + y + bias, for n rows of C channels."""
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * COLS + tl.arange(0, COLS)
    mask = (r < n)[:, None] & (c < C)[None, :]
    at = r.to(tl.int64)[:, None] * C + c[None, :]
    v = tl.load(x + at, mask=mask, other=0.0).to(tl.float32) + tl.load(y + at, mask=mask, other=0.0).to(tl.float32)
    v += tl.load(bias + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    tl.store(out + at, v.to(out.dtype.element_ty), mask=mask)


@triton.jit
def add_layer_norm(x, y, weight, bias, out, normed, n, eps, C: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Writes x + y, and the layer norm of what was written."""
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, COLS)
    inside = c < C
    mask = (r < n)[:, None] & inside[None, :]
    at = r.to(tl.int64)[:, None] * C + c[None, :]
    v = tl.load(x + at, mask=mask, other=0.0).to(tl.float32) + tl.load(y + at, mask=mask, other=0.0).to(tl.float32)
    v = v.to(out.dtype.element_ty)
    tl.store(out + at, v, mask=mask)
    v = v.to(tl.float32)
    center = tl.sum(v, axis=1) / C
    apart = tl.where(mask, v - center[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(apart * apart, axis=1) / C + eps)
    w = tl.load(weight + c, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)
    found = apart * scale[:, None] * w[None, :] + b[None, :]
    tl.store(normed + at, found.to(normed.dtype.element_ty), mask=mask)


@triton.jit
def geglu(x, out, C: tl.constexpr, BLOCK: tl.constexpr):
    """Writes v * gelu(g) [C] of a row (v, g) [2 C]."""
    row = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = c < C
    v = tl.load(x + row * (2 * C) + c, mask=mask, other=0.0).to(tl.float32)
    g = tl.load(x + row * (2 * C) + C + c, mask=mask, other=0.0).to(tl.float32)
    found = v * g * 0.5 * (1.0 + tl.erf(g * 0.7071067811865476))
    tl.store(out + row * C + c, found.to(out.dtype.element_ty), mask=mask)


@triton.jit
def softmax(x, out, scale, C: tl.constexpr, BLOCK: tl.constexpr):
    """Writes the softmax of ``scale`` times a row of x."""
    row = tl.program_id(0).to(tl.int64) * C
    c = tl.arange(0, BLOCK)
    v = tl.load(x + row + c, mask=c < C, other=float("-inf")).to(tl.float32)
    e = tl.exp((v - tl.max(v, axis=0)) * scale)
    tl.store(out + row + c, (e / tl.sum(e, axis=0)).to(out.dtype.element_ty), mask=c < C)


@triton.jit
def softmax_gradient(p, grad, out, factor, C: tl.constexpr, BLOCK: tl.constexpr):
    """Writes ``factor`` times p * (grad - sum(p * grad)), of rows of probabilities p."""
    row = tl.program_id(0).to(tl.int64) * C
    c = tl.arange(0, BLOCK)
    v = tl.load(p + row + c, mask=c < C, other=0.0).to(tl.float32)
    d = tl.load(grad + row + c, mask=c < C, other=0.0).to(tl.float32)
    found = v * (d - tl.sum(v * d, axis=0)) * factor
    tl.store(out + row + c, found.to(out.dtype.element_ty), mask=c < C)
