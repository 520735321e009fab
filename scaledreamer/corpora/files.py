"""Prompt files of the user's own: .json, .txt and .csv.

========  ======================================================================================================
.json     ``{"train": [...], "val": [...], "test": [...]}`` (val and test optional), or a bare list (all train)
.txt      one prompt a line, all train; blank lines and lines that begin with ``#`` are skipped
.csv      a column ``prompt``, ``caption`` or ``text`` and, if wanted, ``split``; or one column without a header
========  ======================================================================================================

All are UTF-8, with or without a byte order mark.
"""

import csv
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scaledreamer.errors import UserError

log = logging.getLogger(__name__)

COLUMNS = ("prompt", "caption", "text")
"""Names of a .csv's prompt column, the first that is there is taken."""

_SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
_VAL = 16  # prompts of val where a file names none: enough for a sheet of previews


class Splits(NamedTuple):
    """Prompts as a source gives them: stripped, without blank ones, duplicates still in."""

    train: list[str]
    val: list[str]
    test: list[str]

    @classmethod
    def of(cls, train: Sequence[str], val: Sequence[str] = (), test: Sequence[str] = ()) -> "Splits":
        """An empty test is train, an empty val the first 16 of test."""
        stripped = [[p for p in (prompt.strip() for prompt in split) if p] for split in (train, val, test)]
        stripped[2] = stripped[2] or stripped[0]
        stripped[1] = stripped[1] or stripped[2][:_VAL]
        return cls(*stripped)


def read_prompts(path: Path | str) -> Splits:
    """The prompts of a .json, .txt or .csv file.

    Raises:
        UserError: the file is missing, unreadable, empty or malformed; the message says where and what to do.
    """
    path = Path(path).expanduser()
    readers = {".json": _json, ".txt": _txt, ".csv": _csv}
    reader = readers.get(path.suffix.lower())
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the prompt file itself (.json, .txt or .csv).")
    if not path.exists():
        raise UserError(f"{path}: there is no such prompt file (looked from {Path.cwd()}).")
    if reader is None:
        raise UserError(f"{path}: '{path.suffix}' is not a kind of prompt file; use .json, .txt or .csv.")
    text = _text(path)
    if not text.strip():
        raise UserError(f"{path} is empty; put at least one prompt into it.")
    splits = Splits.of(*reader(path, text))
    if not splits.train:
        raise UserError(f"{path} has no prompt to train on: every entry of train is blank, or there is none.")
    return splits


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        bad = error.object[error.start]
        raise UserError(f"{path} line {line}: byte 0x{bad:02x} is not UTF-8; save it as UTF-8.") from error


def _json(path: Path, text: str) -> tuple[list[str], list[str], list[str]]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} line {error.lineno} column {error.colno}: not JSON, {error.msg}.") from error
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply for a prompt file.") from error
    if isinstance(content, list):
        content = {"train": content}
    if not isinstance(content, dict) or "train" not in content:
        found = f"it has {', '.join(map(repr, list(content)[:5]))}" if isinstance(content, dict) and content else "not"
        raise UserError(f'{path} needs {{"train": [prompts], "val": [...], "test": [...]}} at its top; {found}.')
    unknown = [name for name in content if name not in ("train", "val", "test")]
    if unknown:
        log.warning("%s: ignoring %s; the splits are train, val and test", path, ", ".join(map(repr, unknown)))
    return _strings(path, content, "train"), _strings(path, content, "val"), _strings(path, content, "test")


def _strings(path: Path, content: dict[str, Any], split: str) -> list[str]:
    prompts = content.get(split, [])
    if not isinstance(prompts, list):
        raise UserError(f"{path}: '{split}' must be a list of prompts, not {type(prompts).__name__}.")
    for i, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise UserError(f"{path}: {split}[{i}] must be a string, not {json.dumps(prompt)[:60]}.")
        if any("\ud800" <= c <= "\udfff" for c in prompt):  # JSON can spell half a character
            raise UserError(f"{path}: {split}[{i}] has half of a surrogate pair; write the character itself.")
    return prompts


def _txt(path: Path, text: str) -> tuple[list[str]]:
    return ([line for line in io.StringIO(text, newline=None) if not line.lstrip().startswith("#")],)


def _csv(path: Path, text: str) -> tuple[list[str], list[str], list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: not CSV, {error}.") from error
    header = [cell.strip().lower() for cell in rows[0][1]]
    column = next((header.index(name) for name in COLUMNS if name in header), None)
    if column is not None:
        rows = rows[1:]
    elif max(len(row) for _, row in rows) == 1:
        header, column = ["prompt"], 0
    else:
        raise UserError(
            f"{path} has several columns, and none is named {', '.join(COLUMNS)} in its first line; name the "
            "prompts' column, or put prompts with commas between double quotes."
        )
    split_column = header.index("split") if "split" in header else None
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for line, row in rows:
        if len(row) != len(header):
            raise UserError(
                f"{path} line {line}: {len(row)} columns where the first line has {len(header)}; put prompts with "
                "commas between double quotes."
            )
        name = "train" if split_column is None else row[split_column].strip().lower()
        if name not in _SPLITS:
            raise UserError(f"{path} line {line}: split {name!r} is none of train, val, test.")
        splits[_SPLITS[name]].append(row[column])
    return splits["train"], splits["val"], splits["test"]
