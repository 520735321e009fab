"""The hub: what is downloaded of a model in diffusers' layout, and whether it was."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from scaledreamer.errors import UserError
from scaledreamer.priors.weight_files import WEIGHT_STEMS, weight_files

PATTERNS = [
    "model_index.json",
    *(f"{part}/config.json" for part in WEIGHT_STEMS),
    "scheduler/scheduler_config.json",
    "tokenizer/*",
    # Neither the fp16 copies nor the weights of other kinds (non_ema, pickles) that most repositories also hold.
    *(f"{part}/{stem}.safetensors" for part, stem in WEIGHT_STEMS.items()),
    *(f"{part}/{stem}.safetensors.index.json" for part, stem in WEIGHT_STEMS.items()),
    *(f"{part}/{stem}-[0-9]*-of-[0-9]*.safetensors" for part, stem in WEIGHT_STEMS.items()),
]
"""What is downloaded of a repository in diffusers' layout."""

HALF_PATTERNS = [f"{part}/{stem}.fp16.safetensors" for part, stem in WEIGHT_STEMS.items()]
"""What is downloaded beside it where the repository holds half precision only."""


def is_hub_name(path: str) -> bool:
    """Whether ``path`` has the form ``organisation/model``."""
    return re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", path) is not None


def download_pipeline(repository: str, *, to: Path | None = None, where: Callable[[], UserError]) -> Path:
    """Download what is needed of a repository in diffusers' layout; broken downloads go on where they broke.

    Args:
        repository: hub name.
        to: folder to put the files in; None for the hub's own cache.
        where: makes the error whose message, after the reason, says what the user can do.

    Raises:
        UserError: the hub cannot be reached, or does not give the files.
    """
    folder = download(repository, PATTERNS, to=to, where=where)
    if not _has_weights(folder):
        download(repository, HALF_PATTERNS, to=to, where=where)
    return folder


def download(
    repository: str, patterns: Sequence[str], *, to: Path | None = None, where: Callable[[], UserError]
) -> Path:
    """Download the files of a repository that fit one of the patterns; see :func:`download_pipeline`."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, local_dir=to, allow_patterns=list(patterns)))
    except Exception as error:  # the client raises its own, the HTTP library's and the system's errors
        raise UserError(f"cannot download {repository} ({reason_of(error)}). {where()}") from error


def reason_of(error: Exception) -> str:
    """The first line of an error of the hub's client, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0].rstrip(".:") if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def cached(repository: str, patterns: Sequence[str] = PATTERNS) -> Path | None:
    """The folder of a repository in the hub's cache; None where it has not been downloaded.

    Args:
        repository: hub name.
        patterns: of the files that are looked for.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=list(patterns), local_files_only=True))
    except Exception:  # not cached; the client says so with errors of several kinds
        return None


def _has_weights(folder: Path | None) -> bool:
    try:
        return folder is not None and all(weight_files(folder, part).files for part in WEIGHT_STEMS)
    except UserError:
        return False
