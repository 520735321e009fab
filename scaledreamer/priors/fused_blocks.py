"""Convolutional parts of a frozen diffusion model with fewer passes over memory, from diffusers' own and equal to them.

Every bias of a convolution is added by the kernel that comes next anyway. Nothing is kept for gradients to weights:
of a residual block, its input and the output of its first convolution.

Axes: B images, C channels, H W height and width, N = H * W.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scaledreamer.kernels import group_norm as norms
from scaledreamer.kernels import rows as kernels


def rows(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, N, C]; no copy where channels are innermost."""
    return x.permute(0, 2, 3, 1).contiguous().flatten(1, 2)


def image(x: Tensor, height: int) -> Tensor:
    """[B, N, C] -> [B, C, H, W], a view whose channels are innermost."""
    return x.unflatten(1, (height, -1)).permute(0, 3, 1, 2)


def convolve(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """The convolution without its bias."""
    return F.conv2d(x, conv.weight, None, conv.stride, conv.padding)  # pyright: ignore[reportArgumentType]


def convolve_back(grad: Tensor, conv: nn.Conv2d, size: torch.Size) -> Tensor:
    """What the input [B, C, H, W] of :func:`convolve` receives."""
    # Nothing reads this one. But it has to look as it would with channels innermost: cuDNN's caller lays the gradient
    # out like it, which for the input of torch.nn.grad.conv2d_input means two transposed copies per convolution.
    like = torch.empty(size, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last)
    places = list(conv.stride), list(conv.padding), list(conv.dilation)  # pyright: ignore[reportArgumentType]
    return torch.ops.aten.convolution_backward(
        grad, like, conv.weight, None, *places, False, [0, 0], conv.groups, [True, False, False]
    )[0]


class FrozenConv(nn.Module):
    """A convolution that keeps nothing but its input's size for the gradient to it."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Whether it is an ordinary one."""
        plain = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
        return plain and conv.groups == 1 and set(conv.dilation) == {1}

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W']."""
        if torch.is_grad_enabled() and x.requires_grad:
            return cast(Tensor, _Convolution.apply(x, self.conv))
        return self.conv(x)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: nn.Conv2d) -> Tensor:
        ctx.conv, ctx.size = conv, x.shape
        return conv(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        with torch.autocast(grads[0].device.type, enabled=False):
            return convolve_back(grads[0], ctx.conv, ctx.size), None


class NormActivation(nn.Module):
    """Group normalisation and SiLU in one."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        return image(norms.group_norm(rows(x), **of(self.norm), silu=True), x.shape[2])


def of(norm: nn.GroupNorm) -> dict[str, Any]:
    """A module's parameters as the arguments of a function."""
    return {"weight": norm.weight, "bias": norm.bias, "groups": norm.num_groups, "eps": norm.eps}


class FusedResnet(nn.Module):
    """A residual block: norm, SiLU, convolution, time embedding; norm, SiLU, convolution; added to the input.

    The first convolution's bias and the time embedding are the second norm's shift.

    Args:
        block: diffusers' ``ResnetBlock2D``, of which :meth:`fits` is true; its weights are taken over.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.conv1, self.conv2 = block.conv1, block.conv2
        self.shortcut: nn.Conv2d | None = block.conv_shortcut
        self.time: nn.Linear | None = block.time_emb_proj
        biases = [c.bias for c in (self.conv2, self.shortcut) if c is not None and c.bias is not None]
        first = cast(Tensor, self.conv1.bias).detach()
        if self.time is not None:
            first = (first.float() + self.time.bias.float()).to(first.dtype)
        self.first: Tensor
        self.last: Tensor
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("last", torch.stack([b.detach().float() for b in biases]).sum(0), persistent=False)

    @staticmethod
    def fits(block: Any) -> bool:
        """Whether the block is of the kind that Stable Diffusion has, and nothing more."""
        return (
            block.time_embedding_norm == "default"
            and isinstance(block.nonlinearity, nn.SiLU)
            and not (block.up or block.down or block.skip_time_act)
            and block.output_scale_factor == 1
            and all(FrozenConv.fits(c) and c.bias is not None for c in (block.conv1, block.conv2))
        )

    def forward(self, x: Tensor, temb: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        """[B, C, H, W], time embedding [B, E] -> [B, C', H, W], differentiable with respect to the first."""
        shift = self.first[None]
        if self.time is not None and temb is not None:
            shift = F.linear(F.silu(temb), self.time.weight, self.first)
        elif self.time is not None:
            shift = self.conv1.bias[None]  # pyright: ignore[reportOptionalSubscript]
        if torch.is_grad_enabled() and x.requires_grad:
            return cast(Tensor, _Resnet.apply(x, shift, self))
        return self.value(x, shift)[0]

    def value(self, x: Tensor, shift: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The block's output, and what :meth:`back` needs."""
        height = x.shape[2]
        start = rows(x)
        y, *first = norms.normalise(start, **of(self.norm1), silu=True)
        h = rows(convolve(image(y, height), self.conv1))
        del y  # so that its memory is free for what comes
        y, *second = norms.normalise(h, **of(self.norm2), silu=True, shift=shift)
        out = rows(convolve(image(y, height), self.conv2))
        skip = start if self.shortcut is None else rows(convolve(image(start, height), self.shortcut))
        out = kernels.add(out, skip, self.last)
        return image(out, height), (start, *first, h, *second, shift)

    def back(self, grad: Tensor, height: int, kept: tuple[Tensor, ...]) -> Tensor:
        """What the input receives, of ``grad`` [B, C', H, W]."""
        x, mean1, rstd1, h, mean2, rstd2, shift = kept
        grad = image(rows(grad), height)
        inner = image(h, height).shape
        d = rows(convolve_back(grad, self.conv2, inner))
        d = norms.gradient(d, h, mean2, rstd2, self.norm2.weight, self.norm2.bias, silu=True, shift=shift)
        size = image(x, height).shape
        d = rows(convolve_back(image(d, height), self.conv1, size))
        skip = rows(grad if self.shortcut is None else convolve_back(grad, self.shortcut, size))
        d = norms.gradient(d, x, mean1, rstd1, self.norm1.weight, self.norm1.bias, silu=True, skip=skip)
        return image(d, height)


class _Resnet(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, block: FusedResnet) -> Tensor:
        out, kept = block.value(x, shift)
        ctx.save_for_backward(*kept)
        ctx.block, ctx.height = block, x.shape[2]
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        with torch.autocast(grads[0].device.type, enabled=False):
            return ctx.block.back(grads[0], ctx.height, ctx.saved_tensors), None, None
