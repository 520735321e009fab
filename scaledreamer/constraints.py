"""Ranges that constructors declare in their signatures; they are checked when a configuration is composed.

``batch_size: PositiveInt`` documents the range to the reader and lets :mod:`scaledreamer.config` reject
``corpus.batch_size=0`` before anything is loaded. They have no effect on direct calls from Python.
"""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Len

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Probability = Annotated[float, Ge(0), Le(1)]
Range = Annotated[tuple[float, float], Len(2, 2)]
"""``[low, high]``, both ends included."""
