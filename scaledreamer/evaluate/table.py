"""Figures on the screen: of one run its groups of prompts beside each other, of several the runs."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from scaledreamer.evaluate.summary import MEASURES, Estimate, Evaluation

NEVER_SHOWN = ("rank", "sphere_iou")
"""In the files alone."""


def show(evaluations: Sequence[Evaluation]) -> None:
    """Print the table on stdout, never narrower than it is: a file has no width."""
    table = of_one(evaluations[0]) if len(evaluations) == 1 else side_by_side(evaluations)
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    console.print(table)


def of_one(evaluation: Evaluation) -> Table:
    """A row a measure, a column a group with the number of its prompts."""
    groups = evaluation.groups
    headings = ["seen - unseen" if n == "gap" else f"{n} ({group.prompts})" for n, group in groups.items()]
    table = _table([evaluation], "measure", *headings)
    for name in _shown([evaluation]):
        table.add_row(MEASURES[name], *(_cell(group.measures.get(name)) for group in groups.values()))
    return table


def side_by_side(evaluations: Sequence[Evaluation]) -> Table:
    """A row a measure and group, a column a run."""
    names = list(dict.fromkeys(name for evaluation in evaluations for name in evaluation.groups))
    names_of_runs = labels([e.directory for e in evaluations])
    columns = [f"{label}, step {e.step}" for label, e in zip(names_of_runs, evaluations, strict=True)]
    table = _table(evaluations, "measure", "prompts", *columns)
    for measure in _shown(evaluations):
        for group in names:
            found = [e.groups[group].measures.get(measure) if group in e.groups else None for e in evaluations]
            first = group == names[0]
            table.add_row(MEASURES[measure] if first else "", group, *map(_cell, found), end_section=group == names[-1])
    return table


def labels(folders: Sequence[Path]) -> list[str]:
    """Absolute folders of runs, from where they part."""
    common = os.path.commonpath([folder.parent for folder in folders])
    return [os.path.relpath(folder, common) for folder in folders]


def _table(evaluations: Sequence[Evaluation], *columns: str) -> Table:
    one, protocol = evaluations[0], evaluations[0].protocol
    size = "" if protocol["size"] is None else f" of {protocol['size']} pixels"
    seen_by = Path(protocol["clip"]).name if os.path.isabs(protocol["clip"]) else protocol["clip"]
    galleries = {e.gallery["digest"]: e.gallery for e in evaluations}
    chosen = "; ".join(f"{g['name']} ({g['size']} texts, {g['digest']})" for g in galleries.values())
    table = Table(
        title=f"protocol {protocol['name']}: {seen_by}, {protocol['views']} views{size}"
        + (f"; {'/'.join(one.directory.parts[-2:])}, step {one.step}" if len(evaluations) == 1 else ""),
        caption=f"Mean (95 % interval, bootstrap over prompts). Recall chooses among: {chosen}.",
        title_justify="left",
        caption_justify="left",
    )
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "center", overflow="fold")
    return table


def _shown(evaluations: Sequence[Evaluation]) -> list[str]:
    measured = {name for e in evaluations for group in e.groups.values() for name in group.measures}
    return [name for name in MEASURES if name in measured and name not in NEVER_SHOWN]


def _cell(estimate: Estimate | None) -> str:
    return "" if estimate is None else "{:.3f} ({:.3f}, {:.3f})".format(*estimate)
