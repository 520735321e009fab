"""Volumes that the text mixes: the layers of :class:`scaledreamer.generators.mixed_volumes.MixedVolumesGenerator`.

Axes: P prompts, K learned volumes, R voxels per side; volumes are [P, channels, z, y, x].
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scaledreamer.generators.modulated import upsample

COARSEST = 4  # voxels per side
Activation = Literal["silu", "relu"]
_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"silu": F.silu, "relu": torch.relu_}


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


class MixedVolumes(nn.Module):
    """Style -> voxels: mixes of features, coarse to fine, decoded at every voxel, and a mix of finest detail.

    Args:
        w_dim: width of the style; outputs: per voxel; resolution: R, a power of two.
        volumes: K at each of 4, 8, ... R / 2 voxels per side; fine_volumes: K of the finest.
        channels: of the features; hidden: between the two pointwise layers; activation: there.
        fine_scale: how much the finest volumes count, and so how fast they learn.
        modulation_rate: how fast the style learns to scale and shift features.
    """

    def __init__(
        self,
        *,
        w_dim: int,
        outputs: int,
        resolution: int,
        volumes: int,
        channels: int,
        hidden: int,
        activation: Activation,
        fine_volumes: int,
        fine_scale: float,
        modulation_rate: float,
    ) -> None:
        super().__init__()
        self.fine_scale, self.modulation_rate = fine_scale, modulation_rate
        self.activation: Activation = activation
        sides = [side for side in (COARSEST, 8, 16, 32) if side < resolution]
        # Only the coarsest volumes are random at first: noise in finer ones would stay where nothing is learned.
        self.coarse = nn.ModuleList(
            Mix(w_dim=w_dim, volumes=volumes, channels=channels, resolution=side, std=float(side == COARSEST))
            for side in sides
        )
        self.features = nn.Linear(channels, hidden)
        self.modulation = nn.Linear(w_dim, 2 * hidden)
        self.outputs = nn.Linear(hidden, outputs)
        self.fine = Mix(w_dim=w_dim, volumes=fine_volumes, channels=outputs, resolution=resolution, std=0.0)
        with torch.no_grad():  # near zero
            self.outputs.weight.mul_(0.3)
            self.modulation.weight.mul_(0.5 / modulation_rate)
        nn.init.zeros_(self.outputs.bias)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, w: Tensor) -> Tensor:
        """[P, w_dim] -> [P, outputs, R, R, R]."""
        first, *rest = self.coarse
        x = first(w)
        for mix in rest:
            x = upsample(x) + mix(w)
        x = upsample(x / len(self.coarse) ** 0.5)
        scale, shift = (self.modulation_rate * self.modulation(w))[..., None].chunk(2, dim=1)  # [P, hidden, 1] each
        weight, bias = self.features.weight * (1 + scale), self.features.bias[:, None] * (1 + scale) + shift
        # The style goes into the weights, not into the voxels, of which there are far more.
        x = _ACTIVATIONS[self.activation](torch.baddbmm(bias, weight, x.flatten(2)))  # [P, hidden, R^3]
        x = torch.baddbmm(self.outputs.bias[:, None], self.outputs.weight.expand(len(x), -1, -1), x)
        fine = self.fine(w)
        return x.view_as(fine) + self.fine_scale * fine
