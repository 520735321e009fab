"""A field that is read from a voxel grid.

Axes: P shapes, N points per shape, F features, R voxels per side.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scaledreamer.fields import trilinear
from scaledreamer.fields.base import FieldSamples
from scaledreamer.fields.finite_difference import forward_difference, offsets


@dataclass(frozen=True)
class VoxelField:
    """Signed distance head(features) + |x| - sphere_radius and colour sigmoid(head(features)) of P voxel grids.

    Features are trilinear inside the box and zero outside, where the signed distance is the sphere's.
    """

    voxels: Tensor  # [P, F, R, R, R], axes z y x
    sdf_network: nn.Module  # F -> 1
    feature_network: nn.Module  # F -> 3
    radius: float
    sphere_radius: float
    eps: float
    clamp_offsets: bool = False

    @property
    def prompts(self) -> int:
        """P, the number of shapes."""
        return self.voxels.shape[0]

    def encode(self, points: Tensor) -> Tensor:
        """Features [P, N, F] at points [P, N, 3]."""
        return trilinear.sample(self.voxels.float(), points / self.radius)

    def sdf(self, points: Tensor) -> Tensor:
        """Signed distances [P, N]; see :class:`scaledreamer.fields.base.SdfField`."""
        # Distances and their differences over 0.01 need all of float32's digits.
        with torch.autocast(points.device.type, enabled=False):
            return self._sdf(self.encode(points), points)

    def query(self, points: Tensor) -> FieldSamples:
        """Signed distance, colour and gradient at points [P, N, 3]."""
        with torch.autocast(points.device.type, enabled=False):
            n = points.shape[1]
            around = offsets(points, eps=self.eps, clamp=self.radius if self.clamp_offsets else None)
            features = self.encode(around)  # [P, 4 N, F]
            sdf, gradient = forward_difference(self._sdf(features, around), eps=self.eps)
            color = torch.sigmoid(self.feature_network(features[:, :n]))
        return FieldSamples(sdf=sdf, color=color, gradient=gradient)

    def _sdf(self, features: Tensor, points: Tensor) -> Tensor:
        return self.sdf_network(features)[..., 0] + points.norm(dim=-1) - self.sphere_radius
