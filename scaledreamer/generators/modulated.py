"""Style-modulated 3-D convolutions: the layers of the 3DConv generator (StyleGAN2's, one dimension up).

A style scales a convolution's input channels; demodulation brings the expected output variance back to one:

    y_o = d_o * sum_i w_oi * (s_i x_i),    d_o = rsqrt(sum_i |w_oi|^2 s_i^2 + 1e-8)

Axes: P prompts, I O channels in and out, R voxels per side; volumes are [P, channels, z, y, x].
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scaledreamer.randomness import StepRandom

LEAK, GAIN, CLAMP = 0.2, math.sqrt(2), 256.0
Noise = Literal["random", "const", "none"]


class _LeakyClamp(torch.autograd.Function):
    """clamp(sqrt(2) * leaky_relu(x), +-256) that keeps only its output for the backward pass.

    The next convolution keeps that tensor anyway, so a layer costs one volume of memory instead of three.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = F.leaky_relu(x, LEAK).mul_(GAIN).clamp_(-CLAMP, CLAMP)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        (gradient,) = gradients
        unclamped = torch.ops.aten.hardtanh_backward(gradient, out, -CLAMP, CLAMP)
        return torch.ops.aten.leaky_relu_backward(unclamped, out, LEAK, True).mul_(GAIN)


def leaky_clamp(x: Tensor) -> Tensor:
    """clamp(sqrt(2) * leaky_relu(x, 0.2), -256, 256), elementwise."""
    return _LeakyClamp.apply(x)  # type: ignore[return-value]


class EqualLinear(nn.Module):
    """Linear layer with weights of unit variance; the gain 1/sqrt(inputs) is applied at run time.

    ``rate`` < 1 slows the layer's learning: weights are stored divided by it and multiplied at run time.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """[P, inputs] -> [P, outputs]."""
        return F.linear(x, self.weight * (self.rate / math.sqrt(x.shape[-1])), self.bias * self.rate)


def modulated_conv3d(x: Tensor, weight: Tensor, style: Tensor, *, demodulate: bool = True) -> Tensor:
    """Convolve each sample of a batch with its own styled weights, same padding.

    For one prompt the style goes into the weights, which copies no volume; for several it goes around one shared
    convolution, since grouped convolutions in 3-D are slow.

    Args:
        x: [P, I, R, R, R].
        weight: [O, I, k, k, k], k odd.
        style: [P, I], float32.
    """
    padding = weight.shape[-1] // 2
    if x.shape[0] == 1:
        styled = weight * style.view(1, -1, 1, 1, 1)
        if demodulate:
            styled = styled * (styled.square().sum(dim=(1, 2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        return F.conv3d(x, styled, padding=padding)
    out = F.conv3d(x * _channels(style, x), weight, padding=padding)
    if demodulate:
        power = weight.square().sum(dim=(2, 3, 4))  # [O, I]
        # Summed, not multiplied as matrices: autocast would do that in half precision.
        scale = ((style.square()[:, None] * power).sum(dim=-1) + 1e-8).rsqrt()  # [P, O]
        out = out * _channels(scale, out)
    return out


def _channels(factor: Tensor, volume: Tensor) -> Tensor:
    """[P, C] -> [P, C, 1, 1, 1] in the volume's dtype."""
    return factor.to(volume.dtype)[:, :, None, None, None]


def upsample(volume: Tensor) -> Tensor:
    """Twice the voxels per side, trilinear, corners aligned: [P, C, R, R, R] -> [P, C, 2 R, 2 R, 2 R].

    A product with one matrix per axis: unlike the interpolation kernels it runs in half precision under autocast, and
    its backward pass adds in a fixed order.
    """
    prompts, channels, side = volume.shape[:3]
    points = torch.eye(side, device=volume.device)[None]  # one point per row
    matrix = F.interpolate(points, scale_factor=2, mode="linear", align_corners=True)[0].to(volume.dtype)  # [R, 2 R]
    out = matrix.t() @ volume.reshape(prompts * channels, side, side * side)  # along z
    out = matrix.t() @ out.view(-1, 2 * side, side, side)  # along y
    return (out @ matrix).view(prompts, channels, 2 * side, 2 * side, 2 * side)


class SynthesisLayer(nn.Module):
    """Modulated 3^3 convolution [-> upsampling] -> noise -> bias -> leaky ReLU -> clamp."""

    noise_const: Tensor

    def __init__(self, inputs: int, outputs: int, *, w_dim: int, resolution: int, up: bool = False) -> None:
        super().__init__()
        self.resolution, self.up = resolution, up
        self.affine = EqualLinear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3, 3))
        self.register_buffer("noise_const", torch.randn(resolution, resolution, resolution))
        self.noise_strength = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor, noise: Noise, random: StepRandom | None) -> Tensor:
        """[P, I, R', R', R'] and w [P, w_dim] -> [P, O, R, R, R]; R = 2 R' when upsampling."""
        x = modulated_conv3d(x, self.weight, self.affine(w).float())
        if self.up:
            x = upsample(x)
        if noise == "random" and random is not None:
            grains = random.normal(x.shape[0], 1, *x.shape[2:])
            x = x.add_((grains * self.noise_strength).to(x.dtype))
        elif noise == "const":
            x = x.add_((self.noise_const * self.noise_strength).to(x.dtype))
        return leaky_clamp(x.add_(self.bias.to(x.dtype).view(-1, 1, 1, 1)))


class ToFeatures(nn.Module):
    """Modulated 1^3 convolution to the field's features, not demodulated."""

    def __init__(self, inputs: int, outputs: int, *, w_dim: int) -> None:
        super().__init__()
        self.affine = EqualLinear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1, 1))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """[P, I, R, R, R] -> [P, O, R, R, R]."""
        style = self.affine(w).float() / math.sqrt(x.shape[1])
        out = modulated_conv3d(x, self.weight, style, demodulate=False)
        return out.add_(self.bias.to(out.dtype).view(-1, 1, 1, 1))
