"""Turning videos and meshes of a few prompts while a run trains, on disk and in the loggers."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import torch

from scaledreamer.constraints import NonNegativeInt, PositiveFloat, PositiveInt
from scaledreamer.corpora.corpus import Prompts, spread
from scaledreamer.mesh.extract import MeshExtractor
from scaledreamer.mesh.write import write
from scaledreamer.pictures.video import save_video
from scaledreamer.render.names import name_of
from scaledreamer.system import TextTo3D
from scaledreamer.training.callback import PromptCallback
from scaledreamer.training.loggers import log_files

log = logging.getLogger(__name__)

TURNTABLE, MESH = "val/turntable", "val/mesh"
"""What they are called in loggers."""


@dataclass(frozen=True)
class _File:
    """Of a prompt, not yet written."""

    kind: str  # as loggers call it
    path: Path
    prompt: str
    write: Callable[[], None]


class Showcase(PromptCallback):
    """``showcase/step-NNNNNNN/PROMPT.mp4`` and ``.glb`` every N steps and at the end.

    The first process renders between two steps; files are written by a thread, and logged when a later step finds them
    done. A file that cannot be written is told and left out: no run ends for it.

    Args:
        every: optimiser steps between; None: at the end alone.
        prompts: how many of the corpus's validation prompts, spread over them.
        frames: of a video, once around; 0 makes none.
        fps: frames per second.
        size: side of a frame in pixels.
        resolution: of the meshes, see :class:`scaledreamer.mesh.extract.MeshExtractor`; None makes none.
        directory: of the run.
    """

    def __init__(
        self,
        *,
        every: PositiveInt | None = None,
        prompts: PositiveInt = 2,
        frames: NonNegativeInt = 24,
        fps: PositiveFloat = 12.0,
        size: PositiveInt = 128,
        resolution: PositiveInt | None = 64,
        directory: Path,
    ) -> None:
        self.every, self.prompts, self.frames, self.fps, self.size = every, prompts, frames, fps, size
        self.extractor = None if resolution is None else MeshExtractor(resolution=resolution)
        self.folder = directory / "showcase"
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="showcase")
        self._shows: deque[tuple[int, Future[list[_File]]]] = deque()  # steps, and files that are being written

    def choose(self, prompts: Prompts) -> Sequence[str]:
        """Some of the corpus's validation prompts."""
        return spread(prompts.val, self.prompts)

    def on_step(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> None:
        """Show when due and at the end, on the first process; log what was finished in the meantime."""
        if not trainer.is_global_zero:
            return
        last = step >= trainer.max_steps
        if last or (self.every is not None and step % self.every == 0):
            assert isinstance(module, TextTo3D)
            files = list(self._files(module, self.folder / f"step-{step:07d}"))
            self._shows.append((step, self._pool.submit(_written, files)))
        while self._shows and (last or self._shows[0][1].done()):
            shown, files = self._shows.popleft()
            log_files(trainer, _by_kind(files.result()), step=shown)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Finish what is being written, also after an error."""
        self._pool.shutdown()

    @torch.no_grad()
    def _files(self, system: TextTo3D, folder: Path) -> Iterator[_File]:
        training = system.training
        system.eval()
        cameras = system.cameras.orbit(self.frames, device=system.device) if self.frames else None
        for i, prompt in enumerate(self.shown):
            place, text = folder / name_of(prompt), self.embedding(i).to(system.device)
            with system.trainer.precision_plugin.forward_context():
                field = system.field(text)
                if cameras is not None:
                    # One view at a time: this must not need more memory than a step.
                    views = [system.look(field, text, cameras.select([v]), self.size).rgb for v in range(self.frames)]
                    frames, path = torch.cat(views).float().clamp(0, 1).cpu(), place.with_suffix(".mp4")
                    yield _File(TURNTABLE, path, prompt, partial(save_video, frames, path, fps=self.fps))
            if self.extractor is not None and (mesh := self.extractor(field, device=system.device)[0]) is not None:
                path = place.with_suffix(".glb")
                yield _File(MESH, path, prompt, partial(write, mesh, path))
        system.train(training)


def _written(files: Sequence[_File]) -> list[_File]:
    """Write them; those that could be."""
    done = []
    for file in files:
        try:
            file.write()
            done.append(file)
        except Exception as error:  # a full disk, a missing encoder
            log.warning("%s could not be written: %s", file.path, error)
    return done


def _by_kind(files: Sequence[_File]) -> dict[str, list[tuple[Path, str]]]:
    found: dict[str, list[tuple[Path, str]]] = {}
    for file in files:
        found.setdefault(file.kind, []).append((file.path, file.prompt))
    return found
