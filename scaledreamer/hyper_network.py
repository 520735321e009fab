"""A network that emits the weights of others: one set of them for each text.

Axes: P texts, D text width, N points per text.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

Layers = Sequence[Tensor]
"""The matrices [P, inputs, outputs] of P networks, first to last."""


def networks(features: Tensor, layers: Layers) -> Tensor:
    """P networks without biases, ReLU between their layers: [P, N, inputs] -> [P, N, outputs].

    Without biases features of zero give zero, as in :class:`scaledreamer.fields.mlp.MLP`.
    """
    first, *rest = layers
    x = features @ first
    for weight in rest:
        x = x.relu_() @ weight
    return x


class HyperNetwork(nn.Module):
    """Text -> the weights of networks without biases.

    Args:
        text_dim: D.
        hidden: width of the one hidden layer.
        networks: widths of each emitted network, inputs first; their weights are emitted in this order.
    """

    def __init__(self, *, text_dim: int, hidden: int, networks: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.shapes = [list(pairwise(widths)) for widths in networks]
        emitted = sum(i * o for shapes in self.shapes for i, o in shapes)
        self.layers = nn.Sequential(
            nn.Linear(text_dim, hidden, bias=False), nn.LayerNorm(hidden), nn.SiLU(), nn.Linear(hidden, emitted)
        )

    def forward(self, text: Tensor) -> list[Layers]:
        """[P, D] -> of each network its matrices [P, inputs, outputs]."""
        # What it emits is used in full precision, and costs nothing beside the points that it is used at.
        with torch.autocast(text.device.type, enabled=False):
            weights = self.layers(text.float())
        matrices = iter(weights.split([i * o for shapes in self.shapes for i, o in shapes], dim=1))
        return [[next(matrices).unflatten(1, shape) for shape in shapes] for shapes in self.shapes]
