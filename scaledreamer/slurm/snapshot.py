"""A copy of the code that a sweep was submitted with, so that later edits do not reach its jobs.

A job of submitit reads the option files and imports the package when it starts, which may be days later, and again at
each requeue. From ``SWEEP/code`` it does so from what was there at submission:

    SWEEP/code/scaledreamer/   the package, with its data
    SWEEP/code/*.py            the entry scripts, and hydra_plugins/*.py
    SWEEP/code/conf/           the option files; those of other folders in conf_1, conf_2, ...
    SWEEP/code/python_0/, ...  Python files of the folders in PYTHONPATH
    SWEEP/code/snapshot.json   commit and uncommitted changes

Packages that are installed are not copied: leave the environment as it is while a sweep runs.
"""

import argparse
import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scaledreamer.cli import clear_errors
from scaledreamer.config import CONF
from scaledreamer.errors import UserError
from scaledreamer.training.directory import SNAPSHOT, git_state

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parents[1]
_MOST_FILES = 2000
"""Python files of a folder in PYTHONPATH that are copied; larger ones are libraries, not somebody's experiments."""


@dataclass(frozen=True)
class Snapshot:
    """Where the copies are."""

    root: Path
    conf: dict[Path, Path]  # of each folder of option files
    python: list[Path]  # in the order of PYTHONPATH, after ``root``


def take(root: Path, *, conf: Sequence[Path], python: Sequence[Path]) -> Snapshot:
    """Copy the code into the new folder ``root``.

    Args:
        root: is made; what is in it already, of an earlier submission to the same sweep, is replaced.
        conf: folders of option files; the project's own is the first, and its entry scripts lie beside it.
        python: folders of PYTHONPATH.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        return _take(root.resolve(), [c.resolve() for c in conf], python)
    except (OSError, shutil.Error) as error:
        raise UserError(f"{root}: cannot copy the code there ({error}); choose hydra.sweep.dir=DIR.") from error


def _take(root: Path, conf: list[Path], python: Sequence[Path]) -> Snapshot:
    new = root.with_name(f".{root.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(PACKAGE, new / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for script in [*conf[0].parent.glob("*.py"), *conf[0].parent.glob("hydra_plugins/*.py")]:
        _copy(script, new / script.relative_to(conf[0].parent))
    names = {folder: f"conf_{i}" if i else "conf" for i, folder in enumerate(dict.fromkeys(conf))}
    for folder, name in names.items():
        for file in [*folder.rglob("*.yaml"), *folder.rglob("*.yml")]:
            _copy(file, new / name / file.relative_to(folder))
    copied = []
    for i, folder in enumerate(_own(python, conf[0].parent)):
        files = [f for f in folder.rglob("*.py") if not {"site-packages", ".venv"} & {*f.relative_to(folder).parts}]
        if len(files) > _MOST_FILES:
            log.warning("%s in PYTHONPATH holds %d Python files and is not copied.", folder, len(files))
            continue
        for file in files:
            _copy(file, new / f"python_{i}" / file.relative_to(folder))
        copied.append(root / f"python_{i}")
    commit, patch = git_state()
    (new / SNAPSHOT).write_text(json.dumps({"commit": commit, "patch": patch}), "utf-8")
    shutil.rmtree(root, ignore_errors=True)
    os.replace(new, root)
    return Snapshot(root=root, conf={folder: root / name for folder, name in names.items()}, python=copied)


def python_path() -> list[Path]:
    """Folders of ``$PYTHONPATH``."""
    return [Path(p) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]


def _own(python: Sequence[Path], project: Path) -> list[Path]:
    """Folders of PYTHONPATH that hold code of the user's: the project is copied anyway."""
    folders = dict.fromkeys(folder.resolve() for folder in python if folder.is_dir())
    return [folder for folder in folders if folder not in (project, PACKAGE.parent)]


def _copy(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file, to)


def main(arguments: Sequence[str] | None = None) -> None:
    """Copy this project's code to FOLDER unless it is there; prints the PYTHONPATH to run it with."""
    parser = argparse.ArgumentParser(prog="python -m scaledreamer.slurm.snapshot", description=main.__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder: Path = parser.parse_args(arguments).folder.resolve()
    if not (folder / SNAPSHOT).exists():
        take(folder, conf=[CONF], python=python_path())
    print(os.pathsep.join(str(p) for p in (folder, *sorted(folder.glob("python_*")))))


if __name__ == "__main__":
    with clear_errors():
        main()
