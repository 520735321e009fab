"""A sweep's table: ``python -m scaledreamer.sweep FOLDER...``.

What was swept against the final figures of the runs, runs that differ in their seed alone in one row. Curves count by
the mean over the last tenth of a run. Runs that failed or are not finished are listed below. Writes ``table.csv`` (all
figures), ``table.md`` and ``plot.png``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scaledreamer.cli import clear_errors
from scaledreamer.errors import UserError
from scaledreamer.sweep.runs import find
from scaledreamer.sweep.table import Table, csv_text, markdown, pretty, tabulate

FORMATS = {"pretty": pretty, "md": markdown, "csv": csv_text}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m scaledreamer.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of a sweep or of single runs")
    parser.add_argument("--sort", metavar="METRIC", help="best first (default: the objective, or the first shown)")
    parser.add_argument("--metrics", metavar="PATTERN,...", help="what is shown, as toybox/*/iou,train/loss")
    parser.add_argument("--format", choices=FORMATS, default="pretty", help="of what is printed")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where files go (default: the first folder)")
    given = parser.parse_args(arguments)
    metrics = given.metrics.split(",") if given.metrics else []
    table = tabulate(find(given.folders), sort=given.sort, metrics=metrics)
    written = write(table, given.out or given.folders[0])
    print(FORMATS[given.format](table), end="")
    print(", ".join(map(str, written)), file=sys.stderr)


def write(table: Table, folder: Path) -> list[Path]:
    """``table.md``, ``table.csv`` and, where a row has figures, ``plot.png``; which were written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "table.md").write_text(markdown(table), "utf-8")
        (folder / "table.csv").write_text(csv_text(table), "utf-8")
        files = [folder / "table.md", folder / "table.csv"]
        if any(row.values for row in table.rows):
            from scaledreamer.sweep.plot import plot_table

            plot_table(table, folder / "plot.png")
            files.append(folder / "plot.png")
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror or error}; choose --out=FOLDER.") from error
    return files


if __name__ == "__main__":
    with clear_errors():
        main()
