"""What is seen behind a field.

Axes: B images, H W pixels. Colours are RGB in [0, 1].
"""

import torch
from torch import Tensor, nn

from scaledreamer.constraints import PositiveInt, Probability
from scaledreamer.fields.mlp import MLP
from scaledreamer.randomness import StepRandom
from scaledreamer.spherical_harmonics import COMPONENTS, spherical_harmonics

WIDENING = 0.001  # how far MipNeRF's sigmoid reaches beyond 0 and 1, so that both are attainable


class EnvironmentMap(nn.Module):
    """A learned colour per direction, the same for all prompts: spherical harmonics -> small MLP -> sigmoid.

    Args:
        hidden: width of the two hidden layers.
        random_color_probability: in training, the chance that an image's background is one random colour instead;
            a field that paints itself as its background would be seen in front of it.
        widened: use the sigmoid that is widened by 0.001 on both sides.
    """

    def __init__(
        self, *, hidden: PositiveInt = 16, random_color_probability: Probability = 0.5, widened: bool = False
    ) -> None:
        super().__init__()
        self.network = MLP([COMPONENTS, hidden, hidden, 3])
        self.random_color_probability, self.widened = random_color_probability, widened

    def forward(self, directions: Tensor, text: Tensor | None = None, random: StepRandom | None = None) -> Tensor:
        """Colours [B, H, W, 3] in unit directions [B, H, W, 3].

        Args:
            directions: of the rays.
            text: of each image; this background does not depend on it.
            random: of a training step; None (evaluation) shows the learned background always.
        """
        color = torch.sigmoid(self.network(spherical_harmonics(directions)).float())
        if self.widened:
            color = color * (1 + 2 * WIDENING) - WIDENING
        if random is None or self.random_color_probability == 0:
            return color
        images = directions.shape[0]
        chosen = random.uniform(images, 1, 1, 1) < self.random_color_probability
        return torch.where(chosen, random.uniform(images, 1, 1, 3), color)
