"""Values that change over a run, written as fractions of it so that one file serves 300 or 300,000 steps.

A schedule is a number (constant) or a list of ``[progress, value]`` points with progress in [0, 1], ascending:
the value is linear between points and constant before the first and after the last.
``[[0.8, 0], [1.0, 10]]`` stays 0 for 80 % of the run and then rises linearly to 10.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from annotated_types import MinLen
from pydantic import AfterValidator

from scaledreamer.constraints import PositiveInt, Probability

Points = Sequence[tuple[float, float]]


def _ascending(points: Points) -> Points:
    if any(later[0] < earlier[0] for earlier, later in pairwise(points)):
        raise ValueError("the points of a schedule must be in the order of their progress")
    return points


Schedule = float | Annotated[Sequence[tuple[Probability, float]], MinLen(1), AfterValidator(_ascending)]
ShareSchedule = (
    Probability | Annotated[Sequence[tuple[Probability, Probability]], MinLen(1), AfterValidator(_ascending)]
)
"""A schedule of fractions."""
StepSchedule = PositiveInt | Annotated[Sequence[tuple[Probability, PositiveInt]], MinLen(1), AfterValidator(_ascending)]
"""A whole number above 0 that jumps at each point: ``[[0, 64], [0.4, 256]]`` is 64 until 40 % of the run are done, then
256."""


def value_at(schedule: Schedule, progress: float) -> float:
    """The schedule's value at ``progress`` (fraction of the run done, in [0, 1])."""
    if isinstance(schedule, (int, float)):
        return float(schedule)
    start, value = schedule[0]
    if progress <= start:
        return float(value)
    for end, end_value in schedule[1:]:
        if progress < end:
            return value + (end_value - value) * (progress - start) / (end - start)
        start, value = end, end_value
    return float(value)


def step_at(schedule: StepSchedule, progress: float) -> int:
    """The number of the last point that ``progress`` (in [0, 1]) has come to; that of the first point before it."""
    if isinstance(schedule, int):
        return schedule
    return next((value for start, value in reversed(schedule) if progress >= start), schedule[0][1])
