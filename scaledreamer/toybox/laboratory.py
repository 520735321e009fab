"""Runs of the toybox beside each other: ``python -m scaledreamer.toybox.laboratory FOLDER...``.

Finds every finished run below the folders and writes ``table.md``, ``table.csv`` and ``plot.png``. Runs that differ in
their seed alone make one row, with an interval of 95 % from a bootstrap over seeds and, within them, prompts.
"""

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from scaledreamer.cli import clear_errors
from scaledreamer.errors import UserError

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
_INCIDENTAL = (
    "seed",
    "resume",
    "logger",
    "callbacks",
    "trainer.threads",
    "trainer.devices",
)  # make no other experiment


@dataclass(frozen=True)
class Finished:
    """A run and what its toys scored."""

    config: dict[str, Any]
    scores: dict[str, list[dict[str, float]]]  # of each prompt, by split


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seed alone, on one split; (mean, low, high) of each measure."""

    label: str
    split: str
    seeds: int
    prompts: int
    values: dict[str, tuple[float, float, float]]


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


def rows(runs: Sequence[Finished]) -> list[Row]:
    """One row per experiment and split, in the order of their labels."""
    experiments: dict[str, list[Finished]] = {}
    for run, label in zip(runs, labels([run.config for run in runs]), strict=True):
        experiments.setdefault(label, []).append(run)
    return [
        Row(
            label=label,
            split=split,
            seeds=len(same),
            prompts=len(same[0].scores[split]),
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


def labels(configs: Sequence[dict[str, Any]]) -> list[str]:
    """What to call each run: its name, and the values in which it differs from others of that name."""
    flat = [dict(_leaves(config)) for config in configs]
    found = []
    for config, leaves in zip(configs, flat, strict=True):
        others = [other for other in flat if other["name"] == config["name"]]
        differs = [key for key in leaves if any(other.get(key) != leaves[key] for other in others)]
        found.append(" ".join([str(config["name"]), *(f"{key}={leaves[key]}" for key in differs)]))
    return found


def _leaves(node: Any, path: str = "") -> list[tuple[str, Any]]:
    if path in _INCIDENTAL:
        return []
    if isinstance(node, dict):
        return [leaf for key, value in node.items() for leaf in _leaves(value, f"{path}.{key}" if path else key)]
    return [(path, node)]


def interval(values: Sequence[np.ndarray], *, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high) of values [P] of each run: runs are drawn with replacement, then the prompts of each."""
    random = np.random.default_rng(seed)
    means = np.empty(_RESAMPLES)
    for i in range(_RESAMPLES):
        drawn = [values[j] for j in random.integers(len(values), size=len(values))]
        means[i] = np.mean([v[random.integers(len(v), size=len(v))].mean() for v in drawn])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(np.mean([v.mean() for v in values])), float(low), float(high)


def markdown(table: Sequence[Row]) -> str:
    """The table as GitHub shows it."""
    measures = [name for name in MEASURES if any(name in row.values for row in table)]
    lines = [
        "| " + " | ".join(["run", "prompts", "seeds", *(MEASURES[m] for m in measures)]) + " |",
        "|---" * (3 + len(measures)) + "|",
    ]
    for row in table:
        cells = [row.label, f"{row.prompts} {row.split}", str(row.seeds)]
        for name in measures:
            mean, low, high = row.values.get(name, (float("nan"),) * 3)
            cells.append(f"{mean:.3f} ({low:.3f}-{high:.3f})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "In brackets: 95 %, bootstrap over seeds and prompts.", ""])


def write_csv(table: Sequence[Row], path: Path) -> None:
    """One line per run, split and measure."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "split", "prompts", "seeds", "measure", "mean", "low", "high"])
        for row in table:
            for name, value in row.values.items():
                writer.writerow([row.label, row.split, row.prompts, row.seeds, name, *(f"{v:.5f}" for v in value)])


def plot(table: Sequence[Row], path: Path) -> None:
    """Recall and IoU of each row, with their intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = list(dict.fromkeys(row.label for row in table))
    figure = Figure(figsize=(9, 1.4 + 0.5 * len(shown)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for axis, name in zip(figure.subplots(1, 2, sharey=True), ("recall", "iou"), strict=True):
        for split, color, shift in (("seen", "tab:blue", -0.12), ("unseen", "tab:orange", 0.12)):
            of = [row for row in table if row.split == split]
            mean, low, high = np.array([row.values[name] for row in of]).reshape(-1, 3).T
            places = [shown.index(row.label) + shift for row in of]
            axis.errorbar(
                mean,
                places,
                xerr=np.maximum([mean - low, high - mean], 0),
                fmt="o",
                color=color,
                capsize=3,
                label=split,
            )
        axis.set_xlabel(MEASURES[name])
        axis.grid(axis="x", alpha=0.3)
    axis.set_yticks(range(len(shown)), shown)
    axis.set_ylim(len(shown) - 0.5, -0.5)  # the first row on top
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m scaledreamer.toybox.laboratory", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of a sweep or of single runs")
    parser.add_argument("--out", type=Path, help="where to write (default: the first folder)")
    given = parser.parse_args(arguments)
    table = rows(find(given.folders))
    out: Path = given.out or given.folders[0]
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(markdown(table), "utf-8")
    write_csv(table, out / "table.csv")
    plot(table, out / "plot.png")
    print(markdown(table))
    print(f"{out / 'table.md'}, table.csv, plot.png")


if __name__ == "__main__":
    with clear_errors():
        main()
