"""Triton kernels of the hash grid: features, and the gradients to its parameters and to points.

A program serves BLOCK points at GROUP levels. Programs of one group of levels start one after the other (points are the
inner axis of the launch grid), so that the tables of that group are what the cache holds: a few of 4 MiB, not all.

Lookups by any corner of any point stay inside the tables, also for points outside the cube, nan and those that only
fill up the last block: an index is a remainder.

Axes: N points, D coordinates, L levels, F features per level. ``points`` [N, D] and ``table`` [entries of all levels,
F] are contiguous; ``features`` [L * F, N] too, so that the threads of a warp write one after the other.
``lattice`` holds the FIELDS numbers of each level that :mod:`scaledreamer.encodings.hash_grid_triton` lays out.

The product that places a point in its level is rounded before 0.5 is added, as in PyTorch, so they have to be launched
with enable_fp_fusion=False: near 4096 the other rounding moves a point by a ten-thousandth of a cell.
"""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from scaledreamer.encodings.hash_grid_cells import (
    block,
    cell_of,
    coordinates,
    entry_at,
    group,
    level_of,
    row_of,
    run_sums,
    runs,
    share_of,
    signed,
    weight_of,
)

FIELDS = tl.constexpr(6)


@triton.jit(do_not_specialize=["n_points", "n_levels"])
def encode(
    points, table, features, scales, lattice, n_points, n_levels,
    D: tl.constexpr, F: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes ``features``, interpolated in float32 whatever the table's type."""
    start, n, inside = block(n_points, BLOCK)
    px, py, pz = coordinates(points + start * D, n, inside, D)
    f = tl.arange(0, F)
    level, stop = group(n_levels, GROUP)
    while level < stop:
        entries, offset, my, mz, hashed, _ = level_of(lattice + level * FIELDS)
        x, y, z, sx, sy, sz = cell_of(px, py, pz, tl.load(scales + level))
        part = table + offset * F
        if hashed:  # here, not at every corner: their loads are then in flight together
            found = _interpolated(part, x, y, z, sx, sy, sz, entries, my, mz, True, D, F, BLOCK)
        else:
            found = _interpolated(part, x, y, z, sx, sy, sz, entries, my, mz, False, D, F, BLOCK)
        row = features + (level * F).to(tl.int64) * n_points + start
        to = row + f[None, :].to(tl.int64) * n_points + n[:, None]
        tl.store(to, found.to(features.dtype.element_ty), inside[:, None])
        level += 1


@triton.jit(do_not_specialize=["n_points", "n_levels"])
def table_gradient(
    points, grad, grad_table, scales, lattice, n_points, n_levels, stride_feature, stride_point,
    D: tl.constexpr, F: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Adds to ``grad_table``, float32, what gradients ``grad`` [L * F, N] of the features, of any strides, give."""
    start, n, inside = block(n_points, BLOCK)
    px, py, pz = coordinates(points + start * D, n, inside, D)
    f = tl.arange(0, F)
    level, stop = group(n_levels, GROUP)
    while level < stop:
        entries, offset, my, mz, hashed, merged = level_of(lattice + level * FIELDS)
        scale = tl.load(scales + level)
        x, y, z, sx, sy, sz = cell_of(px, py, pz, scale)
        row = grad + (level * F).to(tl.int64) * stride_feature + start * stride_point
        at = row + f[None, :].to(tl.int64) * stride_feature + n[:, None] * stride_point
        g = tl.load(at, inside[:, None], other=0.0).to(tl.float32)
        part = grad_table + offset * F
        if merged:
            begins, ends = runs(points + start * D, n, n_points - start, x, y, z, scale, D)
            _add(part, g, x, y, z, sx, sy, sz, entries, my, mz, hashed, begins, ends, True, D, F, BLOCK)
        else:
            _add(part, g, x, y, z, sx, sy, sz, entries, my, mz, hashed, inside, inside, False, D, F, BLOCK)
        level += 1


@triton.jit(do_not_specialize=["n_points", "n_levels"])
def point_gradient(
    points, table, grad, grad_points, scales, lattice, n_points, n_levels, stride_feature, stride_point,
    D: tl.constexpr, F: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes ``grad_points`` [groups, N, D], the share of each group of levels in the points' gradient."""
    start, n, inside = block(n_points, BLOCK)
    px, py, pz = coordinates(points + start * D, n, inside, D)
    f = tl.arange(0, F)
    dx = tl.zeros([BLOCK], tl.float32)
    dy = tl.zeros([BLOCK], tl.float32)
    dz = tl.zeros([BLOCK], tl.float32)
    level, stop = group(n_levels, GROUP)
    while level < stop:
        entries, offset, my, mz, hashed, _ = level_of(lattice + level * FIELDS)
        scale = tl.load(scales + level)
        x, y, z, sx, sy, sz = cell_of(px, py, pz, scale)
        row = grad + (level * F).to(tl.int64) * stride_feature + start * stride_point
        at = row + f[None, :].to(tl.int64) * stride_feature + n[:, None] * stride_point
        g = tl.load(at, inside[:, None], other=0.0).to(tl.float32)
        part = table + offset * F
        if hashed:
            ux, uy, uz = _slopes(part, g, x, y, z, sx, sy, sz, entries, my, mz, True, D, F, BLOCK)
        else:
            ux, uy, uz = _slopes(part, g, x, y, z, sx, sy, sz, entries, my, mz, False, D, F, BLOCK)
        dx = tl.fma(ux, scale, dx)
        dy = tl.fma(uy, scale, dy)
        dz = tl.fma(uz, scale, dz)
        level += 1
    to = grad_points + (tl.program_id(1).to(tl.int64) * n_points + start) * D + n * D
    tl.store(to, dx, inside)
    tl.store(to + 1, dy, inside)
    if D == 3:
        tl.store(to + 2, dz, inside)


# -- all corners -------------------------------------------------------------------------------------------------


@triton.jit
def _interpolated(
    part, x, y, z, sx, sy, sz, entries, my, mz, hashed: tl.constexpr,
    D: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Features [BLOCK, F] of a level."""
    found = tl.zeros([BLOCK, F], tl.float32)
    for corner in tl.static_range(2**D):
        row = row_of(x, y, z, entries, my, mz, hashed, corner, D)
        value = tl.load(entry_at(part, row, F)).to(tl.float32)
        found = tl.fma(weight_of(sx, sy, sz, corner, D)[:, None], value, found)
    return found


@triton.jit
def _slopes(
    part, g, x, y, z, sx, sy, sz, entries, my, mz, hashed: tl.constexpr,
    D: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Derivatives [BLOCK] of the features times ``g`` with respect to the shares, one per axis."""
    dx = tl.zeros([BLOCK], tl.float32)
    dy = tl.zeros([BLOCK], tl.float32)
    dz = tl.zeros([BLOCK], tl.float32)
    for corner in tl.static_range(2**D):
        row = row_of(x, y, z, entries, my, mz, hashed, corner, D)
        value = tl.sum(tl.load(entry_at(part, row, F)).to(tl.float32) * g, axis=1)
        wx, wy = share_of(sx, corner & 1), share_of(sy, (corner >> 1) & 1)
        if D == 3:
            wz = share_of(sz, corner >> 2)
            dx = tl.fma(signed(wy * wz, corner & 1), value, dx)
            dy = tl.fma(signed(wx * wz, (corner >> 1) & 1), value, dy)
            dz = tl.fma(signed(wx * wy, corner >> 2), value, dz)
        else:
            dx = tl.fma(signed(wy, corner & 1), value, dx)
            dy = tl.fma(signed(wx, (corner >> 1) & 1), value, dy)
    return dx, dy, dz


@triton.jit
def _add(
    part, g, x, y, z, sx, sy, sz, entries, my, mz, hashed, begins, ends, merged: tl.constexpr,
    D: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add ``g`` [BLOCK, F] to the entries of the corners, or at the end of each run of points the run's sum."""
    for corner in tl.static_range(2**D):
        value = weight_of(sx, sy, sz, corner, D)[:, None] * g
        if merged:
            value = run_sums(value, begins, F, BLOCK)
        row = row_of(x, y, z, entries, my, mz, hashed, corner, D)
        tl.atomic_add(entry_at(part, row, F), value, mask=ends[:, None], sem="relaxed")
