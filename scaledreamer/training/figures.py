"""The figures a run ended with, read from its files."""

import csv
import json
from pathlib import Path
from typing import Any

END = 0.1
"""Share of the run, at its end, over which curves are averaged: single steps of a distillation scatter too much."""


def final_figures(directory: Path) -> dict[str, float]:
    """Name -> value: the last tenth of each curve, the toybox's scores, and those of ``evaluate.py``.

    They are called as in ``metrics.csv``: ``train/loss``, ``toybox/unseen/iou``, ``evaluate/PROTOCOL/GROUP/MEASURE``.
    A file that cannot be read has no figures.
    """
    found = _curves(directory / "csv" / "metrics.csv")
    scores = _json(directory / "toybox" / "scores.json")
    for split in ("seen", "unseen"):
        found |= {f"toybox/{split}/{name}": float(value[0]) for name, value in scores.get(split, {}).items()}
    for file in sorted(directory.glob("evaluate/*/summary.json")):
        for group, content in _json(file).get("groups", {}).items():
            for name, value in content["measures"].items():
                found[f"evaluate/{file.parent.name}/{group}/{name}"] = float(value[0])
    return found


def last_step(directory: Path) -> int | None:
    """Optimiser steps that ``metrics.csv`` knows of; None without it."""
    rows = _rows(directory / "csv" / "metrics.csv")
    return max((int(row["step"]) + 1 for row in rows if row.get("train/loss")), default=None)


def _curves(path: Path) -> dict[str, float]:
    rows = _rows(path)
    last = max((int(row["step"]) for row in rows), default=0)
    values: dict[str, list[float]] = {}
    for row in rows:
        if int(row["step"]) >= (1 - END) * last:
            for name, value in row.items():
                if value and name not in ("step", "epoch"):
                    values.setdefault(name, []).append(float(value))
    return {name: sum(of) / len(of) for name, of in values.items()}


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [row for row in csv.DictReader(file) if row.get("step")]
    except OSError:
        return []


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
