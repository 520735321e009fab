"""Triton kernels of group normalisation with its activation, for tensors whose channels are innermost.

Sums over a group run in two passes: each program adds up its own positions, channel by channel, and a second, small
kernel joins these parts. So one image of 512 x 512, whose groups are few and large, still fills a GPU; and groups of
any number of channels are read in whole lines.

Axes: B samples, N positions, C channels, G groups of PER channels, S parts of ``per`` positions each. ``x``, ``grad``,
``skip`` [B, N, C] are contiguous; ``parts`` [2, B, S, C]; ``mean``, ``rstd`` [B, G]; ``sums`` [2, B, G]; all statistics
are float32. ``shift`` [B or 1, C] is added to x before all else; ``stride`` is C, or 0 where samples share it.
"""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]


@triton.jit
def _affine(
    mean, rstd, weight, bias, shift, b, stride, c, inside, groups,
    PER: tl.constexpr, SHIFTED: tl.constexpr,
):  # fmt: skip
    """Of channels c: r and m with (x + shift - mean) / std = r x + m, the weight w, and a and o with y = a x + o."""
    r = tl.load(rstd + b * groups + c // PER, mask=inside, other=0.0)
    m = -tl.load(mean + b * groups + c // PER, mask=inside, other=0.0)
    if SHIFTED:
        m += tl.load(shift + b * stride + c, mask=inside, other=0.0).to(tl.float32)
    m *= r
    w = tl.load(weight + c, mask=inside, other=0.0).to(tl.float32)
    o = tl.load(bias + c, mask=inside, other=0.0).to(tl.float32) + m * w
    return r, m, w, r * w, o


@triton.jit
def moments(x, parts, n, channels, per, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Writes, of each channel in each part, the mean and the sum of squared differences from it."""
    part, b = tl.program_id(0), tl.program_id(2)
    c = tl.program_id(1) * COLS + tl.arange(0, COLS)
    inside = c < channels
    x += b.to(tl.int64) * n * channels
    pivot = tl.load(x + c, mask=inside, other=0.0).to(tl.float32)  # near the mean, so that squares do not cancel
    first, second = tl.zeros([ROWS, COLS], tl.float32), tl.zeros([ROWS, COLS], tl.float32)
    start = part * per
    end = tl.minimum(start + per, n)
    row = start
    while row < end:
        rows = row + tl.arange(0, ROWS)
        mask = (rows < end)[:, None] & inside[None, :]
        v = tl.load(x + rows[:, None] * channels + c[None, :], mask=mask, other=0.0).to(tl.float32)
        v = tl.where(mask, v - pivot[None, :], 0.0)
        first += v
        second += v * v
        row += ROWS
    s = tl.sum(first, axis=0)
    mean = s / (end - start)
    at = (b * tl.num_programs(0) + part).to(tl.int64) * channels + c
    tl.store(parts + at, pivot + mean, mask=inside)
    half = (tl.num_programs(0) * tl.num_programs(2)).to(tl.int64) * channels
    tl.store(parts + half + at, tl.maximum(tl.sum(second, axis=0) - s * mean, 0.0), mask=inside)


@triton.jit
def join_moments(
    parts, shift, mean, rstd, n, channels, per, splits, stride, eps,
    PER: tl.constexpr, SHIFTED: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Writes ``mean`` and ``rstd`` of x + shift, one group of one sample per program."""
    g, b = tl.program_id(0), tl.program_id(1)
    k = tl.arange(0, COLS)
    c = g * PER + k
    mine = k < PER
    base = parts + b.to(tl.int64) * splits * channels
    half = tl.num_programs(1).to(tl.int64) * splits * channels
    moved = tl.zeros([COLS], tl.float32)
    if SHIFTED:
        moved = tl.load(shift + b * stride + c, mask=mine, other=0.0).to(tl.float32)
    total = tl.zeros([ROWS, COLS], tl.float32)
    row = 0
    while row < splits:
        s = row + tl.arange(0, ROWS)
        mask = (s < splits)[:, None] & mine[None, :]
        count = tl.minimum(n - s * per, per).to(tl.float32)[:, None]
        found = tl.load(base + s[:, None] * channels + c[None, :], mask=mask, other=0.0)
        total += tl.where(mask, (found + moved[None, :]) * count, 0.0)
        row += ROWS
    whole = n * 1.0 * PER  # n is a constant where it is 1
    center = tl.sum(tl.sum(total, axis=1), axis=0) / whole
    total = tl.zeros([ROWS, COLS], tl.float32)
    row = 0
    while row < splits:
        s = row + tl.arange(0, ROWS)
        mask = (s < splits)[:, None] & mine[None, :]
        count = tl.minimum(n - s * per, per).to(tl.float32)[:, None]
        at = s[:, None] * channels + c[None, :]
        apart = tl.load(base + at, mask=mask, other=0.0) + moved[None, :] - center
        within = tl.load(base + half + at, mask=mask, other=0.0)
        total += tl.where(mask, within + apart * apart * count, 0.0)
        row += ROWS
    variance = tl.sum(tl.sum(total, axis=1), axis=0) / whole
    at = b * tl.num_programs(0) + g
    tl.store(mean + at, center)
    tl.store(rstd + at, 1.0 / tl.sqrt(variance + eps))


@triton.jit
def normalise(
    x, shift, mean, rstd, weight, bias, y, n, channels, per, stride, groups,
    PER: tl.constexpr, SHIFTED: tl.constexpr, SILU: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Writes ``y`` [B, N, C]."""
    part, b = tl.program_id(0), tl.program_id(2)
    c = tl.program_id(1) * COLS + tl.arange(0, COLS)
    inside = c < channels
    _, _, _, a, o = _affine(mean, rstd, weight, bias, shift, b, stride, c, inside, groups, PER, SHIFTED)
    x += b.to(tl.int64) * n * channels
    y += b.to(tl.int64) * n * channels
    start = part * per
    end = tl.minimum(start + per, n)
    row = start
    while row < end:
        rows = row + tl.arange(0, ROWS)
        mask = (rows < end)[:, None] & inside[None, :]
        at = rows[:, None] * channels + c[None, :]
        z = tl.load(x + at, mask=mask, other=0.0).to(tl.float32) * a[None, :] + o[None, :]
        if SILU:
            z = z / (1.0 + tl.exp(-z))
        tl.store(y + at, z.to(y.dtype.element_ty), mask=mask)
        row += ROWS


@triton.jit
def _slope(grad, z, SILU: tl.constexpr):
    """The gradient with respect to z of what ``grad`` is with respect to the activation of z."""
    if SILU:
        s = 1.0 / (1.0 + tl.exp(-z))
        grad = grad * s * (1.0 + z * (1.0 - s))
    return grad


@triton.jit
def gradient_sums(
    grad, x, shift, mean, rstd, weight, bias, parts, n, channels, per, stride, groups,
    PER: tl.constexpr, SHIFTED: tl.constexpr, SILU: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Writes, of each channel in each part, the sums of the gradient behind the activation and of it times x^."""
    part, b = tl.program_id(0), tl.program_id(2)
    c = tl.program_id(1) * COLS + tl.arange(0, COLS)
    inside = c < channels
    r, m, _, a, o = _affine(mean, rstd, weight, bias, shift, b, stride, c, inside, groups, PER, SHIFTED)
    x += b.to(tl.int64) * n * channels
    grad += b.to(tl.int64) * n * channels
    first, second = tl.zeros([ROWS, COLS], tl.float32), tl.zeros([ROWS, COLS], tl.float32)
    start = part * per
    end = tl.minimum(start + per, n)
    row = start
    while row < end:
        rows = row + tl.arange(0, ROWS)
        mask = (rows < end)[:, None] & inside[None, :]
        at = rows[:, None] * channels + c[None, :]
        v = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
        d = tl.load(grad + at, mask=mask, other=0.0).to(tl.float32)
        d = _slope(d, v * a[None, :] + o[None, :], SILU)
        first += d
        second += d * (v * r[None, :] + m[None, :])
        row += ROWS
    at = (b * tl.num_programs(0) + part).to(tl.int64) * channels + c
    tl.store(parts + at, tl.sum(first, axis=0), mask=inside)
    half = (tl.num_programs(0) * tl.num_programs(2)).to(tl.int64) * channels
    tl.store(parts + half + at, tl.sum(second, axis=0), mask=inside)


@triton.jit
def join_sums(
    parts, weight, sums, n, channels, splits, PER: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr
):  # fmt: skip
    """Writes ``sums``: means over each group of the weighted gradient and of it times x^."""
    g, b = tl.program_id(0), tl.program_id(1)
    k = tl.arange(0, COLS)
    c = g * PER + k
    mine = k < PER
    base = parts + b.to(tl.int64) * splits * channels
    half = tl.num_programs(1).to(tl.int64) * splits * channels
    w = tl.load(weight + c, mask=mine, other=0.0).to(tl.float32)
    first, second = tl.zeros([ROWS, COLS], tl.float32), tl.zeros([ROWS, COLS], tl.float32)
    row = 0
    while row < splits:
        s = row + tl.arange(0, ROWS)
        mask = (s < splits)[:, None] & mine[None, :]
        at = s[:, None] * channels + c[None, :]
        first += tl.load(base + at, mask=mask, other=0.0)
        second += tl.load(base + half + at, mask=mask, other=0.0)
        row += ROWS
    whole = n * 1.0 * PER  # n is a constant where it is 1
    at = b * tl.num_programs(0) + g
    tl.store(sums + at, tl.sum(tl.sum(first, axis=0) * w, axis=0) / whole)
    half = tl.num_programs(0) * tl.num_programs(1)
    tl.store(sums + half + at, tl.sum(tl.sum(second, axis=0) * w, axis=0) / whole)


@triton.jit
def gradient(
    grad, x, shift, mean, rstd, weight, bias, sums, skip, out, n, channels, per, stride, groups,
    PER: tl.constexpr, SHIFTED: tl.constexpr, SKIP: tl.constexpr, SILU: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Writes the gradient with respect to x, plus ``skip``."""
    part, b = tl.program_id(0), tl.program_id(2)
    c = tl.program_id(1) * COLS + tl.arange(0, COLS)
    inside = c < channels
    r, m, w, a, o = _affine(mean, rstd, weight, bias, shift, b, stride, c, inside, groups, PER, SHIFTED)
    first = tl.load(sums + b * groups + c // PER, mask=inside, other=0.0)
    second = tl.load(sums + (tl.num_programs(2) + b) * groups + c // PER, mask=inside, other=0.0)
    base = b.to(tl.int64) * n * channels
    start = part * per
    end = tl.minimum(start + per, n)
    row = start
    while row < end:
        rows = row + tl.arange(0, ROWS)
        mask = (rows < end)[:, None] & inside[None, :]
        at = base + rows[:, None] * channels + c[None, :]
        v = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
        d = tl.load(grad + at, mask=mask, other=0.0).to(tl.float32)
        d = _slope(d, v * a[None, :] + o[None, :], SILU) * w[None, :]
        d = (d - first[None, :] - (v * r[None, :] + m[None, :]) * second[None, :]) * r[None, :]
        if SKIP:
            d += tl.load(skip + at, mask=mask, other=0.0).to(tl.float32)
        tl.store(out + at, d.to(out.dtype.element_ty), mask=mask)
        row += ROWS
