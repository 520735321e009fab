"""``index.json`` of a folder of renders: which file shows which prompt, and what it was made with.

::

    {"prompts": {NAME: {"prompt": ..., "splits": [...], "files": {KIND: [...]}, "made": {KIND: RECIPE}}},
     "interpolations": {NAME: {"from": ..., "to": ..., "files": ..., "made": ...}},
     "sheets": {FILE: {"prompts": [NAME, ...], "files": ..., "made": ...}},
     "recipes": {RECIPE: {"step": ..., "weights": ..., "size": ..., ...}}}

A file is kept as long as it is there and its recipe is what would be used now; the index is written after the files, so
that a process that is killed leaves none that is not whole.
"""

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from scaledreamer.errors import UserError
from scaledreamer.training.directory import write_atomically

Section = Literal["prompts", "interpolations", "sheets"]
EVERY = 10.0
"""Seconds between writes, since an index of 100,000 prompts takes a while."""


class Index:
    """The files of a folder; threads may add to it.

    Args:
        folder: of the renders.
        overwrite: take nothing for done.

    Raises:
        UserError: there is an index that cannot be read.
    """

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        self.folder = folder
        self.content: dict[str, dict[str, Any]] = {"prompts": {}, "interpolations": {}, "sheets": {}, "recipes": {}}
        self._lock = threading.Lock()
        self._saved, self._changed = time.monotonic(), False
        self._overwrite = overwrite
        path = folder / "index.json"
        if path.exists():
            try:
                found = json.loads(path.read_text("utf-8"))
                self.content.update({section: dict(found[section]) for section in self.content})
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{path} is not an index of renders ({type(error).__name__}: {error}); remove it, or choose "
                    "another output=FOLDER."
                ) from error

    def has(self, section: Section, name: str, kind: str, recipe: dict[str, Any]) -> bool:
        """Whether an output is there that was made with this recipe."""
        with self._lock:
            entry = self.content[section].get(name, {})
            if self._overwrite or entry.get("made", {}).get(kind) != digest(recipe):
                return False
            return all((self.folder / file).is_file() for file in entry["files"][kind])

    def add(
        self,
        section: Section,
        name: str,
        kind: str,
        recipe: dict[str, Any],
        files: Sequence[Path],
        **about: Any,
    ) -> None:
        """An output is whole: files of the folder, made with the recipe; ``about`` is what the entry says of itself."""
        with self._lock:
            entry = self.content[section].setdefault(name, {})
            key = digest(recipe)
            self.content["recipes"][key] = recipe
            entry.update(about)
            entry["files"] = entry.get("files", {}) | {kind: [f.relative_to(self.folder).as_posix() for f in files]}
            entry["made"] = entry.get("made", {}) | {kind: key}
            self._changed = True
            if time.monotonic() - self._saved > EVERY:
                self._save()

    def save(self) -> None:
        """Write what there is by now; recipes that nothing is made with any more are forgotten."""
        with self._lock:
            if self._changed:
                self._save()

    def _save(self) -> None:
        self.content = {section: dict(sorted(entries.items())) for section, entries in self.content.items()}
        entries = [e for section, found in self.content.items() if section != "recipes" for e in found.values()]
        used = {recipe for entry in entries for recipe in entry["made"].values()}
        self.content["recipes"] = {key: recipe for key, recipe in self.content["recipes"].items() if key in used}
        write_atomically(self.folder / "index.json", json.dumps(self.content, indent=1) + "\n")
        self._saved, self._changed = time.monotonic(), False


def digest(value: Any) -> str:
    """A short name of a plain value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
