"""How a run ended: ``done.json``, its last act, or ``failed.json``; neither while it goes on or when it was killed.

=============  ================================================================================
done.json      {"time": ..., "steps": N, "figures": {NAME: value}}; see :func:`final_figures`
failed.json    {"time": ..., "error": one line}; jobs of sweeps, and runs that lost a process
=============  ================================================================================
"""

import json
import logging
import math
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from scaledreamer.config.explain import explain
from scaledreamer.config.signature import nearest
from scaledreamer.paths import whole_file
from scaledreamer.training.figures import final_figures

log = logging.getLogger(__name__)

DONE, FAILED = "done.json", "failed.json"


def clear(directory: Path) -> None:
    """Take away what an earlier launch said of its end: this one goes on."""
    for name in (DONE, FAILED):
        (directory / name).unlink(missing_ok=True)


def finish(directory: Path, config: Mapping[str, Any], logged: Mapping[str, Any]) -> float | None:
    """Say that the run is done; the figure that ``config["objective"]`` names, None where there is none.

    Args:
        directory: of the run.
        config: plain.
        logged: figures that were logged last, which count where no file has them.
    """
    figures = {name: float(value) for name, value in logged.items()} | final_figures(directory)
    known = {name: value for name, value in sorted(figures.items()) if math.isfinite(value)}
    _write(directory / DONE, {"steps": config["trainer"]["max_steps"], "figures": known})
    objective = config.get("objective")
    if objective is None or objective in known:
        return known.get(objective) if objective else None
    log.warning("objective: %s", no_figure(objective, known))
    return None


def no_figure(name: str, figures: Mapping[str, float]) -> str:
    """What to say where a run has no figure ``name``."""
    if not figures:
        return f"the run has no finite figure {name!r}, nor any other."
    return f"the run has no finite figure {name!r}; {nearest(name, list(figures))}"


def fail(directory: Path, error: BaseException) -> None:
    """Say that the run failed, unless it was done before and this launch was refused."""
    if directory.is_dir() and not (directory / DONE).exists():
        _write(directory / FAILED, {"error": in_a_line(error)})


def in_a_line(error: BaseException) -> str:
    """What went wrong, in a line."""
    told = explain(error) or f"{type(error).__name__}: {error}"
    return " ".join(told.split())


def read(directory: Path, name: str) -> dict[str, Any] | None:
    """``done.json`` or ``failed.json`` of a run; None where it is not there, or damaged."""
    try:
        return json.loads((directory / name).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _write(path: Path, content: dict[str, Any]) -> None:
    time = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with whole_file(path) as part:
        part.write_text(json.dumps({"time": time, **content}, indent=1, ensure_ascii=False) + "\n", "utf-8")
