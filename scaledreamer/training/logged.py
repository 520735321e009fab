"""What a run logs: the one table of names, units and panels. Loggers, files and dashboards use the same names.

Steps on the horizontal axis are optimiser steps; figures are those of the global batch, over all processes. Print the
table with ``python -m scaledreamer.dashboard``.
"""

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Logged:
    """A family of figures or media. Capital words of a name stand for several: ``train/lr/GROUP``."""

    name: str
    unit: str
    meaning: str
    panel: str
    kind: Literal["curve", "picture", "video", "mesh"] = "curve"

    @property
    def pattern(self) -> str:
        """A regular expression of the names, whole."""
        return "^" + re.sub(r"[A-Z]+", r"[^/]+", re.escape(self.name)) + "$"

    def matches(self, name: str) -> bool:
        """Whether a name is of this family."""
        return re.match(self.pattern, name) is not None


LOGGED = (
    Logged("train/loss", "-", "sum of the terms, each times its weight", "Loss"),
    Logged("train/distillation", "-", "0.5 |g|^2 / B of the guidance; of true pictures their loss", "Loss"),
    Logged("train/sparsity", "-", "mean sqrt(opacity^2 + 0.01)", "Regularisers"),
    Logged("train/opaque", "nat", "mean binary entropy of the opacity", "Regularisers"),
    Logged("train/eikonal", "-", "mean (|grad sdf| - 1)^2", "Regularisers"),
    Logged("train/orient", "-", "normals that face away, per pixel that is not empty", "Regularisers"),
    Logged("weight/TERM", "-", "weight of each term at this point of the run", "Weights"),
    Logged("train/score_norm", "-", "norm of the guidance's gradient at all latents", "Guidance"),
    Logged("train/pixel_error", "[0, 1]", "mean difference from the true pictures (guidance=truth_toy)", "Guidance"),
    Logged("train/t", "timesteps", "mean of the timesteps that were drawn", "Timesteps"),
    Logged("train/t_min", "timesteps", "lowest timestep that could be drawn", "Timesteps"),
    Logged("train/t_max", "timesteps", "highest timestep that could be drawn", "Timesteps"),
    Logged("train/opacity", "[0, 1]", "mean opacity of the training renders", "Opacity"),
    Logged("val/opacity", "[0, 1]", "mean opacity of the previews", "Opacity"),
    Logged("train/grad_norm", "-", "norm of the whole gradient before it is clipped", "Gradients"),
    Logged("train/grad_norm/GROUP", "-", "of each group of parameters", "Gradients"),
    Logged("train/lr/GROUP", "-", "learning rate of each group of parameters", "Learning rates"),
    Logged("speed/steps_per_second", "1/s", "optimiser steps, previews and checkpoints included", "Speed"),
    Logged("speed/prompts_per_second", "1/s", "prompts of all processes", "Speed"),
    Logged("memory/gpu_peak_gib", "GiB", "most that PyTorch had in use on the first process's GPU", "Memory"),
    Logged("epoch", "-", "Lightning's own; an epoch never ends", ""),
    Logged("val/preview", "", "a row per prompt, a column per view", "Pictures", "picture"),
    Logged("toybox/sheet", "", "toys, each above the true one", "Pictures", "picture"),
    Logged("val/turntable", "", "a turn around each prompt of the showcase", "Turntables", "video"),
    Logged("val/mesh", "", "their surfaces, GLB", "Meshes", "mesh"),
    Logged("toybox/SPLIT/MEASURE", "", "at the end, against the truth; see scaledreamer.toybox.scores", "Scores"),
    Logged("evaluate/PROTOCOL/SPLIT/MEASURE", "", "of evaluate.py, in W&B's summary alone", "Scores"),
)
"""In the order of dashboards; what has no panel is left out there."""

COMPARED = ("train/loss", "train/opacity", "toybox/seen/iou", "toybox/unseen/iou", "toybox/unseen/recall")
"""What TensorBoard's table of options shows beside them, where a run has it."""


def find(name: str) -> Logged | None:
    """The family of a name; None for a name that the table does not know."""
    return next((family for family in LOGGED if family.matches(name)), None)
