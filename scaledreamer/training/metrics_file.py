"""``metrics.csv`` of a run. Lightning's own CSV logger deletes that of a run which is resumed; this one goes on."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

PLACE = ("step", "epoch")
"""Columns that say where a row belongs; the others are figures."""


class MetricsFile(Logger):
    """A row for each time figures are logged; a column for each figure, empty where a row does not have it.

    A resumed run goes on where its checkpoint was: what the run before it logged beyond that is replaced.

    Args:
        path: the file; it is written when :meth:`save` is called, which Lightning does each time it logs.
    """

    def __init__(self, *, path: Path) -> None:
        super().__init__()
        self.path = path
        self._rows: list[dict[str, Any]] = []
        self._columns: list[str] | None = None  # of the file; None before this process first writes to it

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.path.parent.name

    @property
    def version(self) -> str:
        """None of its own: a run has one file."""
        return ""

    @property
    def save_dir(self) -> str:
        """The file's folder."""
        return str(self.path.parent)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: ``config.yaml`` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add a row."""
        self._rows.append({**{name: float(value) for name, value in metrics.items()}, "step": step})

    @rank_zero_only
    def save(self) -> None:
        """Write the rows that are not in the file yet."""
        if not self._rows:
            return
        earlier: list[dict[str, Any]] | None = None
        if self._columns is None:
            earlier = [row for row in self._read() if not _repeats(row, self._rows[0])]
        columns = sorted({*(self._columns or ()), *(name for row in [*(earlier or ()), *self._rows] for name in row)})
        if columns == self._columns:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, columns).writerows(self._rows)
        else:
            self._write(columns, [*(self._read() if earlier is None else earlier), *self._rows])
        self._rows, self._columns = [], columns

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.save()

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["step"]]  # a crash may leave half of the last line
        return [{name: value for name, value in row.items() if name and value} for row in rows]

    def _write(self, columns: list[str], rows: list[dict[str, Any]]) -> None:
        """Replace the file, so that a reader never sees a part of it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        temporary.replace(self.path)


def _repeats(row: dict[str, Any], first: dict[str, Any]) -> bool:
    """Whether a row of before will be logged again by a run that goes on with the row ``first``."""
    step, begin = int(row["step"]), int(first["step"])
    return step > begin or (step == begin and bool(row.keys() & first.keys() - {*PLACE}))
