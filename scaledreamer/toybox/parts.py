"""What toys are built from: parts in the toy's own frame (x forward, z up, about two units tall).

A part is one shape of :mod:`scaledreamer.toybox.distances`, turned, moved and perhaps mirrored.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Vector = tuple[float, float, float]
Axis = Literal["x", "y", "z"]

_FULL = 10.0  # wall of a shape that is not hollow: more than any distance to its outline
_ALONG = {"x": (0.0, 90.0, 0.0), "y": (0.0, 0.0, -90.0), "z": (0.0, 0.0, 0.0)}  # yaw, pitch, roll


@dataclass(frozen=True)
class Part:
    """One shape of a toy.

    Attributes:
        shape: ``solid`` or ``ellipsoid``.
        size: the arguments of its distance function, in order, in toy units.
        centre: where it is.
        colour: a name of :data:`scaledreamer.toybox.palette.PALETTE`, or ``body`` for the toy's own colour.
        turn: yaw, pitch and roll in degrees: about z after about y after about x, right-handed.
        mirror: axes (``x``, ``y`` or ``xy``) in which it is doubled: two eyes or four legs are one part.
        plane: x of the mirror that doubles it in x; the one in y stands at 0.
        soft: whether it melts into the other soft parts instead of meeting them in a crease.
    """

    shape: Literal["solid", "ellipsoid"]
    size: tuple[float, ...]
    centre: Vector
    colour: str = "body"
    turn: Vector = (0.0, 0.0, 0.0)
    mirror: str = ""
    plane: float = 0.0
    soft: bool = False

    def moved(self, offset: Vector, scale: float = 1.0) -> "Part":
        """The part enlarged about the origin, then moved; a full solid stays full."""
        size = [value * scale for value in self.size]
        if self.shape == "solid":
            size[5] = self.size[5] if self.size[5] == _FULL else size[5]
        centre = tuple(c * scale + o for c, o in zip(self.centre, offset, strict=True))
        plane = self.plane * scale + offset[0]
        return replace(self, size=tuple(size), centre=centre, plane=plane)

    @property
    def rotation(self) -> list[list[float]]:
        """Rows of the matrix that takes the part's own frame to the toy's."""
        (cy, cp, cr), (sy, sp, sr) = (tuple(f(math.radians(a)) for a in self.turn) for f in (math.cos, math.sin))
        return [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]


def box(
    centre: Vector,
    half: Vector,
    colour: str = "body",
    *,
    edge: float = 0.04,
    corner: float = 0.0,
    taper: float = 0.0,
    **options,
) -> Part:
    """A box of half sides ``half``; ``corner`` rounds its upright edges more, ``taper`` narrows its top."""
    size = (half[0], half[1], half[2], max(edge, corner), taper, _FULL, edge)
    return Part("solid", size, centre, colour, **options)


def plate(
    centre: Vector, half: Vector, colour: str = "body", *, along: Axis = "z", turn: float = 0.0, **options
) -> Part:
    """A thin round-ended plate: wings, fins, wheels. ``half`` are its half sides in the toy's frame before it is turned
    by ``turn`` degrees about its axis ``along``."""
    (length, width, thickness) = {"x": (half[2], half[1], half[0]), "y": (half[0], half[2], half[1]), "z": half}[along]
    edge = min(thickness, length, width) * 0.8
    size = (length, width, thickness, min(length, width), 0.0, _FULL, edge)
    yaw, pitch, roll = _ALONG[along]
    turned = {"x": (yaw, pitch, roll + turn), "y": (yaw, pitch + turn, roll), "z": (yaw + turn, pitch, roll)}[along]
    return Part("solid", size, centre, colour, turned, **options)


def cylinder(
    centre: Vector,
    radius: float,
    half: float,
    colour: str = "body",
    *,
    along: Axis = "z",
    edge: float = 0.03,
    taper: float = 0.0,
    **options,
) -> Part:
    """A cylinder; ``taper`` is taken from the radius at its far end and added at its near end."""
    options.setdefault("turn", _ALONG[along])
    return Part("solid", (radius, radius, half, radius, taper, _FULL, edge), centre, colour, **options)


def ball(centre: Vector, radius: float, colour: str = "body", **options) -> Part:
    """A sphere."""
    return Part("solid", (radius, radius, radius, radius, 0.0, _FULL, radius), centre, colour, **options)


def egg(centre: Vector, radii: Vector, colour: str = "body", **options) -> Part:
    """An ellipsoid; the greatest radius at most twice the least."""
    return Part("ellipsoid", radii, centre, colour, **options)


def limb(start: Vector, end: Vector, radius: float, colour: str = "body", *, taper: float = 0.0, **options) -> Part:
    """A cylinder with round ends, centred in ``start`` and ``end``; ``taper`` makes the end thinner."""
    dx, dy, dz = (b - a for a, b in zip(start, end, strict=True))
    turn = (math.degrees(math.atan2(dy, dx)), math.degrees(math.atan2(math.hypot(dx, dy), dz)), 0.0)
    edge = radius - taper
    half = math.dist(start, end) / 2 + edge
    x, y, z = ((a + b) / 2 for a, b in zip(start, end, strict=True))
    return Part("solid", (radius, radius, half, radius, taper, _FULL, edge), (x, y, z), colour, turn, **options)


def ring(
    centre: Vector, radius: float, thickness: float, colour: str = "body", *, along: Axis = "z", **options
) -> Part:
    """A torus: a circle of ``radius``, ``thickness`` is the radius of its wire."""
    outer = radius + thickness
    options.setdefault("turn", _ALONG[along])
    return Part("solid", (outer, outer, thickness, outer, 0.0, thickness, thickness), centre, colour, **options)


def tube(centre: Vector, radius: float, half: float, wall: float, colour: str = "body", **options) -> Part:
    """A hollow upright cylinder of outer ``radius`` with a wall ``wall`` thick."""
    size = (radius, radius, half, radius, 0.0, wall / 2, min(wall, half) * 0.3)
    return Part("solid", size, centre, colour, **options)


def soft(*parts: Part) -> tuple[Part, ...]:
    """The parts, melting into each other."""
    return tuple(replace(part, soft=True) for part in parts)


def eyes(centre: Vector, radius: float, *, white: str = "eye", look: Vector = (1.0, 0.0, 0.0)) -> Sequence[Part]:
    """Two eyes at +-y with pupils that look along ``look``."""
    length = math.hypot(*look)
    x, y, z = (c + 0.62 * radius * a / length for c, a in zip(centre, look, strict=True))
    return (ball(centre, radius, white, mirror="y"), ball((x, y, z), radius * 0.62, "pupil", mirror="y"))
