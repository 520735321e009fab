"""Toys with a face. Each looks along +x and stands on z = 0 or floats above it."""

from scaledreamer.toybox.parts import ball, box, cylinder, egg, eyes, limb, plate, ring, soft
from scaledreamer.toybox.shapes import Shape


def robot() -> Shape:
    """A boxy torso and head, steel arms and ears, a panel on the chest and a battery on the back."""
    return Shape(
        box((0, 0, 0.86), (0.38, 0.54, 0.40)),
        box((0, 0, 1.64), (0.38, 0.46, 0.34)),
        box((0.06, 0.28, 0.24), (0.30, 0.21, 0.24), "steel", mirror="y"),
        limb((0, 0.72, 1.12), (0.20, 0.74, 0.60), 0.17, "steel", mirror="y"),
        cylinder((0, 0.50, 1.62), 0.16, 0.09, "steel", along="y", mirror="y"),
        cylinder((0, 0, 1.28), 0.22, 0.10, "steel"),
        *eyes((0.36, 0.20, 1.70), 0.16, white="lamp"),
        box((0.38, 0, 1.41), (0.05, 0.26, 0.06), "pupil"),
        box((0.38, 0, 0.90), (0.05, 0.30, 0.22), "steel"),
        ball((0.42, 0.13, 0.90), 0.10, "tail lamp"),
        box((-0.46, 0, 0.88), (0.15, 0.32, 0.28), "iron"),
        hat=(-0.04, 0, 1.98, 0.42),
        footing=0.66,
    )


def duck() -> Shape:
    """A bathtub duck."""
    return Shape(
        *soft(
            egg((0, 0, 0.50), (0.80, 0.58, 0.50)),
            ball((0.48, 0, 1.25), 0.42),
            limb((0.38, 0, 0.70), (0.45, 0, 1.10), 0.28),
            limb((-0.55, 0, 0.62), (-0.92, 0, 0.98), 0.24, taper=0.10),
        ),
        egg((-0.12, 0.52, 0.58), (0.42, 0.21, 0.26), mirror="y"),
        egg((0.96, 0, 1.16), (0.30, 0.24, 0.15), "beak"),
        *eyes((0.72, 0.23, 1.43), 0.14, look=(1, 0.35, 0)),
        hat=(0.44, 0, 1.58, 0.36),
        footing=0.66,
        blend=0.05,
    )


def cat() -> Shape:
    """A sitting cat with its tail up."""
    return Shape(
        *soft(
            egg((-0.12, 0, 0.66), (0.44, 0.42, 0.66)),
            egg((0.12, 0, 1.48), (0.42, 0.50, 0.40)),
            egg((-0.10, 0.34, 0.26), (0.42, 0.24, 0.26), mirror="y"),
            limb((0.34, 0.19, 0.14), (0.18, 0.19, 0.80), 0.15, mirror="y"),
        ),
        limb((-0.50, 0, 0.16), (-0.92, 0, 0.30), 0.13),
        limb((-0.92, 0, 0.30), (-1.00, 0, 0.95), 0.13),
        cylinder((0.08, 0.32, 1.92), 0.11, 0.22, taper=0.11, edge=0.0, mirror="y", turn=(0, 0, -14)),
        *eyes((0.43, 0.20, 1.56), 0.14, white="cat eye"),
        egg((0.50, 0, 1.32), (0.14, 0.22, 0.14), "eye"),
        ball((0.63, 0, 1.40), 0.07, "nose"),
        hat=(0.08, 0, 1.82, 0.36),
        footing=0.62,
        blend=0.04,
    )


def elephant() -> Shape:
    """Big ears, a trunk that reaches the ground, tusks."""
    return Shape(
        *soft(
            egg((-0.12, 0, 0.95), (0.78, 0.56, 0.54)),
            ball((0.66, 0, 1.30), 0.44),
            limb((1.00, 0, 1.18), (1.26, 0, 0.62), 0.20, taper=0.04),
            limb((1.26, 0, 0.62), (1.42, 0, 0.24), 0.16, taper=0.03),
        ),
        cylinder((0.30, 0.30, 0.38), 0.21, 0.38, mirror="y"),
        cylinder((-0.54, 0.30, 0.38), 0.21, 0.38, mirror="y"),
        plate((0.56, 0.60, 1.34), (0.08, 0.36, 0.42), along="x", mirror="y"),
        plate((0.63, 0.60, 1.34), (0.06, 0.24, 0.29), "nose", along="x", mirror="y"),
        limb((0.98, 0.24, 1.06), (1.36, 0.26, 0.96), 0.085, "ivory", mirror="y"),
        limb((-0.86, 0, 1.05), (-1.02, 0, 0.62), 0.08),
        *eyes((1.00, 0.22, 1.46), 0.11),
        hat=(0.62, 0, 1.66, 0.36),
        footing=0.78,
        blend=0.05,
    )


def fish() -> Shape:
    """A goldfish."""
    return Shape(
        *soft(
            egg((0.10, 0, 0.66), (0.82, 0.44, 0.56)),
            limb((-0.50, 0, 0.66), (-0.85, 0, 0.66), 0.22, taper=0.06),
        ),
        plate((-1.12, 0, 0.94), (0.42, 0.10, 0.20), along="y", turn=38),
        plate((-1.12, 0, 0.38), (0.42, 0.10, 0.20), along="y", turn=-38),
        plate((-0.02, 0, 1.22), (0.40, 0.09, 0.20), along="y", turn=22),
        plate((0.05, 0.50, 0.50), (0.30, 0.18, 0.08), mirror="y", turn=40),
        *eyes((0.62, 0.30, 0.84), 0.17, look=(0.6, 1, 0.2)),
        ring((0.90, 0, 0.58), 0.13, 0.07, "nose", along="x"),
        hat=(0.50, 0, 1.10, 0.34),
        footing=0.60,
        floor=0.14,
        blend=0.05,
    )


def snowman() -> Shape:
    """Three balls, a carrot, a scarf and wooden arms."""
    return Shape(
        ball((0, 0, 0.56), 0.62),
        ball((0, 0, 1.24), 0.48),
        ball((0, 0, 1.80), 0.40),
        ring((0, 0, 1.52), 0.33, 0.12, "scarf"),
        box((0.40, 0.21, 1.30), (0.09, 0.11, 0.22), "scarf"),
        cylinder((0.58, 0, 1.76), 0.07, 0.24, "carrot", along="x", taper=0.07, edge=0.02),
        *eyes((0.31, 0.17, 1.92), 0.12),
        ball((0.46, 0, 1.16), 0.10, "pupil"),
        ball((0.58, 0, 0.76), 0.10, "pupil"),
        limb((0, 0.42, 1.28), (0.06, 0.92, 1.58), 0.09, "wood", mirror="y"),
        hat=(-0.02, 0, 2.12, 0.38),
        footing=0.62,
    )


def mushroom() -> Shape:
    """A toadstool whose stem has a face."""
    return Shape(
        cylinder((0, 0, 0.62), 0.46, 0.62, "stem", taper=0.06, edge=0.16),
        cylinder((0, 0, 1.50), 0.66, 0.42, taper=0.24, edge=0.26),
        ball((0.48, 0.48, 1.60), 0.17, "ivory", mirror="xy"),
        ball((0.76, 0, 1.40), 0.17, "ivory", mirror="x"),
        ball((0, 0.76, 1.40), 0.17, "ivory", mirror="y"),
        ball((0, 0, 1.84), 0.22, "ivory"),
        *eyes((0.40, 0.19, 0.66), 0.15),
        box((0.46, 0, 0.34), (0.06, 0.16, 0.05), "tail lamp"),
        hat=(0, 0, 1.88, 0.40),
        footing=0.62,
    )
