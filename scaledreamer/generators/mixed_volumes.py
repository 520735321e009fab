"""A voxel field as a mix of learned volumes: what 3DConv-net becomes on a laptop.

3DConv-net adds learned volumes, the same for every prompt, between its convolutions. Here there are many at each
resolution, the text says how much of each, and the convolutions are gone but for two pointwise layers: on a CPU that
takes a tenth of the time. The weights are linear in the text, so that words combine in prompts that were never seen;
what is not linear learns slowly. Distance and colour can be of volumes of their own, so that forms do not follow what
colours learn, and what a word does to the place and the size of the whole is learned apart.

Axes: P prompts, D text width, K learned volumes, R voxels per side; volumes are [P, channels, z, y, x].
"""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from scaledreamer.constraints import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from scaledreamer.fields.base import SdfField
from scaledreamer.fields.decoded_voxel import DecodedVoxelField
from scaledreamer.fields.placed import PlacedField
from scaledreamer.generators.base import Generator
from scaledreamer.generators.mixing import Activation, MixedVolumes
from scaledreamer.published import PublishedNames
from scaledreamer.randomness import StepRandom

DISTANCE, COLORS = 1, 3  # outputs: offset of the signed distance, colour logits


class MixedVolumesGenerator(Generator):
    """Text (global) -> signed distance and colour on a voxel grid.

    Volumes of features at 4, 8, ... R / 2 voxels per side are mixed and added up, coarse to fine; a pointwise layer,
    scaled and shifted by the style, and a second one turn them into distance and colour at R voxels per side, to which
    a mix of volumes of these is added for the finest detail.

    Args:
        text_dim: width D of the prior's pooled text embedding.
        w_dim: width of the style w, a linear map of the text.
        resolution: R, a power of two.
        volumes: K at each coarser resolution; fine_volumes: K of the finest.
        channels: of the features; hidden: between the pointwise layers; activation: there.
        color_channels: of the features that colours have apart from the distance's, color_hidden between their
            pointwise layers; with 0 channels both are made of the same features.
        fine_scale: how much the finest volumes count, and so how fast they learn: detail comes after form.
        modulation_rate: how fast the text learns to scale and shift features; at the volumes' own pace, 1, words that
            always come together in training mean something together.
        placement_rate: how fast the text learns where the form is and how large; 0 leaves it where it is.
        radius: half the side of the box that the voxels fill, world units.
        sphere_radius: of the sphere that the sdf starts from.
    """

    # Of runs from before colours could have volumes of their own.
    published_names: ClassVar[PublishedNames] = {
        name: f"volumes.{name}" for name in ("coarse.", "features.", "modulation.", "outputs.", "fine.")
    }

    def __init__(
        self,
        *,
        text_dim: PositiveInt,
        w_dim: PositiveInt = 128,
        resolution: Literal[16, 32, 64] = 32,
        volumes: PositiveInt = 64,
        channels: PositiveInt = 16,
        hidden: PositiveInt = 32,
        activation: Activation = "silu",
        color_channels: NonNegativeInt = 0,
        color_hidden: PositiveInt = 16,
        fine_volumes: PositiveInt = 48,
        fine_scale: PositiveFloat = 0.15,
        modulation_rate: PositiveFloat = 1.0,
        placement_rate: NonNegativeFloat = 0.0,
        radius: PositiveFloat = 1.0,
        sphere_radius: PositiveFloat = 0.6,
    ) -> None:
        super().__init__()
        self.radius, self.sphere_radius, self.placement_rate = radius, sphere_radius, placement_rate
        self.style = nn.Sequential(nn.LayerNorm(text_dim), nn.Linear(text_dim, w_dim), nn.LayerNorm(w_dim))
        shared: dict[str, Any] = {
            "w_dim": w_dim,
            "resolution": resolution,
            "volumes": volumes,
            "activation": activation,
            "fine_volumes": fine_volumes,
            "fine_scale": fine_scale,
            "modulation_rate": modulation_rate,
        }
        outputs = DISTANCE if color_channels else DISTANCE + COLORS
        self.volumes = MixedVolumes(outputs=outputs, channels=channels, hidden=hidden, **shared)
        self.colors = None
        if color_channels:
            self.colors = MixedVolumes(outputs=COLORS, channels=color_channels, hidden=color_hidden, **shared)
        self.placement = nn.Linear(w_dim, 4) if placement_rate else None  # shift, logarithm of the scale
        if self.placement is not None:
            nn.init.zeros_(self.placement.weight)
            nn.init.zeros_(self.placement.bias)

    def voxels(self, text: Tensor) -> Tensor:
        """Offsets of the distance and colour logits [P, 4, R, R, R] of P prompts, text [P, D]."""
        return self._mixed(self.style(text))

    def _mixed(self, w: Tensor) -> Tensor:
        """:meth:`voxels` of styles [P, w_dim]."""
        if self.colors is None:
            return self.volumes(w)
        return torch.cat([self.volumes(w), self.colors(w)], dim=1)

    def forward(self, text: Tensor, latent: Tensor | None = None, random: StepRandom | None = None) -> SdfField:
        """See :meth:`scaledreamer.generators.base.Generator.forward`."""
        w = self.style(text)
        field = DecodedVoxelField(voxels=self._mixed(w), radius=self.radius, sphere_radius=self.sphere_radius)
        if self.placement is None:
            return field
        placement = self.placement_rate * self.placement(w).float()  # [P, 4]
        return PlacedField(field=field, shift=placement[:, :3], scale=placement[:, 3:].exp())
