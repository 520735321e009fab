"""Triton kernels along rays: where to sample, and what a ray sees. A program serves one ray.

Axes: K proposal intervals, C samples added, S intervals rendered; each kernel's lanes are filled up to a power of two.
All tensors are contiguous, one ray after the other. The maths are those of :mod:`scaledreamer.renderers.importance`,
:mod:`scaledreamer.renderers.compositing` and :func:`scaledreamer.renderers.volsdf.volsdf_density`.
"""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

HALVINGS = tl.constexpr(12)
"""Enough for any number of lanes."""

# -- where to sample ---------------------------------------------------------------------------------------------


@triton.jit
def _crossings(o, d, radius):
    """Where a ray enters and leaves the slab of an axis."""
    inverse = 1 / tl.where(tl.abs(d) < 1e-9, 1e-9, d)
    one, other = (-radius - o) * inverse, (radius - o) * inverse
    return tl.minimum(one, other), tl.maximum(one, other)


@triton.jit
def proposals(
    origins, directions, jitter, edges, radius, near, far,
    K: tl.constexpr, BOXED: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Writes ``edges`` [rays, K + 1] of equal intervals, in the box or between near and far."""
    ray = tl.program_id(0).to(tl.int64)
    if BOXED:
        o, d = origins + ray * 3, directions + ray * 3
        ax, bx = _crossings(tl.load(o), tl.load(d), radius)
        ay, by = _crossings(tl.load(o + 1), tl.load(d + 1), radius)
        az, bz = _crossings(tl.load(o + 2), tl.load(d + 2), radius)
        near = tl.maximum(tl.maximum(tl.maximum(ax, ay), az), near)
        far = tl.maximum(tl.minimum(tl.minimum(bx, by), bz), near)
    i = tl.arange(0, LANES)
    share = (i + (tl.load(jitter + ray) - 0.5)) / K
    share = tl.minimum(tl.maximum(share, 0.0), 1.0)
    tl.store(edges + ray * (K + 1) + i, near + (far - near) * share, i <= K)


@triton.jit
def points(edges, origins, directions, found, S: tl.constexpr, LANES: tl.constexpr):
    """Writes the points ``found`` [rays, S, 3] in the middle of the intervals between ``edges`` [rays, S + 1]."""
    ray = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, LANES)
    there = i < S
    at = edges + ray * (S + 1) + i
    middle = (tl.load(at + 1, there, other=0.0) + tl.load(at, there, other=0.0)) / 2
    for axis in tl.static_range(3):
        value = tl.load(origins + ray * 3 + axis) + tl.load(directions + ray * 3 + axis) * middle
        tl.store(found + (ray * S + i) * 3 + axis, value, there)


@triton.jit
def _passed(ascending, x, STRICTLY: tl.constexpr, LANES: tl.constexpr):
    """How many of ``ascending`` [LANES], of which the last is the largest of all, are (STRICTLY) below each of ``x``,
    or as large: by halving."""
    count = tl.zeros(x.shape, tl.int32)
    for n in tl.static_range(HALVINGS):
        if LANES >> (n + 1) > 0:
            value = tl.gather(ascending, count + ((LANES >> (n + 1)) - 1), 0)
            if STRICTLY:
                count += tl.where(value < x, LANES >> (n + 1), 0)
            else:
                count += tl.where(value <= x, LANES >> (n + 1), 0)
    return count


@triton.jit
def centers(
    edges, sdf, inv_std, jitter, found, K: tl.constexpr, C: tl.constexpr, LANES: tl.constexpr, CS: tl.constexpr
):
    """Writes ``found`` [rays, C]: where the chance that the ray has ended reaches (i + jitter) / C."""
    ray = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, LANES)
    at = edges + ray * (K + 1) + k
    edge = tl.load(at, k <= K, other=float("inf"))
    inner = (k > 0) & (k < K)
    before = tl.load(at - 1, inner, other=0.0)
    density, _ = density_of(tl.load(sdf + ray * K + k - 1, inner, other=0.0), tl.load(inv_std))
    optical = tl.where(inner, density * (edge - before), 0.0)
    ended = tl.where(k < K, 1 - tl.exp(-tl.cumsum(optical, axis=0)), tl.where(k == K, 1.0, 2.0))
    i = tl.arange(0, CS)
    # Below 1, where the last edge is: then some edge lies on either side.
    u = tl.minimum((i + tl.load(jitter + ray)) / C, 1 - 6e-8)
    passed = tl.maximum(_passed(ended, u, False, LANES), 1)  # also where a distance is not a number
    ended_0, ended_1 = tl.gather(ended, passed - 1, 0), tl.gather(ended, passed, 0)
    edge_0, edge_1 = tl.gather(edge, passed - 1, 0), tl.gather(edge, passed, 0)
    rise = ended_1 - ended_0
    share = tl.where(rise < 1e-10, 0.5, (u - ended_0) / tl.maximum(rise, 1e-10))
    tl.store(found + ray * C + i, edge_0 + share * (edge_1 - edge_0), i < C)


@triton.jit
def merged(coarse, centers, edges, K: tl.constexpr, C: tl.constexpr, LANES: tl.constexpr, CS: tl.constexpr):
    """Writes all ``edges`` [rays, K + C + 2], ascending: the coarse ones, and those between the centers."""
    ray = tl.program_id(0).to(tl.int64)
    k, i = tl.arange(0, LANES), tl.arange(0, CS)
    one = tl.load(coarse + ray * (K + 1) + k, k <= K, other=float("inf"))
    at, last = centers + ray * C, coarse + ray * (K + 1) + K
    low = tl.load(at + i - 1, (i > 0) & (i <= C), other=0.0)
    high = tl.load(at + i, i < C, other=0.0)
    other = (low + high) / 2
    c_0, c_1 = tl.load(at), tl.load(at + 1)
    other = tl.where(i == 0, tl.maximum(c_0 - (c_1 - c_0) / 2, tl.load(last - K)), other)
    c_0, c_1 = tl.load(at + C - 2), tl.load(at + C - 1)
    other = tl.where(i == C, tl.minimum(c_1 + (c_1 - c_0) / 2, tl.load(last)), other)
    other = tl.where(i > C, float("inf"), other)
    # Each goes behind as many as come before it among its own and among the others.
    before = _passed(other, one, True, CS)
    to = edges + ray * (K + C + 2)
    tl.store(to + k + before, one, k <= K)
    before = _passed(one, other, False, LANES)
    tl.store(to + i + before, other, i <= C)


# -- what a ray sees ---------------------------------------------------------------------------------------------


@triton.jit
def density_of(sdf, inv_std):
    """Density and its slope, without the limit of ``inv_std``, which the caller has applied."""
    fall = tl.exp(-tl.abs(sdf) * inv_std)
    density = inv_std * tl.where(sdf > 0, 0.5 * fall, 1 - 0.5 * fall)
    return density, tl.where(sdf == 0, 0.0, -0.5 * inv_std * inv_std * fall)


@triton.jit
def _ended(optical, EXP: tl.constexpr):
    """Alphas, and their slopes; of small optical depths with all digits."""
    if EXP:
        series = optical * (1 - optical * (0.5 - optical * (1 / 6 - optical / 24)))
        passed = tl.exp(-optical)
        return tl.where(optical < 0.02, series, 1 - passed), passed
    return tl.where(optical > 1, 1.0, optical), tl.where(optical > 1, 0.0, 1.0)


@triton.jit
def _log_passed(alpha):
    """log(1 - alpha), of small alphas with all digits."""
    series = -alpha * (1 + alpha * (0.5 + alpha * (1 / 3 + alpha * (0.25 + alpha * 0.2))))
    return tl.where(alpha < 0.03, series, tl.log(1 - alpha))


@triton.jit
def _weights(sdf, edges, inv_std, ray, i, there, S: tl.constexpr, EXP: tl.constexpr, OPAQUE: tl.constexpr):
    """Middles, weights, alphas, what has passed before; and the slope of the alphas in the signed distances."""
    at = edges + ray * (S + 1) + i
    begin, end = tl.load(at, there, other=0.0), tl.load(at + 1, there, other=0.0)
    density, slope = density_of(tl.load(sdf + ray * S + i, there, other=0.0), tl.load(inv_std))
    alpha, rise = _ended(density * (end - begin), EXP)
    logarithm = _log_passed(tl.where(alpha > OPAQUE, OPAQUE, alpha))
    passed = tl.exp(tl.cumsum(logarithm, axis=0) - logarithm)
    return (begin + end) / 2, alpha * passed, alpha, passed, rise * (end - begin) * slope


@triton.jit
def composite(
    sdf, edges, color, gradient, inv_std, foreground, opacity, depth, variance, normal,
    S: tl.constexpr, LANES: tl.constexpr, EXP: tl.constexpr, OPAQUE: tl.constexpr,
):  # fmt: skip
    """Writes of each ray ``foreground`` [3], ``opacity``, ``depth``, ``variance`` and its unit ``normal`` [3]."""
    ray = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, LANES)
    there = i < S
    middle, weight, _, _, _ = _weights(sdf, edges, inv_std, ray, i, there, S, EXP, OPAQUE)
    mean = tl.sum(weight * middle, axis=0)
    tl.store(opacity + ray, tl.sum(weight, axis=0))
    tl.store(depth + ray, mean)
    tl.store(variance + ray, tl.sum(weight * (middle - mean) * (middle - mean), axis=0))
    at = (ray * S + i) * 3
    for channel in tl.static_range(3):
        value = tl.load(color + at + channel, there, other=0.0)
        tl.store(foreground + ray * 3 + channel, tl.sum(weight * value, axis=0))
    x = tl.load(gradient + at, there, other=0.0)
    y = tl.load(gradient + at + 1, there, other=0.0)
    z = tl.load(gradient + at + 2, there, other=0.0)
    weight /= tl.maximum(tl.sqrt(x * x + y * y + z * z), 1e-12)
    mx, my, mz = tl.sum(weight * x, axis=0), tl.sum(weight * y, axis=0), tl.sum(weight * z, axis=0)
    norm = tl.maximum(tl.sqrt(mx * mx + my * my + mz * mz), 1e-12)
    tl.store(normal + ray * 3, mx / norm)
    tl.store(normal + ray * 3 + 1, my / norm)
    tl.store(normal + ray * 3 + 2, mz / norm)


@triton.jit
def composite_backward(
    sdf, edges, color, inv_std, g_foreground, g_opacity, g_depth, g_variance, of_sdf, of_color,
    S: tl.constexpr, LANES: tl.constexpr, EXP: tl.constexpr, OPAQUE: tl.constexpr,
):  # fmt: skip
    """Writes ``of_sdf`` [rays, S] and ``of_color`` [rays, S, 3]; the normal has no gradient."""
    ray = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, LANES)
    there = i < S
    middle, weight, alpha, passed, slope = _weights(sdf, edges, inv_std, ray, i, there, S, EXP, OPAQUE)
    mean, left = tl.sum(weight * middle, axis=0), 1 - tl.sum(weight, axis=0)
    g_spread = tl.load(g_variance + ray)
    g_mean = tl.load(g_depth + ray) - 2 * g_spread * mean * left  # the variance is around the depth
    of_weight = tl.load(g_opacity + ray) + g_mean * middle + g_spread * (middle - mean) * (middle - mean)
    at = (ray * S + i) * 3
    for channel in tl.static_range(3):
        g = tl.load(g_foreground + ray * 3 + channel)
        of_weight += g * tl.load(color + at + channel, there, other=0.0)
        tl.store(of_color + at + channel, g * weight, there)
    behind = tl.where(there, weight * of_weight, 0.0)
    behind = tl.cumsum(behind, axis=0, reverse=True) - behind
    of_alpha = passed * of_weight - tl.where(alpha > OPAQUE, 0.0, behind / (1 - tl.where(alpha > OPAQUE, 0.0, alpha)))
    tl.store(of_sdf + ray * S + i, of_alpha * slope, there)
