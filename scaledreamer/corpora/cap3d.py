"""Build the CP100k corpus from Cap3D's captions: ``python -m scaledreamer.corpora.cap3d CAPTIONS.csv``.

Cap3D (Luo et al. 2023, "Scalable 3D Captioning with Pretrained Models") describes the objects of Objaverse in a CSV
of two columns, the object's id and its caption, without a header. The paper trains on about 100,000 of them; which
ones was never published, so this takes the captions with the smallest hash: a sample that depends on the seed and on
the captions, not on the order of the rows. Test, then val, then train are filled in the order of the hash, so that
test and val stay the same whatever the size. No prompt is in two splits.

The rows are read one at a time and only the chosen captions are held, so memory grows with ``--size``, not with the
file.
"""

import argparse
import csv
import hashlib
import heapq
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scaledreamer.corpora.sources import corpora_folder
from scaledreamer.errors import UserError

FILE = "cap3d_100k_prompt_library.json"
"""The built file's name in the data folder's ``corpora``."""

_HEADERS = {"caption", "captions", "text", "prompt", "description"}


@dataclass
class Count:
    """Rows met while reading."""

    rows: int = 0
    unusable: int = 0


def captions(path: Path, count: Count) -> Iterator[str]:
    """Stream the captions of Cap3D's CSV, white space made single and enclosing quotes taken off.

    Rows without an id or a caption are skipped and counted.

    Raises:
        UserError: the file cannot be read, or a line is not UTF-8 or not CSV.
    """
    try:
        with path.open("rb") as file:
            reader = csv.reader(_lines(path, file), strict=True)
            for row in reader:
                if not row or (count.rows == 0 and len(row) == 2 and row[1].strip().lower() in _HEADERS):
                    continue
                count.rows += 1
                # A comma in a caption without quotes makes more columns of it.
                caption = " ".join(",".join(row[1:]).split())
                if len(caption) > 1 and caption[0] == caption[-1] == '"':
                    caption = caption[1:-1].strip()
                if caption and row[0].strip():
                    yield caption
                else:
                    count.unusable += 1
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: not CSV, {error}.") from error


def _lines(path: Path, file: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            bad = error.object[error.start]
            raise UserError(f"{path} line {number}: byte 0x{bad:02x} is not UTF-8; save it as UTF-8.") from error


def choose(texts: Iterable[str], *, size: int, seed: int) -> list[str]:
    """The ``size`` distinct texts with the smallest hash, in the order of the hash; memory is that of ``size`` texts.

    Repetitions have the same hash, so each text is chosen once; fewer come back if there are fewer.
    """
    key = str(seed).encode()
    chosen: dict[int, str] = {}
    largest: list[int] = []  # heap of the negated hashes: the first is that of the text to give up next
    for text in texts:
        value = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=key).digest(), "big")
        if value in chosen:
            continue
        if len(largest) < size:
            heapq.heappush(largest, -value)
        elif value < -largest[0]:
            del chosen[-heapq.heapreplace(largest, -value)]
        else:
            continue
        chosen[value] = text
    return [chosen[value] for value in sorted(chosen)]


def build(path: Path, out: Path, *, size: int, val: int, test: int, seed: int) -> str:
    """Write the corpus to ``out``, all at once or not at all, and say what was done.

    Raises:
        UserError: the captions cannot be read, are too few, or ``out`` cannot be written.
    """
    if min(val, test) < 1:
        raise UserError(f"--val {val} and --test {test} must be at least 1.")
    if size <= val + test:
        raise UserError(f"--size {size} leaves nothing to train on beside --val {val} and --test {test}.")
    count = Count()
    chosen = choose(captions(path, count), size=size, seed=seed)
    if not chosen:
        raise UserError(f"{path} has no caption; it must have two columns, an object's id and its caption.")
    if len(chosen) <= val + test:
        raise UserError(f"{path} has only {len(chosen)} distinct captions; lower --val {val} and --test {test}.")
    splits = {"train": chosen[val + test :], "val": chosen[test : val + test], "test": chosen[:test]}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(f"{out.name}.{os.getpid()}.part")
        try:
            part.write_text(json.dumps(splits, ensure_ascii=False, indent=0), "utf-8")
            os.replace(part, out)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}.") from error
    few = f" (all there are, fewer than --size {size})" if len(chosen) < size else ""
    return (
        f"{path}: {count.rows} rows, {count.unusable} without a caption\n"
        f"{out}: {len(chosen)} distinct captions{few}: {len(splits['train'])} train, {val} val, {test} test"
    )


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m scaledreamer.corpora.cap3d", description="Build CP100k.")
    parser.add_argument("captions", type=Path, help="Cap3D's CSV: object id, caption")
    parser.add_argument("--out", type=Path, help=f"where to write; default: {FILE} in the data folder")
    parser.add_argument(
        "--size", type=int, default=100_000, help="prompts of all splits together (default %(default)s)"
    )
    parser.add_argument("--val", type=int, default=100, help="prompts of val (default %(default)s)")
    parser.add_argument("--test", type=int, default=100, help="prompts of test, not in train (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed chooses other captions (default %(default)s)")
    given = parser.parse_args(arguments)
    out = given.out or corpora_folder() / FILE
    try:
        print(build(given.captions, out, size=given.size, val=given.val, test=given.test, seed=given.seed))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
