"""Group normalisation with its activation, of frozen networks, on tensors whose channels are innermost.

PyTorch's own turns such tensors around and back. Here Triton reads them twice and writes them once; without it
PyTorch computes the same.

Axes: B samples, N positions, C channels, G groups.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from scaledreamer.kernels.launch import INTERPRETED, has_triton


def by_triton(x: Tensor) -> bool:
    """Whether kernels compute what concerns ``x``: on GPUs where Triton is installed, never in float64."""
    return (x.is_cuda or INTERPRETED) and x.dtype != torch.float64 and has_triton()


def group_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    groups: int,
    eps: float,
    silu: bool = False,
    shift: Tensor | None = None,
) -> Tensor:
    """Normalised x + shift, and its SiLU; differentiable with respect to x alone. Statistics are float32.

    Args:
        x: [B, N, C].
        weight: [C], frozen.
        bias: [C], frozen.
        groups: G, of C / G consecutive channels each.
        eps: added to the variance.
        silu: follow with z * sigmoid(z).
        shift: [B, C] or [1, C], added to x at every position; frozen.

    Returns:
        [B, N, C], of the type of x.

    Raises:
        ValueError: a gradient to weight, bias or shift is asked for, or sizes do not fit.
    """
    return normalise(x, weight, bias, groups=groups, eps=eps, silu=silu, shift=shift)[0]


def normalise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    groups: int,
    eps: float,
    silu: bool = False,
    shift: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`group_norm`, with the mean and 1 / sqrt(variance + eps), each [B, G] float32, for its gradient."""
    if x.dim() != 3 or x.shape[2] % groups or weight.shape != bias.shape or weight.shape != x.shape[2:]:
        raise ValueError(
            f"group_norm of {groups} groups: x {list(x.shape)} is not [B, N, C], or weight {list(weight.shape)} and "
            f"bias {list(bias.shape)} are not [C]"
        )
    if torch.is_grad_enabled() and any(p is not None and p.requires_grad for p in (weight, bias, shift)):
        raise ValueError("group_norm has no gradient to weight, bias or shift: freeze them with requires_grad_(False)")
    if by_triton(x):
        from scaledreamer.kernels import group_norm_triton

        moved = None if shift is None else shift.contiguous()
        return group_norm_triton.group_norm(
            x.contiguous(), weight.contiguous(), bias.contiguous(), moved, groups, eps, silu
        )
    v = x if shift is None else x + shift[:, None].to(x.dtype)
    with torch.no_grad():
        grouped = v.float().unflatten(2, (groups, -1))  # [B, N, G, C / G]
        variance, mean = torch.var_mean(grouped, dim=(1, 3), correction=0)
        rstd = (variance + eps).rsqrt()
    y = F.group_norm(v.transpose(1, 2), groups, weight, bias, eps).transpose(1, 2)
    return (F.silu(y) if silu else y), mean, rstd


def gradient(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    silu: bool,
    shift: Tensor | None = None,
    skip: Tensor | None = None,
) -> Tensor:
    """What x [B, N, C] receives when the output of :func:`normalise` receives ``grad`` [B, N, C]; plus ``skip``.

    With x^ = (x + shift - mean) * rstd and d the gradient with respect to weight * x^ + bias, times the weight:
    rstd * (d - mean(d) - x^ * mean(d * x^)), means over each group.
    """
    if by_triton(x):
        from scaledreamer.kernels import group_norm_triton

        skip = None if skip is None else skip.contiguous()
        moved = None if shift is None else shift.contiguous()
        return group_norm_triton.group_norm_gradient(
            grad.contiguous(), x, mean, rstd, weight.contiguous(), bias.contiguous(), moved, skip, silu
        )
    per = x.shape[2] // mean.shape[1]
    v = x.float() if shift is None else x.float() + shift[:, None].float()
    scale = rstd.repeat_interleave(per, dim=1)[:, None]  # [B, 1, C]
    unit = (v - mean.repeat_interleave(per, dim=1)[:, None]) * scale
    d = grad.float()
    if silu:
        z = unit * weight.float() + bias.float()
        s = z.sigmoid()
        d = d * s * (1 + z * (1 - s))
    d = d * weight.float()

    def group_mean(v: Tensor) -> Tensor:
        return v.unflatten(2, (-1, per)).mean(dim=(1, 3)).repeat_interleave(per, dim=1)[:, None]

    found = scale * (d - group_mean(d) - unit * group_mean(d * unit))
    return (found if skip is None else found + skip.float()).to(x.dtype)
