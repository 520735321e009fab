"""Attention of a frozen diffusion model with fewer kernels and copies, from diffusers' own modules and equal to them.

Axes: B images, C channels, H W height and width, N = H * W tokens of an image, L tokens of text.
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor, nn

from scaledreamer.kernels import group_norm as norms
from scaledreamer.kernels import rows as kernels
from scaledreamer.priors.fused_blocks import image, of, rows
from scaledreamer.priors.multiview_unet import JointAttention


def joined(*layers: nn.Linear) -> nn.Linear:
    """One linear layer with the outputs of several, side by side."""
    made = nn.Linear(1, 1, bias=False)
    made.in_features, made.out_features = layers[0].in_features, sum(layer.out_features for layer in layers)
    made.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]), requires_grad=False)
    if layers[0].bias is not None:
        made.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]), requires_grad=False)
    return made


def _is_plain(attn: Any, kinds: tuple[type, ...]) -> bool:
    """Whether it is softmax(q k^T / sqrt(d)) v between linear layers, and nothing more."""
    extras = (attn.spatial_norm, attn.norm_q, attn.norm_k, attn.norm_cross, attn.added_kv_proj_dim)
    biased = {layer.bias is not None for layer in (attn.to_q, attn.to_k, attn.to_v)}
    return (
        all(extra is None for extra in extras)
        and len(biased) == 1
        and attn.scale_qk
        and not attn.fused_projections
        and attn.rescale_output_factor == 1
        and attn.inner_dim == attn.inner_kv_dim
        and type(attn.processor) in kinds
    )


class FusedImageAttention(nn.Module):
    """Attention of one head among the positions of an image, as in the middle of a VAE.

    Args:
        attn: diffusers' ``Attention``, of which :meth:`fits` is true; its weights are taken over.
    """

    def __init__(self, attn: Any) -> None:
        super().__init__()
        self.norm: nn.GroupNorm = attn.group_norm
        self.qkv, self.out = joined(attn.to_q, attn.to_k, attn.to_v), attn.to_out[0]

    @staticmethod
    def fits(attn: Any) -> bool:
        """Whether it is such a one."""
        inner = attn.heads == 1 and attn.group_norm is not None and attn.residual_connection
        return inner and _is_plain(attn, (AttnProcessor2_0,))

    def forward(self, x: Tensor, temb: Tensor | None = None, **_: Any) -> Tensor:
        """[B, C, H, W] -> the same, differentiable."""
        start = rows(x)
        y = norms.group_norm(start, **of(self.norm))
        q, k, v = self.qkv(y).chunk(3, dim=-1)
        return image(start + self.out(kernels.attention(q, k, v)), x.shape[2])


class FusedTransformer(nn.Module):
    """What a UNet has at each resolution: self-attention, attention to the text and a gated layer; no gradients.

    Args:
        model: diffusers' ``Transformer2DModel``, of which :meth:`fits` is true; its weights are taken over.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.norm, self.proj_in, self.proj_out = model.norm, model.proj_in, model.proj_out
        self.blocks = nn.ModuleList(_Block(block) for block in model.transformer_blocks)

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether it and its blocks are of the kind that Stable Diffusion has, and nothing more."""
        blocks = list(model.transformer_blocks)
        return bool(model.is_input_continuous and blocks) and all(_Block.fits(block) for block in blocks)

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, *_: Any, **options: Any
    ) -> tuple[Tensor, ...]:
        """[B, C, H, W] and text [B, L, D] -> [B, C, H, W] alone in a tuple.

        Raises:
            ValueError: of what it does not know, a mask is asked for.
        """
        if options.get("attention_mask") is not None or options.get("encoder_attention_mask") is not None:
            raise ValueError("a fused transformer knows no masks")
        start = rows(hidden_states)
        y = norms.group_norm(start, **of(self.norm))
        y = F.linear(y, self.proj_in.weight.flatten(1), self.proj_in.bias)  # of a 1 x 1 convolution, in some models
        for block in self.blocks:
            y = block(y, encoder_hidden_states)
        y = F.linear(y, self.proj_out.weight.flatten(1), self.proj_out.bias)
        return (image(start + y, hidden_states.shape[2]),)


class _Block(nn.Module):
    """[B, N, C] and text [B, L, D] -> [B, N, C]."""

    norm1: nn.LayerNorm
    norm2: nn.LayerNorm
    norm3: nn.LayerNorm

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = block.norm1, block.norm2, block.norm3
        own, text = block.attn1, block.attn2
        self.heads: int
        self.views: int
        self.heads, self.views = own.heads, getattr(own.processor, "views", 1)
        self.qkv, self.own_out = joined(own.to_q, own.to_k, own.to_v), own.to_out[0]
        self.q, self.kv, self.text_out = text.to_q, joined(text.to_k, text.to_v), text.to_out[0]
        self.gate, self.out = block.ff.net[0].proj, block.ff.net[2]

    @staticmethod
    def fits(block: Any) -> bool:
        own, text, layers = block.attn1, block.attn2, block.ff.net
        plain = block.norm_type == "layer_norm" and block.pos_embed is None and not block.only_cross_attention
        if not plain or text is None or not isinstance(layers[0], GEGLU) or len(layers) != 3:
            return False
        return (
            all(isinstance(n, nn.LayerNorm) and n.weight is not None for n in (block.norm1, block.norm2, block.norm3))
            and own.heads == text.heads
            and text.is_cross_attention
            and _is_plain(own, (AttnProcessor2_0, JointAttention))
            and _is_plain(text, (AttnProcessor2_0,))
            and not (own.residual_connection or text.residual_connection)
        )

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        y = self.norm1(x).unflatten(0, (-1, self.views)).flatten(1, 2)  # tokens of all views of an object
        y = self._attend(*self.qkv(y).unflatten(-1, (3, self.heads, -1)).unbind(2))
        y = self.own_out(y).unflatten(1, (self.views, -1)).flatten(0, 1)
        x, y = kernels.add_layer_norm(x, y, self.norm2.weight, self.norm2.bias, self.norm2.eps)
        q = self.q(y).unflatten(-1, (self.heads, -1))
        y = self.text_out(self._attend(q, *self.kv(text).unflatten(-1, (2, self.heads, -1)).unbind(2)))
        x, y = kernels.add_layer_norm(x, y, self.norm3.weight, self.norm3.bias, self.norm3.eps)
        return x + self.out(kernels.geglu(self.gate(y)))

    @staticmethod
    def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[B, N, heads, d], [B, M, heads, d] twice -> [B, N, heads * d]."""
        found = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return found.transpose(1, 2).flatten(2)
