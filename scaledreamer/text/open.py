"""Decide whether a corpus's text embeddings are stored or computed live, and have them stored by one process."""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from scaledreamer.errors import UserError
from scaledreamer.paths import data_folder
from scaledreamer.text.embedding import TextEmbedding
from scaledreamer.text.encode import LiveTextEncoder, StoredType, TextEncoder, distinct_texts, embed
from scaledreamer.text.store import BrokenStoreError, EmbeddingStore, StoreKey, fingerprint, parts, write_store
from scaledreamer.turns import PATIENCE, turn

log = logging.getLogger(__name__)

BATCH = 32
"""Prompts that are embedded and written at a time."""

STALE_AFTER = 3600.0
"""Seconds after which an unfinished file that nobody writes to is removed."""


def open_text_embeddings(
    prompts: Sequence[str],
    prior: TextEncoder,
    templates: Sequence[str],
    *,
    budget_gb: float = 8.0,
    dtype: StoredType = "float16",
    folder: Path | None = None,
    device: torch.device | None = None,
    patience: float = PATIENCE,
) -> EmbeddingStore | LiveTextEncoder:
    """Embeddings of a corpus: from a file where they fit the budget, else computed when they are asked for.

    A file that is missing or broken is built; of several processes (ranks of a run, jobs of a sweep) one builds and
    the others wait for it.

    Args:
        prompts: the corpus; repeated prompts are stored once.
        prior: has the text encoder. It stays loaded if it was used; release it once nothing needs it.
        templates: K wordings.
        budget_gb: largest file, in 10^9 bytes; 0 computes everything live.
        dtype: of the stored numbers.
        folder: where the files are; None for ``text`` in the data folder.
        device: where to encode; None for the device that the prior is set up on.
        patience: seconds that a process waits for another one's file without seeing it grow.

    Raises:
        UserError: the folder cannot be written, or another process makes no progress.
    """
    distinct = list(dict.fromkeys(prompts))
    key = _key(distinct, prior, templates, dtype)
    size = key.file_bytes / 1e9
    if size > budget_gb:
        log.info("text embeddings would take %.1f GB (text.budget_gb=%g); computing them in training", size, budget_gb)
        _report_cut(distinct, prior, templates)
        return LiveTextEncoder(prior, templates, prompts=prompts, dtype=dtype, device=device)

    folder = folder if folder is not None else data_folder() / "text"
    path = _path(folder, key)
    place = {prompt: i for i, prompt in enumerate(distinct)}
    records = [place[prompt] for prompt in prompts]

    def load() -> EmbeddingStore | None:
        try:
            return EmbeddingStore(path, key, records)
        except FileNotFoundError:
            return None
        except BrokenStoreError as error:
            log.warning("%s is broken (%s); building it anew", path, error)
            return None

    def build() -> None:
        _require_space(folder, key.file_bytes)
        _report_cut(distinct, prior, templates)
        log.info("embedding %d prompts in %d wordings: %.2f GB in %s", key.rows, key.templates, size, path)
        write_store(path, key, _batches(distinct, prior, templates, dtype, device))

    try:
        folder.mkdir(parents=True, exist_ok=True)
        return build_once(path, load=load, build=build, patience=patience)
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror or error}; set SCALEDREAMER_DATA to a folder with room, or text.budget_gb=0 to "
            "compute text embeddings during training."
        ) from error


def stored_text_embeddings(
    prompts: Sequence[str],
    prior: TextEncoder,
    templates: Sequence[str],
    *,
    dtype: StoredType = "float16",
    folder: Path | None = None,
) -> EmbeddingStore | None:
    """The file of a corpus's distinct prompts, in their order, where this machine has it whole; none is built.

    Args:
        prompts, prior, templates, dtype, folder: as those of :func:`open_text_embeddings`, which built it.
    """
    key = _key(list(dict.fromkeys(prompts)), prior, templates, dtype)
    try:
        return EmbeddingStore(_path(folder if folder is not None else data_folder() / "text", key), key)
    except (OSError, BrokenStoreError):
        return None


def _key(distinct: Sequence[str], prior: TextEncoder, templates: Sequence[str], dtype: StoredType) -> StoreKey:
    return StoreKey(
        fingerprint=fingerprint(distinct, templates, prior.fingerprint, dtype),
        rows=len(distinct),
        templates=len(templates),
        length=prior.text_length,
        width=prior.text_dim,
        dtype=dtype,
    )


def _report_cut(distinct: Sequence[str], prior: TextEncoder, templates: Sequence[str]) -> None:
    """Have texts told of that are too long, unless nobody would hear it, as of a run's processes but the first."""
    if log.isEnabledFor(logging.WARNING):
        prior.report_cut(distinct_texts(distinct, templates))


def _path(folder: Path, key: StoreKey) -> Path:
    return folder / f"{key.fingerprint}.embeddings"


def build_once(
    path: Path,
    *,
    load: Callable[[], EmbeddingStore | None],
    build: Callable[[], None],
    patience: float,
    poll: float = 5.0,
) -> EmbeddingStore:
    """Load what is at ``path``, or have exactly one process build it while the others wait.

    A process that dies gives its turn to the next, since the system frees its lock.

    Args:
        path: the file; ``.lock`` and ``.part`` files appear beside it.
        load: the store, or None where it has to be built.
        build: writes it.
        patience: seconds to wait for another process without seeing a ``.part`` file grow.
        poll: seconds between looks.

    Raises:
        UserError: the other process makes no progress.
    """
    store = load() if path.exists() else None
    if store is not None:
        return store
    with turn(
        path, f"to write {path}", grown=lambda: sum(_size(part) for part in parts(path)), patience=patience, poll=poll
    ):
        store = load()  # it may have been built in the meantime
        if store is None:
            _remove_stale(path)
            build()
            store = load()
        if store is None:
            raise UserError(
                f"{path} is broken although it was just written; check that disk, or set SCALEDREAMER_DATA."
            )
        return store


def _batches(
    prompts: Sequence[str],
    prior: TextEncoder,
    templates: Sequence[str],
    dtype: StoredType,
    device: torch.device | None,
) -> Iterator[TextEmbedding]:
    start = told = time.monotonic()
    for i in range(0, len(prompts), BATCH):
        yield embed(prompts[i : i + BATCH], prior, templates, dtype=dtype, device=device)
        done, now = min(i + BATCH, len(prompts)), time.monotonic()
        if now - told > 10 and done < len(prompts):
            left = (now - start) / done * (len(prompts) - done)
            log.info("text embeddings: %d of %d prompts, %.0f s left", done, len(prompts), left)
            told = now


def _require_space(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise UserError(
            f"text embeddings need {wanted / 1e9:.2f} GB in {folder}, where {free / 1e9:.2f} GB are free; make room, "
            "set SCALEDREAMER_DATA to another folder, or text.budget_gb=0 to compute them during training."
        )


def _remove_stale(path: Path) -> None:
    for part in parts(path):
        try:
            if time.time() - part.stat().st_mtime > STALE_AFTER:
                part.unlink(missing_ok=True)
        except FileNotFoundError:
            continue


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
