"""PNG files.

Axes: H W pixels, C channels: grey, RGB or RGB with opacity.
"""

from pathlib import Path

import torch
from torch import Tensor

from scaledreamer.paths import whole_file

FULL = {torch.uint8: 255, torch.uint16: 65535}
"""What 1.0 is in each type."""


def quantised(picture: Tensor, dtype: torch.dtype = torch.uint8) -> Tensor:
    """A picture of any shape, [0, 1] -> whole numbers of ``dtype``; values beyond are clamped, NaN becomes 0."""
    return (picture.float().nan_to_num(0.0).clamp(0, 1) * FULL[dtype]).round().to(dtype)


def save_png(picture: Tensor, path: Path) -> None:
    """Write a picture [H, W, C] in [0, 1], uint8 or, with C = 1, uint16; the file appears when it is whole."""
    from PIL import Image

    pixels = (quantised(picture) if picture.is_floating_point() else picture).cpu().numpy()
    with whole_file(path) as part:
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(part, format="PNG")
