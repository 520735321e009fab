"""A field of one hash grid, read by networks of each shape's own.

Axes: P shapes, N points per shape, F features.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from scaledreamer.fields.encoded import EncodedField
from scaledreamer.hyper_network import Layers, networks


@dataclass(frozen=True, kw_only=True)
class HashField(EncodedField):
    """P shapes that share the features and differ in their networks.

    In the box [-radius, radius]^3 the encoding is the grid's;
    beyond it entries of the inside recur, and the field stays continuous.
    """

    encoding: nn.Module  # [..., 3] in [0, 1] -> [..., F]
    sdf_layers: Layers  # F -> ... -> 1
    color_layers: Layers  # F -> ... -> 3

    @property
    def prompts(self) -> int:
        """P, the number of shapes."""
        return self.sdf_layers[0].shape[0]

    def encode(self, points: Tensor) -> Tensor:
        """Features [P, N, F] at points [P, N, 3], world units."""
        return self.encoding((points + self.radius) / (2 * self.radius))

    def distance(self, features: Tensor) -> Tensor:
        """See :class:`scaledreamer.fields.encoded.EncodedField`."""
        return networks(features, self.sdf_layers)

    def logits(self, features: Tensor) -> Tensor:
        """See :class:`scaledreamer.fields.encoded.EncodedField`."""
        return networks(features, self.color_layers)
