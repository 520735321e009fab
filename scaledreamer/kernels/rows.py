"""Single passes over rows [..., C] of a frozen network: by Triton on a GPU, by PyTorch elsewhere.

All but :func:`wide_attention` are for use without gradients, or inside a function that has its own.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scaledreamer.kernels.group_norm import by_triton

WIDEST = 256
"""Numbers per head up to which PyTorch chooses among its fused kernels."""

LONGEST = 8192
"""Tokens up to which :func:`wide_attention` keeps its matrix of probabilities."""


def add(x: Tensor, y: Tensor, bias: Tensor | None) -> Tensor:
    """x + y + bias; x, y [..., C], bias [C] or None."""
    if bias is None or not by_triton(x):
        return x + y if bias is None else x + (y + bias.to(y.dtype))
    from scaledreamer.kernels import rows_triton

    return rows_triton.add(x.contiguous(), y.contiguous(), bias.contiguous())


def add_layer_norm(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + y [..., C], and its layer norm."""
    if not by_triton(x):
        both = x + y
        return both, F.layer_norm(both, both.shape[-1:], weight, bias, eps)
    from scaledreamer.kernels import rows_triton

    return rows_triton.add_layer_norm(x.contiguous(), y.contiguous(), weight.contiguous(), bias.contiguous(), eps)


def geglu(x: Tensor) -> Tensor:
    """v * gelu(g) [..., C] of (v, g) [..., 2 C]."""
    if not by_triton(x):
        v, g = x.chunk(2, dim=-1)
        return v * F.gelu(g)
    from scaledreamer.kernels import rows_triton

    return rows_triton.geglu(x.contiguous())


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v of one head [B, N, D], differentiable.

    PyTorch's fastest kernels take heads of up to :data:`WIDEST` numbers; the one of a Stable Diffusion's VAE has 512.
    Wider ones are two products of matrices with a softmax between.
    """
    if by_triton(q) and q.shape[-1] > WIDEST and k.shape[1] <= LONGEST:
        return wide_attention(q, k, v)
    return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]


def wide_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """:func:`attention` with its probabilities [B, N, M] kept in the type of q; logits are float32."""
    return _WideAttention.apply(q, k, v)  # pyright: ignore[reportReturnType]


class _WideAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from scaledreamer.kernels import rows_triton

        logits = _float_product(q, k.transpose(1, 2))
        p = rows_triton.softmax(logits, 1 / math.sqrt(q.shape[-1]), q.dtype)
        ctx.save_for_backward(q, k, v, p)
        return torch.bmm(p, v)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        from scaledreamer.kernels import rows_triton

        q, k, v, p = ctx.saved_tensors
        grad = grads[0].contiguous()
        # Entries are about 1 / M as large as the gradients: half precision would lose them without the factor.
        factor = math.sqrt(p.shape[-1])
        d = rows_triton.softmax_gradient(p, torch.bmm(grad, v.transpose(1, 2)), factor)
        alpha = 1 / (math.sqrt(q.shape[-1]) * factor)
        empty = q.new_empty(())
        of_q = torch.baddbmm(empty, d, k, beta=0, alpha=alpha)
        of_k = torch.baddbmm(empty, d.transpose(1, 2), q, beta=0, alpha=alpha)
        return of_q, of_k, torch.bmm(p.transpose(1, 2), grad)


def _float_product(a: Tensor, b: Tensor) -> Tensor:
    """a b [B, N, M] in float32: logits of 30 rounded to half would be off by a hundredth."""
    if a.is_cuda and a.dtype != torch.float32 and torch.__version__ >= (2, 8):  # pyright: ignore[reportOperatorIssue]
        return torch.bmm(a, b, out_dtype=torch.float32)  # pyright: ignore[reportCallIssue]
    return torch.bmm(a.float(), b.float())
