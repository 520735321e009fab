"""Runs of the toybox beside each other, by prompts: ``python -m scaledreamer.toybox.laboratory FOLDER...``.

Finds every finished run below the folders and writes ``table.md``, ``table.csv`` and ``plot.png``. Runs that differ in
their seed alone make one row, with an interval of 95 % from a bootstrap over seeds and, within them, prompts.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from scaledreamer.cli import clear_errors
from scaledreamer.errors import UserError
from scaledreamer.sweep.leaves import INCIDENTAL, leaves
from scaledreamer.sweep.plot import dots
from scaledreamer.sweep.table import Estimate, Row, Table, csv_text, markdown

MEASURES = {
    "recall": "recall@1",
    "iou": "IoU",
    "share": "of the way",
    "color_error": "colour error",
    "upright": "upright",
    "janus": "Janus",
}
"""Those of scores.json that a table shows, and their headings."""

_RESAMPLES = 2000
_INCIDENTAL = ("seed", *INCIDENTAL)  # make no other experiment


@dataclass(frozen=True)
class Finished:
    """A run and what its toys scored."""

    config: dict[str, Any]
    scores: dict[str, list[dict[str, float]]]  # of each prompt, by split


def find(folders: Sequence[Path]) -> list[Finished]:
    """Every run below the folders that has come to its report.

    Raises:
        UserError: there is none.
    """
    files = sorted({file for folder in folders for file in folder.glob("**/toybox/scores.json")})
    if not files:
        raise UserError(f"{', '.join(map(str, folders))}: no finished toybox run (**/toybox/scores.json) is there.")
    return [_read(file) for file in files]


def _read(file: Path) -> Finished:
    try:
        found = json.loads(file.read_text("utf-8"))
        config = yaml.safe_load((file.parents[1] / "config.yaml").read_text("utf-8"))
        prompts, seen = list(found["prompts"].values()), found["protocol"]["prompts"]["seen"]
    except (OSError, ValueError, KeyError, yaml.YAMLError) as error:
        raise UserError(f"{file}: cannot be read as scores of a run ({error}); remove it or train again.") from error
    splits = {"seen": prompts[:seen], "unseen": prompts[seen:]}
    return Finished(config=config, scores={name: scores for name, scores in splits.items() if scores})


def tabulate(runs: Sequence[Finished]) -> Table:
    """One row per experiment and split, in the order of their labels."""
    experiments: dict[str, list[Finished]] = {}
    for run, label in zip(runs, labels([run.config for run in runs]), strict=True):
        experiments.setdefault(label, []).append(run)
    rows = [
        Row(
            keys={"run": label, "split": split, "prompts": str(len(same[0].scores[split]))},
            runs=str(len(same)),
            values={
                name: interval([np.array([s[name] for s in run.scores[split]]) for run in same])
                for name in MEASURES
                if all(name in s for run in same for s in run.scores[split])
            },
        )
        for label, same in sorted(experiments.items())
        for split in ("seen", "unseen")
        if all(split in run.scores for run in same)
    ]
    shown = {name: heading for name, heading in MEASURES.items() if any(name in row.values for row in rows)}
    return Table(rows, shown, notes=["In brackets: 95 %, bootstrap over seeds and prompts."])


def labels(configs: Sequence[dict[str, Any]]) -> list[str]:
    """What to call each run: its name, and the values in which it differs from others of that name."""
    flat = [leaves(config, without=_INCIDENTAL) for config in configs]
    found = []
    for config, own in zip(configs, flat, strict=True):
        others = [other for other in flat if other["name"] == config["name"]]
        differs = [key for key in own if any(other.get(key) != own[key] for other in others)]
        found.append(" ".join([str(config["name"]), *(f"{key}={own[key]}" for key in differs)]))
    return found


def interval(values: Sequence[np.ndarray], *, seed: int = 0) -> Estimate:
    """(mean, low, high) of values [P] of each run: runs are drawn with replacement, then the prompts of each."""
    random = np.random.default_rng(seed)
    means = np.empty(_RESAMPLES)
    for i in range(_RESAMPLES):
        drawn = [values[j] for j in random.integers(len(values), size=len(values))]
        means[i] = np.mean([v[random.integers(len(v), size=len(v))].mean() for v in drawn])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(np.mean([v.mean() for v in values])), float(low), float(high)


def plot(table: Table, path: Path) -> None:
    """Recall and IoU of each row, with their intervals."""
    splits = dict.fromkeys(row.keys["split"] for row in table.rows)
    panels = {
        MEASURES[name]: {
            split: [(row.keys["run"], row.values[name]) for row in table.rows if row.keys["split"] == split]
            for split in splits
        }
        for name in ("recall", "iou")
    }
    dots(panels, path)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m scaledreamer.toybox.laboratory", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of a sweep or of single runs")
    parser.add_argument("--out", type=Path, help="where to write (default: the first folder)")
    given = parser.parse_args(arguments)
    table = tabulate(find(given.folders))
    out: Path = given.out or given.folders[0]
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(markdown(table), "utf-8")
    (out / "table.csv").write_text(csv_text(table), "utf-8")
    plot(table, out / "plot.png")
    print(markdown(table))
    print(f"{out / 'table.md'}, table.csv, plot.png")


if __name__ == "__main__":
    with clear_errors():
        main()
