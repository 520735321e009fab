"""Videos that every browser plays: H.264 in MP4, 4:2:0, its index in front.

Axes: T frames, H W pixels.
"""

import io
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from scaledreamer.errors import UserError
from scaledreamer.paths import unfinished
from scaledreamer.pictures.png import quantised

QUALITY = 18
"""x264's constant rate factor: lower is better and larger, 18 is hard to tell from the source."""

# Players of pictures this small take an unnamed matrix for that of standard definition, others for this one.
_COLORS = "scale=out_color_matrix=bt709,setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709"
_ENCODE = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", str(QUALITY), "-movflags", "+faststart", "-f", "mp4")


class Video:
    """A video that is written frame by frame, by an encoder in a process of its own.

    Leaving the ``with`` block completes the file; an error inside it leaves none.

    Args:
        path: where.
        fps: frames per second.
    """

    def __init__(self, path: Path, *, fps: float) -> None:
        self.path, self.fps = path, fps
        self._encoder: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Video":
        self._part = unfinished(self.path)
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        return self

    def add(self, frames: Tensor) -> None:
        """Frames [T, H, W, 3] in [0, 1] or uint8, all of a video of one size; odd sides get their last pixels twice.

        Raises:
            UserError: the encoder fails.
        """
        pixels = (quantised(frames) if frames.is_floating_point() else frames).cpu()
        height, width = pixels.shape[1:3]
        if height % 2 or width % 2:
            grown = pixels.permute(0, 3, 1, 2).float()
            pixels = F.pad(grown, (0, width % 2, 0, height % 2), mode="replicate").permute(0, 2, 3, 1).byte()
        self._encoder = self._encoder or self._started(*pixels.shape[1:3])
        assert self._encoder.stdin is not None
        try:
            self._encoder.stdin.write(pixels.contiguous().numpy())
        except BrokenPipeError:
            self._close()

    def _started(self, height: int, width: int) -> "subprocess.Popen[bytes]":
        import imageio_ffmpeg

        frames = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(self.fps), "-i", "-")
        command = (imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *frames, "-vf", _COLORS, *_ENCODE)
        return subprocess.Popen([*command, str(self._part)], stdin=subprocess.PIPE, stderr=self._errors)

    def _close(self) -> None:
        """End the file and wait for the encoder."""
        if self._encoder is None:
            raise ValueError(f"{self.path}: a video without a frame")
        self._encoder.communicate()
        if self._encoder.returncode:
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise UserError(f"{self.path}: the video encoder failed: {said[-1]}.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._close()
                self._part.replace(self.path)
            elif self._encoder is not None:
                self._encoder.kill()
                self._encoder.communicate()
        finally:
            self._errors.close()
            self._part.unlink(missing_ok=True)


def save_video(frames: Tensor, path: Path, *, fps: float = 12) -> None:
    """Write frames [T, H, W, 3] in [0, 1] or uint8."""
    with Video(path, fps=fps) as video:
        video.add(frames)


def first_frame(path: Path) -> Tensor:
    """The first frame [H, W, 3], uint8.

    Raises:
        UserError: the file is no video that can be read.
    """
    import imageio_ffmpeg
    from PIL import Image

    # imageio's own reader gives up after ten seconds, which a busy machine may need to start it.
    command = (imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-frames:v", "1")
    done = subprocess.run([*command, "-c:v", "png", "-f", "image2pipe", "-"], capture_output=True)
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it has no frame"]
        raise UserError(f"{path}: is no video that can be read: {said[-1]}.")
    return torch.from_numpy(np.array(Image.open(io.BytesIO(done.stdout)).convert("RGB")))
