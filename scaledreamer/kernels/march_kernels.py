"""Triton kernels that find the places along rays which :mod:`scaledreamer.renderers.marching` packs into lists.

A program serves one ray, whose S steps are its lanes, filled up to a power of two. Nothing of the size of all steps of
all rays is written: the second kernel finds the places of the first again.
"""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]


@triton.jit
def _edge(i, enter, leave, shift, step_size):
    return tl.minimum(tl.maximum(enter + (i - shift) * step_size, enter), leave)


@triton.jit
def _cell(origin, direction, t, radius, R: tl.constexpr):
    at = (origin + t * direction + radius) * (R / (2 * radius))
    return tl.minimum(tl.maximum(at.to(tl.int32), 0), R - 1)


@triton.jit
def _places(
    origins, directions, enters, leaves, shifts, cells, ray, step_size, radius,
    S: tl.constexpr, R: tl.constexpr, SHIFTED: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Middles and lengths [LANES] of a ray's steps, and which of them are in the box and in occupied cells."""
    i = tl.arange(0, LANES)
    enter, leave = tl.load(enters + ray), tl.load(leaves + ray)
    shift = 0.0
    if SHIFTED:
        shift = tl.load(shifts + ray)
    start = _edge(i, enter, leave, shift, step_size)
    end = tl.where(i == S - 1, leave, _edge(i + 1, enter, leave, shift, step_size))
    t = (start + end) / 2
    o, d = origins + ray * 3, directions + ray * 3
    x = _cell(tl.load(o), tl.load(d), t, radius, R)
    y = _cell(tl.load(o + 1), tl.load(d + 1), t, radius, R)
    z = _cell(tl.load(o + 2), tl.load(d + 2), t, radius, R)
    there = (i < S) & (end > start)
    there &= tl.load(cells + (x * R + y) * R + z, there, other=0) != 0
    return t, end - start, there


@triton.jit
def count(
    origins, directions, enters, leaves, shifts, cells, counts, step_size, radius,
    S: tl.constexpr, R: tl.constexpr, SHIFTED: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Writes how many places a ray has."""
    ray = tl.program_id(0).to(tl.int64)
    _, _, there = _places(
        origins, directions, enters, leaves, shifts, cells, ray, step_size, radius, S, R, SHIFTED, LANES
    )  # fmt: skip
    tl.store(counts + ray, tl.sum(there.to(tl.int32), axis=0))


@triton.jit(do_not_specialize=["n_rays", "capacity"])
def write(
    origins, directions, enters, leaves, shifts, cells, before, totals, of_ray, ts, lengths,
    n_rays, capacity, step_size, radius,
    S: tl.constexpr, R: tl.constexpr, SHIFTED: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Writes a ray's places into its prompt's list of ``capacity``; of more, an even share."""
    ray = tl.program_id(0).to(tl.int64)
    t, length, there = _places(
        origins, directions, enters, leaves, shifts, cells, ray, step_size, radius, S, R, SHIFTED, LANES
    )  # fmt: skip
    prompt = ray // n_rays
    size = capacity.to(tl.int64)
    among = tl.maximum(tl.load(totals + prompt), size)
    rank = tl.load(before + ray) + tl.cumsum(there.to(tl.int64), axis=0)  # how many there are up to a place
    row = rank * size // among
    kept = there & (row > (rank - 1) * size // among)
    to = prompt * size + row - 1
    tl.store(of_ray + to, tl.zeros_like(rank) + ray % n_rays, kept)
    tl.store(ts + to, t, kept)
    tl.store(lengths + to, length * (among.to(tl.float32) / size.to(tl.float32)), kept)
