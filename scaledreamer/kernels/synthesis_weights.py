"""A modulated convolution's weights, from float32 [O, I, k, k, k] to what the convolution reads, in one pass.

Prompts share them: styles scale the convolution's inputs, and the scales that are computed here its outputs. See
:mod:`scaledreamer.generators.modulated` for the formula, and :mod:`scaledreamer.kernels.synthesis` for the rest.

Axes: P prompts, O and I channels out and in, K = k^3 places of a convolution's window.
"""

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from scaledreamer.kernels.launch import on, operator


@triton.jit
def _write(
    weight, style, out, scale, power, P,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, K: tl.constexpr, PROMPTS: tl.constexpr, BLOCK: tl.constexpr,
    PLACES: tl.constexpr,
):  # fmt: skip
    """One output channel of :func:`weights`."""
    o = tl.program_id(0)
    k, p = tl.arange(0, PLACES), tl.arange(0, PROMPTS)
    total = tl.zeros([PROMPTS], tl.float32)
    start = o.to(tl.int64) * (INPUTS * K)
    for block in range(0, INPUTS, BLOCK):
        i = block + tl.arange(0, BLOCK)
        there = i < INPUTS
        inside = there[:, None] & (k < K)[None, :]
        w = tl.load(weight + start + i[:, None] * K + k[None, :], inside, other=0.0)
        tl.store(out + start + k[None, :] * INPUTS + i[:, None], w.to(out.dtype.element_ty), inside)
        energy = tl.sum(w * w, axis=1)
        tl.store(power + o * INPUTS + i, energy, there)
        s = tl.load(style + p[:, None] * INPUTS + i[None, :], (p < P)[:, None] & there[None, :], other=0.0)
        total += tl.sum(s * s * energy[None, :], axis=1)
    tl.store(scale + p * OUTPUTS + o, tl.rsqrt(total + 1e-8), p < P)


@triton.jit
def _write_back(
    grad, weight, style, pull, out, P,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, K: tl.constexpr, PROMPTS: tl.constexpr, BLOCK: tl.constexpr,
    PLACES: tl.constexpr,
):  # fmt: skip
    """Writes ``out`` [O, I, K] of ``grad`` [O, K, I] and of what scales pull, gradients times third powers."""
    o = tl.program_id(0)
    k, p = tl.arange(0, PLACES), tl.arange(0, PROMPTS)
    start = o.to(tl.int64) * (INPUTS * K)
    each = tl.load(pull + p * OUTPUTS + o, p < P, other=0.0)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = i < INPUTS
    inside = there[:, None] & (k < K)[None, :]
    s = tl.load(style + p[:, None] * INPUTS + i[None, :], (p < P)[:, None] & there[None, :], other=0.0)
    back = tl.sum(s * s * each[:, None], axis=0)
    w = tl.load(weight + start + i[:, None] * K + k[None, :], inside, other=0.0)
    g = tl.load(grad + start + k[None, :] * INPUTS + i[:, None], inside, other=0.0).to(tl.float32)
    tl.store(out + start + i[:, None] * K + k[None, :], g - w * back[:, None], inside)


write: Any = _write  # type checkers do not know that they are launched by an index
write_back: Any = _write_back


def _options(weight: Tensor, prompts: int) -> dict[str, int]:
    outputs, inputs = weight.shape[:2]
    places = weight[0, 0].numel()
    width = max(1, triton.next_power_of_2(prompts))
    block = max(1, min(64, triton.next_power_of_2(inputs)))
    sizes = {"INPUTS": inputs, "OUTPUTS": outputs, "K": places, "PROMPTS": width, "BLOCK": block}
    return {**sizes, "PLACES": triton.next_power_of_2(places), "num_warps": 4}


@operator("synthesis_weights", "(Tensor weight, Tensor style, ScalarType dtype) -> (Tensor, Tensor, Tensor)")
def weights(weight: Tensor, style: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """A convolution's weights as it reads them, and the scales of its outputs.

    Args:
        weight: [O, I, k, k, k]; style: [P, I], of the inputs; dtype: of the convolution.

    Returns:
        (weights [O, k, k, k, I] of that type, scales [P, O] = rsqrt(sum |style w|^2 + 1e-8), and for the way back the
        sums [O, I] of the weights' squares).
    """
    out, scale, power = _weights(weight, style, dtype)
    with torch.cuda.device_of(weight):
        on(write, (len(weight),))(*(weight, style, out, scale, power, len(style)), **_options(weight, len(style)))
    return out, scale, power


@weights.register_fake
def _weights(weight: Tensor, style: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    outputs, inputs, *window = weight.shape
    out = weight.new_empty((outputs, *window, inputs), dtype=dtype)
    return out, style.new_empty((len(style), outputs)), style.new_empty((outputs, inputs))


@operator("synthesis_weights_gradient", "(Tensor grad, Tensor weight, Tensor style, Tensor pull) -> Tensor")
def _weights_gradient(grad: Tensor, weight: Tensor, style: Tensor, pull: Tensor) -> Tensor:
    out = torch.empty_like(weight)
    options = _options(weight, len(style))
    with torch.cuda.device_of(weight):
        grid = (len(weight), triton.cdiv(options["INPUTS"], options["BLOCK"]))
        on(write_back, grid)(grad, weight, style, pull, out, len(style), **options)
    return out


@_weights_gradient.register_fake
def _(grad: Tensor, weight: Tensor, style: Tensor, pull: Tensor) -> Tensor:
    return torch.empty_like(weight)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(inputs[0], inputs[1], output[1], output[2])


def _backward(ctx: Any, grad: Tensor, of_scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    weight, style, scale, power = ctx.saved_tensors
    pull = of_scale * scale**3
    of_style = -style * (pull[:, :, None] * power).sum(dim=1)
    return _weights_gradient(grad.contiguous(), weight, style, pull), of_style, None


weights.register_autograd(_backward, setup_context=_save)
