"""The runs below some folders: what was asked of them, how far they came, and the figures of those that are done."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from scaledreamer.errors import UserError
from scaledreamer.sweep import folder as sweep_folder
from scaledreamer.sweep.leaves import INCIDENTAL, differing, leaves
from scaledreamer.sweep.names import key_of
from scaledreamer.training import outcome
from scaledreamer.training.figures import final_figures, last_step

State = Literal["finished", "failed", "unfinished", "not started"]


@dataclass(frozen=True)
class Run:
    """A run, or a job of a sweep that is to become one.

    Args:
        name: of its folder, below that of the sweep.
        folder: its own.
        state: ``unfinished`` runs are under way, or were killed.
        note: how far an unfinished one came, why a failed one failed.
        overrides: key -> value, of a sweep's job; None of other runs.
        config: by full keys; empty where it did not start.
        figures: of a finished run.
    """

    name: str
    folder: Path
    state: State
    note: str
    overrides: dict[str, str] | None
    config: dict[str, Any]
    figures: dict[str, float]

    @property
    def seed(self) -> str:
        """Its seed, as text."""
        return str((self.overrides or {}).get("seed", self.config.get("seed", 0)))


def find(folders: Sequence[Path]) -> list[Run]:
    """Every run below the folders, and every job of their sweeps.

    Raises:
        UserError: there is none, or a file cannot be read.
    """
    asked: dict[Path, tuple[str, list[str] | None]] = {}
    for folder in folders:
        for file in sorted(folder.glob(f"**/{sweep_folder.FILE}")):
            for name, overrides in sweep_folder.read(file.parent)["jobs"].items():
                asked[file.parent / name] = (name, overrides)
        for file in sorted(folder.glob("**/launches.jsonl")):
            name = str(file.parent.relative_to(folder)) if file.parent != folder else folder.name
            asked.setdefault(file.parent, (name, None))
    if not asked:
        raise UserError(f"{', '.join(map(str, folders))}: no sweep and no run (**/launches.jsonl) is there.")
    return [_read(folder, name, overrides) for folder, (name, overrides) in asked.items()]


def finished_jobs(folder: Path) -> list[Path] | None:
    """Folders of the jobs of a sweep that are done; None where ``folder`` is no sweep's."""
    if not (folder / sweep_folder.FILE).exists():
        return None
    jobs = sweep_folder.read(folder)["jobs"]
    return [folder / name for name in jobs if outcome.read(folder / name, outcome.DONE) is not None]


def _read(folder: Path, name: str, overrides: list[str] | None) -> Run:
    own = None if overrides is None else {key_of(o): o.partition("=")[2] for o in overrides}
    config: dict[str, Any] = {}
    try:
        config = leaves(yaml.safe_load((folder / "config.yaml").read_text("utf-8")), without=())
    except FileNotFoundError:
        pass
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{folder / 'config.yaml'}: cannot be read ({error}); remove that run.") from error
    state, note = _state(folder, config)
    figures: dict[str, float] = {}
    if state == "finished":  # evaluate.py may have come later
        figures = (outcome.read(folder, outcome.DONE) or {}).get("figures", {}) | final_figures(folder)
    return Run(name, folder, state, note, own, config, figures)


def _state(folder: Path, config: dict[str, Any]) -> tuple[State, str]:
    steps = config.get("trainer.max_steps")
    if (folder / outcome.DONE).exists():
        return "finished", ""
    if failed := outcome.read(folder, outcome.FAILED):
        return "failed", str(failed.get("error", ""))
    if not config:
        return "not started", ""
    if steps and (folder / "checkpoints" / f"step-{steps:07d}.ckpt").exists():
        return "finished", ""  # of before there was done.json
    reached = last_step(folder)
    return "unfinished", f"{reached or 0} of {steps} steps"


def swept(runs: Sequence[Run]) -> list[dict[str, str]]:
    """What sets each run apart, but its seed: the overrides of a sweep, or of other runs the values that differ."""
    hidden = {"seed", *INCIDENTAL}
    if all(run.overrides is not None for run in runs):
        keys = [k for k in dict.fromkeys(k for run in runs for k in run.overrides or ()) if k not in hidden]
        of = [{key: (run.overrides or {}).get(key, run.config.get(key, "-")) for key in keys} for run in runs]
    else:
        of = [
            {k: v for k, v in run.config.items() if not any(k == h or k.startswith(f"{h}.") for h in hidden)}
            for run in runs
        ]
    told = [{key: str(value) for key, value in values.items()} for values in of]
    columns = differing(told)  # type: ignore[arg-type]
    return [{key: values.get(key, "-") for key in columns} for values in told]
