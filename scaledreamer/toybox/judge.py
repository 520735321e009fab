"""The toybox's judge: the bundled CLIP, which says what toy a picture shows and from which side."""

from pathlib import Path

import torch

from scaledreamer.clip.files import BUNDLED
from scaledreamer.clip.model import Clip

FOLDER = BUNDLED["toy_clip"]


class Judge(Clip):
    """See :class:`scaledreamer.clip.model.Clip`.

    Args:
        folder: of the weights.
        device: where it runs.
    """

    def __init__(self, *, folder: Path = FOLDER, device: torch.device | str = "cpu") -> None:
        super().__init__(folder, resample="bilinear", device=device)
