"""A guidance that knows the answer: the ceiling of what a generator can learn in the toybox.

Axes: P prompts, B images, H W pixels.
"""

import torch
from torch import Tensor

from scaledreamer.cameras import Cameras
from scaledreamer.constraints import PositiveFloat
from scaledreamer.guidance.base import Distillation
from scaledreamer.guidance.views import Views
from scaledreamer.priors.base import Prior
from scaledreamer.randomness import StepRandom
from scaledreamer.renderers.base import Rendering
from scaledreamer.text.embedding import TextEmbedding
from scaledreamer.toybox.scene import Scene
from scaledreamer.toybox.truth_renderer import render
from scaledreamer.toybox.vocabulary import every_toy, parse


class TrueRenders:
    """Compares renders with pictures of the true toy from the same camera, on the same background.

    Args:
        prior: embeds the prompts, as in the runs it is compared with; its denoiser is not asked.
        views: wordings of the prompts; they do not matter here.
        scale: of the loss, the squared difference summed over an image and averaged over the batch.
        supersample: rays per side of a pixel of the true pictures.
        compiled: compile the true pictures' renderer: most of a minute at first, ten times as fast on a GPU after it.
    """

    def __init__(
        self, *, prior: Prior, views: Views, scale: PositiveFloat = 1.0, supersample: int = 2, compiled: bool = False
    ) -> None:
        self.prior, self.views, self.scale, self.supersample = prior, views, scale, supersample
        self.compiled = compiled
        self._scene: Scene  # of every toy, after setup
        self._place = {toy: i for i, toy in enumerate(every_toy())}

    def setup(self, device: torch.device, null_tokens: Tensor) -> None:
        """Pack every toy once, so that a step only gathers its own."""
        self._scene = Scene.of(every_toy(), device)

    def __call__(
        self, rendering: Rendering, text: TextEmbedding, cameras: Cameras, *, progress: float, random: StepRandom
    ) -> Distillation:
        """See :class:`scaledreamer.guidance.base.Guidance`."""
        places = torch.tensor([self._place[parse(prompt)] for prompt in text.prompts])
        scene = self._scene[places.to(rendering.rgb.device, non_blocking=True)]
        with torch.no_grad():
            size = rendering.rgb.shape[1]
            truth = render(
                scene,
                cameras,
                size,
                background=rendering.background,
                supersample=self.supersample,
                compiled=self.compiled,
            )
        difference = rendering.rgb.float() - truth.rgb
        loss = self.scale * difference.square().sum() / len(difference)
        return Distillation(loss=loss, figures={"pixel_error": difference.detach().abs().mean()})
