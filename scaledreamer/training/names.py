"""Lists of parameter names, short enough to be read."""

import re
from collections.abc import Iterable

MOST = 40
"""Names that a list shows at the most."""


def listed(names: Iterable[str]) -> str:
    """Every name, those that differ in their first number as one: ``layers.{0-11}.norm1.weight, pos_embed``.

    Beyond :data:`MOST` such names the rest is counted.
    """
    numbers: dict[str, list[int]] = {}
    counts: dict[str, int] = {}
    for name in names:
        found = re.search(r"(?<=\.)\d+(?=\.)", name)
        pattern = f"{name[: found.start()]}\0{name[found.end() :]}" if found else name
        numbers.setdefault(pattern, []).extend([int(found[0])] if found else [])
        counts[pattern] = counts.get(pattern, 0) + 1
    shown = [pattern.replace("\0", _ranges(values)) for pattern, values in list(numbers.items())[:MOST]]
    left = sum(list(counts.values())[MOST:])
    return ", ".join(shown) + (f" and {left} more" if left else "")


def _ranges(numbers: list[int]) -> str:
    """``7`` for one number, ``{0-3,5}`` for several."""
    if len(numbers) == 1:
        return str(numbers[0])
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return "{" + ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs) + "}"
