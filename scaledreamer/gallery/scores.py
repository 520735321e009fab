"""What ``evaluate.py`` has found out about a run's objects."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaledreamer.evaluate.summary import MEASURES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scores:
    """Figures of a run by one protocol, of the generator that is shown."""

    protocol: str
    rows: dict[str, dict[str, float]]
    """By prompt and measure."""
    groups: dict[str, Any]
    """``all``, ``seen``, ``unseen``, ``gap``, as summary.json has them."""

    @property
    def measures(self) -> list[str]:
        """Those that were taken, in the order of tables."""
        return [name for name in MEASURES if any(name in row for row in self.rows.values())]


def scores_of(run: Path, made_by: dict[str, Any]) -> list[Scores]:
    """The scores of a run's folder; those of other weights are left out, with a line in the log that says so.

    Args:
        run: its folder.
        made_by: the generator (:data:`scaledreamer.gallery.source.IDENTITY`).
    """
    found = []
    for path in sorted(run.glob("evaluate/*/summary.json")):
        try:
            summary = json.loads(path.read_text("utf-8"))
            rows = json.loads(path.with_name("prompts.json").read_text("utf-8"))["prompts"]
            if any(summary[key] != value for key, value in made_by.items()):
                log.warning(
                    "%s: scores of step %s are left out, step %s is shown; run evaluate.py again",
                    path.parent, summary["step"], made_by["step"],
                )  # fmt: skip
                continue
            by_prompt = {row["prompt"]: {m: float(row[m]) for m in MEASURES if m in row} for row in rows}
            found.append(Scores(summary["protocol"]["name"], by_prompt, dict(summary["groups"])))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s: left out, it cannot be read (%s: %s)", path.parent, type(error).__name__, error)
    if not found:
        log.info("%s: no scores to show; python evaluate.py run=%s makes them", run, run)
    return found
