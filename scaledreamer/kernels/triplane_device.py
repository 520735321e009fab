"""What the kernels of a triplane share: where points are, what planes hold there, and the way back.

Planes are stored [P, 3, R + 2, R + 2, H], framed by pixels of zeros, so that look-ups need no bounds: beyond the frame
a point is read on it. The gradient of the frame is nobody's.

Axes: P shapes, R pixels per side, B = BLOCK points, H features.
"""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]


@triton.jit
def matmul(a, b, PRECISION: tl.constexpr):
    """a @ b in float32: of inputs in bfloat16, or of float32 read as "tf32", "tf32x3" or "ieee"."""
    if PRECISION == "bf16":
        return tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16))
    else:  # noqa: RET505  # the kernels' compiler follows one branch only where there are two
        return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def relu(x):
    """max(x, 0)."""
    return tl.where(x > 0, x, 0.0)


# -- points ------------------------------------------------------------------------------------------------------


@triton.jit
def point(points, n, inside):
    """x, y, z [B], 0 where there is no point."""
    x = tl.load(points + n * 3, inside, other=0.0)
    y = tl.load(points + n * 3 + 1, inside, other=0.0)
    z = tl.load(points + n * 3 + 2, inside, other=0.0)
    return x, y, z


@triton.jit
def moved(x, y, z, eps, radius, axis, CLAMP: tl.constexpr):
    """A point moved by eps along an axis, and kept in the box with CLAMP."""
    x = x + tl.where(axis == 0, eps, 0.0)
    y = y + tl.where(axis == 1, eps, 0.0)
    z = z + tl.where(axis == 2, eps, 0.0)
    if CLAMP:
        x = tl.minimum(tl.maximum(x, -radius), radius)
        y = tl.minimum(tl.maximum(y, -radius), radius)
        z = tl.minimum(tl.maximum(z, -radius), radius)
    return x, y, z


@triton.jit
def place(x, radius, R: tl.constexpr):
    """In pixels of the framed planes, from the centre of the first: as grid_sample without aligned corners, plus 1."""
    at = ((x / radius + 1.0) * R - 1.0) * 0.5 + 1.0
    return tl.minimum(tl.maximum(at, 0.0), R + 1.0)


@triton.jit
def pixel(at, R: tl.constexpr):
    """The pixel at or before a place, which has a next one; inside the planes also for nan."""
    return tl.minimum(tl.maximum(at.to(tl.int32), 0), R)


# -- features ----------------------------------------------------------------------------------------------------


@triton.jit
def features(planes, x, y, z, radius, R: tl.constexpr, H: tl.constexpr):
    """Sum [B, H] of what the planes over (x, y), (x, z) and (z, y) of a shape hold."""
    S: tl.constexpr = R + 2
    px, py, pz = place(x, radius, R), place(y, radius, R), place(z, radius, R)
    found = tl.zeros([x.shape[0], H], tl.float32)
    for k in range(3):  # not unrolled: all twelve look-ups at once would not fit in the registers
        found += _bilinear(planes + k * S * S * H, tl.where(k == 2, pz, px), tl.where(k == 1, pz, py), R, H)
    return found


@triton.jit
def _bilinear(plane, u, v, R: tl.constexpr, H: tl.constexpr):
    S: tl.constexpr = R + 2
    i, j = pixel(u, R), pixel(v, R)
    s, t = u - i, v - j
    at = plane + ((j * S + i) * H)[:, None] + tl.arange(0, H)[None, :]
    found = ((1 - s) * (1 - t))[:, None] * tl.load(at)
    found += (s * (1 - t))[:, None] * tl.load(at + H)
    found += ((1 - s) * t)[:, None] * tl.load(at + S * H)
    found += (s * t)[:, None] * tl.load(at + (S + 1) * H)
    return found


# -- the way back ------------------------------------------------------------------------------------------------


@triton.jit
def scatter(planes, value, x, y, z, radius, n, inside, R: tl.constexpr, H: tl.constexpr, PRECISION: tl.constexpr):
    """Add ``value`` [B, H], gradients of :func:`features`, to the gradients of the planes of a shape."""
    S: tl.constexpr = R + 2
    px, py, pz = place(x, radius, R), place(y, radius, R), place(z, radius, R)
    for k in range(3):
        u, v = tl.where(k == 2, pz, px), tl.where(k == 1, pz, py)
        i, j, same, first = _shared(u, v, n, inside, R)
        at = planes + k * S * S * H + ((j * S + i) * H)[:, None] + tl.arange(0, H)[None, :]
        for corner in range(4):
            a, b = corner & 1, corner >> 1
            weight = _hat(u - (i + a)) * _hat(v - (j + b))
            total = matmul(same, weight[:, None] * value, PRECISION)
            tl.atomic_add(at + (b * S + a) * H, total, mask=first[:, None], sem="relaxed")


@triton.jit
def scatter_near(
    planes, value, along_x, along_y, along_z, x, y, z, eps, radius, n, inside,
    R: tl.constexpr, H: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """As :func:`scatter` of four points at once: one, and those moved from it along each axis by eps, under a pixel.

    A moved point is in the cell of the first or in the next one along one axis: eight pixels see all four. What the
    four add to a pixel mostly cancels, so it is added up before it is rounded.
    """
    S: tl.constexpr = R + 2
    px, py, pz = place(x, radius, R), place(y, radius, R), place(z, radius, R)
    mx, my, mz = place(x + eps, radius, R), place(y + eps, radius, R), place(z + eps, radius, R)
    for k in tl.static_range(3):
        if k == 0:
            u, mu, v, mv = px, mx, py, my
            still, along_u, along_v = value + along_z, along_x, along_y
        elif k == 1:
            u, mu, v, mv = px, mx, pz, mz
            still, along_u, along_v = value + along_y, along_x, along_z
        else:
            u, mu, v, mv = pz, mz, py, my
            still, along_u, along_v = value + along_x, along_z, along_y
        i, j, same, first = _shared(u, v, n, inside, R)
        at = planes + k * S * S * H + ((j * S + i) * H)[:, None] + tl.arange(0, H)[None, :]
        for corner in range(8):
            # Two bits per corner: (0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (2, 1), (0, 2), (1, 2).
            a, b = (0x4A44 >> (2 * corner)) & 3, (0xA450 >> (2 * corner)) & 3
            hu, hv = _hat(u - (i + a)), _hat(v - (j + b))
            ws, wu, wv = hu * hv, _hat(mu - (i + a)) * hv, hu * _hat(mv - (j + b))
            total = ws[:, None] * still + wu[:, None] * along_u + wv[:, None] * along_v
            total = matmul(same, total, PRECISION)
            seen = tl.sum(same * (ws + wu + wv)[None, :], axis=1) > 0
            tl.atomic_add(at + (b * S + a) * H, total, mask=(first & seen)[:, None], sem="relaxed")


@triton.jit
def _hat(t):
    return tl.maximum(1.0 - tl.abs(t), 0.0)


@triton.jit
def _shared(u, v, n, inside, R: tl.constexpr):
    """The pixels (i, j) of points [B], which points share theirs [B, B], and which are the first in theirs [B]."""
    i, j = pixel(u, R), pixel(v, R)
    cell = tl.where(inside, j * (R + 2) + i, -1)
    same = cell[:, None] == cell[None, :]
    before = tl.sum((same & (n[None, :] < n[:, None])).to(tl.int32), axis=1)
    return i, j, same.to(tl.float32), inside & (before == 0)
