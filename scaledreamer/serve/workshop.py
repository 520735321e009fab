"""From a prompt to files: text embedding, field, mesh, GLB, video of a turn; each stage is timed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from scaledreamer.fields.base import Field
from scaledreamer.mesh.extract import MeshExtractor
from scaledreamer.mesh.write import write
from scaledreamer.pictures.video import Video
from scaledreamer.render import maps
from scaledreamer.render.shots import Shot
from scaledreamer.serve.shelf import Made
from scaledreamer.system import LATENT_SEED
from scaledreamer.text.embedding import TextEmbedding
from scaledreamer.training.trained import Trained

STAGES = ("text", "object", "mesh", "file", "video")
"""In the order in which they are done; ``object`` is the generator's, ``file`` writes the GLB."""

Enter = Callable[[str], None]
"""Told which stage begins; what it raises ends the work."""


class Workshop:
    """Makes the files of prompts.

    Args:
        trained: the generator.
        extractor: of meshes.
        frames: of the video; 0 for none.
        fps: frames per second.
        image_size: side of the video in pixels; None for that of the evaluation cameras.
    """

    def __init__(
        self, trained: Trained, *, extractor: MeshExtractor, frames: int, fps: float, image_size: int | None
    ) -> None:
        self.trained, self.extractor = trained, extractor
        self.frames, self.fps = frames, fps
        self.image_size = image_size or trained.system.cameras.test_image_size

    @torch.no_grad()
    def make(self, made: Made, folder: Path, enter: Enter) -> None:
        """Fill in what ``made`` lacks; its files are in it as soon as they are there.

        Args:
            made: prompt and variation.
            folder: of the files.
            enter: see :data:`Enter`; called more than once during the video.

        Raises:
            UserError: the prior cannot embed the prompt, or the video cannot be encoded.
        """
        system = self.trained.system
        with self._timed(made, "text", enter):
            text = self.trained.embed([made.prompt])
        with self._timed(made, "object", enter):
            field = system.field(text, latent_seed=made.variation or LATENT_SEED)
        with self._timed(made, "mesh", enter):
            (mesh,) = self.extractor(field, device=system.device)
        if mesh is not None:
            with self._timed(made, "file", enter):
                path = folder / f"{made.name}.glb"
                write(mesh, path)
            made.triangles = len(mesh.faces)
            made.files["mesh"] = path
        if self.frames:
            with self._timed(made, "video", enter):
                made.files["video"] = self._video(field, text, folder / f"{made.name}.mp4", enter)
        made.whole = True

    def _video(self, field: Field, text: TextEmbedding, path: Path, enter: Enter) -> Path:
        system = self.trained.system
        turn = system.cameras.orbit(self.frames, device=system.device)
        shot = Shot(turn, self.image_size, ("rgb",), maps.shown)
        with Video(path, fps=self.fps) as video:
            for images in shot.take(system, field, text):
                video.add(images.of_prompt(0)["rgb"])
                enter("video")
        return path

    @contextmanager
    def _timed(self, made: Made, stage: str, enter: Enter) -> Iterator[None]:
        enter(stage)
        start = time.perf_counter()
        yield
        if self.trained.system.device.type == "cuda":
            torch.cuda.synchronize(self.trained.system.device)
        made.seconds[stage] = time.perf_counter() - start

    def describe(self) -> dict[str, Any]:
        """What is at work here, in words and numbers."""
        system, directory = self.trained.system, self.trained.directory
        return {
            "name": self.trained.config.get("name") or (directory.name if directory else "weights"),
            "run": str(directory) if directory else None,
            "generator": type(system.generator).__name__,
            "step": self.trained.step,
            "device": str(system.device),
            "latent": system.generator.latent_dim,
        }
