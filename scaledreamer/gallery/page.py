"""The page: its data, and the files that it is looked at with.

===================  ==========================================================================================
index.html           what a browser opens; it has no data but the title
data.js              runs, objects, scores, configurations: ``gallery.show({...})``
assets/              styles and scripts, the viewer and its licences
media/RUN/NAME-*.*   see :mod:`scaledreamer.gallery.media`
===================  ==========================================================================================

Prompts are anyone's text: data.js is ASCII without ``<``, and the scripts put text in the page as text alone.
"""

import html
import json
import os
import shutil
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from scaledreamer import __version__
from scaledreamer.evaluate.summary import MEASURES
from scaledreamer.evaluate.table import NEVER_SHOWN, labels
from scaledreamer.gallery import settings
from scaledreamer.gallery.media import front
from scaledreamer.gallery.scores import Scores
from scaledreamer.gallery.source import Object, Source
from scaledreamer.render.index import digest
from scaledreamer.training.directory import write_atomically

ASSETS = Path(__file__).parent / "assets"
MEDIA = "media"
"""Folder of the files of objects, below the page's."""

DIGITS = 5
"""Of a score."""


def media_folder(source: Source, folder: Path) -> str:
    """Of a run's files, below the page's folder: the same whichever runs are beside it, and where both are moved."""
    return f"{MEDIA}/{digest(os.path.relpath(source.directory, folder.resolve()))}"


def content(
    sources: Sequence[Source], scores: Sequence[Sequence[Scores]], *, folder: Path, title: str | None
) -> dict[str, Any]:
    """What the page shows, as plain values.

    Args:
        sources: the runs.
        scores: of each run, by its protocols.
        folder: of the page.
        title: None for the runs' names.
    """
    folders = [source.directory for source in sources]
    names = labels(folders) if len(sources) > 1 else ["/".join(folders[0].parts[-2:])]
    keys = [(s.protocol, m) for of_run in scores for s in of_run for m in s.measures if m not in NEVER_SHOWN]
    columns = sorted(set(keys), key=lambda key: (key[0], list(MEASURES).index(key[1])))
    prompts = dict.fromkeys(shown.item.prompt for source in sources for shown in source.objects)
    found = [{shown.item.prompt: shown for shown in source.objects} for source in sources]
    return {
        "title": title or " · ".join(names),
        "version": __version__,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "runs": [_run(*one, folder) for one in zip(sources, names, scores, strict=True)],
        "measures": [{"protocol": protocol, "name": MEASURES[measure]} for protocol, measure in columns],
        "objects": [
            {
                "prompt": prompt,
                "runs": [
                    _object(of_run.get(prompt), _figures(prompt, some, columns))
                    for of_run, some in zip(found, scores, strict=True)
                ],
            }
            for prompt in prompts
        ],
        "settings": settings.rows([source.config for source in sources]),
    }


def _run(source: Source, name: str, scores: Sequence[Scores], folder: Path) -> dict[str, Any]:
    return {
        "name": name,
        "folder": media_folder(source, folder),
        "step": source.made_by["step"],
        "launch": _launch(source.directory),
        "scores": {s.protocol: _groups(s.groups) for s in scores},
    }


def _groups(groups: dict[str, Any]) -> dict[str, Any]:
    """By heading of a measure and group: (mean, low, high)."""
    found: dict[str, Any] = {}
    for group, figures in groups.items():
        for measure, estimate in figures["measures"].items():
            if measure in MEASURES and measure not in NEVER_SHOWN:
                found.setdefault(MEASURES[measure], {})[group] = [_short(value) for value in estimate]
    return found


def _object(shown: Object | None, figures: list[float | None]) -> dict[str, Any] | None:
    """``video`` and ``mesh`` name their files, null where there are none; ``at``: where of how many maps in a video."""
    if shown is None:
        return None
    return {
        "name": shown.item.name,
        "seen": shown.item.seen,
        "video": shown.video_name,
        "mesh": shown.mesh_name,
        "at": [front(shown.maps), max(len(shown.maps), 1)],
        "scores": figures,
    }


def _figures(prompt: str, scores: Sequence[Scores], columns: Sequence[tuple[str, str]]) -> list[float | None]:
    by_protocol = {s.protocol: s.rows.get(prompt, {}) for s in scores}
    found = [by_protocol.get(protocol, {}).get(measure) for protocol, measure in columns]
    return [None if value is None else _short(value) for value in found]


def _short(value: float) -> float | None:
    """JSON has no NaN."""
    return float(f"{value:.{DIGITS}g}") if value == value and abs(value) != float("inf") else None


def _launch(directory: Path) -> dict[str, Any]:
    """The command, time and commit that the run began with, where its folder says so."""
    try:
        with (directory / "launches.jsonl").open(encoding="utf-8") as file:
            launch = json.loads(file.readline())
        return {"command": launch["command"], "time": launch["time"], "commit": launch["git"]["commit"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def write_page(shown: dict[str, Any], folder: Path) -> Path:
    """Write everything but the media; index.html last, so that a page is whole when it is there."""
    data = json.dumps(shown, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    write_atomically(folder / "data.js", f"gallery.show({data});\n")
    shutil.copytree(ASSETS, folder / "assets", dirs_exist_ok=True, ignore=shutil.ignore_patterns("index.html"))
    template = (ASSETS / "index.html").read_text("utf-8")
    write_atomically(folder / "index.html", template.replace("{{title}}", html.escape(shown["title"])))
    return folder / "index.html"
