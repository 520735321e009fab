"""Pictures of tables: curves over a number that was swept, or a dot with its interval for each row."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scaledreamer.sweep.table import Estimate, Row, Table, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS, _CURVES = 4, 8
"""The most panels side by side, and curves in one, that can be read."""

Point = tuple[Any, Estimate]


def plot_table(table: Table, path: Path) -> None:
    """Draw a sweep: over its number with the most values, a curve for each value of the next key, a panel for a third.

    With more keys, without a number, or with more values than can be read, a dot for each row.
    """
    rows = [row for row in table.rows if row.values]
    keys = [key for key in (rows[0].keys if rows else ()) if len({row.keys[key] for row in rows}) > 1]
    numbers = sorted((k for k in keys if _numeric(rows, k)), key=lambda k: -len({row.keys[k] for row in rows}))
    rest = sorted((k for k in keys if k not in numbers[:1]), key=lambda k: -len({row.keys[k] for row in rows}))
    hue, panel = (*rest, None, None)[:2]
    fits = len(rest) < 3 and _count(rows, hue) <= _CURVES and _count(rows, panel) <= _PANELS
    if numbers and fits:
        _curves(table, rows, numbers[0], hue, panel, path)
        return
    measures = list(table.measures)[:3]
    labels = [_label(row, keys) for row in rows]
    panels = [
        {"": [(label, r.values[m]) for label, r in zip(labels, rows, strict=True) if m in r.values]} for m in measures
    ]
    dots(dict(zip(table.measures.values(), panels, strict=False)), path)


def dots(panels: Mapping[str, Mapping[str, Sequence[tuple[str, Estimate]]]], path: Path) -> None:
    """A panel for each measure, a line for each label, a colour for each series.

    Args:
        panels: measure -> series -> (label, estimate); a label has the same line everywhere.
        path: of the PNG.
    """
    labels = list(dict.fromkeys(label for of in panels.values() for points in of.values() for label, _ in points))
    width = 2.0 + 0.07 * max((len(label) for label in labels), default=10)
    figure = _figure(width + 3.2 * max(1, len(panels)), 1.4 + 0.4 * max(1, len(labels)))
    axes = np.atleast_1d(figure.subplots(1, max(1, len(panels)), sharey=True))
    axis = axes[0]
    for axis, (measure, of) in zip(axes, panels.items(), strict=False):
        for i, (series, points) in enumerate(of.items()):
            places = [labels.index(label) + 0.24 * (i - (len(of) - 1) / 2) for label, _ in points]
            mean, spread = _bars([e for _, e in points])
            axis.errorbar(mean, places, xerr=spread, fmt="o", capsize=3, label=series)
        axis.set_xlabel(measure)
        axis.grid(axis="x", alpha=0.3)
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.5, -0.5)  # the first row on top
    if any(any(of) for of in panels.values()):
        figure.legend(*axis.get_legend_handles_labels(), loc="outside upper right", ncols=4)
    figure.savefig(path)


def _curves(table: Table, rows: list[Row], over: str, hue: str | None, panel: str | None, path: Path) -> None:
    names = short([*rows[0].keys])
    measures = list(table.measures)[: 3 if panel is None else 1]
    parts = [(m, v) for m in measures for v in (_values(rows, panel) if panel else [None])]
    figure = _figure(1.4 + 3.3 * len(parts), 3.6)
    axes = np.atleast_1d(figure.subplots(1, len(parts), sharey=panel is not None))
    axis = axes[0]
    for axis, (measure, value) in zip(axes, parts, strict=True):
        for shade in _values(rows, hue) if hue else [None]:
            own = [
                r
                for r in rows
                if measure in r.values
                and (hue is None or r.keys[hue] == shade)
                and (panel is None or r.keys[panel] == value)
            ]
            own.sort(key=lambda r: float(r.keys[over]))
            if own:
                mean, spread = _bars([r.values[measure] for r in own])
                places = [float(r.keys[over]) for r in own]
                axis.errorbar(places, mean, yerr=spread, fmt="o-", ms=4, lw=1.2, capsize=3, label=shade)
        places = sorted({float(r.keys[over]) for r in rows})
        if places[0] > 0 and _closest(places) < _closest(np.log(places)):
            axis.set_xscale("log")
        if len(places) <= 8:
            axis.set_xticks(places, [f"{p:g}" for p in places])
            axis.minorticks_off()
        axis.set_xlabel(names[over])
        axis.grid(alpha=0.3)
        axis.set_title(f"{names[panel]} = {value}" if panel else table.measures[measure], fontsize=10)
    if panel:
        axes[0].set_ylabel(table.measures[measures[0]])
    if hue:
        figure.legend(*axis.get_legend_handles_labels(), title=names[hue], loc="outside right upper")
    figure.savefig(path)


def _closest(places: Sequence[float] | np.ndarray) -> float:
    """The smallest distance of neighbours, as a share of the whole."""
    gaps = np.diff(places)
    return float(gaps.min() / gaps.sum()) if len(gaps) else 0.0


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _bars(estimates: Sequence[Estimate]) -> tuple[np.ndarray, np.ndarray]:
    """Means [N], and how far the interval goes to both sides [2, N]."""
    mean, low, high = np.array(estimates, dtype=float).reshape(-1, 3).T
    return mean, np.maximum([mean - low, high - mean], 0)


def _numeric(rows: Sequence[Row], key: str) -> bool:
    try:
        return all(np.isfinite(float(row.keys[key])) for row in rows)
    except ValueError:
        return False


def _count(rows: Sequence[Row], key: str | None) -> int:
    return 0 if key is None else len({row.keys[key] for row in rows})


def _values(rows: Sequence[Row], key: str) -> list[str]:
    found = {row.keys[key] for row in rows}
    return sorted(found, key=float) if _numeric(rows, key) else sorted(found)


def _label(row: Row, keys: Sequence[str]) -> str:
    names = short([*row.keys])
    return ", ".join(f"{names[key]}={row.keys[key]}" for key in keys) or "all runs"
