"""A kind of toy as parts, with the places where a hat and a stand go."""

from scaledreamer.toybox.parts import Part


class Shape:
    """The parts of one kind.

    Args:
        parts: in toy units, x forward, z up.
        hat: x, y, z where the hat sits, and the head's radius there.
        footing: radius of the stand's top.
        floor: z of the stand's top.
        blend: width of the smooth joints between soft parts, toy units.
    """

    def __init__(
        self,
        *parts: Part,
        hat: tuple[float, float, float, float],
        footing: float,
        floor: float = 0.0,
        blend: float = 0.02,
    ) -> None:
        self.parts, self.hat, self.footing, self.floor, self.blend = parts, hat, footing, floor, blend
