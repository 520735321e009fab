"""What a run's folder says of how it came about: configuration, command, package versions, state of the code."""

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from scaledreamer.errors import UserError
from scaledreamer.slurm import job
from scaledreamer.training import outcome

SNAPSHOT = "snapshot.json"
"""File beside a copied package that says what it is a copy of; see :mod:`scaledreamer.slurm.snapshot`."""

PACKAGES = (
    "scaledreamer",
    "torch",
    "lightning",
    "hydra-core",
    "omegaconf",
    "diffusers",
    "transformers",
    "accelerate",
    "safetensors",
    "numpy",
    "wandb",
)


def record(directory: Path, config: dict[str, Any]) -> None:
    """Write ``config.yaml`` (resolved), append to ``launches.jsonl`` and keep uncommitted changes as a patch.

    A resumed run overwrites the configuration with its own and adds a line to the launches.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        (directory / "checkpoints").mkdir(parents=True, exist_ok=True)
        outcome.clear(directory)
        write_atomically(directory / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        commit, patch = git_state()
        launch = {
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "command": shlex.join([Path(sys.executable).name, *sys.argv]),
            "git": {"commit": commit, "changed": bool(patch)},
            "python": platform.python_version(),
            "packages": {name: _version(name) for name in PACKAGES},
            "host": platform.node(),
            "resume": config.get("resume"),
            "slurm": job.describe(),
        }
        with open(directory / "launches.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(launch) + "\n")
        if patch:
            write_atomically(directory / "uncommitted.patch", patch)
    except OSError as error:
        raise UserError(
            f"{directory}: cannot write the run's folder ({error.strerror}); choose another with hydra.run.dir=DIR."
        ) from error


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old or the new content, never a part."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_state() -> tuple[str | None, str]:
    """(commit, uncommitted changes) of the code that runs; (None, "") outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if (root / SNAPSHOT).exists():
        copied = json.loads((root / SNAPSHOT).read_text("utf-8"))
        return copied["commit"], copied["patch"]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout

    try:
        return git("rev-parse", "HEAD").strip(), git("diff", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None, ""
