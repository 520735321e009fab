"""Toys that are things; what tells their front (+x) from their back is a door, a lamp, a spout or a seat."""

from scaledreamer.toybox.parts import ball, box, cylinder, egg, limb, plate, ring, soft
from scaledreamer.toybox.shapes import Shape


def house() -> Shape:
    """A gabled house with a door and three windows at its front and a chimney."""
    return Shape(
        box((0, 0, 0.55), (0.62, 0.68, 0.55), edge=0.02),
        box((0, 0, 1.10), (0.60, 0.47, 0.47), edge=0.02, turn=(0, 0, 45)),
        box((0, 0.42, 1.45), (0.76, 0.62, 0.09), "roof", edge=0.03, turn=(0, 0, -45), mirror="y"),
        box((0.62, 0, 0.34), (0.06, 0.17, 0.34), "wood", edge=0.02),
        ball((0.69, 0.09, 0.34), 0.05, "gold"),
        box((0.62, 0.44, 0.66), (0.05, 0.15, 0.17), "glass", edge=0.02, mirror="y"),
        cylinder((0.62, 0, 1.20), 0.17, 0.05, "glass", along="x"),
        box((-0.34, 0.38, 1.62), (0.15, 0.15, 0.34), "brick", edge=0.02),
        hat=(0, 0, 1.94, 0.40),
        footing=0.80,
    )


def car() -> Shape:
    """A saloon: long bonnet, white lamps at the front and red ones behind."""
    return Shape(
        box((0, 0, 0.52), (1.05, 0.52, 0.26), edge=0.12),
        box((-0.22, 0, 0.98), (0.56, 0.44, 0.30), edge=0.06, taper=0.10),
        box((-0.22, 0, 0.96), (0.40, 0.47, 0.15), "glass", edge=0.04, taper=0.05),
        box((-0.22, 0, 0.96), (0.59, 0.34, 0.15), "glass", edge=0.04, taper=0.05),
        cylinder((0.62, 0.50, 0.28), 0.29, 0.13, "rubber", along="y", mirror="xy"),
        cylinder((0.62, 0.60, 0.28), 0.15, 0.06, "steel", along="y", mirror="xy"),
        ball((1.00, 0.34, 0.58), 0.14, "lamp", mirror="y"),
        box((1.05, 0, 0.44), (0.05, 0.22, 0.08), "iron", edge=0.03),
        box((-1.04, 0.34, 0.58), (0.06, 0.14, 0.08), "tail lamp", edge=0.03, mirror="y"),
        hat=(-0.22, 0, 1.26, 0.34),
        footing=0.72,
    )


def train() -> Shape:
    """A steam engine: boiler and funnel in front, cab behind."""
    return Shape(
        cylinder((0.35, 0, 0.88), 0.40, 0.66, along="x"),
        box((-0.62, 0, 0.98), (0.36, 0.50, 0.58)),
        box((-0.62, 0, 1.60), (0.46, 0.60, 0.08), "iron"),
        box((-0.62, 0, 1.20), (0.20, 0.53, 0.18), "glass", edge=0.02),
        box((0.02, 0, 0.44), (1.00, 0.40, 0.11), "iron"),
        cylinder((0.66, 0, 1.40), 0.17, 0.26, "iron", taper=-0.06),
        ball((0.12, 0, 1.26), 0.19, "gold"),
        cylinder((1.00, 0, 0.88), 0.30, 0.06, "iron", along="x"),
        ball((1.05, 0, 0.88), 0.16, "lamp"),
        cylinder((0.62, 0.44, 0.29), 0.29, 0.10, "tail lamp", along="y", mirror="xy"),
        cylinder((0.00, 0.44, 0.29), 0.29, 0.10, "tail lamp", along="y", mirror="y"),
        box((1.10, 0, 0.24), (0.20, 0.38, 0.17), "steel", taper=0.12),
        hat=(-0.62, 0, 1.68, 0.36),
        footing=0.74,
    )


def rocket() -> Shape:
    """A space rocket on its flame, with a porthole and a hatch at its front and three fins."""
    return Shape(
        egg((0, 0, 1.26), (0.50, 0.50, 0.96)),
        cylinder((0, 0, 2.10), 0.20, 0.30, "steel", taper=0.19, edge=0.01),
        cylinder((0, 0, 0.42), 0.32, 0.10, "iron", taper=0.04),
        cylinder((0, 0, 0.16), 0.17, 0.20, "flame", taper=-0.11, edge=0.04),
        plate((0, 0.56, 0.62), (0.26, 0.10, 0.44), "tail lamp", along="y", mirror="y"),
        plate((-0.58, 0, 0.62), (0.26, 0.10, 0.44), "tail lamp", along="y"),
        ring((0.47, 0, 1.52), 0.20, 0.08, "steel", along="x"),
        cylinder((0.46, 0, 1.52), 0.18, 0.06, "glass", along="x"),
        box((0.48, 0, 0.96), (0.06, 0.15, 0.20), "steel"),
        hat=(0, 0, 2.02, 0.32),
        footing=0.60,
    )


def airplane() -> Shape:
    """A propeller plane."""
    return Shape(
        *soft(
            limb((0.70, 0, 0.62), (-0.95, 0, 0.72), 0.32, taper=0.06),
        ),
        plate((0.20, 0.72, 0.56), (0.28, 0.66, 0.08), mirror="y"),
        plate((-1.00, 0.34, 0.80), (0.17, 0.32, 0.07), mirror="y"),
        plate((-1.06, 0, 1.08), (0.20, 0.08, 0.34), along="y", turn=-16),
        egg((0.26, 0, 0.92), (0.32, 0.22, 0.22), "glass"),
        ball((1.00, 0, 0.62), 0.17, "tail lamp"),
        plate((1.06, 0, 0.62), (0.06, 0.11, 0.56), "steel", along="x"),
        cylinder((0.36, 0.28, 0.17), 0.17, 0.09, "rubber", along="y", mirror="y"),
        limb((0.34, 0.16, 0.42), (0.36, 0.28, 0.17), 0.07, "steel", mirror="y"),
        hat=(0.20, 0, 1.08, 0.32),
        footing=0.62,
    )


def chair() -> Shape:
    """Four thick legs, a cushion and a straight back."""
    return Shape(
        box((0, 0, 0.80), (0.56, 0.56, 0.11)),
        box((0.39, 0.39, 0.36), (0.16, 0.16, 0.36), mirror="xy"),
        box((-0.45, 0.41, 1.35), (0.12, 0.14, 0.50), mirror="y"),
        box((-0.45, 0, 1.62), (0.11, 0.50, 0.26)),
        box((0.08, 0, 0.94), (0.42, 0.44, 0.09), "cushion", edge=0.07),
        hat=(-0.45, 0, 1.86, 0.36),
        footing=0.70,
    )


def teapot() -> Shape:
    """A round pot: steel lid and spout, the spout in front and the handle behind."""
    return Shape(
        egg((0, 0, 0.60), (0.66, 0.66, 0.56)),
        limb((0.54, 0, 0.46), (1.02, 0, 0.94), 0.22, "steel", taper=0.07),
        cylinder((0, 0, 0.10), 0.40, 0.10),
        ring((-0.70, 0, 0.66), 0.34, 0.10, along="y"),
        cylinder((0, 0, 1.08), 0.40, 0.07, "steel", edge=0.05),
        ball((0, 0, 1.24), 0.15, "steel"),
        cylinder((1.10, 0, 1.02), 0.10, 0.07, "pupil", turn=(0, 45, 0)),
        hat=(0, 0, 1.14, 0.38),
        footing=0.60,
    )
