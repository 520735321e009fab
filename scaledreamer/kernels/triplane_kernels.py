"""Triton kernels of a triplane's field: distances with their differences, colours, and the way back of both.

A head is last relu(second relu(first features)). Features are linear in the planes, so the first layer is applied to
the planes, not to the points: kernels read planes of H hidden features (:mod:`scaledreamer.kernels.triplane_device`).

Differences are carried through a head as such: second (relu(h') - relu(h)) is rounded relative to itself, while the
difference of two distances is rounded relative to them and then divided by eps. Products of differences can so be in
tf32. Also on the way back: what the four points of a difference give cancels but for what they differ in, and is
written so that the difference is rounded, not its parts.

Axes: P shapes, N points per shape, H features. ``points`` [P, N, 3], ``second`` [H, H] (out by in), ``last``
[outputs, H].
"""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from scaledreamer.kernels.triplane_device import features, matmul, moved, point, relu, scatter, scatter_near


@triton.jit(do_not_specialize=["n_points"])
def distance(
    points, planes, second, last, sdf, gradient, n_points, radius, sphere_radius, eps,
    R: tl.constexpr, H: tl.constexpr, BLOCK: tl.constexpr,
    DIFFERENCES: tl.constexpr, CLAMP: tl.constexpr, VALUES: tl.constexpr, SLOPES: tl.constexpr,
):  # fmt: skip
    """Writes ``sdf`` [P, N] and, with DIFFERENCES, ``gradient`` [P, N, 3]. Products in VALUES, of slopes in SLOPES."""
    n, inside, start, offset = _block(tl.program_id(0), n_points, R, H, BLOCK)
    x, y, z = point(points + start * 3, n, inside)
    planes += offset
    ends = tl.load(last + tl.arange(0, H))[None, :]
    layer = _transposed(second, H)  # [in, out]
    at = relu(features(planes, x, y, z, radius, R, H))
    h = matmul(at, layer, VALUES)
    norm = tl.sqrt(x * x + y * y + z * z)
    tl.store(sdf + start + n, tl.sum(relu(h) * ends, axis=1) + norm - sphere_radius, inside)
    if DIFFERENCES:
        for axis in range(3):  # not unrolled: look-ups of one point at a time fill the registers
            x2, y2, z2 = moved(x, y, z, eps, radius, axis, CLAMP)
            change = relu(features(planes, x2, y2, z2, radius, R, H)) - at
            change = relu(h + matmul(change, layer, SLOPES)) - relu(h)
            sphere = (x2 - x) * (x2 + x) + (y2 - y) * (y2 + y) + (z2 - z) * (z2 + z)  # of the squares of the norms
            sphere /= norm + tl.sqrt(x2 * x2 + y2 * y2 + z2 * z2)
            slope = (tl.sum(change * ends, axis=1) + sphere) / eps
            tl.store(gradient + (start + n) * 3 + axis, slope, inside)


@triton.jit(do_not_specialize=["n_points", "blocks"])
def distance_gradient(
    points, planes, second, last, grad_sdf, grad_gradient, grad_planes, grad_second, grad_last,
    n_points, blocks, radius, eps,
    R: tl.constexpr, H: tl.constexpr, BLOCK: tl.constexpr,
    CLAMP: tl.constexpr, NEAR: tl.constexpr, VALUES: tl.constexpr, SLOPES: tl.constexpr,
):  # fmt: skip
    """Adds to the gradients of planes and layers; NEAR: eps is less than a pixel, and nothing is clamped."""
    ends = tl.load(last + tl.arange(0, H))[None, :]
    of_second = tl.zeros([H, H], tl.float32)
    of_last = tl.zeros([H], tl.float32)
    block = tl.program_id(0)
    while block < blocks:
        n, inside, start, offset = _block(block, n_points, R, H, BLOCK)
        shape, to = planes + offset, grad_planes + offset
        x, y, z = point(points + start * 3, n, inside)
        gx, gy, gz = point(grad_gradient + start * 3, n, inside)
        value = tl.load(grad_sdf + start + n, inside, other=0.0)
        at = relu(features(shape, x, y, z, radius, R, H))
        h = matmul(at, _transposed(second, H), VALUES)
        of_last += tl.sum(value[:, None] * relu(h), axis=0)
        common = tl.where(h > 0, value[:, None] * ends, 0.0)
        ex, back, common, of_second, of_last = _along(
            shape, second, ends, at, h, x, y, z, gx, eps, radius, tl.zeros([BLOCK, H], tl.float32), common,
            of_second, of_last, 0, R, H, CLAMP, SLOPES,
        )  # fmt: skip
        ey, back, common, of_second, of_last = _along(
            shape, second, ends, at, h, x, y, z, gy, eps, radius, back, common,
            of_second, of_last, 1, R, H, CLAMP, SLOPES,
        )  # fmt: skip
        ez, back, common, of_second, of_last = _along(
            shape, second, ends, at, h, x, y, z, gz, eps, radius, back, common,
            of_second, of_last, 2, R, H, CLAMP, SLOPES,
        )  # fmt: skip
        of_second += matmul(tl.trans(common), at, SLOPES)
        e = tl.where(at > 0, matmul(common, _layer(second, H), SLOPES) - back, 0.0)
        if NEAR:
            scatter_near(to, e, ex, ey, ez, x, y, z, eps, radius, n, inside, R, H, SLOPES)
        else:
            scatter(to, e, x, y, z, radius, n, inside, R, H, SLOPES)
            x2, y2, z2 = moved(x, y, z, eps, radius, 0, CLAMP)
            scatter(to, ex, x2, y2, z2, radius, n, inside, R, H, SLOPES)
            x2, y2, z2 = moved(x, y, z, eps, radius, 1, CLAMP)
            scatter(to, ey, x2, y2, z2, radius, n, inside, R, H, SLOPES)
            x2, y2, z2 = moved(x, y, z, eps, radius, 2, CLAMP)
            scatter(to, ez, x2, y2, z2, radius, n, inside, R, H, SLOPES)
        block += tl.num_programs(0)
    _add_layer(grad_second, of_second, H)
    tl.atomic_add(grad_last + tl.arange(0, H), of_last, sem="relaxed")


@triton.jit
def _along(
    planes, second, ends, at, h, x, y, z, grad, eps, radius, back, common, of_second, of_last,
    AXIS: tl.constexpr, R: tl.constexpr, H: tl.constexpr, CLAMP: tl.constexpr, SLOPES: tl.constexpr,
):  # fmt: skip
    """One of the moved points: the gradient [B, H] of its features, and the four sums with its shares.

    ``back``: what the first point is given less, before its own rectifier. ``common``: what hidden features get from
    all four points, were they the same: gradients of differences only add to it where a rectifier switched.
    """
    x2, y2, z2 = moved(x, y, z, eps, radius, AXIS, CLAMP)
    there = relu(features(planes, x2, y2, z2, radius, R, H))
    change = there - at
    h2 = h + matmul(change, _transposed(second, H), SLOPES)
    grad = (grad / eps)[:, None]
    of_last += tl.sum(grad * (relu(h2) - relu(h)), axis=0)
    given = grad * ends
    d = tl.where(h2 > 0, given, 0.0)
    common += tl.where(h > 0, tl.where(h2 > 0, 0.0, -given), d)
    of_second += matmul(tl.trans(d), change, SLOPES)
    e = matmul(d, _layer(second, H), SLOPES)
    return tl.where(there > 0, e, 0.0), back + e, common, of_second, of_last


@triton.jit(do_not_specialize=["n_points"])
def color(
    points, planes, second, last, colors, n_points, radius, widening,
    R: tl.constexpr, H: tl.constexpr, BLOCK: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Writes ``colors`` [P, N, 3], sigmoids that reach ``widening`` beyond 0 and 1."""
    n, inside, start, offset = _block(tl.program_id(0), n_points, R, H, BLOCK)
    x, y, z = point(points + start * 3, n, inside)
    h = relu(matmul(relu(features(planes + offset, x, y, z, radius, R, H)), _transposed(second, H), VALUES))
    for channel in tl.static_range(3):
        ends = tl.load(last + channel * H + tl.arange(0, H))[None, :]
        found = tl.sigmoid(tl.sum(h * ends, axis=1)) * (1.0 + 2.0 * widening) - widening
        tl.store(colors + (start + n) * 3 + channel, found, inside)


@triton.jit(do_not_specialize=["n_points", "blocks"])
def color_gradient(
    points, planes, second, last, grad, grad_planes, grad_second, grad_last, n_points, blocks, radius, widening,
    R: tl.constexpr, H: tl.constexpr, BLOCK: tl.constexpr, VALUES: tl.constexpr, SLOPES: tl.constexpr,
):  # fmt: skip
    """Adds to the gradients of planes and layers what ``grad`` [P, N, 3] of the colours gives."""
    c = tl.arange(0, H)
    of_second = tl.zeros([H, H], tl.float32)
    of_r = tl.zeros([H], tl.float32)
    of_g = tl.zeros([H], tl.float32)
    of_b = tl.zeros([H], tl.float32)
    block = tl.program_id(0)
    while block < blocks:
        n, inside, start, offset = _block(block, n_points, R, H, BLOCK)
        shape, to = planes + offset, grad_planes + offset
        x, y, z = point(points + start * 3, n, inside)
        at = relu(features(shape, x, y, z, radius, R, H))
        h = relu(matmul(at, _transposed(second, H), VALUES))
        gr, gg, gb = point(grad + start * 3, n, inside)
        d, of_r = _channel(h, last, tl.zeros([BLOCK, H], tl.float32), gr, widening, of_r, H)
        d, of_g = _channel(h, last + H, d, gg, widening, of_g, H)
        d, of_b = _channel(h, last + 2 * H, d, gb, widening, of_b, H)
        d = tl.where(h > 0, d, 0.0)
        of_second += matmul(tl.trans(d), at, SLOPES)
        e = tl.where(at > 0, matmul(d, _layer(second, H), SLOPES), 0.0)
        scatter(to, e, x, y, z, radius, n, inside, R, H, SLOPES)
        block += tl.num_programs(0)
    _add_layer(grad_second, of_second, H)
    tl.atomic_add(grad_last + c, of_r, sem="relaxed")
    tl.atomic_add(grad_last + H + c, of_g, sem="relaxed")
    tl.atomic_add(grad_last + 2 * H + c, of_b, sem="relaxed")


@triton.jit
def _channel(h, last, d, grad, widening, of_last, H: tl.constexpr):
    """One channel's share in the gradient of its weights and, added to d [B, H], of the hidden features."""
    ends = tl.load(last + tl.arange(0, H))[None, :]
    share = tl.sigmoid(tl.sum(h * ends, axis=1))
    grad = (grad * (1.0 + 2.0 * widening) * share * (1.0 - share))[:, None]
    return d + grad * ends, of_last + tl.sum(grad * h, axis=0)


# -- blocks of points, and layers ----------------------------------------------------------------------------------


@triton.jit
def _block(block, n_points, R: tl.constexpr, H: tl.constexpr, BLOCK: tl.constexpr):
    """Numbers [B], which of them there are, the first's number among all shapes', and where the shape's planes are."""
    prompt = tl.program_id(1).to(tl.int64)
    n = tl.arange(0, BLOCK)
    start = prompt * n_points + block.to(tl.int64) * BLOCK
    return n, block * BLOCK + n < n_points, start, prompt * (3 * (R + 2) * (R + 2) * H)


@triton.jit
def _layer(second, H: tl.constexpr):
    """[H, H], in by out of the way back."""
    c = tl.arange(0, H)
    return tl.load(second + c[:, None] * H + c[None, :])


@triton.jit
def _transposed(second, H: tl.constexpr):
    c = tl.arange(0, H)
    return tl.load(second + c[:, None] + c[None, :] * H)


@triton.jit
def _add_layer(grad_second, of_second, H: tl.constexpr):
    c = tl.arange(0, H)
    tl.atomic_add(grad_second + c[:, None] * H + c[None, :], of_second, sem="relaxed")
