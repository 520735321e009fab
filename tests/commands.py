"""Run the entry scripts as a stranger does: in a process, a folder and an environment of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

TINY = ("experiment=trial", "trainer.threads=1", "callbacks.previews.prompts=1", "callbacks.previews.size=24")
"""Options for a run of seconds."""


def environment(home: Path) -> dict[str, str]:
    """This process's, without keys, settings and caches of its user: their home is ``home``."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "PYTHON", "XDG_")) and k != "NETRC"}
    return own | {"HOME": str(home), "SCALEDREAMER_DATA": str(home / "data")}


def python(*arguments: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """``python ARGUMENTS`` from ``folder``, which is also its home; ``more`` are environment variables."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(folder) | more,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def train(*arguments: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """``python train.py ARGUMENTS``; see :func:`python`."""
    return python(str(ROOT / "train.py"), *arguments, folder=folder, **more)
