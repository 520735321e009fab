"""Hats and stands, in units of the head's and the footing's radius; a hat sits on z = 0, a stand's top is z = 0."""

from scaledreamer.toybox.parts import Part, ball, box, cylinder, egg, plate, tube


def top_hat() -> tuple[Part, ...]:
    """Black felt, a wide brim, a red ribbon."""
    return (
        cylinder((0, 0, 0.08), 1.40, 0.10, "felt"),
        cylinder((0, 0, 0.85), 0.90, 0.80, "felt", taper=-0.08),
        cylinder((0, 0, 0.34), 0.94, 0.20, "ribbon"),
    )


def party_hat() -> tuple[Part, ...]:
    """A pink paper cone with two stripes and a bobble."""
    return (
        cylinder((0, 0, 1.00), 0.54, 1.05, "paper", taper=0.48, edge=0.02),
        cylinder((0, 0, 0.55), 0.80, 0.17, "stripe", taper=0.07),
        cylinder((0, 0, 1.20), 0.51, 0.15, "stripe", taper=0.07),
        ball((0, 0, 2.10), 0.30, "stripe"),
    )


def crown() -> tuple[Part, ...]:
    """A gold ring with eight points."""
    point = {"radius": 0.16, "half": 0.36, "colour": "gold", "taper": 0.15, "edge": 0.0}
    return (
        tube((0, 0, 0.40), 1.05, 0.42, 0.26, "gold"),
        cylinder((0.65, 0.65, 1.06), **point, mirror="xy"),
        cylinder((0.92, 0, 1.06), **point, mirror="x"),
        cylinder((0, 0.92, 1.06), **point, mirror="y"),
        ball((1.02, 0, 0.42), 0.20, "ribbon"),
    )


def cap() -> tuple[Part, ...]:
    """A baseball cap."""
    return (
        egg((0, 0, 0.10), (1.08, 1.08, 0.86), "cap"),
        plate((0.98, 0, 0.10), (0.86, 0.84, 0.11), "visor"),
        ball((0, 0, 0.96), 0.17, "visor"),
    )


def drum() -> tuple[Part, ...]:
    """Red, with gold rims and a pale skin."""
    return (
        cylinder((0, 0, -0.40), 0.96, 0.38, "drum"),
        cylinder((0, 0, -0.08), 1.04, 0.09, "gold"),
        cylinder((0, 0, -0.74), 1.04, 0.09, "gold"),
        cylinder((0, 0, -0.03), 0.92, 0.06, "skin"),
    )


def crate() -> tuple[Part, ...]:
    """A wooden box with dark edges."""
    return (
        box((0, 0, -0.42), (0.88, 0.88, 0.42), "box"),
        box((0.84, 0.84, -0.42), (0.11, 0.11, 0.43), "frame", edge=0.02, mirror="xy"),
        box((0, 0, -0.11), (0.93, 0.93, 0.10), "frame", edge=0.02),
        box((0, 0, -0.74), (0.93, 0.93, 0.10), "frame", edge=0.02),
    )


def cloud() -> tuple[Part, ...]:
    """Puffs of white."""
    return (
        egg((0, 0, -0.42), (0.90, 0.90, 0.46), "cloud"),
        ball((0.62, 0.62, -0.40), 0.42, "cloud", mirror="xy"),
        ball((0.94, 0, -0.46), 0.40, "cloud", mirror="x"),
        ball((0, 0.94, -0.46), 0.40, "cloud", mirror="y"),
    )
