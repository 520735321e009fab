"""Files of objects that a page opens from a disk: posters, videos and meshes.

A browser that has opened a page from a disk lets it show pictures and videos beside it and load scripts, but not read
files. A mesh is therefore a script, which hands its content to the page: ``gallery.mesh(BASE64 of gzip of GLB)``.

Files are called by the content of what they are made of, so that they are made again when that has changed, and only
then, also where folders were copied and times are others.
"""

import base64
import gzip
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from scaledreamer.gallery.source import Object
from scaledreamer.paths import whole_file
from scaledreamer.pictures.video import first_frame
from scaledreamer.render.outputs import Job

POSTER = 256
"""Most pixels of a side of a poster: twice what it has on the page, for fine screens."""


class Media:
    """The files of a run's objects in a folder.

    Args:
        folder: theirs alone; what is in it and belongs to no object is removed by :meth:`tidy`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kept: set[Path] = set()

    def jobs(self, shown: Object) -> Iterator[Job]:
        """What has to be done for an object; nothing where all is there."""
        if shown.video is not None:
            first = partial(_poster, maps=len(shown.maps), place=front(shown.maps))
            yield from self._job(shown.video, f"{shown.video_name}.webp", first)
            yield from self._job(shown.video, f"{shown.video_name}.mp4", shutil.copyfile)
        if shown.mesh is not None:
            yield from self._job(shown.mesh, f"{shown.mesh_name}.js", _mesh)

    def tidy(self) -> None:
        """Remove the files that no object has any more."""
        for path in self.folder.iterdir():
            if path not in self._kept:
                path.unlink()

    def _job(self, source: Path, name: str, make: Callable[[Path, Path], object]) -> Iterator[Job]:
        target = self.folder / name
        self._kept.add(target)
        if not target.is_file():
            yield partial(_made, source, target, make)


def front(maps: tuple[str, ...]) -> int:
    """Which of the maps side by side in a video is shown: the colours where they are among them."""
    return maps.index("rgb") if "rgb" in maps else 0


def _made(source: Path, target: Path, make: Callable[[Path, Path], object]) -> None:
    with whole_file(target) as part:
        make(source, part)


def _poster(video: Path, target: Path, *, maps: int, place: int) -> None:
    """The first frame, of several maps side by side one."""
    from PIL import Image

    frame = first_frame(video).numpy()
    width = frame.shape[1] // max(maps, 1)
    picture = Image.fromarray(frame[:, place * width : (place + 1) * width])
    picture.thumbnail((POSTER, POSTER), Image.Resampling.LANCZOS)
    picture.save(target, format="WEBP", quality=80, method=4)


def _mesh(glb: Path, target: Path) -> None:
    packed = base64.b64encode(gzip.compress(glb.read_bytes(), compresslevel=6, mtime=0)).decode()
    target.write_text(f'gallery.mesh("{packed}");\n', "ascii")
