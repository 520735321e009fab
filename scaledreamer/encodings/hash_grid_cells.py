"""Where points are in a level of the hash grid, for its Triton kernels.

Axes: N points, D coordinates, F features per level. ``part`` is the table of a level, or its gradient.
"""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

RUN = tl.constexpr(32)  # points among which runs are summed: the width of a warp, so that only lanes exchange numbers


# -- a block of points and a level -------------------------------------------------------------------------------


@triton.jit
def block(n_points, BLOCK: tl.constexpr):
    """The first of this program's points, their numbers [BLOCK] from there on, and which of them there are."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    n = tl.arange(0, BLOCK)
    return start, n, n < n_points - start


@triton.jit
def group(n_levels, GROUP: tl.constexpr):
    """The first of this program's levels, and the one after its last."""
    first = tl.program_id(1) * GROUP
    return first, tl.minimum(first + GROUP, n_levels)


@triton.jit
def coordinates(points, n, inside, D: tl.constexpr):
    """x, y, z [BLOCK], 0 where there is no point; of two coordinates z is another x, and nobody asks for it."""
    x = tl.load(points + n * D, inside, other=0.0)
    y = tl.load(points + n * D + 1, inside, other=0.0)
    z = x
    if D == 3:
        z = tl.load(points + n * D + 2, inside, other=0.0)
    return x, y, z


@triton.jit
def level_of(fields):
    """Entries, entries before it, multipliers of y and z, whether vertices share entries, whether runs are summed."""
    entries, offset = tl.load(fields).to(tl.uint32), tl.load(fields + 1).to(tl.int64)
    my, mz = tl.load(fields + 2).to(tl.uint32), tl.load(fields + 3).to(tl.uint32)
    return entries, offset, my, mz, tl.load(fields + 4) != 0, tl.load(fields + 5) != 0


@triton.jit
def cell_of(px, py, pz, scale):
    """The lowest corner of each point's cell, an unsigned number per axis, and its shares of the way through it."""
    x, sx = _along(px, scale)
    y, sy = _along(py, scale)
    z, sz = _along(pz, scale)
    return x, y, z, sx, sy, sz


@triton.jit
def _along(p, scale):
    place = p * scale + 0.5
    low = tl.floor(place)
    return low.to(tl.int32).to(tl.uint32), place - low


# -- a corner; its number has a bit per axis, x the lowest -------------------------------------------------------


@triton.jit
def row_of(x, y, z, entries, my, mz, hashed, corner: tl.constexpr, D: tl.constexpr):
    """The corner's entry in the table of its level."""
    a = x + (corner & 1)
    b = (y + ((corner >> 1) & 1)) * my
    mixed, index = a ^ b, a + b
    if D == 3:
        c = (z + (corner >> 2)) * mz
        mixed, index = mixed ^ c, index + c
    # The table's size of a hashed level is a power of two, so its remainder is a mask.
    row = mixed & (entries - 1) if hashed else index % entries
    return row.to(tl.int32)


@triton.jit
def share_of(share, upper: tl.constexpr):
    """Of the lower or the upper end of an axis."""
    return share if upper else 1 - share


@triton.jit
def signed(value, upper: tl.constexpr):
    """How a share changes with the point: as the value at the upper end, against it at the lower one."""
    return value if upper else -value


@triton.jit
def weight_of(sx, sy, sz, corner: tl.constexpr, D: tl.constexpr):
    """The product of the shares of all axes, multiplied in the order of the reference."""
    weight = share_of(sy, (corner >> 1) & 1) * share_of(sx, corner & 1)
    if D == 3:
        weight = share_of(sz, corner >> 2) * weight
    return weight


@triton.jit
def entry_at(part, row, F: tl.constexpr):
    """Pointers [BLOCK, F]: the features of an entry are one access."""
    return part + (row * F)[:, None] + tl.arange(0, F)[None, :]


# -- runs: neighbours in one cell of a coarse level, as samples along a ray are ----------------------------------


@triton.jit
def runs(points, n, remaining, x, y, z, scale, D: tl.constexpr):
    """Which points begin a run and which end one; runs do not go on beyond a multiple of RUN."""
    before = (n % RUN != 0) & (n < remaining)
    after = (n % RUN != RUN - 1) & (n + 1 < remaining)
    begins = ~(before & _together(points, n - 1, before, x, y, z, scale, D))
    ends = (n < remaining) & ~(after & _together(points, n + 1, after, x, y, z, scale, D))
    return begins, ends


@triton.jit
def _together(points, n, inside, x, y, z, scale, D: tl.constexpr):
    px, py, pz = coordinates(points, n, inside, D)
    ox, oy, oz, _, _, _ = cell_of(px, py, pz, scale)
    same = (ox == x) & (oy == y)
    if D == 3:
        same = same & (oz == z)
    return same


@triton.jit
def run_sums(value, begins, F: tl.constexpr, BLOCK: tl.constexpr):
    """Of each point of ``value`` [BLOCK, F] the sum from the begin of its run up to it."""
    new = tl.broadcast_to(begins.to(tl.int32)[:, None], [BLOCK, F])
    new = tl.reshape(new, [BLOCK // RUN, RUN, F])
    sums, _ = tl.associative_scan((tl.reshape(value, [BLOCK // RUN, RUN, F]), new), 1, _joined)
    return tl.reshape(sums, [BLOCK, F])


@triton.jit
def _joined(sum_a, new_a, sum_b, new_b):
    return tl.where(new_b != 0, sum_b, sum_a + sum_b), new_a | new_b
