"""MVDream's published checkpoint, ``sd-v2.1-base-4view.pt``: converted once to a folder that loads like any other.

The file holds the UNet and the VAE under the names of the original latent-diffusion code. Its text encoder is left
alone: it is that of Stable Diffusion 2.1-base.
"""

import hashlib
import logging
import os
import shutil
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scaledreamer.errors import UserError
from scaledreamer.priors.layout import CONFIG_FILES, Configs, Folders, read_json
from scaledreamer.priors.ldm_names import UNET, VAE, unet_names, vae_names
from scaledreamer.priors.sizes import MVDREAM
from scaledreamer.priors.weight_files import WEIGHT_STEMS, check_weights
from scaledreamer.turns import turn

log = logging.getLogger(__name__)

FILE = "sd-v2.1-base-4view.pt"
"""Its name on the hub, in MVDream/MVDream."""

PARTS = ("vae", "unet")
"""What is made of it, in this order."""

UNUSED = ("cond_stage_model.", "model_ema.", "betas", "alphas_", "sqrt_", "log_one_minus_", "posterior_", "logvar")
"""How names begin that are known and not needed: the text encoder, running averages, the noise schedule's tables."""


def identity(file: Path) -> str:
    """A name for what a checkpoint is converted to, found without reading it: its path, length and time count."""
    stat = file.stat()
    key = f"{file.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
    return f"{file.stem}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def check(folder: Path) -> None:
    """Raise a :class:`UserError` unless the parts that :func:`convert` writes are there and whole."""
    for part in PARTS:
        read_json(folder / part / CONFIG_FILES[part], folder)
    check_weights(Folders(folder), PARTS)


def is_converted(folder: Path) -> bool:
    """Whether :func:`check` has nothing to say."""
    try:
        check(folder)
    except UserError:
        return False
    return True


def convert(file: Path, folder: Path, sizes: Configs | None = None) -> None:
    """Write ``unet`` and ``vae`` into ``folder``, from MVDream's checkpoint, unless they are there.

    Of several processes one converts and the others wait; parts appear when they are whole. Takes 4 GB of memory, and
    seconds where the disk is fast.

    Args:
        file: the checkpoint.
        folder: where the parts go.
        sizes: of the model; None for those that were published.

    Raises:
        UserError: the file is another one, the folder cannot be written, or another process makes no progress.
    """
    if is_converted(folder):
        return
    part = folder.with_name(f"{folder.name}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with turn(folder, f"to convert {file}", grown=lambda: _bytes(part)):
            if is_converted(folder):
                return
            log.info("converting %s, once, into %s", file, folder)
            shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
            try:
                _write_parts(read_checkpoint(file), part, sizes or MVDREAM, file)
                folder.mkdir(exist_ok=True)
                for name in PARTS:
                    shutil.rmtree(folder / name, ignore_errors=True)
                    os.replace(part / name, folder / name)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: {error.strerror or error}; the conversion of {file} needs room for 4 GB: set "
            "SCALEDREAMER_DATA to a folder that has it."
        ) from error


def _bytes(folder: Path) -> int:
    """Of all files in a folder that another process is writing."""
    with suppress(FileNotFoundError):
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return 0


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their names, on the disk until they are used; runs no code from the file.

    Raises:
        UserError: it is no such file.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # reading and unpickling fail in many ways
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{file} cannot be read as a checkpoint ({reason}); fetch {FILE} anew.") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _write_parts(state: Mapping[str, Tensor], folder: Path, sizes: Configs, file: Path) -> None:
    from diffusers import AutoencoderKL
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from scaledreamer.priors.multiview_unet import MultiViewUNet

    with torch.device("meta"):  # only shapes and configurations are needed
        models: dict[str, Any] = {
            "unet": MultiViewUNet.from_config(sizes.unet).unet,
            "vae": AutoencoderKL(**sizes.vae),
        }
    names = {
        "unet": unet_names(models["unet"].state_dict(), sizes.unet),
        "vae": vae_names(models["vae"].state_dict(), sizes.vae),
    }
    found = translated(state, models, names, file)
    for name, model in models.items():
        model.save_config(str(folder / name))
        weights = folder / name / f"{WEIGHT_STEMS[name]}.safetensors"
        try:
            save_file(found[name], weights, metadata={"format": "pt"})
            # It is written for its owner alone; the folder may be shared.
            weights.chmod((folder / name / "config.json").stat().st_mode)
        except SafetensorError as error:
            raise OSError(str(error)) from error


def translated(
    state: Mapping[str, Tensor],
    models: Mapping[str, nn.Module],
    names: Mapping[str, Mapping[str, str]],
    file: Path,
) -> dict[str, dict[str, Tensor]]:
    """The weights of each model under its own names and in its own shapes (a 1 x 1 convolution is a linear layer).

    Args:
        state: of the checkpoint.
        models: what to fill; only their shapes count.
        names: of each model, from its own names to those of the checkpoint.
        file: named in errors.

    Raises:
        UserError: weights are missing, unexpected or of another shape; the log names every one of them.
    """
    made: dict[str, dict[str, Tensor]] = {part: {} for part in models}
    wrong: dict[str, list[str]] = {"missing": [], "of another shape": [], "unexpected": []}
    for part, model in models.items():
        for ours, wanted in model.state_dict().items():
            theirs = names[part][ours]
            value = state.get(theirs)
            if value is None:
                wrong["missing"].append(theirs)
            elif _without_ones(value.shape) != _without_ones(wanted.shape):
                wrong["of another shape"].append(f"{theirs} {list(value.shape)} instead of {list(wanted.shape)}")
            else:
                made[part][ours] = value.reshape(wanted.shape).contiguous()
    known = {name for part in names.values() for name in part.values()}
    others = [name for name in state if name not in known and not name.startswith(UNUSED)]
    wrong["unexpected"] = [name for name in others if name.startswith((UNET, VAE))]
    if len(others) > len(wrong["unexpected"]):
        ignored = [name for name in others if name not in wrong["unexpected"]]
        log.warning("%s: unknown weights beside those that are needed, ignored: %s", file, ", ".join(ignored))
    if any(wrong.values()):
        for kind, each in wrong.items():
            if each:
                log.error("%s: weights %s: %s", file, kind, ", ".join(each))
        counted = "; ".join(f"{len(each)} {kind}, e.g. {each[0]}" for kind, each in wrong.items() if each)
        raise UserError(f"{file} is not {FILE} of MVDream: weights are {counted} (the log names all); fetch it anew.")
    return made


def _without_ones(shape: torch.Size) -> list[int]:
    """A shape without the 1 x 1 of a convolution's kernel."""
    return list(shape[:2]) if tuple(shape[2:]) == (1, 1) else list(shape)
