"""Triton kernels of a voxel field: signed distances, colours and finite differences straight from the grid.

Neither features nor hidden values are written to memory: the backward pass computes them again, which costs less than
reading them. Neighbours in ``points`` are neighbours along a ray, so what a program reads is mostly in its cache.

Axes: P shapes (the second axis of the launch grid), N points per shape, M points of a program at a time, R voxels per
side, F features, H hidden values. ``voxels`` is [P, R, R, R, F] (z y x), ``points`` and what is written are contiguous;
first weights are [H, F], second ones [1, H] and [3, H].
"""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from scaledreamer.kernels.heads import (
    add_matrix,
    add_vector,
    matrix,
    read_out,
    relu,
    rise,
    rise_backward,
    sigmoid,
    transposed,
    vector,
)
from scaledreamer.kernels.voxel_cells import (
    axis_of,
    cell_of,
    interpolated,
    interpolated_around,
    moved,
    place_of,
    spread_around,
)


@triton.jit
def _coordinates(points, n, inside):
    at = points + n * 3
    return tl.load(at, inside, other=0.0), tl.load(at + 1, inside, other=0.0), tl.load(at + 2, inside, other=0.0)


@triton.jit
def _coordinates_again(points, n, inside):
    """As if they could have changed, so that what follows from them is computed anew and not kept in registers."""
    at = points + n * 3
    x = tl.load(at, inside, other=0.0, volatile=True)
    y = tl.load(at + 1, inside, other=0.0, volatile=True)
    return x, y, tl.load(at + 2, inside, other=0.0, volatile=True)


@triton.jit
def _norm(x, y, z):
    return tl.sqrt(x * x + y * y + z * z)


@triton.jit
def _norm_rise(x, y, z, norm, mx, my, mz):
    """|m| - |p|, of which nothing cancels."""
    squares = (mx - x) * (mx + x) + (my - y) * (my + y) + (mz - z) * (mz + z)
    return squares / (_norm(mx, my, mz) + norm)


@triton.jit(do_not_specialize=["n_points"])
def distance(
    voxels, points, s1, s2, sdf, n_points, scale, sphere_radius,
    SIDE: tl.constexpr, F: tl.constexpr, FS: tl.constexpr, H: tl.constexpr, HS: tl.constexpr,
    PRECISION: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """Writes ``sdf`` [P, N]."""
    shape = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * M + tl.arange(0, M)
    inside = n < n_points
    px, py, pz = _coordinates(points + shape * n_points * 3, n, inside)
    gx, gy, gz = place_of(px, scale, SIDE), place_of(py, scale, SIDE), place_of(pz, scale, SIDE)
    x, y, z = cell_of(gx, SIDE), cell_of(gy, SIDE), cell_of(gz, SIDE)
    table = voxels + shape * (SIDE * SIDE * SIDE) * F
    features = interpolated(table, x, y, z, gx - x, gy - y, gz - z, inside, SIDE, F, FS)
    hidden = relu(tl.dot(features, transposed(s1, H, F, HS, FS), input_precision=PRECISION))
    found = read_out(hidden, vector(s2, H, HS)) + _norm(px, py, pz) - sphere_radius
    tl.store(sdf + shape * n_points + n, found, inside)


@triton.jit(do_not_specialize=["n_points"])
def query(
    voxels, points, s1, s2, c1, c2, sdf, color, gradient, n_points, scale, eps, radius, sphere_radius, widening,
    SIDE: tl.constexpr, F: tl.constexpr, FS: tl.constexpr, H: tl.constexpr, HS: tl.constexpr, CLAMP: tl.constexpr,
    PRECISION: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """Writes ``sdf`` [P, N], ``color`` and ``gradient`` [P, N, 3]."""
    shape = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * M + tl.arange(0, M)
    inside = n < n_points
    px, py, pz = _coordinates(points + shape * n_points * 3, n, inside)
    x, sx, kx, ux = axis_of(px, scale, eps, radius, SIDE, CLAMP)
    y, sy, ky, uy = axis_of(py, scale, eps, radius, SIDE, CLAMP)
    z, sz, kz, uz = axis_of(pz, scale, eps, radius, SIDE, CLAMP)
    table = voxels + shape * (SIDE * SIDE * SIDE) * F
    features, dx, dy, dz = interpolated_around(
        table, x, y, z, sx, sy, sz, kx, ky, kz, ux, uy, uz, inside, SIDE, F, FS, M
    )  # fmt: skip

    first, second = transposed(s1, H, F, HS, FS), vector(s2, H, HS)
    hidden = tl.dot(features, first, input_precision=PRECISION)
    norm = _norm(px, py, pz)
    at = shape * n_points + n
    tl.store(sdf + at, read_out(relu(hidden), second) + norm - sphere_radius, inside)

    qx, qy, qz = moved(px, 0.0, radius, CLAMP), moved(py, 0.0, radius, CLAMP), moved(pz, 0.0, radius, CLAMP)
    mx, my, mz = moved(px, eps, radius, CLAMP), moved(py, eps, radius, CLAMP), moved(pz, eps, radius, CLAMP)
    to = gradient + at * 3
    found = rise(hidden, dx, first, second, "tf32") + _norm_rise(px, py, pz, norm, mx, qy, qz)
    tl.store(to, found / eps, inside)
    found = rise(hidden, dy, first, second, "tf32") + _norm_rise(px, py, pz, norm, qx, my, qz)
    tl.store(to + 1, found / eps, inside)
    found = rise(hidden, dz, first, second, "tf32") + _norm_rise(px, py, pz, norm, qx, qy, mz)
    tl.store(to + 2, found / eps, inside)

    hidden = relu(tl.dot(features, transposed(c1, H, F, HS, FS), input_precision="tf32"))
    to = color + at * 3
    for channel in tl.static_range(3):
        value = sigmoid(read_out(hidden, vector(c2 + channel * H, H, HS)))
        tl.store(to + channel, value * (1 + 2 * widening) - widening, inside)


@triton.jit(do_not_specialize=["n_points"])
def query_backward(
    voxels, points, s1, s2, c1, c2, g_sdf, g_color, g_gradient, of_voxels, of_weights,
    n_points, scale, eps, radius, widening,
    SIDE: tl.constexpr, F: tl.constexpr, FS: tl.constexpr, H: tl.constexpr, HS: tl.constexpr, CLAMP: tl.constexpr,
    PRECISION: tl.constexpr, M: tl.constexpr, COPIES: tl.constexpr,
):  # fmt: skip
    """Adds to ``of_voxels`` and to ``of_weights`` [COPIES, 2 H F + 4 H] (s1, c1, s2, c2 in a row), both float32."""
    shape = tl.program_id(1).to(tl.int64)
    begin = shape * n_points
    n = tl.program_id(0) * M + tl.arange(0, M)
    inside = n < n_points
    px, py, pz = _coordinates(points + begin * 3, n, inside)
    x, sx, kx, ux = axis_of(px, scale, eps, radius, SIDE, CLAMP)
    y, sy, ky, uy = axis_of(py, scale, eps, radius, SIDE, CLAMP)
    z, sz, kz, uz = axis_of(pz, scale, eps, radius, SIDE, CLAMP)
    table = voxels + shape * (SIDE * SIDE * SIDE) * F
    features, dx, dy, dz = interpolated_around(
        table, x, y, z, sx, sy, sz, kx, ky, kz, ux, uy, uz, inside, SIDE, F, FS, M
    )  # fmt: skip
    # What a program adds to the weights goes to one of a few copies: fewer programs wait for each other.
    copy = (tl.program_id(0) + tl.program_id(1)) % COPIES
    part = of_weights + copy * (2 * H * F + 4 * H)

    # Colour, at the point alone.
    hidden = tl.dot(features, transposed(c1, H, F, HS, FS), input_precision="tf32")
    lit = relu(hidden)
    gx, gy, gz = _coordinates(g_color + begin * 3, n, inside)
    of_hidden = tl.zeros([M, HS], tl.float32)
    for channel in tl.static_range(3):
        weight = vector(c2 + channel * H, H, HS)
        value = sigmoid(read_out(lit, weight))
        g = (gx if channel == 0 else gy if channel == 1 else gz) * (1 + 2 * widening) * value * (1 - value)
        add_vector(part + 2 * H * F + (1 + channel) * H, tl.sum(g[:, None] * lit, axis=0), H, HS)
        of_hidden += g[:, None] * weight[None, :]
    of_hidden = tl.where(hidden > 0, of_hidden, 0.0)
    add_matrix(part + H * F, tl.dot(tl.trans(of_hidden), features, input_precision="tf32"), H, F, HS, FS)
    of_features = tl.dot(of_hidden, matrix(c1, H, F, HS, FS), input_precision="tf32")

    # Distance: at the point, and how much it rises towards the three moved ones.
    first, rows, second = transposed(s1, H, F, HS, FS), matrix(s1, H, F, HS, FS), vector(s2, H, HS)
    hidden = tl.dot(features, first, input_precision=PRECISION)
    gx, gy, gz = _coordinates(g_gradient + begin * 3, n, inside)
    g = tl.load(g_sdf + begin + n, inside, other=0.0)[:, None]
    # Gradients to the hidden values before they are multiplied by the second weight, and to that weight.
    lit, of_second = tl.where(hidden > 0, g, 0.0), g * relu(hidden)
    of_first = tl.zeros([HS, FS], tl.float32)
    dx, lit, of_second, of_first = rise_backward(
        hidden, dx, gx / eps, first, rows, second, lit, of_second, of_first, "tf32"
    )
    dy, lit, of_second, of_first = rise_backward(
        hidden, dy, gy / eps, first, rows, second, lit, of_second, of_first, "tf32"
    )
    dz, lit, of_second, of_first = rise_backward(
        hidden, dz, gz / eps, first, rows, second, lit, of_second, of_first, "tf32"
    )
    add_vector(part + 2 * H * F, tl.sum(of_second, axis=0), H, HS)
    of_hidden = lit * second[None, :]
    of_first = tl.dot(tl.trans(of_hidden), features, of_first, input_precision="tf32")
    add_matrix(part, of_first, H, F, HS, FS)
    of_features = tl.dot(of_hidden, rows, of_features, input_precision="tf32")

    px, py, pz = _coordinates_again(points + begin * 3, n, inside)
    x, sx, kx, ux = axis_of(px, scale, eps, radius, SIDE, CLAMP)
    y, sy, ky, uy = axis_of(py, scale, eps, radius, SIDE, CLAMP)
    z, sz, kz, uz = axis_of(pz, scale, eps, radius, SIDE, CLAMP)
    spread_around(
        of_voxels + shape * (SIDE * SIDE * SIDE) * F, of_features, dx, dy, dz,
        x, y, z, sx, sy, sz, kx, ky, kz, ux, uy, uz, inside, SIDE, F, FS,
    )  # fmt: skip
