"""Triton kernels of 3DConv-net's layers around their convolutions, forward and back.

A program holds one row of voxels along x, all of it, for a block of channels, and goes through ROWS rows along y.
Twice the voxels per side come from the four coarse rows around a fine one, mixed along z and y, by a product with the
matrix ``spread`` along x; the way back takes that product first, which halves what it writes, and then gathers along z
and y. So nothing is added by atomic operations: the same inputs give the same bits.

Axes: P prompts, S voxels per side of the layer, R = S / 2 before it, C channels, F features of the field; volumes are
[P, S, S, S, C], axes z y x, in the type of the convolutions; computed in float32. FINE, COARSE, CHANNELS and FEATURES
are S, R, the block of C, and F, rounded up to what a product takes.
"""

import math

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

LEAK = tl.constexpr(0.2)
GAIN = tl.constexpr(math.sqrt(2))
CLAMP = tl.constexpr(256.0)
TAPS = tl.constexpr(5)
"""Fine voxels along an axis that a coarse one has a share in, at most."""


# -- pieces ------------------------------------------------------------------------------------------------------


@triton.jit
def activated(x):
    """clamp(sqrt(2) * leaky_relu(x)); nan stays nan."""
    x = tl.where(x > 0, x, x * LEAK) * GAIN
    return tl.where(x > CLAMP, CLAMP, tl.where(x < -CLAMP, -CLAMP, x))


@triton.jit
def slope(x):
    """Derivative of :func:`activated`."""
    out = tl.where(x > 0, x, x * LEAK) * GAIN
    return tl.where(tl.abs(out) < CLAMP, tl.where(x > 0, GAIN, GAIN * LEAK), 0.0)


@triton.jit
def matmul(a, b, TYPE: tl.constexpr):
    """a @ b in float32, of numbers rounded to TYPE."""
    if tl.float32 == TYPE:
        # Tensor cores cut float32 to tf32 instead of rounding it: layer by layer volumes would shrink.
        return tl.dot(a, b, input_precision="tf32x3")
    else:  # noqa: RET505  # the kernels' compiler follows one branch only where there are two
        return tl.dot(a.to(TYPE), b.to(TYPE))


@triton.jit
def share(fine, coarse, R: tl.constexpr):
    """Of coarse voxels in fine ones, trilinear along one axis, corners aligned."""
    away = tl.abs(fine * (R - 1) - coarse * (2 * R - 1))
    return tl.maximum(1.0 - away.to(tl.float32) / (2 * R - 1), 0.0)


@triton.jit
def mixed(volume, z, y, i, c, inside, C: tl.constexpr, R: tl.constexpr):
    """Row [COARSE, CHANNELS] of a coarse volume [R, R, R, C] at the fine place z, y."""
    low_z, low_y = z * (R - 1) // (2 * R - 1), y * (R - 1) // (2 * R - 1)
    high_z, high_y = tl.minimum(low_z + 1, R - 1), tl.minimum(low_y + 1, R - 1)
    at = i[:, None] * C + c[None, :]
    part = (z * (R - 1) % (2 * R - 1)).to(tl.float32) / (2 * R - 1)
    aside = (y * (R - 1) % (2 * R - 1)).to(tl.float32) / (2 * R - 1)
    a = tl.load(volume + (low_z * R + low_y) * (R * C) + at, inside, other=0.0).to(tl.float32)
    b = tl.load(volume + (low_z * R + high_y) * (R * C) + at, inside, other=0.0).to(tl.float32)
    near = a + (b - a) * aside
    a = tl.load(volume + (high_z * R + low_y) * (R * C) + at, inside, other=0.0).to(tl.float32)
    b = tl.load(volume + (high_z * R + high_y) * (R * C) + at, inside, other=0.0).to(tl.float32)
    far = a + (b - a) * aside
    return near + (far - near) * part


@triton.jit
def row_of(S: tl.constexpr, ROWS: tl.constexpr):
    """Prompt, z and first y of a program."""
    program = tl.program_id(0)
    chunks: tl.constexpr = S // ROWS
    return program // (S * chunks), program // chunks % S, program % chunks * ROWS


# -- the first convolution's output: upsampling, noise, bias, activation, learned volume, style ---------------------


@triton.jit
def grow(
    coarse, scale, noise, strength, bias, volume, style, out, noise_step,
    C: tl.constexpr, R: tl.constexpr, ROWS: tl.constexpr, FINE: tl.constexpr, COARSE: tl.constexpr,
    CHANNELS: tl.constexpr, NOISE: tl.constexpr, VOLUME: tl.constexpr, SPREAD: tl.constexpr,
):  # fmt: skip
    """Writes ``out``: (act(scale * up(coarse) + strength * noise + bias) + volume) * style."""
    S: tl.constexpr = 2 * R
    p, z, first = row_of(S, ROWS)
    j, i, c = tl.arange(0, FINE), tl.arange(0, COARSE), tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = c < C
    inside, below = (j < S)[:, None] & there[None, :], (i < R)[:, None] & there[None, :]
    spread = share(j[:, None], i[None, :], R)
    d, b = tl.load(scale + p * C + c, there, other=0.0), tl.load(bias + c, there, other=0.0)
    s = tl.load(style + p * C + c, there, other=0.0)
    coarse += p.to(tl.int64) * (R * R * R * C)
    for n in range(ROWS):
        y = first + n
        row = (p * S + z).to(tl.int64) * S + y
        x = matmul(spread, mixed(coarse, z, y, i, c, below, C, R), SPREAD) * d[None, :] + b[None, :]
        if NOISE:
            grain = tl.load(noise + p.to(tl.int64) * noise_step + (z * S + y) * S + j, j < S, other=0.0)
            x += (grain * tl.load(strength))[:, None]
        x = activated(x)
        if VOLUME:
            x += tl.load(volume + c[None, :] * (S * S * S) + ((z * S + y) * S + j)[:, None], inside, other=0.0)
        tl.store(out + row * (S * C) + j[:, None] * C + c[None, :], (x * s[None, :]).to(out.dtype.element_ty), inside)


@triton.jit
def grow_back(
    grad, coarse, scale, noise, strength, bias, volume, style, half, sums, noise_step,
    C: tl.constexpr, R: tl.constexpr, ROWS: tl.constexpr, FINE: tl.constexpr, COARSE: tl.constexpr,
    CHANNELS: tl.constexpr, NOISE: tl.constexpr, VOLUME: tl.constexpr, SPREAD: tl.constexpr,
):  # fmt: skip
    """Writes ``half`` [P, S, S, R, C], the gradient before the upsampling along x, and a program's shares in those of
    style and strength, [programs, 2, C]."""
    S: tl.constexpr = 2 * R
    p, z, first = row_of(S, ROWS)
    j, i, c = tl.arange(0, FINE), tl.arange(0, COARSE), tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = c < C
    inside, below = (j < S)[:, None] & there[None, :], (i < R)[:, None] & there[None, :]
    spread, gather = share(j[:, None], i[None, :], R), share(j[None, :], i[:, None], R)
    d, b = tl.load(scale + p * C + c, there, other=0.0), tl.load(bias + c, there, other=0.0)
    s = tl.load(style + p * C + c, there, other=0.0)
    of_style, of_noise = tl.zeros([CHANNELS], tl.float32), tl.zeros([CHANNELS], tl.float32)
    coarse += p.to(tl.int64) * (R * R * R * C)
    for n in range(ROWS):
        y = first + n
        row = (p * S + z).to(tl.int64) * S + y
        g = tl.load(grad + row * (S * C) + j[:, None] * C + c[None, :], inside, other=0.0).to(tl.float32)
        x = matmul(spread, mixed(coarse, z, y, i, c, below, C, R), SPREAD) * d[None, :] + b[None, :]
        if NOISE:
            grain = tl.load(noise + p.to(tl.int64) * noise_step + (z * S + y) * S + j, j < S, other=0.0)
            x += (grain * tl.load(strength))[:, None]
        value = activated(x)
        if VOLUME:
            value += tl.load(volume + c[None, :] * (S * S * S) + ((z * S + y) * S + j)[:, None], inside, other=0.0)
        of_style += tl.sum(g * value, axis=0)
        inner = g * s[None, :] * slope(x)
        if NOISE:
            of_noise += tl.sum(inner * grain[:, None], axis=0)
        low = matmul(gather, inner, SPREAD)
        tl.store(half + row * (R * C) + i[:, None] * C + c[None, :], low.to(half.dtype.element_ty), below)
    sums += tl.program_id(0).to(tl.int64) * (2 * C) + c
    tl.store(sums, of_style, there)
    tl.store(sums + C, of_noise, there)


@triton.jit
def volume_back(
    grad,
    style,
    out,
    P: tl.constexpr,
    C: tl.constexpr,
    VOXELS: tl.constexpr,
    BLOCK: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Writes ``out`` [C, VOXELS], the gradient of the learned volume, of ``grad`` [P, VOXELS, C]."""
    v = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (v < VOXELS)[:, None] & (c < C)[None, :]
    total = tl.zeros([BLOCK, CHANNELS], tl.float32)
    for p in range(P):
        s = tl.load(style + p * C + c, c < C, other=0.0)
        total += tl.load(grad + v[:, None] * C + c[None, :], inside, other=0.0).to(tl.float32) * s[None, :]
        grad += VOXELS * C
    tl.store(out + c[None, :].to(tl.int64) * VOXELS + v[:, None], total, inside)


# -- the way back through the upsampling, in two passes --------------------------------------------------------------


@triton.jit
def shrink_x(
    grad, half, C: tl.constexpr, R: tl.constexpr, ROWS: tl.constexpr, FINE: tl.constexpr, COARSE: tl.constexpr,
    CHANNELS: tl.constexpr, SPREAD: tl.constexpr,
):  # fmt: skip
    """Writes ``half`` [P, S, S, R, C] of ``grad`` [P, S, S, S, C]: the transposed upsampling along x."""
    S: tl.constexpr = 2 * R
    p, z, first = row_of(S, ROWS)
    j, i, c = tl.arange(0, FINE), tl.arange(0, COARSE), tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = c < C
    inside, below = (j < S)[:, None] & there[None, :], (i < R)[:, None] & there[None, :]
    gather = share(j[None, :], i[:, None], R)
    for n in range(ROWS):
        y = first + n
        row = (p * S + z).to(tl.int64) * S + y
        g = tl.load(grad + row * (S * C) + j[:, None] * C + c[None, :], inside, other=0.0)
        low = matmul(gather, g.to(tl.float32), SPREAD)
        tl.store(half + row * (R * C) + i[:, None] * C + c[None, :], low.to(half.dtype.element_ty), below)


@triton.jit
def shrink_zy(
    half, coarse, scale, out, sums,
    C: tl.constexpr, R: tl.constexpr, COARSE: tl.constexpr, CHANNELS: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """Writes ``out`` [P, R, R, R, C]: the transposed upsampling of ``half`` along z and y.

    SCALED: times ``scale``; and a row's shares in the gradients of bias and scale, [P * R * R, 2, C].
    """
    S: tl.constexpr = 2 * R
    program = tl.program_id(0)
    p, z, y = program // (R * R), program // R % R, program % R
    i, c = tl.arange(0, COARSE), tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = c < C
    inside = (i < R)[:, None] & there[None, :]
    at = i[:, None] * C + c[None, :]
    # The first fine voxel beyond the coarse one before.
    first_z = tl.where(z > 0, (z - 1) * (S - 1) // (R - 1) + 1, 0)
    first_y = tl.where(y > 0, (y - 1) * (S - 1) // (R - 1) + 1, 0)
    total = tl.zeros([COARSE, CHANNELS], tl.float32)
    half += p.to(tl.int64) * (S * S * R * C)
    for a in tl.static_range(TAPS):
        part = share(first_z + a, z, R)
        for b in tl.static_range(TAPS):
            weight = part * share(first_y + b, y, R)
            there_too = (first_z + a < S) & (first_y + b < S) & (weight > 0)
            row = half + ((first_z + a) * S + first_y + b).to(tl.int64) * (R * C)
            total += weight * tl.load(row + at, inside & there_too, other=0.0).to(tl.float32)
    row = program.to(tl.int64) * (R * C)
    if SCALED:
        x = tl.load(coarse + row + at, inside, other=0.0).to(tl.float32)
        sums += program.to(tl.int64) * (2 * C) + c
        tl.store(sums, tl.sum(total, axis=0), there)
        tl.store(sums + C, tl.sum(total * x, axis=0), there)
        total *= tl.load(scale + p * C + c, there, other=0.0)[None, :]
    tl.store(out + row + at, total.to(out.dtype.element_ty), inside)


# -- the second convolution's output: noise, bias, activation; features; the style of what comes next -----------------


@triton.jit
def finish(
    volume, scale, noise, strength, bias, style, head, head_bias, before, out, features, noise_step,
    C: tl.constexpr, F: tl.constexpr, S: tl.constexpr, ROWS: tl.constexpr, FINE: tl.constexpr, COARSE: tl.constexpr,
    CHANNELS: tl.constexpr, FEATURES: tl.constexpr,
    NOISE: tl.constexpr, STYLED: tl.constexpr, ADDED: tl.constexpr, SPREAD: tl.constexpr,
):  # fmt: skip
    """Writes ``features`` [P, S, S, S, F]: up(before) + x @ head + head_bias, x = act(scale * volume + strength * noise
    + bias); STYLED: and ``out``, x * style."""
    R: tl.constexpr = S // 2
    p, z, first = row_of(S, ROWS)
    j, i, f, k = tl.arange(0, FINE), tl.arange(0, COARSE), tl.arange(0, FEATURES), tl.arange(0, CHANNELS)
    type = volume.dtype.element_ty
    shown = f < F
    if ADDED:
        spread = share(j[:, None], i[None, :], R)
        before += p.to(tl.int64) * (R * R * R * F)
    for n in range(ROWS):
        y = first + n
        row = ((p * S + z).to(tl.int64) * S + y) * S
        total = tl.zeros([FINE, FEATURES], tl.float32) + tl.load(head_bias + f, shown, other=0.0)[None, :]
        if ADDED:
            total += matmul(spread, mixed(before, z, y, i, f, (i < R)[:, None] & shown[None, :], F, R), SPREAD)
        if NOISE:
            grain = tl.load(noise + p.to(tl.int64) * noise_step + (z * S + y) * S + j, j < S, other=0.0)
            grain *= tl.load(strength)
        for block in range(0, C, CHANNELS):
            c = block + k
            there = c < C
            inside, at = (j < S)[:, None] & there[None, :], row * C + j[:, None] * C + c[None, :]
            x = tl.load(volume + at, inside, other=0.0).to(tl.float32)
            x = x * tl.load(scale + p * C + c, there, other=0.0)[None, :]
            x += tl.load(bias + c, there, other=0.0)[None, :]
            if NOISE:
                x += grain[:, None]
            x = activated(x)
            if STYLED:
                s = tl.load(style + p * C + c, there, other=0.0)
                tl.store(out + at, (x * s[None, :]).to(type), inside)
            place = (p * C + c)[:, None] * F + f[None, :]
            total += matmul(x, tl.load(head + place, there[:, None] & shown[None, :], other=0.0), type)
        shape = (j < S)[:, None] & shown[None, :]
        tl.store(features + row * F + j[:, None] * F + f[None, :], total.to(features.dtype.element_ty), shape)


@triton.jit
def finish_back(
    grad_out, grad_features, volume, scale, noise, strength, bias, style, head, out, sums, of_head, of_head_bias,
    noise_step,
    C: tl.constexpr, F: tl.constexpr, S: tl.constexpr, ROWS: tl.constexpr, FINE: tl.constexpr,
    CHANNELS: tl.constexpr, FEATURES: tl.constexpr, NOISE: tl.constexpr, STYLED: tl.constexpr,
):  # fmt: skip
    """Writes ``out``, the gradient of ``volume``, and a program's shares in those of bias, scale, strength and style
    [programs, 4, C], of the head [programs, C, F] and its bias [programs, F]."""
    p, z, first = row_of(S, ROWS)
    j, f, c = tl.arange(0, FINE), tl.arange(0, FEATURES), tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    type = volume.dtype.element_ty
    there, shown = c < C, f < F
    inside = (j < S)[:, None] & there[None, :]
    d, b = tl.load(scale + p * C + c, there, other=0.0), tl.load(bias + c, there, other=0.0)
    if STYLED:
        s = tl.load(style + p * C + c, there, other=0.0)
    turned = tl.load(head + (p * C + c)[None, :] * F + f[:, None], there[None, :] & shown[:, None], other=0.0)
    of_bias, of_scale = tl.zeros([CHANNELS], tl.float32), tl.zeros([CHANNELS], tl.float32)
    of_noise, of_style = tl.zeros([CHANNELS], tl.float32), tl.zeros([CHANNELS], tl.float32)
    of_shift = tl.zeros([FEATURES], tl.float32)
    weights = tl.zeros([CHANNELS, FEATURES], tl.float32)
    for n in range(ROWS):
        y = first + n
        row = ((p * S + z).to(tl.int64) * S + y) * S
        at = row * C + j[:, None] * C + c[None, :]
        to = tl.load(
            grad_features + row * F + j[:, None] * F + f[None, :], (j < S)[:, None] & shown[None, :], other=0.0
        )
        v = tl.load(volume + at, inside, other=0.0).to(tl.float32)
        x = v * d[None, :] + b[None, :]
        if NOISE:
            grain = tl.load(noise + p.to(tl.int64) * noise_step + (z * S + y) * S + j, j < S, other=0.0)
            x += (grain * tl.load(strength))[:, None]
        value = activated(x)
        g = matmul(to, turned, type)
        weights += matmul(tl.trans(value.to(type)), to, type)
        of_shift += tl.sum(to.to(tl.float32), axis=0)
        if STYLED:
            also = tl.load(grad_out + at, inside, other=0.0).to(tl.float32)
            of_style += tl.sum(also * value, axis=0)
            g += also * s[None, :]
        inner = g * slope(x)
        of_bias += tl.sum(inner, axis=0)
        of_scale += tl.sum(inner * v, axis=0)
        if NOISE:
            of_noise += tl.sum(inner * grain[:, None], axis=0)
        tl.store(out + at, (inner * d[None, :]).to(type), inside)
    program = tl.program_id(0).to(tl.int64)
    sums += program * (4 * C) + c
    tl.store(sums, of_bias, there)
    tl.store(sums + C, of_scale, there)
    tl.store(sums + 2 * C, of_noise, there)
    tl.store(sums + 3 * C, of_style, there)
    tl.store(of_head + (program * C + c)[:, None] * F + f[None, :], weights, there[:, None] & shown[None, :])
    if tl.program_id(1) == 0:
        tl.store(of_head_bias + program * F + f, of_shift, shown)
