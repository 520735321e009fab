"""What was made, and a bounded temporary folder of its files.

Files are found by the names that were given to them here, never by paths that someone asks for.
"""

import atexit
import shutil
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from scaledreamer.render.names import name_of

FileKind = Literal["mesh", "video"]


@dataclass(eq=False)
class Made:
    """An object, which grows while it is being made; other threads may look on."""

    prompt: str
    variation: int
    """Which latent it is made with, for generators that take one; 0 is that of ``render.py``."""
    seen: bool | None
    """Whether the prompt was trained on; None where that is not known."""
    seconds: dict[str, float] = field(default_factory=dict)
    """That each stage took, in order."""
    files: dict[FileKind, Path] = field(default_factory=dict)
    """That are whole; no mesh where there is no surface."""
    triangles: int = 0
    whole: bool = False
    """Whether nothing more will come."""

    @property
    def name(self) -> str:
        """Of its files: safe words and a hash of the prompt."""
        return name_of(self.prompt) + (f"-{self.variation}" if self.variation else "")

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.prompt} · variation {self.variation}" if self.variation else self.prompt

    def address(self, kind: FileKind) -> str | None:
        """Where the server has a file, None where there is none."""
        return f"/files/{self.files[kind].name}" if kind in self.files else None

    def as_dict(self) -> dict[str, Any]:
        """For programs, as JSON has it."""
        return {
            "prompt": self.prompt,
            "variation": self.variation,
            "seen": self.seen,
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
            "triangles": self.triangles,
            "mesh": self.address("mesh"),
            "video": self.address("video"),
        }


class Shelf:
    """The last things that were asked for; files of others are removed.

    Args:
        keep: how many.
    """

    def __init__(self, *, keep: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="scaledreamer-"))
        atexit.register(self.close)
        self._keep = keep
        self._things: OrderedDict[str, Made] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, made: Made) -> None:
        """Add a thing, whole or not, in place of the one of its name and of the one not asked for for longest."""
        with self._lock:
            self._things[made.name] = made
            self._things.move_to_end(made.name)
            old = [self._things.popitem(last=False)[1] for _ in range(len(self._things) - self._keep)]
        for thing in old:
            _remove(thing)

    def get(self, name: str) -> Made | None:
        """A thing that is whole, which is kept longer for it."""
        with self._lock:
            made = self._things.get(name)
            if made is None or not made.whole:
                return None
            self._things.move_to_end(name)
            return made

    def drop(self, made: Made) -> None:
        """Remove a thing that has failed."""
        with self._lock:
            if self._things.get(made.name) is made:
                del self._things[made.name]
        _remove(made)

    def file(self, name: str) -> Path | None:
        """The file of this name, None where it is not on the shelf."""
        with self._lock:
            for made in self._things.values():
                for path in tuple(made.files.values()):
                    if path.name == name:
                        return path
        return None

    def close(self) -> None:
        """Remove the folder."""
        atexit.unregister(self.close)
        with self._lock:
            self._things.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


def _remove(made: Made) -> None:
    for path in tuple(made.files.values()):
        try:
            path.unlink(missing_ok=True)
        except OSError:  # it is being read, on systems that mind; the folder goes with the server
            continue
