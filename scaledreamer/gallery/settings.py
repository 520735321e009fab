"""Configurations as rows of a table: a key, and its value in each run."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def rows(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str | None]]]:
    """``("cameras.image_size", ["64", "128"])``, in the order of the files; None where a run has no such key."""
    flat = [dict(_flat(config)) for config in configs]
    return [(key, [one.get(key) for one in flat]) for key in _merged([list(one) for one in flat])]


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            yield f"{prefix}{key}", text


def _merged(lists: Sequence[Sequence[str]]) -> list[str]:
    """All keys, each once: one that only a later list has comes after the key that it follows there."""
    merged: list[str] = []
    known: set[str] = set()
    for keys in lists:
        place = 0
        for key in keys:
            if key in known:
                place = merged.index(key) + 1
            else:
                merged.insert(place, key)
                known.add(key)
                place += 1
    return merged
