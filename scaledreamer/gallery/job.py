"""A call of ``python -m scaledreamer.gallery``: runs one after the other, then their files, then the page."""

import logging
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from scaledreamer.errors import UserError
from scaledreamer.gallery.media import Media
from scaledreamer.gallery.options import GalleryOptions
from scaledreamer.gallery.page import content, media_folder, write_page
from scaledreamer.gallery.scores import scores_of
from scaledreamer.gallery.source import Source, open_source
from scaledreamer.render.writers import Writers
from scaledreamer.training.progress import Bar

log = logging.getLogger(__name__)

MARK = ".gallery"
"""Empty file in a gallery's folder: other folders are not written to unless they are empty."""


def write_gallery(options: GalleryOptions) -> Path:
    """Make the page, and render what it lacks; what is there already is kept.

    Returns:
        Its ``index.html``.

    Raises:
        UserError: a run cannot be shown; or a folder that cannot be written, holds something else, or in which another
            process is at work.
    """
    folder = options.folder
    try:
        _claim(folder)
        with FileLock(folder / ".lock", timeout=0):
            sources = [open_source(run, options) for run in options.runs]
            scores = [scores_of(source.directory, source.made_by) for source in sources]
            _write_media(sources, folder)
            return write_page(content(sources, scores, title=options.title), folder)
    except Timeout as error:
        raise UserError(f"output: another process writes {folder}; wait for it or set output=FOLDER.") from error
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror or error}; set output=FOLDER.") from error


def _claim(folder: Path) -> None:
    """Make the folder a gallery's, before anything is rendered for it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MARK).exists():
        if any(path.name != ".lock" for path in folder.iterdir()):
            raise UserError(f"output: {folder} holds other files than a gallery's; choose a new or an empty folder.")
        (folder / MARK).touch()


def _write_media(sources: Sequence[Source], folder: Path) -> None:
    shelves = []
    jobs = []
    for source in sources:
        media = Media(folder / media_folder(source))
        media.folder.mkdir(parents=True, exist_ok=True)
        shelves.append(media)
        jobs += [job for shown in source.objects for job in media.jobs(shown)]
    log.info("objects: %d; files: %d new", sum(len(source.objects) for source in sources), len(jobs))
    bar = Bar("file", len(jobs))
    try:
        with Writers() as writers:
            for job in jobs:
                writers.submit(job)
                bar.advance(1)
    finally:
        bar.stop()
    for media in shelves:
        media.tidy()
