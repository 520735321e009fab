"""Tables of figures with their intervals, as text: of sweeps, and of the toybox's laboratory."""

import csv
import fnmatch
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scipy.special import stdtrit

from scaledreamer.errors import UserError
from scaledreamer.sweep.runs import Run, swept

Estimate = tuple[float, float, float]
"""(mean, low, high)."""

SHOWN = 6
"""Measures that a table for people has at the most, unless they are named."""

PREFERRED = (
    *(
        f"evaluate/*/{group}/{name}"
        for group in ("unseen", "seen", "all")
        for name in ("object_recall_1", "similarity")
    ),
    *(f"toybox/{group}/{name}" for group in ("unseen", "seen") for name in ("recall", "iou", "color_error")),
    *("train/loss", "train/distillation", "train/opacity"),
)
"""The order in which measures are shown where none are named."""

LOWER = ("*loss*", "*error*", "*janus", "*/rank", "train/distillation", "train/eikonal", "train/sparsity")
"""Measures of which less is better."""

T_NOTE = "In brackets: 95 % of the mean over seeds, Student's t."


@dataclass(frozen=True)
class Row:
    """Some runs that differ in their seed alone."""

    keys: dict[str, str]
    runs: str
    values: dict[str, Estimate]


@dataclass(frozen=True)
class Table:
    """Rows in order, and what to call their measures.

    Args:
        rows: at least one, with the same keys.
        measures: name -> heading, of those that are shown; CSV has all.
        count: heading of the column of ``Row.runs``.
        notes: below the table.
    """

    rows: list[Row]
    measures: Mapping[str, str]
    count: str = "seeds"
    notes: list[str] = field(default_factory=list)


def tabulate(runs: Sequence[Run], *, sort: str | None = None, metrics: Sequence[str] = ()) -> Table:
    """A row for each combination of what was swept; runs that are not finished count in none, and are listed below.

    A row has the mean of a measure where all of its finished runs have that; those that do not are listed as well.

    Args:
        runs: at least one.
        sort: by this measure, the best first; None for the objective of the runs, or the first that is shown.
        metrics: patterns of what is shown, such as ``toybox/*/iou``.

    Raises:
        UserError: no run has such a measure.
    """
    groups: dict[tuple[str, ...], list[Run]] = {}
    told = swept(runs)
    for run, values in zip(runs, told, strict=True):
        groups.setdefault(tuple(values.values()), []).append(run)
    rows = [_row(dict(zip(told[0], values, strict=True)), of) for values, of in groups.items()]
    done = [run for run in runs if run.state == "finished"]
    known: list[str] = [*dict.fromkeys(name for run in done for name in run.figures)]
    goal = sort or next((str(g) for run in runs if (g := run.config.get("objective")) in known), None)
    means = [name for name in known if any(name in row.values for row in rows)]
    shown = _shown(known, means, metrics, first=goal)
    if goal is None and shown:
        goal = shown[0]
    if goal is not None:
        rows = _sorted(rows, goal)
    left = [f"{run.state}: {run.name}{': ' * bool(run.note)}{run.note}" for run in runs if run.state != "finished"]
    several = any(len([r for r in of if r.state == "finished"]) > 1 for of in groups.values())
    return Table(rows, short(shown), notes=[*([T_NOTE] if several else []), *left, *_lacking(done, shown)])


def _lacking(done: Sequence[Run], shown: Sequence[str]) -> list[str]:
    """Which runs are the reason that a row has no mean."""
    missing = {run.name: [name for name in shown if name not in run.figures] for run in done}
    return [f"no figure: {name}: {', '.join(of)}" for name, of in missing.items() if of]


def lower_is_better(measure: str) -> bool:
    """Whether less of it is better."""
    return any(fnmatch.fnmatch(measure, pattern) for pattern in LOWER)


def over_seeds(values: Sequence[float]) -> Estimate:
    """(mean, low, high): 95 % by Student's t; the value itself where there is one."""
    n = len(values)
    mean = sum(values) / n
    if n == 1:
        return (mean, mean, mean)
    deviation = (sum((v - mean) ** 2 for v in values) / (n - 1)) ** 0.5
    half = float(stdtrit(n - 1, 0.975)) * deviation / n**0.5
    return (mean, mean - half, mean + half)


def _row(keys: dict[str, str], runs: Sequence[Run]) -> Row:
    done = [run for run in runs if run.state == "finished"]
    names = [name for name in (done[0].figures if done else ()) if all(name in run.figures for run in done)]
    count = str(len(done)) if len(done) == len(runs) else f"{len(done)} of {len(runs)}"
    return Row(keys, count, {name: over_seeds([run.figures[name] for run in done]) for name in names})


def _shown(known: list[str], means: list[str], metrics: Sequence[str], *, first: str | None) -> list[str]:
    """Measures in order: those that ``metrics`` names, else the preferred ones that a row has a mean of."""
    if first is not None and first not in known:
        raise UserError(f"--sort {first}: no finished run has it; there are {', '.join(sorted(known)) or 'none yet'}.")
    for pattern in metrics:
        if not fnmatch.filter(known, pattern):
            raise UserError(f"--metrics {pattern}: no finished run has it; there are {', '.join(sorted(known))}.")
    found: list[str] = [first] if first else []
    for pattern in metrics or PREFERRED:
        found += [name for name in fnmatch.filter(known if metrics else means, pattern) if name not in found]
    return found if metrics else (found or means)[:SHOWN]


def _sorted(rows: list[Row], goal: str) -> list[Row]:
    sign = 1 if lower_is_better(goal) else -1
    return sorted(rows, key=lambda row: (goal not in row.values, sign * row.values.get(goal, (0.0,))[0]))


def cells(table: Table) -> list[list[str]]:
    """Headings and rows, as text."""
    lines = [[*short([*table.rows[0].keys]).values(), table.count, *table.measures.values()]]
    for row in table.rows:
        found = [_cell(row.values.get(name)) for name in table.measures]
        lines.append([*row.keys.values(), row.runs, *found])
    return lines


def short(names: Sequence[str]) -> dict[str, str]:
    """Each of some keys or measures by its last parts, as many as tell it from the others."""
    found = {}
    for name in names:
        separator = "/" if "/" in name else "."
        parts = name.split(separator)
        ends = [separator.join(parts[-i:]) for i in range(1, len(parts) + 1)]
        others = [o for o in names if o != name]
        found[name] = next((e for e in ends if not any(o == e or o.endswith(separator + e) for o in others)), name)
    return found


def _cell(value: Estimate | None) -> str:
    if value is None:
        return "-"
    mean, low, high = value
    return _number(mean) if low == high == mean else f"{_number(mean)} ({_number(low)}-{_number(high)})"


def _number(value: float) -> str:
    return f"{value:.3f}" if 1e-2 <= abs(value) < 1e3 or value == 0 else f"{value:.3g}"


def markdown(table: Table) -> str:
    """As GitHub shows it."""
    head, *rows = [[cell.replace("|", "\\|") for cell in line] for line in cells(table)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    notes = [line for note in table.notes for line in (note, "")]  # a paragraph each
    return "\n".join([*lines, "", *notes])


def csv_text(table: Table) -> str:
    """A line per row, with every measure's mean, and low and high where there are several runs."""
    names = list(dict.fromkeys(name for row in table.rows for name in row.values))
    wide = {n for n in names for row in table.rows if n in row.values and len(set(row.values[n])) > 1}
    columns = [c for n in names for c in ((n, f"{n} low", f"{n} high") if n in wide else (n,))]
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, [*table.rows[0].keys, table.count, *columns], lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        figures = {
            column: f"{v:.6g}"
            for name, estimate in row.values.items()
            for column, v in zip((name, f"{name} low", f"{name} high"), estimate, strict=True)
        }
        writer.writerow({**row.keys, table.count: row.runs, **{c: v for c, v in figures.items() if c in columns}})
    return out.getvalue()


def pretty(table: Table) -> str:
    """For a terminal."""
    head, *rows = cells(table)
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
    keys = len(table.rows[0].keys)
    lines = [_padded(line, widths, left=keys) for line in (head, ["-" * w for w in widths], *rows)]
    return "\n".join([*lines, "", *table.notes, ""])


def _padded(line: Sequence[str], widths: Sequence[int], *, left: int) -> str:
    padded = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
    return "  ".join(padded).rstrip()
