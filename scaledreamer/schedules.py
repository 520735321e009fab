"""Values that change over a run, written as fractions of it so that one file serves 300 or 300,000 steps.

A schedule is a number (constant) or a list of ``[progress, value]`` points with progress in [0, 1], ascending:
the value is linear between points and constant before the first and after the last.
``[[0.8, 0], [1.0, 10]]`` stays 0 for 80 % of the run and then rises linearly to 10.
"""

from collections.abc import Sequence

from scaledreamer.constraints import Probability

Schedule = float | Sequence[tuple[Probability, float]]


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
