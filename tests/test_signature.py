"""A constructor's signature is the schema of its option file."""

from typing import Literal

import pytest

from scaledreamer.config.signature import BUILT, nearest, problems_of_call
from scaledreamer.constraints import PositiveInt, Probability, Range
from scaledreamer.schedules import Schedule


class Example:
    def __init__(
        self,
        *,
        width: PositiveInt,
        rate: float = 0.1,
        kind: Literal["sds", "uniform"] = "sds",
        span: Range = (0.0, 1.0),
        chance: Probability = 0.5,
        weight: Schedule = 1.0,
        part: object = None,
    ) -> None: ...


def problems(partial: bool = False, supplied: frozenset[str] = frozenset(), **arguments):
    found = problems_of_call(Example, arguments, partial=partial, supplied=supplied)
    return {p.key: p.message for p in found}


def test_right_values_pass():
    assert problems(width=3, rate=1, kind="uniform", span=[1, 2.5], chance=1, weight=[[0, 1], [1, 2]]) == {}


def test_integers_pass_for_floats_and_lists_for_tuples():
    assert problems(width=3, rate=2, span=[0, 1]) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", 0),
        ("width", 2.5),
        ("width", "3"),
        ("width", True),
        ("rate", "fast"),
        ("kind", "sd"),
        ("span", [1, 2, 3]),
        ("span", 1.0),
        ("chance", 1.5),
        ("weight", [[2.0, 1]]),
        ("weight", "high"),
    ],
)
def test_wrong_values_are_named(name, value):
    found = problems(**{"width": 1, name: value})
    assert list(found) == [name]
    assert repr(value) in found[name]


def test_unknown_name_suggests_the_nearest():
    assert "did you mean 'width'?" in problems(widht=3, width=1)["widht"]


def test_missing_value_is_named_unless_completed_later():
    assert list(problems()) == ["width"]
    assert problems(partial=True) == {}
    assert problems(supplied=frozenset({"width"})) == {}


def test_values_built_elsewhere_are_not_judged():
    assert problems(width=1, part=BUILT) == {}


def test_a_function_that_takes_anything_accepts_unknown_names():
    def anything(**options): ...

    assert problems_of_call(anything, {"x": 1}, partial=False, supplied=frozenset()) == []


def test_nearest_lists_names_when_nothing_is_close():
    assert nearest("zzz", ["asd", "csd"]) == "valid names are: asd, csd."
