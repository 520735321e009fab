"""Where things that outlive a run are kept, and how files are written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs


def data_folder() -> Path:
    """Folder of corpora, priors and text caches: ``$SCALEDREAMER_DATA``, else in the user's cache."""
    configured = os.environ.get("SCALEDREAMER_DATA")
    return Path(configured).expanduser() if configured else Path(platformdirs.user_cache_dir("scaledreamer"))


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name to write to beside ``path``, which becomes ``path`` if nothing went wrong: readers never see a part."""
    part = unfinished(path)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def unfinished(path: Path) -> Path:
    """What ``path`` is called until it is whole; its folder is made.

    The name is the same each time, so that a killed process leaves one such file at most.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.part")
