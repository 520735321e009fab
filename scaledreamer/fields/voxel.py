"""A field that is read from a voxel grid.

Axes: P shapes, N points per shape, F features, R voxels per side.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from scaledreamer.fields import trilinear
from scaledreamer.fields.encoded import EncodedField


@dataclass(frozen=True, kw_only=True)
class VoxelField(EncodedField):
    """P voxel grids. Features are trilinear inside the box and zero outside, where the distance is the sphere's."""

    voxels: Tensor  # [P, F, R, R, R], axes z y x
    sdf_network: nn.Module  # F -> 1
    feature_network: nn.Module  # F -> 3

    @property
    def prompts(self) -> int:
        """P, the number of shapes."""
        return self.voxels.shape[0]

    def encode(self, points: Tensor) -> Tensor:
        """Features [P, N, F] at points [P, N, 3]."""
        return trilinear.sample(self.voxels.float(), points / self.radius)

    def distance(self, features: Tensor) -> Tensor:
        """See :class:`scaledreamer.fields.encoded.EncodedField`."""
        return self.sdf_network(features)

    def logits(self, features: Tensor) -> Tensor:
        """See :class:`scaledreamer.fields.encoded.EncodedField`."""
        return self.feature_network(features)
