"""The parts of any toy: its kind, with the hat on its head and the stand under its feet."""

import functools
from collections.abc import Callable

from scaledreamer.toybox import accessories, animals, things
from scaledreamer.toybox.parts import Part
from scaledreamer.toybox.shapes import Shape
from scaledreamer.toybox.vocabulary import Toy

_KINDS: dict[str, Callable[[], Shape]] = {
    "robot": animals.robot,
    "duck": animals.duck,
    "cat": animals.cat,
    "elephant": animals.elephant,
    "fish": animals.fish,
    "snowman": animals.snowman,
    "mushroom": animals.mushroom,
    "house": things.house,
    "car": things.car,
    "train": things.train,
    "rocket": things.rocket,
    "airplane": things.airplane,
    "chair": things.chair,
    "teapot": things.teapot,
}
_HATS: dict[str, Callable[[], tuple[Part, ...]]] = {
    "top hat": accessories.top_hat,
    "party hat": accessories.party_hat,
    "crown": accessories.crown,
    "cap": accessories.cap,
}
_STANDS: dict[str, Callable[[], tuple[Part, ...]]] = {
    "drum": accessories.drum,
    "box": accessories.crate,
    "cloud": accessories.cloud,
}


@functools.cache
def shape_of(kind: str) -> Shape:
    """The kind without hat and stand."""
    return _KINDS[kind]()


def parts_of(toy: Toy) -> tuple[Part, ...]:
    """All parts of a toy, in toy units; the colour ``body`` is not filled in."""
    shape = shape_of(toy.kind)
    x, y, z, head = shape.hat
    hat = _HATS[toy.hat]() if toy.hat else ()
    stand = _STANDS[toy.stand]() if toy.stand else ()
    return (
        *shape.parts,
        *(part.moved((x, y, z), head) for part in hat),
        *(part.moved((0, 0, shape.floor), shape.footing) for part in stand),
    )


@functools.cache
def slots() -> dict[str, int]:
    """The most parts of each shape that any toy has, so that all scenes have one size."""
    names = [[Toy(kind, "red", hat, stand) for hat in _HATS for stand in _STANDS] for kind in _KINDS]
    counted = [[part.shape for part in parts_of(toy)] for toys in names for toy in toys]
    return {shape: max(shapes.count(shape) for shapes in counted) for shape in ("solid", "ellipsoid")}
