"""Signed distances of the two shapes that every toy is made of, at points in the shape's own frame.

Positive outside, 1-Lipschitz (ellipsoids: about 1), so that spheres can be traced. All arguments broadcast.
"""

from torch import Tensor

_TINY = 1e-12


def solid(
    x: Tensor, y: Tensor, z: Tensor, *, side_x: Tensor, side_y: Tensor, height: Tensor, corner: Tensor, taper: Tensor,
    wall: Tensor, edge: Tensor,
) -> Tensor:  # fmt: skip
    """A rounded rectangle drawn up along z: boxes, cylinders, cones, pyramids, capsules, spheres, tubes and tori.

    The outline in the xy plane gives a distance r; the profile in the (r, z) plane is a trapezoid with rounded edges
    (after Inigo Quilez, "distance functions": round box, capped cone).

    Args:
        side_x, side_y: half sides of the outline at half height.
        height: half height.
        corner: radius of the outline's corners, from ``edge`` (a box) to the half side (a cylinder).
        taper: by how much the outline grows at the bottom and shrinks at the top.
        wall: half thickness of the wall of a tube, measured inwards from the outline; a large number for a full solid.
        edge: radius of the edges at bottom and top; at most the half height and ``corner``.
    """
    outer_x, outer_y = x.abs() - (side_x - corner), y.abs() - (side_y - corner)
    outline = (outer_x.clamp(min=0).square() + outer_y.clamp(min=0).square() + _TINY).sqrt()
    r = outline + outer_x.maximum(outer_y).clamp(max=0) - corner
    r = (r + wall).abs() - wall + edge
    half = height - edge
    above_cap = z.abs() - half
    beside_cap = (r + taper * z.sign()).clamp(min=0)
    # Nearest point of the slanted side, from (taper, -half) to (-taper, half).
    along = ((z + half) * half - (r - taper) * taper) / (2 * (taper * taper + half * half) + _TINY)
    along = along.clamp(0, 1)
    beside = r - taper + 2 * taper * along
    over = z + half - 2 * half * along
    squared = (beside_cap.square() + above_cap.square()).minimum(beside.square() + over.square())
    inside = (beside < 0) & (above_cap < 0)
    distance = (squared + _TINY).sqrt()
    return distance.where(~inside, -distance) - edge


def ellipsoid(x: Tensor, y: Tensor, z: Tensor, *, radius_x: Tensor, radius_y: Tensor, radius_z: Tensor) -> Tensor:
    """With k = |p / radius|: outside k (k - 1) / |p / radius^2|, exact to first order at the surface (Quilez).

    Inside (k - 1) times the least radius, for the outer formula is not Lipschitz there. Outside the gradient stays
    below 1.03 as long as no radius is more than twice another.
    """
    u, v, w = x / radius_x, y / radius_y, z / radius_z
    k = (u * u + v * v + w * w + _TINY).sqrt()
    slope = ((u / radius_x).square() + (v / radius_y).square() + (w / radius_z).square() + _TINY).sqrt()
    least = radius_x.minimum(radius_y).minimum(radius_z)
    return (k - 1) * (k / slope).where(k > 1, least)
