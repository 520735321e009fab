"""What a run in the toybox made, held against the truth: scores, a contact sheet and a turning video.

Axes: P prompts, V views, H W pixels.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from scaledreamer.cameras import Cameras
from scaledreamer.clip.measures import Texts, measure
from scaledreamer.constraints import NonNegativeInt, PositiveInt, Probability
from scaledreamer.corpora.corpus import Prompts, spread
from scaledreamer.errors import UserError
from scaledreamer.pictures import sheets
from scaledreamer.pictures.png import save_png
from scaledreamer.pictures.video import save_video
from scaledreamer.renderers.base import Rendering
from scaledreamer.system import TextTo3D
from scaledreamer.toybox.judge import Judge
from scaledreamer.toybox.scene import Scene
from scaledreamer.toybox.scores import GREY, Scores, Views, against_truth, share
from scaledreamer.toybox.truth_renderer import render
from scaledreamer.toybox.vocabulary import every_toy, parse
from scaledreamer.training.callback import PromptCallback
from scaledreamer.training.loggers import log_image

log = logging.getLogger(__name__)


class ToyboxReport(PromptCallback):
    """At the end of a run: ``toybox/scores.json``, ``toybox/sheet.png`` and ``toybox/turntable.mp4``.

    Args:
        views: on a circle at the evaluation cameras' elevation, a multiple of 4.
        size: of the pictures that are scored, pixels.
        prompts: at most so many of train and of test, spread evenly, are scored.
        sheet: prompts on the contact sheet, a third of them of test.
        frames: of the video; 0 makes none.
        distractors: other toys, spread over all of them, that the judge may name as well.
        ceiling: mean IoU that the same generator comes to with guidance=truth_toy; with it, scores say how much of the
            way from the initial sphere a run has made.
        directory: of the run.

    Raises:
        UserError: the views are not whole quarter turns.
    """

    def __init__(
        self,
        *,
        views: PositiveInt = 8,
        size: PositiveInt = 64,
        prompts: PositiveInt = 64,
        sheet: PositiveInt = 12,
        frames: NonNegativeInt = 24,
        distractors: NonNegativeInt = 0,
        ceiling: Probability | None = None,
        directory: Path,
    ) -> None:
        if views % 4:
            raise UserError(f"callbacks.toybox.views={views} must be a multiple of 4: toys are turned by quarters.")
        self.views, self.size, self.prompts, self.sheet, self.frames = views, size, prompts, sheet, frames
        self.distractors, self.ceiling = distractors, ceiling
        self.folder = directory / "toybox"
        self.seen = 0  # prompts of train; those behind them are of test
        self._gallery: list[str] = []

    def choose(self, prompts: Prompts) -> Sequence[str]:
        """Prompts of train, then of test; those of both count as train's.

        Raises:
            UserError: a prompt is no toy, so there is no truth to hold it against.
        """
        train = spread(prompts.train, self.prompts)
        unseen = set(prompts.train)
        test = spread([p for p in prompts.test if p not in unseen], self.prompts)
        own = {parse(prompt) for prompt in (*train, *test)}
        others = [toy.prompt for toy in spread(every_toy(), self.distractors) if toy not in own]
        self._gallery = list(dict.fromkeys([*train, *test, *others]))
        self.seen = len(train)
        return [*train, *test]

    def on_step(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> None:
        """Report at the end, on the first process."""
        if trainer.is_global_zero and step >= trainer.max_steps:
            assert isinstance(module, TextTo3D)
            self.report(module, trainer)

    @torch.no_grad()
    def report(self, system: TextTo3D, trainer: pl.Trainer) -> dict[str, Any]:
        """Render, score and write everything; the content of scores.json."""
        training = system.training
        system.eval()
        cameras = system.cameras.orbit(self.views, device=system.device)
        ours = self._pictures(system, range(len(self.shown)), cameras)
        truth = true_views(self.shown, cameras, self.size)
        scores = self._scores(ours, truth, cameras, getattr(system.generator, "sphere_radius", 0.0), system.device)
        summary = self._summary(scores)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "scores.json").write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
        figures = {f"toybox/{split}/{name}": v[0] for split in self._splits() for name, v in summary[split].items()}
        picture = self._sheet(ours, cameras)
        save_png(picture, self.folder / "sheet.png")
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=trainer.max_steps)
            log_image(logger, "toybox/sheet", picture, step=trainer.max_steps, caption="ours above the truth")
        if self.frames:
            self._video(system)
        system.train(training)
        log.info("Toybox: %s; pictures and scores: %s", in_words(summary), self.folder)
        return summary

    def _splits(self) -> dict[str, slice]:
        """Which of the prompts are of train and which of test, where there are any."""
        splits = {"seen": slice(0, self.seen), "unseen": slice(self.seen, len(self.shown))}
        return {name: part for name, part in splits.items() if part.stop > part.start}

    def _pictures(self, system: TextTo3D, places: Sequence[int], cameras: Cameras) -> Views:
        found = [self._look(system, i, cameras) for i in places]
        return Views(
            rgb=torch.stack([(r.foreground + GREY * (1 - r.opacity)).float().clamp(0, 1).cpu() for r in found]),
            opacity=torch.stack([r.opacity[..., 0].float().cpu() for r in found]),
        )

    def _look(self, system: TextTo3D, index: int, cameras: Cameras) -> Rendering:
        with system.trainer.precision_plugin.forward_context():
            return system.render(self.embedding(index).to(system.device), cameras, self.size)

    def _scores(
        self, ours: Views, truth: Views, cameras: Cameras, sphere_radius: float, device: torch.device
    ) -> Scores:
        judge = Judge(device=device)
        seen = torch.stack([judge.see(views) for views in ours.rgb])  # [P, V, E]
        front, back = (judge.read([f"{p}, {side} view" for p in self.shown]) for side in ("front", "back"))
        texts = Texts(
            prompt=judge.read(self.shown),
            front=front,
            back=back,
            place=torch.tensor([self._gallery.index(prompt) for prompt in self.shown]).to(device),
        )
        judged = measure(seen, texts, judge.read(self._gallery), behind=[self.views // 2])
        found = against_truth(ours, truth, cameras, sphere_radius=sphere_radius)
        return Scores(
            recall=judged["object_recall_1"],
            view_recall=judged["view_recall_1"],
            share=None if self.ceiling is None else share(found["iou"], found["sphere_iou"], ceiling=self.ceiling),
            janus=judged["janus"],
            **found,
        )

    def _summary(self, scores: Scores) -> dict[str, Any]:
        kinds: dict[str, list[int]] = {}
        for i, prompt in enumerate(self.shown):
            kinds.setdefault(parse(prompt).kind, []).append(i)
        return {
            "protocol": {
                "views": self.views,
                "size": self.size,
                "gallery": len(self._gallery),
                "prompts": {"seen": self.seen, "unseen": len(self.shown) - self.seen},
                "interval": "95 %, bootstrap over prompts",
            },
            **{split: scores.select(part).summary() for split, part in self._splits().items()},
            "kinds": {
                kind: {name: float(getattr(scores, name)[index].mean()) for name in ("iou", "recall", "upright")}
                for kind, index in kinds.items()
            },
            "prompts": {
                prompt: {name: round(float(values[i]), 4) for name, values in scores.known().items()}
                for i, prompt in enumerate(self.shown)
            },
        }

    def _sheet(self, ours: Views, cameras: Cameras) -> Tensor:
        test = min(self.sheet // 3, len(self.shown) - self.seen)
        places: list[int] = [
            *spread(range(self.seen), self.sheet - test),
            *spread(range(self.seen, len(self.shown)), test),
        ]
        quarters = range(0, self.views, self.views // 4)
        truth = true_views([self.shown[i] for i in places], cameras.select(quarters), self.size, supersample=2)
        blocks = [
            (f"{self.shown[i]}{' *' if i >= self.seen else ''}", [ours.rgb[i, quarters], true])
            for i, true in zip(places, truth.rgb, strict=True)
        ]
        return sheets.sheet(blocks, columns=3)

    def _video(self, system: TextTo3D) -> None:
        cameras = system.cameras.orbit(self.frames, device=system.device)
        shown = self._pictures(system, spread(range(len(self.shown)), 8), cameras)
        frames = shown.rgb.transpose(0, 1)  # [frames, 8, H, W, 3]
        tiled = torch.stack([sheets.tiled(list(frame), columns=4) for frame in frames])
        save_video(tiled, self.folder / "turntable.mp4")


def true_views(prompts: Sequence[str], cameras: Cameras, size: int, *, supersample: int = 1) -> Views:
    """Pictures of the true toys, on the cameras' device one by one, collected on the CPU.

    One ray per pixel is what ours have, and four times as fast as smooth edges.
    """
    device = cameras.c2w.device
    scene = Scene.of([parse(prompt) for prompt in prompts], device)
    grey = torch.full((3,), GREY, device=device)
    found = [
        render(scene[i : i + 1], cameras, size, background=grey, supersample=supersample) for i in range(len(prompts))
    ]
    return Views(
        rgb=torch.stack([image.rgb.cpu() for image in found]),
        opacity=torch.stack([image.opacity[..., 0].cpu() for image in found]),
    )


def in_words(summary: dict[str, Any]) -> str:
    """One line of the figures that matter most."""
    parts = []
    for split in ("seen", "unseen"):
        if split in summary:
            part = {name: value[0] for name, value in summary[split].items()}
            way = f" ({100 * part['share']:.0f} % of the way from sphere to ceiling)" if "share" in part else ""
            parts.append(
                f"{split}: recall {part['recall']:.2f}, IoU {part['iou']:.3f}{way}, colour error "
                f"{part['color_error']:.3f}, upright {part['upright']:.2f}, Janus {part['janus']:.2f}"
            )
    return "; ".join(parts)
