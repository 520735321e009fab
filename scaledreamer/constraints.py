"""Ranges that constructors declare in their signatures; they are checked when a configuration is composed.

``batch_size: PositiveInt`` documents the range to the reader and lets :mod:`scaledreamer.config` reject
``corpus.batch_size=0`` before anything is loaded. They have no effect on direct calls from Python.
"""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Len
from pydantic import AfterValidator


def _ascending(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError("[low, high] must have low <= high")
    return limits


def _with_prompt(template: str) -> str:
    try:
        filled = template.format(prompt="\0")
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError("the only placeholder of a template is {prompt}") from error
    if "\0" not in filled:
        raise ValueError("a template must contain {prompt}")
    return template


PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Probability = Annotated[float, Ge(0), Le(1)]
Range = Annotated[tuple[float, float], Len(2, 2), AfterValidator(_ascending)]
"""``[low, high]``, both ends included."""
Template = Annotated[str, AfterValidator(_with_prompt)]
"""A way to word a prompt: ``{prompt}, front view``."""
