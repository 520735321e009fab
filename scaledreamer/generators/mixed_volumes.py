"""A voxel field as a mix of learned volumes: what 3DConv-net becomes on a laptop.

3DConv-net adds learned volumes, the same for every prompt, between its convolutions. Here there are many at each
resolution, the text says how much of each, and the convolutions are gone but for two pointwise layers: on a CPU that
takes a tenth of the time. The weights are linear in the text, so that words combine in prompts that were never seen;
what is not linear learns slowly, and what a word does to the place and the size of the whole is learned apart.

Axes: P prompts, D text width, K learned volumes, R voxels per side; volumes are [P, channels, z, y, x].
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scaledreamer.constraints import NonNegativeFloat, PositiveFloat, PositiveInt
from scaledreamer.fields.base import SdfField
from scaledreamer.fields.decoded_voxel import DecodedVoxelField
from scaledreamer.fields.placed import PlacedField
from scaledreamer.generators.base import Generator
from scaledreamer.generators.modulated import upsample
from scaledreamer.randomness import StepRandom

COARSEST = 4  # voxels per side
OUTPUTS = 4  # offset of the signed distance, three colour logits


class Mix(nn.Module):
    """sum_k a_k(w) V_k, with weights a linear in the style w.

    Args:
        w_dim: width of the style; volumes: K; channels, resolution: of each volume.
        std: of the initial volumes. Where it is 0 the sum is at first as well.
    """

    def __init__(self, *, w_dim: int, volumes: int, channels: int, resolution: int, std: float) -> None:
        super().__init__()
        self.weights = nn.Linear(w_dim, volumes)
        self.volumes = nn.Parameter(std * torch.randn(volumes, channels, resolution, resolution, resolution))

    def forward(self, w: Tensor) -> Tensor:
        """[P, w_dim] -> [P, channels, R, R, R]."""
        return (self.weights(w) @ self.volumes.flatten(1)).unflatten(1, self.volumes.shape[1:])


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
        channels: of the features; hidden: between the pointwise layers.
        fine_scale: how much the finest volumes count, and so how fast they learn: detail comes after form.
        modulation_rate: how fast the text learns to scale and shift features; at the volumes' own pace, 1, words that
            always come together in training mean something together.
        placement_rate: how fast the text learns where the form is and how large; 0 leaves it where it is.
        radius: half the side of the box that the voxels fill, world units.
        sphere_radius: of the sphere that the sdf starts from.
    """

    def __init__(
        self,
        *,
        text_dim: PositiveInt,
        w_dim: PositiveInt = 128,
        resolution: Literal[16, 32, 64] = 32,
        volumes: PositiveInt = 64,
        channels: PositiveInt = 16,
        hidden: PositiveInt = 32,
        fine_volumes: PositiveInt = 48,
        fine_scale: PositiveFloat = 0.15,
        modulation_rate: PositiveFloat = 1.0,
        placement_rate: NonNegativeFloat = 0.0,
        radius: PositiveFloat = 1.0,
        sphere_radius: PositiveFloat = 0.6,
    ) -> None:
        super().__init__()
        self.radius, self.sphere_radius = radius, sphere_radius
        self.fine_scale, self.modulation_rate, self.placement_rate = fine_scale, modulation_rate, placement_rate
        self.style = nn.Sequential(nn.LayerNorm(text_dim), nn.Linear(text_dim, w_dim), nn.LayerNorm(w_dim))
        sides = [side for side in (COARSEST, 8, 16, 32) if side < resolution]
        # Only the coarsest volumes are random at first: noise in finer ones would stay where nothing is learned.
        self.coarse = nn.ModuleList(
            Mix(w_dim=w_dim, volumes=volumes, channels=channels, resolution=side, std=float(side == COARSEST))
            for side in sides
        )
        self.features = nn.Linear(channels, hidden)
        self.modulation = nn.Linear(w_dim, 2 * hidden)
        self.outputs = nn.Linear(hidden, OUTPUTS)
        self.fine = Mix(w_dim=w_dim, volumes=fine_volumes, channels=OUTPUTS, resolution=resolution, std=0.0)
        with torch.no_grad():  # near the initial sphere
            self.outputs.weight.mul_(0.3)
            self.modulation.weight.mul_(0.5 / modulation_rate)
        nn.init.zeros_(self.outputs.bias)
        nn.init.zeros_(self.modulation.bias)
        self.placement = nn.Linear(w_dim, 4) if placement_rate else None  # shift, logarithm of the scale
        if self.placement is not None:
            nn.init.zeros_(self.placement.weight)
            nn.init.zeros_(self.placement.bias)

    def voxels(self, text: Tensor) -> Tensor:
        """Offsets of the distance and colour logits [P, 4, R, R, R] of P prompts, text [P, D]."""
        return self._mixed(self.style(text))

    def _mixed(self, w: Tensor) -> Tensor:
        """:meth:`voxels` of styles [P, w_dim]."""
        first, *rest = self.coarse
        x = first(w)
        for mix in rest:
            x = upsample(x) + mix(w)
        x = upsample(x / len(self.coarse) ** 0.5)
        scale, shift = (self.modulation_rate * self.modulation(w))[..., None].chunk(2, dim=1)  # [P, hidden, 1] each
        weight, bias = self.features.weight * (1 + scale), self.features.bias[:, None] * (1 + scale) + shift
        # The style goes into the weights, not into the voxels, of which there are far more.
        x = F.silu(torch.baddbmm(bias, weight, x.flatten(2)))  # [P, hidden, R^3]
        x = torch.baddbmm(self.outputs.bias[:, None], self.outputs.weight.expand(len(x), -1, -1), x)
        fine = self.fine(w)
        return x.view_as(fine) + self.fine_scale * fine

    def forward(self, text: Tensor, latent: Tensor | None = None, random: StepRandom | None = None) -> SdfField:
        """See :meth:`scaledreamer.generators.base.Generator.forward`."""
        w = self.style(text)
        field = DecodedVoxelField(voxels=self._mixed(w), radius=self.radius, sphere_radius=self.sphere_radius)
        if self.placement is None:
            return field
        placement = self.placement_rate * self.placement(w).float()  # [P, 4]
        return PlacedField(field=field, shift=placement[:, :3], scale=placement[:, 3:].exp())
