"""A call of ``python -m scaledreamer.gallery``: runs one after the other, then their files, then the page."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from scaledreamer.errors import UserError
from scaledreamer.gallery.media import Media
from scaledreamer.gallery.options import GalleryOptions
from scaledreamer.gallery.page import MEDIA, content, media_folder, write_page
from scaledreamer.gallery.scores import scores_of
from scaledreamer.gallery.source import Source, open_source
from scaledreamer.render.writers import Writers
from scaledreamer.training.progress import Bar

log = logging.getLogger(__name__)

LOCK = ".lock"
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
        with _claimed(folder):
            sources = [open_source(run, options) for run in options.runs]
            scores = [scores_of(source.directory, source.made_by) for source in sources]
            shelves = _write_media(sources, folder)
            page = write_page(content(sources, scores, folder=folder, title=options.title), folder)
            _tidy(shelves, folder)  # only now: until then an older page may show the files
            return page
    except Timeout as error:
        raise UserError(f"output: another process writes {folder}; wait for it or set output=FOLDER.") from error
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror or error}; set output=FOLDER.") from error


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Make the folder a gallery's, before anything is rendered for it; one that stays empty goes again."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MARK).exists():
        if any(path.name != LOCK for path in folder.iterdir()):
            raise UserError(f"output: {folder} holds other files than a gallery's; choose a new or an empty folder.")
        (folder / MARK).touch()
    with FileLock(folder / LOCK, timeout=0):
        try:
            yield
        finally:
            if made and {path.name for path in folder.iterdir()} <= {MARK, LOCK}:
                shutil.rmtree(folder, ignore_errors=True)


def _write_media(sources: Sequence[Source], folder: Path) -> list[Media]:
    shelves = []
    jobs = []
    for source in sources:
        media = Media(folder / media_folder(source, folder))
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
    return shelves


def _tidy(shelves: Sequence[Media], folder: Path) -> None:
    for media in shelves:
        media.tidy()
    for other in (folder / MEDIA).iterdir():  # of runs that are not shown any more
        if other.is_dir() and other not in [media.folder for media in shelves]:
            shutil.rmtree(other)
