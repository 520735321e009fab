"""Contact sheets: pictures in rows below captions.

Axes: V views, H W pixels; pictures are [H, W, 3] in [0, 1].
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

_GAP, _PAPER, _INK = 6, 0.97, 0.12
_FONT_SIZE, _LINE, _MARGIN = 12, 15, 2  # pixels
MOST_LINES = 3
"""Lines of a caption; what does not fit is cut."""


def sheet(parts: Sequence[tuple[str, Sequence[Tensor]]], *, columns: int) -> Tensor:
    """A page of blocks, each a caption above rows of pictures [V, H, W, 3]; all blocks have one size."""
    bodies = [torch.cat([torch.cat(list(row), dim=1) for row in rows]) for _, rows in parts]
    wrapped = [wrap(caption, bodies[0].shape[1] - 2 * _MARGIN) for caption, _ in parts]
    lines = max(len(w) for w in wrapped)
    blocks = [torch.cat([_written(w, lines, body.shape[1]), body]) for w, body in zip(wrapped, bodies, strict=True)]
    return tiled(blocks, columns=columns)


def tiled(parts: Sequence[Tensor], *, columns: int) -> Tensor:
    """Pictures of one size in a grid on light paper."""
    height, width = parts[0].shape[:2]
    columns = min(columns, len(parts))
    rows = -(-len(parts) // columns)
    page = torch.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), _PAPER)
    for i, part in enumerate(parts):
        row, column = divmod(i, columns)
        top, left = _GAP + row * (height + _GAP), _GAP + column * (width + _GAP)
        page[top : top + height, left : left + width] = part
    return page


def wrap(text: str, width: int) -> list[str]:
    """A text in lines of at most ``width`` pixels, between words where it can; a longer one ends in an ellipsis."""
    lines = [""]
    for word in "".join(c if c.isprintable() else " " for c in text).split():
        longer = f"{lines[-1]} {word}".lstrip()
        if _length(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for character in word:  # a word that is wider than a line goes on in the next
            if lines[-1] and _length(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
        if len(lines) > MOST_LINES:
            break
    if len(lines) > MOST_LINES:
        last = lines[MOST_LINES - 1]
        while last and _length(f"{last}…") > width:
            last = last[:-1]
        lines[MOST_LINES - 1 :] = [f"{last.rstrip()}…"]
    return lines


def _length(text: str) -> float:
    return _font().getlength(text)


def _written(lines: Sequence[str], count: int, width: int) -> Tensor:
    """Lines of text at the bottom of the room of ``count``, [H, width, 3]."""
    from PIL import Image, ImageDraw

    height = count * _LINE + 2 * _MARGIN
    image = Image.new("L", (width, height), round(255 * _PAPER))
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(lines, start=count - len(lines)):
        draw.text((_MARGIN, _MARGIN + i * _LINE), line, fill=round(255 * _INK), font=_font())
    grey = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(height, width, 1)
    return (grey.float() / 255).expand(-1, -1, 3)


@functools.cache
def _font() -> "FreeTypeFont":
    """DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic, Arabic; other scripts become boxes."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", _FONT_SIZE)
