"""Where points and the points next to them are in a voxel grid, for Triton kernels.

A point and the three that are moved from it by less than a voxel along one axis each lie among 20 voxels: the 8 corners
of the point's cell, and for each axis the 4 of the next layer, which count where the moved point passed the cell's
upper face. Everything is asked once, whoever of the four needs it.

Places are in voxels: voxel i has its centre at i, and beyond -1 and R nothing is left of the outermost ones, so places
are cut there. Not a number keeps shares that are none, and gets a cell like any other.

Axes: M points of a program, F features, R voxels per side.
"""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]


@triton.jit
def place_of(p, scale, SIDE: tl.constexpr):
    """Voxels [M] of world coordinates [M] along an axis, in [-1, R]."""
    place = p * scale + (SIDE - 1) * 0.5
    return tl.where(place < -1, -1.0, tl.where(place > SIDE, SIDE * 1.0, place))


@triton.jit
def cell_of(place, SIDE: tl.constexpr):
    """The lower voxel of the cell, -1 ... R - 1."""
    low = tl.floor(place)
    return tl.minimum(tl.where(low == low, low, 0.0).to(tl.int32), SIDE - 1)


@triton.jit
def moved(p, eps, radius, CLAMP: tl.constexpr):
    """A coordinate [M] after the step ``eps``, inside the box where points are kept there."""
    q = p + eps
    if CLAMP:
        q = tl.where(q > radius, radius, tl.where(q < -radius, -radius, q))
    return q


@triton.jit
def axis_of(p, scale, eps, radius, SIDE: tl.constexpr, CLAMP: tl.constexpr):
    """Of a coordinate [M]: the cell, and how far from its lower voxel are the point, the same kept in the box (as it
    is for steps along other axes), and the point moved along this axis, in [0, 2)."""
    place = place_of(p, scale, SIDE)
    low = cell_of(place, SIDE)
    share = place - low
    kept = share
    if CLAMP:
        kept = place_of(moved(p, 0.0, radius, CLAMP), scale, SIDE) - low
    return low, share, kept, place_of(moved(p, eps, radius, CLAMP), scale, SIDE) - low


@triton.jit
def share_of(share, upper: tl.constexpr):
    """Of the lower or the upper voxel, for a share in [0, 1]."""
    return share if upper else 1 - share


@triton.jit
def moved_share_of(share, node: tl.constexpr):
    """Of the lower voxel, the upper one and the one after it, for a share in [0, 2)."""
    if node == 0:
        found = tl.where(share < 1, 1 - share, 0.0)
    elif node == 1:
        found = tl.where(share < 1, share, 2 - share)
    else:
        found = tl.where(share < 1, 0.0, share - 1)
    return found


@triton.jit
def corner_shares(
    sx, sy, sz, kx, ky, kz, ux, uy, uz, DX: tl.constexpr, DY: tl.constexpr, DZ: tl.constexpr
):  # fmt: skip
    """What a corner of the cell counts at the point, and how much more at the three moved points; [M] each."""
    at = share_of(sx, DX) * share_of(sy, DY) * share_of(sz, DZ)
    x = moved_share_of(ux, DX) * share_of(ky, DY) * share_of(kz, DZ) - at
    y = share_of(kx, DX) * moved_share_of(uy, DY) * share_of(kz, DZ) - at
    z = share_of(kx, DX) * share_of(ky, DY) * moved_share_of(uz, DZ) - at
    return at, x, y, z


@triton.jit
def voxel_of(x, y, z, inside, SIDE: tl.constexpr):
    """The number of a voxel [M] in its grid, and whether there is one."""
    there = inside & (x >= 0) & (y >= 0) & (z >= 0) & (x < SIDE) & (y < SIDE) & (z < SIDE)
    return (z * SIDE + y) * SIDE + x, there


@triton.jit
def pointers(table, voxel, there, F: tl.constexpr, FS: tl.constexpr):
    """Where the features [M, FS] of voxels are, and which there are."""
    f = tl.arange(0, FS)
    mask = there[:, None]
    if F != FS:
        mask = mask & (f < F)[None, :]
    return table + (voxel * F)[:, None] + f[None, :], mask


@triton.jit
def features_of(table, voxel, there, F: tl.constexpr, FS: tl.constexpr):
    """Features [M, FS] of voxels in float32, 0 where there is none."""
    at, mask = pointers(table, voxel, there, F, FS)
    return tl.load(at, mask, other=0.0).to(tl.float32)


@triton.jit
def interpolated(table, x, y, z, sx, sy, sz, inside, SIDE: tl.constexpr, F: tl.constexpr, FS: tl.constexpr):
    """Features [M, FS] at the points."""
    found = features_of(table, *voxel_of(x, y, z, inside, SIDE), F, FS) * ((1 - sx) * (1 - sy) * (1 - sz))[:, None]
    for corner in tl.static_range(1, 8):
        i, j, k = corner & 1, (corner >> 1) & 1, corner >> 2
        voxel, there = voxel_of(x + i, y + j, z + k, inside, SIDE)
        share = share_of(sx, corner & 1) * share_of(sy, (corner >> 1) & 1) * share_of(sz, corner >> 2)
        found += share[:, None] * features_of(table, voxel, there, F, FS)
    return found


@triton.jit
def interpolated_around(
    table, x, y, z, sx, sy, sz, kx, ky, kz, ux, uy, uz, inside,
    SIDE: tl.constexpr, F: tl.constexpr, FS: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """Features [M, FS] at the points, and how they differ at the three moved points."""
    at = tl.zeros([M, FS], tl.float32)
    dx = tl.zeros([M, FS], tl.float32)
    dy = tl.zeros([M, FS], tl.float32)
    dz = tl.zeros([M, FS], tl.float32)
    for corner in tl.static_range(8):
        voxel, there = voxel_of(x + (corner & 1), y + ((corner >> 1) & 1), z + (corner >> 2), inside, SIDE)
        value = features_of(table, voxel, there, F, FS)
        w, wx, wy, wz = corner_shares(
            sx, sy, sz, kx, ky, kz, ux, uy, uz, corner & 1, (corner >> 1) & 1, corner >> 2
        )  # fmt: skip
        at += w[:, None] * value
        dx += wx[:, None] * value
        dy += wy[:, None] * value
        dz += wz[:, None] * value
    for corner in tl.static_range(4):
        share = next_layer_share(ux, ky, kz, corner & 1, corner >> 1)
        voxel, there = voxel_of(x + 2, y + (corner & 1), z + (corner >> 1), inside & (share > 0), SIDE)
        dx += share[:, None] * features_of(table, voxel, there, F, FS)
        share = next_layer_share(uy, kx, kz, corner & 1, corner >> 1)
        voxel, there = voxel_of(x + (corner & 1), y + 2, z + (corner >> 1), inside & (share > 0), SIDE)
        dy += share[:, None] * features_of(table, voxel, there, F, FS)
        share = next_layer_share(uz, kx, ky, corner & 1, corner >> 1)
        voxel, there = voxel_of(x + (corner & 1), y + (corner >> 1), z + 2, inside & (share > 0), SIDE)
        dz += share[:, None] * features_of(table, voxel, there, F, FS)
    return at, dx, dy, dz


@triton.jit
def next_layer_share(along, across, other, A: tl.constexpr, B: tl.constexpr):
    """What a voxel of the layer beyond the cell counts at the point moved towards it."""
    return moved_share_of(along, 2) * share_of(across, A) * share_of(other, B)


@triton.jit
def spread_around(
    table, at, dx, dy, dz, x, y, z, sx, sy, sz, kx, ky, kz, ux, uy, uz, inside,
    SIDE: tl.constexpr, F: tl.constexpr, FS: tl.constexpr,
):  # fmt: skip
    """Add to a table what :func:`interpolated_around` gives for gradients [M, FS] of its four results.

    Real loops: additions wait for nothing, and the shares of 20 voxels at once would not fit into registers.
    """
    for corner in range(8):
        i, j, k = corner & 1, (corner >> 1) & 1, corner >> 2
        voxel, there = voxel_of(x + i, y + j, z + k, inside, SIDE)
        w, a, b, c = _share(sx, i) * _share(sy, j) * _share(sz, k), _share(kx, i), _share(ky, j), _share(kz, k)
        value = w[:, None] * at
        value += (_moved_share(ux, i) * b * c - w)[:, None] * dx
        value += (a * _moved_share(uy, j) * c - w)[:, None] * dy
        value += (a * b * _moved_share(uz, k) - w)[:, None] * dz
        add(table, voxel, there, value, F, FS)
    for corner in range(4):
        i, j = corner & 1, corner >> 1
        share = moved_share_of(ux, 2) * _share(ky, i) * _share(kz, j)
        voxel, there = voxel_of(x + 2, y + i, z + j, inside & (share > 0), SIDE)
        add(table, voxel, there, share[:, None] * dx, F, FS)
        share = moved_share_of(uy, 2) * _share(kx, i) * _share(kz, j)
        voxel, there = voxel_of(x + i, y + 2, z + j, inside & (share > 0), SIDE)
        add(table, voxel, there, share[:, None] * dy, F, FS)
        share = moved_share_of(uz, 2) * _share(kx, i) * _share(ky, j)
        voxel, there = voxel_of(x + i, y + j, z + 2, inside & (share > 0), SIDE)
        add(table, voxel, there, share[:, None] * dz, F, FS)


@triton.jit
def _share(share, upper):
    """:func:`share_of` of a number that is only known when the kernel runs."""
    return tl.where(upper == 1, share, 1 - share)


@triton.jit
def _moved_share(share, upper):
    """:func:`moved_share_of`, likewise."""
    return tl.where(upper == 1, tl.where(share < 1, share, 2 - share), tl.where(share < 1, 1 - share, 0.0))


@triton.jit
def add(table, voxel, there, value, F: tl.constexpr, FS: tl.constexpr):
    """Add ``value`` [M, FS] to the features of voxels."""
    at, mask = pointers(table, voxel, there, F, FS)
    tl.atomic_add(at, value, mask=mask, sem="relaxed")
