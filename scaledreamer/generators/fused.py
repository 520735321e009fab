"""3DConv-net's synthesis for GPUs: channels innermost, one kernel between two convolutions.

The same numbers as :class:`scaledreamer.generators.conv3d.Synthesis` and the same draws, up to rounding. Volumes are in
the type of the convolutions and parameters stay as they are. All styles come out of one product.

Axes: P prompts, S voxels per side, I O channels in and out, F features; volumes are [P, S, S, S, channels], axes z y x.
"""

import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from scaledreamer.generators.half import HalfPart
from scaledreamer.generators.modulated import Noise, SynthesisLayer, ToFeatures
from scaledreamer.randomness import StepRandom

if TYPE_CHECKING:
    from scaledreamer.generators.conv3d import Synthesis


WIDEST = 128
"""Features that a program of the kernels can hold."""


def refusal(synthesis: "Synthesis") -> str | None:
    """Why kernels cannot compute this; None: they can."""
    features = len(synthesis.first_block.torgb.bias)
    return f"it has {WIDEST} features at most, not {features}" if features > WIDEST else None


def type_of_volumes(x: Tensor) -> torch.dtype:
    """Of the convolutions on the device of ``x``: float16 inside an autocast to any half precision, else float32."""
    return torch.float16 if torch.is_autocast_enabled(x.device.type) else torch.float32


def draws(synthesis: "Synthesis", prompts: int, noise: Noise, random: StepRandom | None) -> list[Tensor]:
    """The noise [P, 1, S, S, S] of all layers, in the order in which they are met; none where none is drawn."""
    if noise != "random" or random is None:
        return []
    return [random.normal(prompts, 1, *(layer.resolution,) * 3) for layer in _layers(synthesis)]


def synthesize(synthesis: "Synthesis", w: Tensor, noise: Noise, drawn: list[Tensor], *, dtype: torch.dtype) -> Tensor:
    """w [P, w_dim] -> features [P, F, S, S, S], which lie as ``torch.channels_last_3d``; needs Triton.

    Args:
        drawn: see :func:`draws`.
        dtype: of the volumes.
    """
    first, blocks = synthesis.first_block, list(synthesis.blocks)
    part = HalfPart(active=dtype == torch.float16)
    with torch.autocast(w.device.type, enabled=False):
        layers = _layers(synthesis)
        grains: list[Tensor] | list[None] = [layer.noise_const for layer in layers] if noise == "const" else drawn
        grains = grains or [None] * len(layers)
        heads = [first.torgb, *(block.torgb for block in blocks)]
        styles = part.enter(_styles(w.float(), [*layers, *heads]))  # type: ignore[arg-type]
        widths = [layer.affine.weight.shape[0] for layer in (*layers, *heads)]
        of_layers = [s.contiguous() for s in styles.split(widths, dim=1)]
        of_heads = of_layers[len(layers) :]
        # What convolutions read is made small, and what they give large again, so that their sums fit into float16.
        read = [s / _size(layer) for s, layer in zip(of_layers, layers, strict=False)] + [None]
        const = part.enter(first.const).permute(1, 2, 3, 0)
        x, features = (const * read[0][:, None, None, None]).to(dtype), None
        for n, head in enumerate(heads):
            at = 2 * n  # of the block's second layer
            if n:
                volume = blocks[n - 1].const_bias
                volume = None if volume is None else part.enter(volume)  # type: ignore[arg-type]
                x = _first(x, layers[at - 1], of_layers[at - 1], read[at], volume, grains[at - 1], part)
            styled = layers[at], of_layers[at], read[at + 1]
            x, features = _second(x, features, *styled, head, of_heads[n], grains[at], part)  # type: ignore[arg-type]
    assert features is not None
    return features.permute(0, 4, 1, 2, 3)


def _size(layer: SynthesisLayer) -> float:
    """Of a convolution's sums, whose weights and inputs are of size 1."""
    return math.sqrt(layer.weight[0].numel())


def _layers(synthesis: "Synthesis") -> list[SynthesisLayer]:
    return [synthesis.first_block.conv1, *(m for block in synthesis.blocks for m in (block.conv0, block.conv1))]  # type: ignore[misc]


def _styles(w: Tensor, layers: list[SynthesisLayer | ToFeatures]) -> Tensor:
    """Styles [P, sum of I] of layers, one after the other, each of which maps w [P, w_dim] to its own."""
    weight, bias = (torch.cat([getattr(layer.affine, name) for layer in layers]) for name in ("weight", "bias"))
    return torch.addmm(bias, w, weight.t(), alpha=1 / math.sqrt(w.shape[1]))


def _convolved(x: Tensor, weight: Tensor) -> Tensor:
    """[P, S, S, S, I] by [O, 3, 3, 3, I] -> [P, S, S, S, O]."""
    out = F.conv3d(x.permute(0, 4, 1, 2, 3), weight.permute(0, 4, 1, 2, 3), padding=1)
    return out.permute(0, 2, 3, 4, 1).contiguous()  # copies where the library turned it around


def _first(
    x: Tensor,
    layer: SynthesisLayer,
    style: Tensor,
    following: Tensor,
    volume: Tensor | None,
    grains: Tensor | None,
    part: HalfPart,
) -> Tensor:
    """A block's first layer: [P, R, R, R, I], styled, to [P, S, S, S, O], times the ``following`` style."""
    from scaledreamer.kernels import synthesis as kernels
    from scaledreamer.kernels.synthesis_weights import weights

    weight, scale, _ = weights(part.enter(layer.weight), style, x.dtype)
    strength, bias = part.enter(layer.noise_strength), part.enter(layer.bias)
    return kernels.grow(_convolved(x, weight), scale * _size(layer), grains, strength, bias, volume, following)


def _second(
    x: Tensor,
    features: Tensor | None,
    layer: SynthesisLayer,
    style: Tensor,
    following: Tensor | None,
    head: ToFeatures,
    of_head: Tensor,
    grains: Tensor | None,
    part: HalfPart,
) -> tuple[Tensor, Tensor]:
    """A block's second layer and its share in the features: (hidden, times the ``following`` style, features)."""
    from scaledreamer.kernels import synthesis as kernels
    from scaledreamer.kernels.synthesis_weights import weights

    weight, scale, _ = weights(part.enter(layer.weight), style, x.dtype)
    matrix = part.enter(head.weight)[:, :, 0, 0, 0].t() * (of_head / math.sqrt(of_head.shape[1]))[:, :, None]
    given = [
        *(_convolved(x, weight), scale * _size(layer), grains),
        *(part.enter(layer.noise_strength), part.enter(layer.bias), following),
        *(matrix.contiguous(), part.enter(head.bias), features),  # the matrix is [P, O, F]
    ]
    if part.active and following is None:
        return x, cast(Tensor, _Last.apply(part, *given))
    return kernels.finish(*given)


class _Last(torch.autograd.Function):
    """The features of the last layer, which leave the part in float32: no tensor of their size is written twice."""

    @staticmethod
    def forward(ctx: Any, part: HalfPart, *given: Tensor | None) -> Tensor:
        from scaledreamer.kernels import synthesis as kernels

        ctx.part, ctx.added = part, given[-1] is not None
        ctx.save_for_backward(*given[:-1])
        return kernels.finish(*given, wide=True)[1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from scaledreamer.kernels import synthesis as kernels

        given, asked = ctx.saved_tensors, ctx.needs_input_grad[1:]
        grad = ctx.part.narrow(grads[0].contiguous())
        return None, *kernels.finish_gradients(given[0], grad, given, added=ctx.added, asked=asked)
