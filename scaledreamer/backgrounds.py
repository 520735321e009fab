"""What is seen behind a field.

Axes: B images, H W pixels. Colours are RGB in [0, 1].
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from scaledreamer.constraints import PositiveInt, Probability
from scaledreamer.encodings.hash_grid import HashGrid
from scaledreamer.fields.encoded import sigmoid
from scaledreamer.fields.mlp import MLP
from scaledreamer.published import PublishedNames
from scaledreamer.randomness import StepRandom
from scaledreamer.spherical_harmonics import COMPONENTS, spherical_harmonics


class EnvironmentMap(nn.Module):
    """A learned colour per direction, the same for all prompts: spherical harmonics -> small MLP -> sigmoid.

    Args:
        encoding: a hash grid over the cube around the unit sphere instead of the spherical harmonics.
        hidden: width of the two hidden layers.
        random_color_probability: in training, the chance that an image's background is one random colour instead;
            a field that paints itself as its background would be seen in front of it.
        widened: use the sigmoid that is widened by 0.001 on both sides.
    """

    published_names: ClassVar[PublishedNames] = {"encoding.encoding.encoding.": "encoding."}

    def __init__(
        self,
        *,
        encoding: HashGrid | None = None,
        hidden: PositiveInt = 16,
        random_color_probability: Probability = 0.5,
        widened: bool = False,
    ) -> None:
        super().__init__()
        self.encoding = encoding
        self.network = MLP([encoding.width if encoding is not None else COMPONENTS, hidden, hidden, 3])
        self.random_color_probability, self.widened = random_color_probability, widened

    def constants(self) -> dict[str, Tensor]:
        """See :mod:`scaledreamer.published`."""
        return {} if self.encoding is not None else {"encoding.params": torch.empty(0)}  # of spherical harmonics

    def forward(self, directions: Tensor, text: Tensor | None = None, random: StepRandom | None = None) -> Tensor:
        """Colours [B, H, W, 3] in unit directions [B, H, W, 3].

        Args:
            directions: of the rays.
            text: of each image; this background does not depend on it.
            random: of a training step; None (evaluation) shows the learned background always.
        """
        encoded = spherical_harmonics(directions) if self.encoding is None else self.encoding((directions + 1) / 2)
        color = sigmoid(self.network(encoded).float(), widened=self.widened)
        return with_random_colors(color, self.random_color_probability, random)


def with_random_colors(color: Tensor, probability: float, random: StepRandom | None) -> Tensor:
    """Colours [B, H, W, 3] where each image has the chance to become one random colour instead.

    ``random`` is that of a training step; None leaves all as they are.
    """
    if random is None or probability == 0:
        return color
    images = color.shape[0]
    chosen = random.uniform(images, 1, 1, 1) < probability
    return torch.where(chosen, random.uniform(images, 1, 1, 3), color)
