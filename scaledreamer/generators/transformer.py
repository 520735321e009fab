"""Transformer blocks that rewrite learned tokens by a text: pre-norm, residual, attention without biases on q, k and v.

``local`` blocks look at every token of the text by cross-attention. ``global`` blocks see one token of text, which
stands beside their own in self-attention.

Axes: P prompts, T tokens, L tokens of text, W width, D text width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-6  # of the layer norms


class Attention(nn.Module):
    """softmax(q k^T / sqrt(W / heads)) v per head, then a linear layer (Vaswani et al., arXiv 1706.03762, eq. 1).

    Args:
        width: W, of what asks; a multiple of ``heads``.
        context_width: of what is looked at.
        heads: parts that attend by themselves.
    """

    def __init__(self, *, width: int, context_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_width, width, bias=False)
        self.to_v = nn.Linear(context_width, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width))  # one layer under the published name ``to_out.0``

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """[P, T, W] that looks at [P, S, context_width] -> [P, T, W]."""
        projected = self._together(x, context) if x.is_cuda and torch.is_autocast_enabled("cuda") else None
        q, k, v = map(self._split, projected or (self.to_q(x), self.to_k(context), self.to_v(context)))
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def _together(self, x: Tensor, context: Tensor) -> Sequence[Tensor]:
        """q, k and v, those of one input by one product: in half precision the weights are copied in any case."""
        if x is context:
            return F.linear(x, torch.cat([self.to_q.weight, self.to_k.weight, self.to_v.weight])).chunk(3, dim=-1)
        k, v = F.linear(context, torch.cat([self.to_k.weight, self.to_v.weight])).chunk(2, dim=-1)
        return self.to_q(x), k, v

    def _split(self, x: Tensor) -> Tensor:
        """[P, T, W] -> [P, heads, T, W / heads]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class LocalBlock(nn.Module):
    """Cross-attention to the text's tokens, self-attention, MLP.

    Args:
        width: W; text_dim: D; heads: of both attentions; mlp_ratio: hidden width of the MLP in units of W.
    """

    def __init__(self, *, width: int, text_dim: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.cross_attn = Attention(width=width, context_width=text_dim, heads=heads)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.self_attn = Attention(width=width, context_width=width, heads=heads)
        self.norm3 = nn.LayerNorm(width, eps=EPS)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_ratio * width),
            nn.GELU(),
            nn.Identity(),  # keeps the place of the published layout's dropout, whose rate is 0
            nn.Linear(mlp_ratio * width, width),
        )

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """Tokens [P, T, W] and text [P, L, D] -> tokens [P, T, W]."""
        x = x + self.cross_attn(self.norm1(x), text)
        normed = self.norm2(x)
        x = x + self.self_attn(normed, normed)
        return x + self.mlp(self.norm3(x))


class GlobalBlock(nn.Module):
    """Self-attention with the text as one more token, MLP that begins with its nonlinearity.

    Every block is given the same token: what becomes of it in a block is not used, and so not computed.

    Args:
        width: W; heads: of the attention; mlp_ratio: hidden width of the MLP in units of W.
    """

    def __init__(self, *, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.self_attn = Attention(width=width, context_width=width, heads=heads)
        self.norm3 = nn.LayerNorm(width, eps=EPS)
        self.mlp = nn.Sequential(
            nn.GELU(), nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width)
        )

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """Tokens [P, T, W] and text [P, 1, W] -> tokens [P, T, W]."""
        normed = self.norm2(torch.cat([text, x], dim=1))
        x = x + self.self_attn(normed[:, 1:], normed)
        return x + self.mlp(self.norm3(x))
