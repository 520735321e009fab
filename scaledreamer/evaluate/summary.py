"""From rows to figures: means over the prompts that a run was trained on and over the others, the gap between them,
each with an interval of 95 %; and the files that hold them.

=============  =====================================================================================================
prompts.csv    a line a prompt: split (seen, unseen, or empty where the corpus is not here), in_gallery, measures
prompts.json   the same: {"prompts": [{"prompt": ..., "split": ..., "in_gallery": ..., MEASURE: ...}, ...]}
summary.json   {"groups": {GROUP: {"prompts": P, "measures": {MEASURE: [mean, low, high]}}}, "gallery": ..., ...}
=============  =====================================================================================================
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from scaledreamer.bootstrap import gap, interval
from scaledreamer.evaluate.rows import Row
from scaledreamer.training.directory import write_atomically

MEASURES = {
    "similarity": "CLIP similarity",
    "view_recall_1": "recall@1, each view (paper's)",
    "view_recall_5": "recall@5, each view",
    "object_recall_1": "recall@1, views together",
    "object_recall_5": "recall@5, views together",
    "rank": "rank, views together",
    "consistency": "neighbouring views alike",
    "janus": "Janus: back like a front",
    "iou": "IoU with the truth",
    "sphere_iou": "IoU of the initial sphere",
    "share": "way from sphere to ceiling",
    "color_error": "colour error",
    "upright": "upright",
}
"""What may be measured of a prompt (:func:`scaledreamer.clip.measures.measure`, :mod:`scaledreamer.toybox.scores`), in
the order of tables, and how it is headed there. The paper's recall@1 is the share of single views that name their
prompt."""

Estimate = tuple[float, float, float]
"""(mean, low, high)."""


@dataclass(frozen=True)
class Group:
    """Some prompts, or (``gap``) the difference between two groups."""

    prompts: int
    measures: dict[str, Estimate]


@dataclass(frozen=True)
class Evaluation:
    """The figures of a run."""

    directory: Path
    step: int
    recipe: dict[str, Any]
    groups: dict[str, Group]
    """``all``, ``seen``, ``unseen`` and ``gap``; where all prompts are of one kind that group alone."""

    @property
    def protocol(self) -> dict[str, Any]:
        """Its options."""
        return self.recipe["protocol"]

    @property
    def gallery(self) -> dict[str, Any]:
        """Name, size and digest."""
        return self.recipe["gallery"]

    @property
    def figures(self) -> dict[str, float]:
        """The means, for loggers: ``evaluate/PROTOCOL/GROUP/MEASURE``."""
        return {
            f"evaluate/{self.protocol['name']}/{name}/{measure}": estimate[0]
            for name, group in self.groups.items()
            for measure, estimate in group.measures.items()
        }


def grouped(rows: Sequence[Row], splits: Mapping[str, str | None]) -> dict[str, Group]:
    """The groups of some rows.

    Args:
        rows: at least one.
        splits: ``seen``, ``unseen`` or, where the corpus is not known, None, of each prompt.
    """
    of = {name: [row for row in rows if splits[row.prompt] == name] for name in ("seen", "unseen")}
    of = {name: some for name, some in of.items() if some}
    if sum(map(len, of.values())) < len(rows) or len(of) > 1:
        of = {"all": list(rows), **of}
    columns = {name: _columns(some) for name, some in of.items()}
    found = {
        name: Group(len(of[name]), {measure: interval(values) for measure, values in column.items()})
        for name, column in columns.items()
    }
    if "seen" in of and "unseen" in of:
        both = [m for m in columns["seen"] if m in columns["unseen"]]
        gaps = {m: gap(columns["seen"][m], columns["unseen"][m]) for m in both}
        found["gap"] = Group(len(rows), gaps)
    return found


def _columns(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """The values [P] of each measure that all rows have."""
    names = [name for name in MEASURES if all(name in row.measures for row in rows)]
    return {name: torch.tensor([row.measures[name] for row in rows], dtype=torch.float64) for name in names}


def write(evaluation: Evaluation, rows: Sequence[Row], splits: Mapping[str, str | None], folder: Path) -> None:
    """``prompts.csv``, ``prompts.json`` and ``summary.json``; each is replaced when it is whole."""
    names = [name for name in MEASURES if any(name in row.measures for row in rows)]
    table = [
        {
            "prompt": row.prompt,
            "split": splits[row.prompt],
            "in_gallery": row.in_gallery,
            **{name: row.measures[name] for name in names if name in row.measures},
        }
        for row in rows
    ]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["prompt", "split", "in_gallery", *names], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    about = {"run": str(evaluation.directory), "step": evaluation.step}
    groups = {
        name: {"prompts": group.prompts, "measures": {m: list(v) for m, v in group.measures.items()}}
        for name, group in evaluation.groups.items()
    }
    summary = {**about, **evaluation.recipe, "interval": "95 %, bootstrap over prompts", "groups": groups}
    write_atomically(folder / "prompts.csv", text.getvalue())
    write_atomically(folder / "prompts.json", _json({**about, "prompts": table}))
    write_atomically(folder / "summary.json", _json(summary))


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
