"""What is seen behind a field, learned for each prompt.

Axes: B images, H W pixels, D text width. Colours are RGB in [0, 1].
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from scaledreamer.backgrounds import with_random_colors
from scaledreamer.constraints import PositiveInt, Probability
from scaledreamer.encodings.hash_grid import HashGrid
from scaledreamer.hyper_network import HyperNetwork, networks
from scaledreamer.published import PublishedNames
from scaledreamer.randomness import StepRandom


class HashBackground(nn.Module):
    """A learned colour per direction and prompt: hash grid of the direction -> emitted network -> sigmoid.

    Parameter names follow the reference's modules.

    Args:
        text_dim: width D of the prior's pooled text embedding.
        encoding: the grid, over the cube around the unit sphere.
        hidden: width of the emitted network, which has one hidden layer.
        hyper_hidden: width of the hyper-network.
        random_color_probability: in training, the chance that an image's background is one random colour instead;
            a field that paints itself as its background would be seen in front of it.
    """

    published_names: ClassVar[PublishedNames] = {"encoding.encoding.encoding.": "encoding."}

    def __init__(
        self,
        *,
        text_dim: PositiveInt,
        encoding: HashGrid,
        hidden: PositiveInt = 64,
        hyper_hidden: PositiveInt = 64,
        random_color_probability: Probability = 0.2,
    ) -> None:
        super().__init__()
        self.random_color_probability = random_color_probability
        self.encoding = encoding
        self.hypernet = HyperNetwork(text_dim=text_dim, hidden=hyper_hidden, networks=[[encoding.width, hidden, 3]])

    def forward(self, directions: Tensor, text: Tensor, random: StepRandom | None = None) -> Tensor:
        """Colours [B, H, W, 3] in unit directions [B, H, W, 3].

        Args:
            directions: of the rays.
            text: [B, D], of each image.
            random: of a training step; None (evaluation) shows the learned background always.
        """
        (layers,) = self.hypernet(text)
        with torch.autocast(directions.device.type, enabled=False):
            features = self.encoding((directions + 1) / 2)  # [B, H, W, F]
            color = torch.sigmoid(networks(features.flatten(1, 2), layers)).view_as(directions)
        return with_random_colors(color, self.random_color_probability, random)
