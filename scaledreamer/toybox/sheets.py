"""Contact sheets and videos of toys.

Axes: H W pixels; pictures are [H, W, 3] in [0, 1].
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

_GAP, _PAPER = 6, 0.97
_CAPTION = 14  # pixels


def block(rows: Sequence[Tensor], *, caption: str) -> Tensor:
    """Rows of pictures [V, H, W, 3] below a caption."""
    body = torch.cat([torch.cat(list(row), dim=1) for row in rows])
    return torch.cat([_line(caption, body.shape[1]), body])


def _line(text: str, width: int) -> Tensor:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (width, _CAPTION), (round(255 * _PAPER),) * 3)
    ImageDraw.Draw(image).text((2, 1), text, fill=(30, 30, 30))
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(_CAPTION, width, 3).float() / 255


def tiled(parts: Sequence[Tensor], *, columns: int) -> Tensor:
    """Pictures of one size in a grid on light paper."""
    height, width = parts[0].shape[:2]
    rows = -(-len(parts) // columns)
    sheet = torch.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), _PAPER)
    for i, part in enumerate(parts):
        row, column = divmod(i, columns)
        top, left = _GAP + row * (height + _GAP), _GAP + column * (width + _GAP)
        sheet[top : top + height, left : left + width] = part
    return sheet


def save_video(frames: Tensor, path: Path, *, fps: int = 12) -> None:
    """Write frames [T, H, W, 3] in [0, 1] as H.264, which every browser plays."""
    import imageio.v3 as iio

    frames = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]  # the format wants even sides
    pixels = (frames * 255).round().to(torch.uint8).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    iio.imwrite(path, pixels, fps=fps, codec="libx264", macro_block_size=2, plugin="FFMPEG")
