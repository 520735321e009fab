"""A field that is read from three planes of features.

Axes: P shapes, N points per shape, C features per plane, R pixels per side.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scaledreamer.fields.backends import Backend, by_triton
from scaledreamer.fields.base import FieldSamples
from scaledreamer.fields.encoded import WIDENING, EncodedField
from scaledreamer.fields.mlp import MLP

WIDEST = 128
"""Hidden features that a program of the kernels can hold."""

THREE_LAYERS = [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]


@dataclass(frozen=True, kw_only=True)
class TriplaneField(EncodedField):
    """P triplanes.

    Features are bilinear on each plane and zero outside its square. A point that leaves the box along one axis stays
    inside the square of the plane across that axis, so beyond the box what is added to the sphere fades by planes.

    On GPUs kernels answer (:mod:`scaledreamer.kernels.triplane`) but for points that gradients are asked for.
    """

    planes: Tensor  # [P, 3, C, R, R]: over (x, y), (x, z) and (z, y), the first of each pair along the last axis
    sdf_network: nn.Module  # 3 C -> 1
    feature_network: nn.Module  # 3 C -> 3
    backend: Backend = "auto"

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

    def sdf(self, points: Tensor) -> Tensor:
        """Signed distances [P, N]; see :class:`scaledreamer.fields.base.SdfField`."""
        if torch.is_grad_enabled() or not self._by_triton(points):  # this kernel has no gradients
            return super().sdf(points)
        from scaledreamer.kernels import triplane

        with torch.autocast(points.device.type, enabled=False):
            options = {"radius": self.radius, "sphere_radius": self.sphere_radius}
            return triplane.distances(points, self.planes, _weights(self.sdf_network), **options)

    def query(self, points: Tensor) -> FieldSamples:
        """Signed distance, colour and gradient at points [P, N, 3]."""
        if not self._by_triton(points):
            return super().query(points)
        from scaledreamer.kernels import triplane

        with torch.autocast(points.device.type, enabled=False):
            options = {"sphere_radius": self.sphere_radius, "eps": self.eps, "clamp": self.clamp_offsets}
            weights = _weights(self.sdf_network), _weights(self.feature_network)
            sdf, gradient = triplane.differences(points, self.planes, weights[0], radius=self.radius, **options)
            widening = WIDENING if self.widened else 0.0
            color = triplane.colors(points, self.planes, weights[1], radius=self.radius, widening=widening)
        return FieldSamples(sdf=sdf, color=color, gradient=gradient)

    def _by_triton(self, points: Tensor) -> bool:
        asked = points.requires_grad and torch.is_grad_enabled()
        return not asked and by_triton(self.backend, points, refusal=self._refusal(points))

    def _refusal(self, points: Tensor) -> str | None:
        """Why kernels cannot compute this."""
        if points.dtype != torch.float32 or self.planes.dtype == torch.float64:
            return f"it computes in float32, not for {points.dtype} points and {self.planes.dtype} planes"
        for network in (self.sdf_network, self.feature_network):
            if not isinstance(network, MLP) or [type(layer) for layer in network.layers] != THREE_LAYERS:
                return "it has heads of three layers only"
            first, second, _ = (weight.shape[0] for weight in _weights(network))
            if first != second or first > WIDEST:
                return f"it has heads of two hidden layers alike, of {WIDEST} features at most"
        return None


def _weights(network: nn.Module) -> list[Tensor]:
    return [layer.weight for layer in network.layers if isinstance(layer, nn.Linear)]  # type: ignore[union-attr]


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
