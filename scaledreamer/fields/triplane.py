"""A field that is read from three planes of features.

Axes: P shapes, N points per shape, C features per plane, R pixels per side.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scaledreamer.fields.encoded import EncodedField


@dataclass(frozen=True, kw_only=True)
class TriplaneField(EncodedField):
    """P triplanes.

    Features are bilinear on each plane and zero outside its square. A point that leaves the box along one axis stays
    inside the square of the plane across that axis, so beyond the box what is added to the sphere fades by planes.
    """

    planes: Tensor  # [P, 3, C, R, R]: over (x, y), (x, z) and (z, y), the first of each pair along the last axis
    sdf_network: nn.Module  # 3 C -> 1
    feature_network: nn.Module  # 3 C -> 3

    @property
    def prompts(self) -> int:
        """P, the number of shapes."""
        return self.planes.shape[0]

    def encode(self, points: Tensor) -> Tensor:
        """Features [P, N, 3 C] at points [P, N, 3], plane by plane."""
        return sample(self.planes.float(), points / self.radius)

    def distance(self, features: Tensor) -> Tensor:
        """See :class:`scaledreamer.fields.encoded.EncodedField`."""
        return self.sdf_network(features)

    def logits(self, features: Tensor) -> Tensor:
        """See :class:`scaledreamer.fields.encoded.EncodedField`."""
        return self.feature_network(features)


def sample(planes: Tensor, points: Tensor) -> Tensor:
    """Features [P, N, 3 C] of planes [P, 3, C, R, R] at points [P, N, 3] (x y z, the planes fill [-1, 1]^2).

    Features sit at the centres of the pixels; beyond the outermost ones they fall to 0. Differentiable with respect to
    both.
    """
    x, y, z = points.unbind(dim=-1)
    places = torch.stack([x, y, x, z, z, y], dim=-1).unflatten(-1, (3, 2)).transpose(1, 2)  # [P, 3, N, 2]
    features = F.grid_sample(
        planes.flatten(0, 1),
        places.flatten(0, 1)[:, :, None],
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )  # [3 P, C, N, 1]
    return features.view(planes.shape[0], -1, points.shape[1]).transpose(1, 2)
