"""Triplane-Transformer: a transformer that turns learned tokens into three planes of features, guided by a text.

Section 4 of ScaleDreamer (arXiv 2407.02040); the decoder is LRM's (arXiv 2311.04400), with text in the place of an
image. Parameter names follow the reference's modules, so that its published weights map by a change of prefix.

Axes: P prompts, L tokens of text, D text width, W width, C features per plane, R pixels per side of a plane,
T = 3 (R / 2)^2 learned tokens: plane by plane, then row by row.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scaledreamer.constraints import PositiveFloat, PositiveInt
from scaledreamer.cuda_graph import GraphedGradient
from scaledreamer.errors import UserError
from scaledreamer.fields.backends import Backend, check_backend
from scaledreamer.fields.base import SdfField
from scaledreamer.fields.mlp import MLP
from scaledreamer.fields.triplane import TriplaneField
from scaledreamer.generators.base import Generator
from scaledreamer.generators.transformer import EPS, GlobalBlock, LocalBlock
from scaledreamer.published import PublishedNames, box
from scaledreamer.randomness import StepRandom

PATCH = 2  # pixels per side that each token becomes


class TriplaneTransformerGenerator(Generator):
    """Text -> a triplane field with two small heads.

    Args:
        text_dim: D, width of the prior's text embedding.
        text: what the blocks are told: every token of the text by cross-attention (``local``, as in the paper), or its
            pooled embedding as one more token (``global``).
        resolution: R, even.
        channels: C.
        width: W, a multiple of ``attention_heads``.
        layers: number of blocks.
        attention_heads: of each attention.
        mlp_ratio: hidden width of a block's MLP in units of W.
        hidden: width of the two hidden layers of the field's heads.
        activation_checkpointing: in training keep only each block's input and compute the rest again on the way back:
            a third more time in the blocks for a fraction of their memory, with the same gradients.
        radius: half the side of the box that the planes span, world units.
        sphere_radius: of the sphere that the sdf starts from.
        normal_eps: step of the finite differences, world units.
        clamp_offsets: keep the differences' offset points inside the box, as the reference does; wrong outside it.
        widened: use the sigmoid that is widened by 0.001 on both sides for colours.
        backend: what computes the field at points: ``torch`` everywhere, ``triton`` on GPUs; ``auto`` takes Triton
            where it can.
        cuda_graph: on GPUs record the planes and their way back as CUDA graphs and replay them, unless ``backend`` is
            torch or activations are checkpointed: launching the kernels takes longer than their work on one prompt.

    Raises:
        UserError: ``resolution`` is odd, ``width`` cannot be divided among the attention heads, or there is no such
            backend here.
    """

    text: Literal["global", "local"] = "local"
    published_names: ClassVar[PublishedNames] = {"space_generator.": ""}

    def __init__(
        self,
        *,
        text_dim: PositiveInt,
        text: Literal["local", "global"] = "local",
        resolution: PositiveInt = 64,
        channels: PositiveInt = 32,
        width: PositiveInt = 768,
        layers: PositiveInt = 12,
        attention_heads: PositiveInt = 16,
        mlp_ratio: PositiveInt = 4,
        hidden: PositiveInt = 64,
        activation_checkpointing: bool = False,
        radius: PositiveFloat = 2.0,
        sphere_radius: PositiveFloat = 0.8,
        normal_eps: PositiveFloat = 0.01,
        clamp_offsets: bool = False,
        widened: bool = True,
        backend: Backend = "auto",
        cuda_graph: bool = True,
    ) -> None:
        super().__init__()
        check_backend(backend)
        if resolution % PATCH:
            raise UserError(f"generator.resolution={resolution}: must be even, each token becomes {PATCH} x {PATCH}.")
        if width % attention_heads:
            raise UserError(
                f"generator.width={width}: must be a multiple of generator.attention_heads={attention_heads}."
            )
        self.text = text
        self.side = resolution // PATCH  # tokens per side of a plane
        self.activation_checkpointing = activation_checkpointing
        self.radius, self.sphere_radius, self.widened = radius, sphere_radius, widened
        self.normal_eps, self.clamp_offsets = normal_eps, clamp_offsets
        self.backend: Backend = backend
        self.pos_embed = nn.Parameter(torch.randn(1, 3 * self.side**2, width) / width**0.5)
        self.proj = nn.Linear(text_dim, width) if text == "global" else None
        self.layers = nn.ModuleList(
            GlobalBlock(width=width, heads=attention_heads, mlp_ratio=mlp_ratio)
            if text == "global"
            else LocalBlock(width=width, text_dim=text_dim, heads=attention_heads, mlp_ratio=mlp_ratio)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.deconv = nn.ConvTranspose2d(width, channels, PATCH, stride=PATCH, bias=False)
        self.sdf_network = MLP([3 * channels, hidden, hidden, 1])
        self.feature_network = MLP([3 * channels, hidden, hidden, 3])
        graphs = cuda_graph and backend != "torch" and not activation_checkpointing
        self._graphed = GraphedGradient(self._planes, self._planes_parameters, copies=False) if graphs else None

    def planes(self, text: Tensor) -> Tensor:
        """Features [P, 3, C, R, R] of P prompts, text [P, L, D] or, where it is global, [P, D]."""
        return (self._graphed or self._planes)(text)

    def _planes(self, text: Tensor) -> Tensor:
        words = text if self.proj is None else self.proj(text)[:, None]
        x = self.pos_embed.expand(text.shape[0], -1, -1)  # [P, T, W]
        again = self.activation_checkpointing and torch.is_grad_enabled()
        for block in self.layers:
            # The blocks draw nothing; saving the device's random state would wait for the device.
            x = checkpoint(block, x, words, use_reentrant=False, preserve_rng_state=False) if again else block(x, words)
        x = self.norm(x).unflatten(1, (3, self.side, self.side))  # [P, 3, R / 2, R / 2, W]
        if x.is_cuda:
            return self._unfold(x)
        return self.deconv(x.flatten(0, 1).movedim(-1, 1)).unflatten(0, (-1, 3))

    def _planes_parameters(self) -> list[nn.Parameter]:
        heads = {*self.sdf_network.parameters(), *self.feature_network.parameters()}
        return [p for p in self.parameters() if p not in heads]

    def _unfold(self, x: Tensor) -> Tensor:
        """What ``deconv`` does to tokens [P, 3, R / 2, R / 2, W], as one product and in float32: slopes are differences
        of neighbouring features, which half precision would round. In memory channels come last, as kernels read them.
        """
        with torch.autocast(x.device.type, enabled=False):
            pixels = x.float() @ self.deconv.weight.flatten(1)  # [P, 3, R / 2, R / 2, C * 2 * 2]
            pixels = pixels.unflatten(-1, (-1, PATCH, PATCH)).permute(0, 1, 2, 5, 3, 6, 4)  # [P, 3, y, 2, x, 2, C]
            return pixels.flatten(4, 5).flatten(2, 3).movedim(-1, 2)

    def constants(self) -> dict[str, Tensor]:
        """See :mod:`scaledreamer.published`."""
        return {"bbox": box(self.radius)}

    def forward(self, text: Tensor, latent: Tensor | None = None, random: StepRandom | None = None) -> SdfField:
        """See :meth:`scaledreamer.generators.base.Generator.forward`."""
        return TriplaneField(
            planes=self.planes(text),
            sdf_network=self.sdf_network,
            feature_network=self.feature_network,
            radius=self.radius,
            sphere_radius=self.sphere_radius,
            eps=self.normal_eps,
            clamp_offsets=self.clamp_offsets,
            widened=self.widened,
            backend=self.backend,
        )
