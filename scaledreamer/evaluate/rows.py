"""What was measured of each prompt, in a file that grows with every batch: a call that dies goes on where it was.

``rows-RECIPE.jsonl``: the first line is the recipe, what all figures of the file follow from; then a line a prompt. A
prompt that was scored twice counts as the last time. Another recipe (another checkpoint, protocol or gallery) has
another file.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaledreamer.paths import whole_file
from scaledreamer.render.index import digest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """The measures of a prompt by their names (:data:`scaledreamer.evaluate.summary.MEASURES`)."""

    prompt: str
    in_gallery: bool
    measures: dict[str, float]


class Rows:
    """The rows of a recipe in a folder.

    Args:
        folder: of a run's results by a protocol.
        recipe: plain values.
    """

    def __init__(self, folder: Path, recipe: dict[str, Any]) -> None:
        self.path, self.recipe = folder / f"rows-{digest(recipe)}.jsonl", recipe
        self.known: dict[str, Row] = {}
        if self.path.exists():
            self._read()
        else:
            self._begin()

    def add(self, rows: Sequence[Row]) -> None:
        """Keep what was measured of some prompts; on the disk when this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(vars(row)) + "\n" for row in rows)
        self.known |= {row.prompt: row for row in rows}

    def _begin(self) -> None:
        with whole_file(self.path) as part:
            part.write_text(json.dumps({"recipe": self.recipe}) + "\n", "utf-8")

    def _read(self) -> None:
        """Take the rows that are whole; a process that was killed may have left half of one at the end."""
        lines = self.path.read_bytes().split(b"\n")
        for line in lines[1:-1]:
            row = _row(line)
            if row is not None:
                self.known[row.prompt] = row
        if lines[-1]:  # without its end
            with whole_file(self.path) as part:
                part.write_bytes(b"".join(line + b"\n" for line in lines[:-1]))
        if not lines[:-1]:
            self._begin()


def _row(line: bytes) -> Row | None:
    try:
        return Row(**json.loads(line))
    except (ValueError, TypeError):
        return None


def made_with(folder: Path, recipe: dict[str, Any]) -> list[str]:
    """In what the recipe differs from that of the folder's newest rows, if they are others."""
    files = sorted(folder.glob("rows-*.jsonl"), key=lambda file: file.stat().st_mtime_ns)
    if not files or (folder / f"rows-{digest(recipe)}.jsonl").exists():
        return []
    try:
        with files[-1].open(encoding="utf-8") as file:
            before: dict[str, Any] = json.loads(file.readline())["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        return ["another version"]
    return [key for key in {**before, **recipe} if before.get(key) != recipe.get(key)]
