"""A density field of a hash grid, which starts as a ball of fog.

Axes: P shapes, N points per shape, F features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scaledreamer.fields.base import DensitySamples
from scaledreamer.fields.encoded import sigmoid
from scaledreamer.fields.finite_difference import forward_difference, offsets


@dataclass(frozen=True, kw_only=True)
class BlobField:
    """Density softplus(network(features) + scale (1 - |x| / blob_radius)), colour sigmoid(network(features)).

    The second term is Magic3D's bias (Lin et al., CVPR 2023): before anything is learned there is matter where
    |x| < blob_radius, up to the density ``blob_scale`` in the middle. Features are for the box [-radius, radius]^3;
    beyond it entries of the grid recur.
    """

    prompts: int  # P: as many times the same shape
    encoding: nn.Module  # [..., 3] in [0, 1] -> [..., F]
    density_network: nn.Module  # F -> 1
    feature_network: nn.Module  # F -> 3
    radius: float  # half the side of the box, world units
    blob_scale: float  # 1 / world units
    blob_radius: float  # world units
    eps: float  # step of the finite differences, world units

    def density(self, points: Tensor) -> Tensor:
        """Densities [P, N] at points [P, N, 3]; see :class:`scaledreamer.fields.base.DensityField`."""
        with torch.autocast(points.device.type, enabled=False):
            return self._density(self.encode(points), points)

    def query(self, points: Tensor, *, gradient: bool) -> DensitySamples:
        """Density, colour and, where it is asked for, the density's gradient by forward differences."""
        with torch.autocast(points.device.type, enabled=False):
            n = points.shape[1]
            # Kept in the box, beyond which the grid is another: at a face the difference is that much too small.
            around = offsets(points, eps=self.eps, clamp=self.radius) if gradient else points
            features = self.encode(around)  # [P, N or 4 N, F]
            density, slope = self._density(features, around), None
            if gradient:
                density, slope = forward_difference(density, eps=self.eps)
            color = sigmoid(self.feature_network(features[:, :n]), widened=False)
        return DensitySamples(density=density, color=color, gradient=slope)

    def encode(self, points: Tensor) -> Tensor:
        """Features [P, N, F] at points [P, N, 3], world units."""
        return self.encoding((points + self.radius) / (2 * self.radius))

    def _density(self, features: Tensor, points: Tensor) -> Tensor:
        bias = self.blob_scale * (1 - points.norm(dim=-1) / self.blob_radius)
        return F.softplus(self.density_network(features)[..., 0] + bias)
