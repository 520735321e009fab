"""A sweep's folder, and ``sweep.json`` in it: the commands that started it, and its jobs, begun or not."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from scaledreamer.errors import UserError
from scaledreamer.paths import whole_file

FILE = "sweep.json"
ROOT = "multirun"
KEY = "sweep="


def folder_of(root: str, name: str, sweep: str | None) -> str:
    """The folder of a sweep: ``ROOT/NAME/TIME``, that of the newest of this name for ``last``, or the one given.

    Raises:
        UserError: there is no such sweep.
    """
    if sweep is None:
        return str(Path(root, name, datetime.now().strftime("%Y-%m-%d_%H-%M-%S")))
    return str(_last(Path(root, name)) if sweep == "last" else _existing(Path(sweep)))


def started_again(arguments: Sequence[str]) -> list[str]:
    """What ``-m sweep=FOLDER`` stands for: the arguments that the sweep was first started with, in this folder.

    Anything else is returned as it is. The folder may have been moved since.

    Raises:
        UserError: there is no such sweep.
    """
    given = [a for a in arguments if a not in ("-m", "--multirun")]
    if len(given) != 1 or len(given) == len(arguments) or not given[0].startswith(KEY):
        return list(arguments)
    which = given[0].removeprefix(KEY)
    folder = _last(Path(ROOT)) if which == "last" else _existing(Path(which))
    launches = read(folder)["launches"]
    if not launches:
        raise UserError(f"{KEY}{folder}: its {FILE} names no command; give all options beside it.")
    quoted = "'" + str(folder).replace("'", "\\'") + "'"
    first = [a for a in launches[0]["arguments"] if not a.startswith((KEY, "hydra.sweep.dir="))]
    return [*first, f"{KEY}{quoted}", f"hydra.sweep.dir={quoted}"]


def read(folder: Path) -> dict[str, Any]:
    """``{"launches": [{"time", "arguments"}], "jobs": {NAME: [OVERRIDE, ...]}}``; empty where nothing was started."""
    path = folder / FILE
    if not path.exists():
        return {"launches": [], "jobs": {}}
    try:
        found = json.loads(path.read_text("utf-8"))
        return {"launches": list(found["launches"]), "jobs": dict(found["jobs"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); choose another folder with hydra.sweep.dir=DIR.") from error


def record_launch(folder: Path) -> None:
    """Note the command of this process."""
    content = read(folder)
    time = datetime.now(timezone.utc).isoformat(timespec="seconds")
    content["launches"].append({"time": time, "arguments": sys.argv[1:]})
    _write(folder, content)


def record_jobs(folder: Path, jobs: Mapping[str, Sequence[str]]) -> None:
    """Add jobs (name -> overrides); those of earlier launches stay."""
    content = read(folder)
    content["jobs"] |= {name: list(overrides) for name, overrides in jobs.items()}
    _write(folder, content)


def command(folder: Path) -> str:
    """What starts the sweep again."""
    return f"python train.py -m {shlex.quote(f'{KEY}{folder}')}"


def _write(folder: Path, content: dict[str, Any]) -> None:
    try:
        with whole_file(folder / FILE) as part:
            part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}; choose another with hydra.sweep.dir=DIR.") from error


def _last(below: Path) -> Path:
    found = max(below.glob(f"**/{FILE}"), key=lambda file: file.stat().st_mtime_ns, default=None)
    if found is None:
        raise UserError(f"sweep=last: no sweep ({FILE}) below {below}; give its folder, or leave sweep= out.")
    return found.parent


def _existing(folder: Path) -> Path:
    if not (folder / FILE).exists():
        raise UserError(f"sweep={folder}: no sweep ({FILE}) there; a new one goes there with hydra.sweep.dir={folder}.")
    return folder
