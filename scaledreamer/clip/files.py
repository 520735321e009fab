"""Where a CLIP is: a folder in transformers' layout, the bundled judge, or a hub name that is downloaded once."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scaledreamer.errors import UserError
from scaledreamer.priors.hub import cached, download, is_hub_name
from scaledreamer.priors.layout import read_json
from scaledreamer.priors.weight_files import check_safetensors
from scaledreamer.toybox import weights

log = logging.getLogger(__name__)

Resample = Literal["bilinear", "bicubic"]

BUNDLED = {"toy_clip": weights.FOLDER / "toy_clip"}
"""CLIPs that are part of the package."""

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
"""Files of weights, the first that is there is loaded."""

PATTERNS = [
    *("config.json", "preprocessor_config.json", "processor_config.json"),
    *("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("model.safetensors", "model.safetensors.index.json", "model-[0-9]*-of-[0-9]*.safetensors"),
]
"""What is downloaded of a repository, and :data:`PICKLE` where it has no such weights."""
PICKLE = ["pytorch_model.bin"]

_RESAMPLES: dict[int, Resample] = {2: "bilinear", 3: "bicubic"}  # as Pillow numbers them


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a picture before the vision model sees it."""

    size: int  # pixels of the shorter side
    crop: int  # pixels of the square that is cut from its middle
    resample: Resample
    mean: tuple[float, ...]  # of red, green and blue
    std: tuple[float, ...]


def find(path: str, *, key: str = "protocol.clip") -> Path:
    """The folder of a CLIP, downloaded before where need be; its small files are checked, nothing is loaded.

    Args:
        path: a folder, ``toy_clip`` or a hub name ``organisation/model``.
        key: of the configuration, for messages.

    Raises:
        UserError: it cannot be had; the message says how to get it.
    """
    given = Path(path).expanduser()
    folder = given if given.is_dir() else BUNDLED.get(path)
    if folder is None and is_hub_name(path):
        folder = cached(path, PATTERNS + PICKLE)
        if folder is None or not _is_whole(folder):
            folder = _downloaded(path, key)
    if folder is None:
        raise UserError(
            f"{key}: there is no folder '{path}'; give one in transformers' layout, a hub name such as "
            f"openai/clip-vit-large-patch14 (downloaded once), or {', '.join(BUNDLED)}, which is bundled."
        )
    checked(folder)
    return folder


def checked(folder: Path) -> Preprocessing:
    """How the CLIP of a folder wants its pictures, after a look at the folder's files.

    Raises:
        UserError: one is missing, cut short or of another kind of model.
    """
    config = _read(folder / "config.json")
    if config.get("model_type") != "clip":
        kind = config.get("model_type", "of no named kind")
        raise UserError(f"{folder} is no CLIP: config.json says {kind}; name another folder.")
    present = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if not present:
        raise UserError(f"{folder / WEIGHTS[0]} is missing; fetch it anew, or name another folder.")
    if present[0].suffix == ".safetensors":
        check_safetensors(present[0])
    if not any((folder / name).is_file() for name in ("vocab.json", "tokenizer.json")):
        raise UserError(f"{folder / 'vocab.json'} is missing; fetch it anew, or name another folder.")
    return _preprocessing(folder, side=config.get("vision_config", {}).get("image_size", 224))


def _preprocessing(folder: Path, *, side: int) -> Preprocessing:
    """Of ``preprocessor_config.json``, or of its node in the newer ``processor_config.json``."""
    newer = folder / "processor_config.json"
    file = newer if newer.is_file() and not (folder / "preprocessor_config.json").is_file() else None
    file = file or folder / "preprocessor_config.json"
    options = _read(file)
    options = options.get("image_processor", options)
    try:
        crop = _side(options.get("crop_size", side)) if options.get("do_center_crop", True) else side
        found = Preprocessing(
            size=_side(options.get("size", crop)),
            crop=crop,
            resample=_RESAMPLES[options.get("resample", 3)],
            mean=tuple(map(float, options["image_mean"])),
            std=tuple(map(float, options["image_std"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is not what a CLIP's pictures need ({error!r}); name another folder.") from error
    if found.crop != side or found.size < side:
        raise UserError(
            f"{file} makes pictures of {found.crop} pixels, the model of config.json takes {side}; name another folder."
        )
    return found


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"{file} is missing: that is no CLIP in transformers' layout; name another folder.")
    return read_json(file, file.parent)


def _side(size: Any) -> int:
    """``224``, ``{"shortest_edge": 224}`` or ``{"height": 224, "width": 224}``: the same for square pictures."""
    return int(next(iter(size.values())) if isinstance(size, dict) else size)


def _is_whole(folder: Path) -> bool:
    try:
        checked(folder)
    except UserError:
        return False
    return True


def _downloaded(repository: str, key: str) -> Path:
    def advice() -> UserError:
        return UserError(
            f"Set {key} to a local folder in transformers' layout, or download it where there is a network: "
            f"hf download {repository}"
        )

    log.info("downloading %s from the hub", repository)
    folder = download(repository, PATTERNS, where=advice)
    if not any((folder / name).is_file() for name in WEIGHTS):
        folder = download(repository, PICKLE, where=advice)
    return folder
