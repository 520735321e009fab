"""The seam of every guidance: renders in, a loss out.

Axes: P prompts, B images, [C, h, w] latents, L tokens, D text width.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from scaledreamer.cameras import Cameras
from scaledreamer.guidance.views import Views
from scaledreamer.priors.base import Prior
from scaledreamer.randomness import StepRandom
from scaledreamer.renderers.base import Rendering
from scaledreamer.text.embedding import TextEmbedding


@dataclass(frozen=True)
class Distillation:
    """The loss of a training step and what it was made of."""

    loss: Tensor  # []
    figures: dict[str, Tensor | float]  # [] each, for loggers; tensors stay on the device
    gradient: Tensor | None = None  # [B, C, h, w]  g, before the division by B; None where no latents are compared


class Guidance(Protocol):
    """Tells a generator how its renders should be. A plain object: its frozen parts stay out of checkpoints."""

    prior: Prior
    """Embeds the prompts, whatever else it is asked."""
    views: Views
    """How prompts are worded."""

    def setup(self, device: torch.device, null_tokens: Tensor) -> None:
        """Load weights; ``null_tokens`` [L, D] embed the prior's negative prompt."""
        ...

    def __call__(
        self, rendering: Rendering, text: TextEmbedding, cameras: Cameras, *, progress: float, random: StepRandom
    ) -> Distillation:
        """The loss of the renders of B images.

        Args:
            rendering: of B images, differentiable.
            text: of the P prompts; B is a multiple of P, the views of a prompt consecutive.
            cameras: of the B images.
            progress: fraction of the run that is done, in [0, 1].
            random: this step's draws.
        """
        ...
