"""Where a Stable Diffusion's parts come from: a folder in diffusers' layout, or a random start in memory."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scaledreamer.errors import UserError
from scaledreamer.priors.layout import Configs, Folders, read_configs
from scaledreamer.priors.weight_files import check_weights, text_fingerprint, weight_files


@contextlib.contextmanager
def no_progress_bar() -> Iterator[None]:
    """Keep transformers from drawing a bar for a second's work."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class Weights(ABC):
    """The parts of one Stable Diffusion, each built when it is asked for.

    Attributes:
        configs: the sizes.
        fingerprint: tells one text encoder with its tokenizer from another.
    """

    configs: Configs
    fingerprint: str

    @abstractmethod
    def unet(self, device: torch.device) -> nn.Module:
        """The denoiser: diffusers' ``UNet2DConditionModel``, or a ``MultiViewUNet`` if its configuration has views."""

    @abstractmethod
    def vae(self, device: torch.device) -> nn.Module:
        """Diffusers' ``AutoencoderKL``."""

    @abstractmethod
    def text_encoder(self) -> nn.Module:
        """Transformers' ``CLIPTextModel``, on the CPU."""

    @abstractmethod
    def tokenizer(self) -> Any:
        """Transformers' CLIP tokenizer."""


class FolderWeights(Weights):
    """Parts of a folder in diffusers' layout; the constructor reads and checks its small files.

    Args:
        folder: holds a sub-folder per part.
        base: another such folder, for the parts that ``folder`` has not.

    Raises:
        UserError: the folder is incomplete or of another kind of model.
    """

    def __init__(self, folder: Path, base: Path | None = None) -> None:
        self.folders = Folders(folder, base)
        self.configs = read_configs(self.folders)

    def check(self) -> None:
        """Raise a :class:`UserError` unless every weight file is there and whole; they are not loaded."""
        check_weights(self.folders)

    @cached_property
    def fingerprint(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See :func:`scaledreamer.priors.weight_files.text_fingerprint`."""
        return text_fingerprint(self.folders)

    def unet(self, device: torch.device) -> nn.Module:
        """The UNet's weights."""
        from diffusers import UNet2DConditionModel

        if "views" in self.configs.unet:
            from scaledreamer.priors.multiview_unet import MultiViewUNet

            return self._load(MultiViewUNet, "unet")
        return self._load(UNet2DConditionModel, "unet")

    def vae(self, device: torch.device) -> nn.Module:
        """The VAE's weights."""
        from diffusers import AutoencoderKL

        return self._load(AutoencoderKL, "vae")

    def text_encoder(self) -> nn.Module:
        """The text encoder's weights."""
        from transformers import CLIPTextModel

        with no_progress_bar():
            return self._load(CLIPTextModel, "text_encoder")

    def tokenizer(self) -> Any:
        """The tokenizer's files."""
        from transformers import CLIPTokenizer

        with self._explained("tokenizer"):
            return CLIPTokenizer.from_pretrained(str(self._place("tokenizer")))

    def _load(self, kind: Any, part: str) -> nn.Module:
        chosen = weight_files(self.folders.of(part), part)
        safe = chosen.files[0].suffix == ".safetensors"
        with self._explained(part):
            model, report = kind.from_pretrained(
                str(self._place(part)),
                variant=chosen.variant,
                use_safetensors=safe,
                local_files_only=True,
                output_loading_info=True,
            )
        # A buffer of positions is absent from recent files and is rebuilt.
        missing = [key for key in report["missing_keys"] if not key.endswith("position_ids")]
        if missing or report["mismatched_keys"]:
            names = [*missing, *(key if isinstance(key, str) else key[0] for key in report["mismatched_keys"])]
            raise UserError(
                f"{chosen.files[0]} does not fit {self._place(part) / 'config.json'}: {len(names)} weights are "
                f"missing or have another shape, e.g. {sorted(names)[0]}; fetch both anew, or name another folder."
            )
        return model

    def _place(self, part: str) -> Path:
        return self.folders.of(part) / part

    @contextlib.contextmanager
    def _explained(self, part: str) -> Iterator[None]:
        """Make one line of whatever the loading libraries raise about a broken file."""
        try:
            yield
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(
                f"{self._place(part)} cannot be loaded: {reason}; fetch it anew, or name another folder."
            ) from error
