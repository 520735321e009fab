"""A field that is read from a voxel grid.

Axes: P shapes, N points per shape, F features, R voxels per side, H hidden values of a head.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from scaledreamer.fields import trilinear
from scaledreamer.fields.backends import Backend, by_triton
from scaledreamer.fields.base import FieldSamples
from scaledreamer.fields.encoded import WIDENING, EncodedField
from scaledreamer.fields.mlp import MLP

TYPES = (torch.float32, torch.float16, torch.bfloat16)
"""Of voxels that the kernels read."""

WIDEST = 64, 128
"""Features and hidden values that a program of the kernels can hold."""


@dataclass(frozen=True, kw_only=True)
class VoxelField(EncodedField):
    """P voxel grids. Features are trilinear inside the box and zero outside, where the distance is the sphere's.

    On GPUs kernels answer (:mod:`scaledreamer.kernels.voxel_field`) but for points that gradients are asked for. They
    read voxels as they are; in memory those should lie as ``torch.channels_last_3d``, or are copied once.
    """

    voxels: Tensor  # [P, F, R, R, R], axes z y x
    sdf_network: nn.Module  # F -> 1
    feature_network: nn.Module  # F -> 3
    backend: Backend = "auto"

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

    def sdf(self, points: Tensor) -> Tensor:
        """Signed distances [P, N]; see :class:`scaledreamer.fields.base.SdfField`."""
        if torch.is_grad_enabled() or not self._by_triton(points):  # this kernel has no gradients
            return super().sdf(points)
        from scaledreamer.kernels import voxel_field

        return voxel_field.distance(
            self._table, points, self._weights[:2], radius=self.radius, sphere_radius=self.sphere_radius
        )

    def query(self, points: Tensor) -> FieldSamples:
        """Signed distance, colour and gradient at points [P, N, 3]."""
        if not self._by_triton(points):
            return super().query(points)
        from scaledreamer.kernels import voxel_field

        sdf, color, gradient = voxel_field.query(
            *(self._table, points, self._weights),
            eps=self.eps,
            radius=self.radius,
            sphere_radius=self.sphere_radius,
            clamp=self.clamp_offsets,
            widening=WIDENING if self.widened else 0.0,
        )
        return FieldSamples(sdf=sdf, color=color, gradient=gradient)

    def _by_triton(self, points: Tensor) -> bool:
        asked = points.requires_grad and torch.is_grad_enabled()
        return not asked and by_triton(self.backend, points, refusal=self._refusal)

    @cached_property
    def _refusal(self) -> str | None:
        """Why kernels cannot compute this."""
        width, side = self.voxels.shape[1], self.voxels.shape[-1]
        if self.voxels.dtype not in TYPES:
            return f"it reads float32, float16 and bfloat16 voxels, not {self.voxels.dtype}"
        if not all(_has_two_layers(network) for network in (self.sdf_network, self.feature_network)):
            return "it has heads with one hidden layer only"
        hidden = [weight.shape[0] for weight in self._weights[::2]]
        if hidden[0] != hidden[1] or width > WIDEST[0] or hidden[0] > WIDEST[1]:
            return f"it has {WIDEST[0]} features and {WIDEST[1]} hidden values at most, as many in both heads"
        if self.eps >= 2 * self.radius / side:
            return f"it has steps normal_eps below the voxels' {2 * self.radius / side:g} only"
        return f"it counts to 2^31 numbers, not {side}^3 * {width}" if side**3 * width >= 2**31 else None

    @cached_property
    def _table(self) -> Tensor:
        """Voxels [P, R, R, R, F]."""
        with torch.enable_grad():  # asked first without gradients, for proposals, and then with them
            return self.voxels.permute(0, 2, 3, 4, 1).contiguous()

    @property
    def _weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """First and second of the distance [H, F], [1, H], and of the colour [H, F], [3, H]."""
        sdf, color = self.sdf_network.layers, self.feature_network.layers
        return sdf[0].weight, sdf[2].weight, color[0].weight, color[2].weight  # type: ignore[index]


def _has_two_layers(network: nn.Module) -> bool:
    return isinstance(network, MLP) and [type(layer) for layer in network.layers] == [nn.Linear, nn.ReLU, nn.Linear]
