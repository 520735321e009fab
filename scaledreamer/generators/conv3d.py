"""3DConv-net: a StyleGAN-like 3-D convolutional network from text and a latent to a voxel field.

Section 4 of ScaleDreamer (arXiv 2407.02040). Parameter names follow the reference's modules, so that its published
weights map by a change of prefix.

Axes: P prompts, D text width, R voxels per side; volumes are [P, channels, z, y, x].
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from scaledreamer.constraints import NonNegativeInt, PositiveFloat, PositiveInt
from scaledreamer.cuda_graph import GraphedGradient
from scaledreamer.errors import UserError
from scaledreamer.fields.backends import Backend, by_triton, check_backend
from scaledreamer.fields.base import SdfField
from scaledreamer.fields.decoded_voxel import DecodedVoxelField
from scaledreamer.fields.mlp import MLP
from scaledreamer.fields.voxel import VoxelField
from scaledreamer.generators import fused
from scaledreamer.generators.base import Generator
from scaledreamer.generators.modulated import EqualLinear, Noise, SynthesisLayer, ToFeatures, leaky_clamp, upsample
from scaledreamer.published import PublishedNames, box
from scaledreamer.randomness import StepRandom

BASE = 4  # voxels per side of the learned constant
MULTIPLIED_FROM = 32  # voxels per side from which on ``channel_multiplier`` counts


class Mapping(nn.Module):
    """Latent -> two fully connected layers -> joined with the text -> w, which styles every layer.

    Without a latent w is a linear map of the text.
    """

    w_avg: Tensor

    def __init__(self, *, latent_dim: int, text_dim: int, w_dim: int, layers: int = 2) -> None:
        super().__init__()
        rate = 1.0 if text_dim else 0.01
        widths = [latent_dim] + [w_dim] * layers if latent_dim else []
        self.layers = nn.ModuleList(EqualLinear(i, o, rate=rate) for i, o in pairwise(widths))
        self.embed = EqualLinear((w_dim if latent_dim else 0) + text_dim, w_dim) if text_dim else None
        self.register_buffer("w_avg", torch.zeros(w_dim))  # of the published layout; never used

    def forward(self, latent: Tensor, text: Tensor) -> Tensor:
        """[P, latent_dim] and [P, D] -> [P, w_dim]."""
        # Nothing is normalised where there is no latent: the mean of no numbers would be nan.
        x = latent * (latent.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt() if self.layers else latent
        for layer in self.layers:
            x = leaky_clamp(layer(x))
        return self.embed(torch.cat([x, text.to(x.dtype)], dim=1)) if self.embed is not None else x


class FirstBlock(nn.Module):
    """The learned constant 4^3 and its convolution."""

    def __init__(self, width: int, features: int, *, w_dim: int) -> None:
        super().__init__()
        self.const = nn.Parameter(torch.randn(width, BASE, BASE, BASE))
        self.conv1 = SynthesisLayer(width, width, w_dim=w_dim, resolution=BASE)
        self.torgb = ToFeatures(width, features, w_dim=w_dim)

    def forward(self, w: Tensor, noise: Noise, random: StepRandom | None) -> tuple[Tensor, Tensor]:
        """(hidden [P, C, 4, 4, 4], features [P, F, 4, 4, 4])."""
        x = self.const.expand(w.shape[0], -1, -1, -1, -1)
        x = self.conv1(x, w, noise, random)
        return x, self.torgb(x, w)


class Block(nn.Module):
    """Doubles the resolution: two convolutions, a learned volume added between them, a sum of feature outputs."""

    def __init__(
        self, inputs: int, outputs: int, features: int, *, w_dim: int, resolution: int, const_bias: bool
    ) -> None:
        super().__init__()
        self.conv0 = SynthesisLayer(inputs, outputs, w_dim=w_dim, resolution=resolution, up=True)
        self.conv1 = SynthesisLayer(outputs, outputs, w_dim=w_dim, resolution=resolution)
        self.torgb = ToFeatures(outputs, features, w_dim=w_dim)
        volume = torch.randn(outputs, resolution, resolution, resolution) / outputs**0.5 if const_bias else None
        self.const_bias = nn.Parameter(volume) if volume is not None else None

    def forward(
        self, x: Tensor, features: Tensor, w: Tensor, noise: Noise, random: StepRandom | None
    ) -> tuple[Tensor, Tensor]:
        """(hidden, features) at R -> the same at 2 R."""
        x = self.conv0(x, w, noise, random)
        if self.const_bias is not None:
            x = x + self.const_bias.to(x.dtype)
        x = self.conv1(x, w, noise, random)
        return x, upsample(features).add_(self.torgb(x, w))


class Synthesis(nn.Module):
    """w -> features [P, F, R, R, R], coarse to fine."""

    def __init__(self, *, widths: Sequence[int], features: int, w_dim: int, bias_resolution: int) -> None:
        super().__init__()
        self.first_block = FirstBlock(widths[0], features, w_dim=w_dim)
        self.blocks = nn.ModuleList(
            Block(i, o, features, w_dim=w_dim, resolution=BASE << n, const_bias=BASE << n <= bias_resolution)
            for n, (i, o) in enumerate(pairwise(widths), start=1)
        )

    def forward(self, w: Tensor, noise: Noise = "none", random: StepRandom | None = None) -> Tensor:
        """[P, w_dim] -> [P, F, R, R, R]."""
        x, features = self.first_block(w, noise, random)
        for block in self.blocks:
            x, features = block(x, features, w, noise, random)
        return features


class Conv3DGenerator(Generator):
    """Text (global) and a latent -> a voxel field with two small heads.

    Args:
        text_dim: width D of the prior's pooled text embedding.
        latent_dim: width of the latent z, 0 for none; w_dim: width of the style w.
        resolution: voxels per side, a power of two from 8 on.
        channels: of the voxel field.
        widths: hidden channels at 4, 8, 16, ... voxels per side; those beyond ``resolution`` are not used.
        channel_multiplier: of the widths from 32 voxels per side on.
        bias_resolution: learned volumes are added up to this resolution.
        hidden: width of the heads.
        heads: where the heads are applied: at the ``points`` that are asked for, as in the paper, or at the ``voxels``,
            several times as cheap (see :mod:`scaledreamer.fields.decoded_voxel`).
        noise: of the layers: fresh at each training step and none in evaluation, always the stored one, or never any.
        radius: half the side of the box that the voxels fill, world units.
        sphere_radius: of the sphere that the sdf starts from.
        normal_eps: step of the finite differences, world units.
        clamp_offsets: keep the differences' offset points inside the box, as the reference does; wrong outside it.
        backend: what computes the voxels and the field at points: ``torch`` everywhere, ``triton`` on GPUs; ``auto``
            takes Triton where it can, which in mixed precision (``trainer.precision``) computes in float16.
        cuda_graph: where Triton computes the voxels, record that and the way back as CUDA graphs and replay them:
            launching their 400 kernels takes longer than their work on one prompt.

    Raises:
        UserError: there are too few widths for the resolution, neither text nor latent, or no such backend here.
    """

    text: Literal["global", "local"] = "global"
    field: ClassVar[Literal["sdf", "density"]] = "sdf"
    published_names: ClassVar[PublishedNames] = {
        "space_generator.mapping.": "mapping.",
        "space_generator.synthesis.": "synthesis.",
    }

    def __init__(
        self,
        *,
        text_dim: NonNegativeInt,
        latent_dim: NonNegativeInt = 64,
        w_dim: PositiveInt = 256,
        resolution: Literal[8, 16, 32, 64, 128, 256] = 128,
        channels: PositiveInt = 32,
        widths: list[PositiveInt] | tuple[PositiveInt, ...] = (512, 512, 512, 256, 128, 64),
        channel_multiplier: PositiveInt = 1,
        bias_resolution: PositiveInt = 64,
        hidden: PositiveInt = 64,
        heads: Literal["points", "voxels"] = "points",
        noise: Noise = "random",
        radius: PositiveFloat = 2.0,
        sphere_radius: PositiveFloat = 0.8,
        normal_eps: PositiveFloat = 0.01,
        clamp_offsets: bool = False,
        backend: Backend = "auto",
        cuda_graph: bool = True,
    ) -> None:
        super().__init__()
        check_backend(backend)
        if not text_dim and not latent_dim:
            raise UserError("generator.latent_dim=0: a generator without text needs a latent.")
        levels = (resolution // BASE).bit_length()
        if levels > len(widths):
            raise UserError(
                f"generator.widths: resolution {resolution} needs {levels} of them (at 4, 8, ... {resolution} voxels), "
                f"not {len(widths)}; add to them or lower generator.resolution."
            )
        multipliers = [channel_multiplier if BASE << n >= MULTIPLIED_FROM else 1 for n in range(levels)]
        self.latent_dim = latent_dim
        self.noise: Noise = noise
        self.heads: Literal["points", "voxels"] = heads
        self.radius, self.sphere_radius = radius, sphere_radius
        self.normal_eps, self.clamp_offsets = normal_eps, clamp_offsets
        self.backend: Backend = backend
        self.mapping = Mapping(latent_dim=latent_dim, text_dim=text_dim, w_dim=w_dim)
        self.synthesis = Synthesis(
            widths=[w * m for w, m in zip(widths, multipliers, strict=False)],
            features=channels,
            w_dim=w_dim,
            bias_resolution=bias_resolution,
        )
        self.sdf_network = MLP([channels, hidden, 1])
        self.feature_network = MLP([channels, hidden, 3])
        if noise == "none":
            for layer in self.modules():
                if isinstance(layer, SynthesisLayer):
                    layer.noise_strength.requires_grad_(False)  # DDP waits for gradients of all that ask for one
        self._graphed = GraphedGradient(self._fused, self._fused_parameters, copies=False) if cuda_graph else None

    def voxels(self, text: Tensor, latent: Tensor | None = None, random: StepRandom | None = None) -> Tensor:
        """Features [P, F, R, R, R] of P prompts, text [P, D] and latent [P, latent_dim] (None: zeros)."""
        if latent is None:
            latent = torch.zeros(text.shape[0], self.latent_dim, device=text.device)
        if not by_triton(self.backend, text, refusal=fused.refusal(self.synthesis)):
            return self.synthesis(self.mapping(latent, text), self.noise, random)
        drawn = fused.draws(self.synthesis, len(text), self.noise, random)
        return (self._graphed or self._fused)(text.float(), latent.float(), *drawn)

    def _fused(self, text: Tensor, latent: Tensor, *drawn: Tensor) -> Tensor:
        """:meth:`voxels` by kernels; in float16 inside an autocast."""
        dtype = fused.type_of_volumes(text)
        with torch.autocast(text.device.type, enabled=False):  # w is small, and styles all that is large
            w = self.mapping(latent, text)
        return fused.synthesize(self.synthesis, w, self.noise, list(drawn), dtype=dtype)

    def _fused_parameters(self) -> list[nn.Parameter]:
        return [*self.mapping.parameters(), *self.synthesis.parameters()]

    def constants(self) -> dict[str, Tensor]:
        """See :mod:`scaledreamer.published`."""
        return {"bbox": box(self.radius)}

    def forward(self, text: Tensor, latent: Tensor | None = None, random: StepRandom | None = None) -> SdfField:
        """See :meth:`scaledreamer.generators.base.Generator.forward`."""
        voxels = self.voxels(text, latent, random)
        if self.heads == "voxels":
            features = voxels.movedim(1, -1)
            decoded = torch.cat([self.sdf_network(features), self.feature_network(features)], dim=-1)
            return DecodedVoxelField(
                voxels=decoded.movedim(-1, 1), radius=self.radius, sphere_radius=self.sphere_radius
            )
        return VoxelField(
            voxels=voxels,
            sdf_network=self.sdf_network,
            feature_network=self.feature_network,
            radius=self.radius,
            sphere_radius=self.sphere_radius,
            eps=self.normal_eps,
            clamp_offsets=self.clamp_offsets,
            backend=self.backend,
        )
