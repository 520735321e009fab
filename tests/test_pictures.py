"""Files that people look at: PNG, MP4 and contact sheets."""

import struct

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from scaledreamer.errors import UserError
from scaledreamer.paths import whole_file
from scaledreamer.pictures import sheets, video
from scaledreamer.pictures.png import quantised, save_png
from scaledreamer.pictures.video import Video, save_video


def test_values_beyond_the_range_are_clamped_and_no_number_is_black():
    values = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0, float("nan")])
    assert quantised(values).tolist() == [0, 0, 128, 255, 255, 0]  # 127.5 to even
    assert quantised(values, torch.uint16).tolist() == [0, 0, 32768, 65535, 65535, 0]


@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint8"), (1, "uint16"), (3, "uint8"), (4, "uint8")])
def test_pngs_keep_every_bit(tmp_path, channels, dtype):
    most = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, most, (5, 7, channels), dtype=dtype, endpoint=True)
    save_png(torch.from_numpy(pixels), tmp_path / "a" / "b.png")
    found = iio.imread(tmp_path / "a" / "b.png").reshape(pixels.shape)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, pixels)


def test_a_file_that_fails_half_way_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with whole_file(path) as part:
            part.write_text("ne")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


# -- videos ------------------------------------------------------------------------------------------------------


def moving(frames: int, height: int, width: int) -> torch.Tensor:
    """A bar that moves over soft colours, [T, H, W, 3] in [0, 1]."""
    x, y = torch.meshgrid(torch.linspace(0, 1, width), torch.linspace(0, 1, height), indexing="xy")
    picture = torch.stack([x, y, 0.3 + 0 * x], dim=-1).repeat(frames, 1, 1, 1)
    for i in range(frames):
        picture[i, :, i * width // frames] = 1.0
    return picture


def boxes(content: bytes) -> list[str]:
    """Names of an MP4's outermost boxes, in order."""
    found, at = [], 0
    while at < len(content):
        size, name = struct.unpack(">I4s", content[at : at + 8])
        found.append(name.decode())
        at += size
    return found


def test_a_video_has_its_frames_size_speed_and_colours(tmp_path):
    frames = moving(10, 48, 64)
    save_video(frames, tmp_path / "a.mp4", fps=12.5)
    found = iio.imread(tmp_path / "a.mp4", plugin="FFMPEG")
    assert found.shape == (10, 48, 64, 3)
    error = torch.from_numpy(found).float().div(255) - frames
    assert error.mean(dim=(0, 1, 2)).abs().max() < 0.01
    assert error.abs().mean() < 0.02
    meta = iio.immeta(tmp_path / "a.mp4", plugin="FFMPEG")
    assert (meta["codec"], meta["fps"]) == ("h264", 12.5)
    assert meta["pix_fmt"].startswith("yuv420p")


def test_colours_are_named_by_the_matrix_that_they_are_coded_with(tmp_path):
    red = torch.tensor([0.9, 0.1, 0.1]).expand(3, 32, 32, 3)
    save_video(red, tmp_path / "a.mp4")
    found = torch.from_numpy(iio.imread(tmp_path / "a.mp4", plugin="FFMPEG")).float() / 255
    torch.testing.assert_close(found, red, rtol=0, atol=0.015)  # decoded by another matrix green is 0.08 off
    assert b"colrnclx" + struct.pack(">HHH", 1, 1, 1) in (tmp_path / "a.mp4").read_bytes()  # 1 is BT.709


def test_a_browser_can_begin_before_a_video_has_loaded(tmp_path):
    save_video(moving(3, 16, 16), tmp_path / "a.mp4")
    names = boxes((tmp_path / "a.mp4").read_bytes())
    assert names.index("moov") < names.index("mdat")


def test_odd_sides_are_made_even_without_losing_a_pixel(tmp_path):
    save_video(torch.ones(2, 15, 21, 3), tmp_path / "a.mp4")
    found = iio.imread(tmp_path / "a.mp4", plugin="FFMPEG")
    assert found.shape == (2, 16, 22, 3)
    assert found.min() > 240


def test_frames_may_come_in_parts(tmp_path):
    frames = moving(9, 16, 32)
    save_video(frames, tmp_path / "whole.mp4")
    with Video(tmp_path / "parts.mp4", fps=12) as out:
        for part in frames.split(4):
            out.add(quantised(part))
    assert (tmp_path / "parts.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_an_interrupted_video_leaves_nothing(tmp_path):
    def interrupted() -> None:
        with Video(tmp_path / "a.mp4", fps=12) as out:
            out.add(moving(3, 16, 16))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_fails_says_why_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_ENCODE", ("-f", "mp4", "-c:v", "nonsense"))
    with pytest.raises(UserError, match=r"a\.mp4: the video encoder failed: .*Encoder not found"):
        save_video(moving(200, 64, 64), tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


# -- sheets ------------------------------------------------------------------------------------------------------


def test_captions_are_wrapped_between_words_and_cut():
    short, long = "a red robot", "a red robot wearing a top hat on a drum " * 9
    assert sheets.wrap(short, 250) == [short]
    lines = sheets.wrap(long, 250)
    assert len(lines) == sheets.MOST_LINES
    assert lines[-1].endswith("…")
    assert long.startswith(" ".join(lines)[:-1])
    assert all(sheets._length(line) <= 250 for line in lines)


@pytest.mark.parametrize("text", ["", "x" * 500, "日本語🙂" * 40, "a\nb\tc\0d", "a " * 200])
def test_no_caption_is_wider_than_its_pictures(text):
    for width in (20, 100, 333):
        lines = sheets.wrap(text, width)
        assert 1 <= len(lines) <= sheets.MOST_LINES
        assert all(sheets._length(line) <= width for line in lines)


def test_a_sheet_shows_every_picture_where_it_belongs():
    parts = [(f"number {i}", [torch.full((2, 32, 32, 3), i / 10)]) for i in range(5)]
    page = sheets.sheet(parts, columns=3)
    height, width = page.shape[:2]
    assert width == 3 * (64 + 6) + 6
    block = (height - 6) // 2  # one of two rows
    for i in range(5):
        row, column = divmod(i, 3)
        middle = page[6 + row * block + block - 6 - 16, 6 + column * 70 + 32]
        torch.testing.assert_close(middle, torch.full((3,), i / 10))
    for i in range(5):  # ink above each
        row, column = divmod(i, 3)
        assert page[6 + row * block : 6 + row * block + 15, 6 + column * 70 : column * 70 + 70].min() < 0.5
    blank = page[6 + block : 6 + 2 * block - 6, 6 + 2 * 70 :]
    assert blank.min() == blank.max()


def test_a_sheet_can_be_saved(tmp_path):
    save_png(sheets.sheet([("a", [torch.rand(4, 16, 16, 3)])], columns=3), tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").mode == "RGB"
