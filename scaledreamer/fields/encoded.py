"""What fields have in common that encode a point as features and read them with networks.

Axes: P shapes, N points per shape, F features.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from scaledreamer.fields.base import FieldSamples
from scaledreamer.fields.finite_difference import forward_difference, offsets

WIDENING = 0.001
"""How far MipNeRF's sigmoid reaches beyond 0 and 1, so that both are attainable."""


@dataclass(frozen=True, kw_only=True)
class EncodedField(ABC):
    """Signed distance network(features) + |x| - sphere_radius and colour sigmoid(network(features)) of P shapes."""

    radius: float  # half the side of the box, world units
    sphere_radius: float
    eps: float  # step of the finite differences, world units
    clamp_offsets: bool = False  # keep the differences' offset points inside the box, as the reference does
    widened: bool = False  # colours reach 0.001 beyond 0 and 1

    @property
    @abstractmethod
    def prompts(self) -> int:
        """P, the number of shapes."""

    @abstractmethod
    def encode(self, points: Tensor) -> Tensor:
        """Features [P, N, F] at points [P, N, 3], world units."""

    @abstractmethod
    def distance(self, features: Tensor) -> Tensor:
        """What is added to the sphere's signed distance, [P, N, 1]."""

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """Of the colours, [P, N, 3]."""

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
            color = sigmoid(self.logits(features[:, :n]), widened=self.widened)
        return FieldSamples(sdf=sdf, color=color, gradient=gradient)

    def _sdf(self, features: Tensor, points: Tensor) -> Tensor:
        return self.distance(features)[..., 0] + points.norm(dim=-1) - self.sphere_radius


def sigmoid(logits: Tensor, *, widened: bool) -> Tensor:
    """Colours of logits of any shape; ``widened`` stretches them from [0, 1] to [-0.001, 1.001]."""
    color = torch.sigmoid(logits)
    return color * (1 + 2 * WIDENING) - WIDENING if widened else color
