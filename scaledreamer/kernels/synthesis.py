"""3DConv-net's layers around their convolutions by Triton kernels: operators of PyTorch, differentiable once.

What lies between two convolutions is one kernel, which reads a convolution's output and writes the next one's input;
the way back computes everything in between again, so that those two tensors are all that is kept. Prompts share the
convolutions' weights: styles scale what goes in, demodulation what comes out.

Custom operators and not ``triton_op``, for the reasons in :mod:`scaledreamer.encodings.hash_grid_triton`. Nothing waits
for the GPU, all can be captured in a CUDA graph, and the same inputs give the same bits.

Axes: P prompts, S voxels per side, R = S / 2, C channels, I and O in and out, k of a convolution's window, F features
of the field. Volumes are contiguous [P, S, S, S, C], axes z y x, in the type of the convolutions, and all else float32.
"""

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
from torch import Tensor

from scaledreamer.kernels import synthesis_kernels
from scaledreamer.kernels.launch import on, operator

kernels: Any = synthesis_kernels  # type checkers do not know that they are launched by an index

TILE = 8192
"""Numbers of a volume that a program holds: a row along x, of 64 channels at 128 voxels per side."""

CHANNELS = 32
"""Most channels of a program."""

SPREAD = "half"
"""Type of the products that stand for trilinear interpolation along x: "float32", or "half", that of the volumes, which
are rounded to it anyway: a twentieth of the generator's time, and gradients are as near to float32's."""


def _tile(side: int, width: int) -> dict[str, int]:
    """Constants of programs over rows of ``side`` voxels and ``width`` channels."""
    fine = max(16, side)
    channels = max(16, min(CHANNELS, TILE // fine, triton.next_power_of_2(width)))
    rows = {"ROWS": max(1, side // 16), "FINE": fine, "COARSE": max(16, side // 2), "CHANNELS": channels}
    return {**rows, "num_warps": 8 if fine * channels >= TILE else 4, "num_stages": 1}


def _grid(volume: Tensor, tile: dict[str, int], *, blocks: bool = True) -> tuple[int, int]:
    """Programs of a fine volume [P, S, S, S, C]: (rows, blocks of channels)."""
    prompts, side, *_, width = volume.shape
    return prompts * side * (side // tile["ROWS"]), triton.cdiv(width, tile["CHANNELS"]) if blocks else 1


def _spread(volume: Tensor) -> Any:
    exact = SPREAD == "float32" or volume.dtype == torch.float32
    return triton.language.float32 if exact else getattr(triton.language, str(volume.dtype).removeprefix("torch."))


def _noise(noise: Tensor | None, like: Tensor, side: int) -> tuple[Tensor, int]:
    """(grains, numbers from one prompt's to the next's); any tensor where there are none."""
    if noise is None:
        return like, 0
    return noise, side**3 if noise.dim() > 3 else 0


GROW = "Tensor coarse, Tensor scale, Tensor? noise, Tensor strength, Tensor bias, Tensor? volume, Tensor style"


@operator("synthesis_grow", f"({GROW}) -> Tensor")
def grow(
    coarse: Tensor,
    scale: Tensor,
    noise: Tensor | None,
    strength: Tensor,
    bias: Tensor,
    volume: Tensor | None,
    style: Tensor,
) -> Tensor:
    """(act(scale * up(coarse) + strength * noise + bias) + volume) * style, [P, 2 R, 2 R, 2 R, C].

    Args:
        coarse: [P, R, R, R, C]; scale, style: [P, C]; bias: [C]; strength: [1].
        noise: [P, 1, 2 R, 2 R, 2 R] or, for all prompts the same, [2 R, 2 R, 2 R].
        volume: [C, 2 R, 2 R, 2 R], learned.
    """
    out = _grown(coarse, scale, noise, strength, bias, volume, style)
    side, width = out.shape[1], out.shape[-1]
    grains, step = _noise(noise, bias, side)
    tile = _tile(side, width)
    with torch.cuda.device_of(coarse):
        on(kernels.grow, _grid(out, tile))(
            *(coarse, scale, grains, strength, bias, bias if volume is None else volume, style, out, step),
            **{"C": width, "R": side // 2, **tile},
            NOISE=noise is not None,
            VOLUME=volume is not None,
            SPREAD=_spread(coarse),
        )
    return out


@grow.register_fake
def _grown(
    coarse: Tensor,
    scale: Tensor,
    noise: Tensor | None,
    strength: Tensor,
    bias: Tensor,
    volume: Tensor | None,
    style: Tensor,
) -> Tensor:
    prompts, side, *_, width = coarse.shape
    return coarse.new_empty((prompts, 2 * side, 2 * side, 2 * side, width))


@operator("synthesis_grow_gradients", f"(Tensor grad, {GROW}) -> (Tensor, Tensor, Tensor, Tensor)")
def _grow_gradients(
    grad: Tensor,
    coarse: Tensor,
    scale: Tensor,
    noise: Tensor | None,
    strength: Tensor,
    bias: Tensor,
    volume: Tensor | None,
    style: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``coarse``; of style and, channel by channel, strength [P, 2, C]; of bias and scale [P, 2, C], the
    bias's prompt by prompt; of the learned volume."""
    prompts, side, *_, width = grad.shape
    grains, step = _noise(noise, bias, side)
    tile, sizes = _tile(side, width), {"C": width, "R": side // 2}
    grid = _grid(grad, tile)
    half = grad.new_empty((prompts, side, side, side // 2, width))
    sums = scale.new_empty((prompts, grid[0] // prompts, 2, width))
    of_volume = scale.new_empty(() if volume is None else volume.shape)
    with torch.cuda.device_of(grad):
        on(kernels.grow_back, grid)(
            *(grad, coarse, scale, grains, strength, bias, bias if volume is None else volume, style, half, sums, step),
            **{**sizes, **tile, "NOISE": noise is not None, "VOLUME": volume is not None, "SPREAD": _spread(coarse)},
        )
        if volume is not None:
            block = {"BLOCK": 64, "CHANNELS": min(64, triton.next_power_of_2(width)), "num_warps": 4}
            many = triton.cdiv(side**3, block["BLOCK"]), triton.cdiv(width, block["CHANNELS"])
            on(kernels.volume_back, many)(grad, style, of_volume, prompts, C=width, VOXELS=side**3, **block)
    of_coarse, rest = _shrink_zy(half, coarse, scale)
    return of_coarse, sums.sum(dim=1), rest, of_volume


@_grow_gradients.register_fake
def _(
    grad: Tensor,
    coarse: Tensor,
    scale: Tensor,
    noise: Tensor | None,
    strength: Tensor,
    bias: Tensor,
    volume: Tensor | None,
    style: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    pair = scale.new_empty((len(scale), 2, coarse.shape[-1]))
    of_volume = scale.new_empty(() if volume is None else volume.shape)
    return torch.empty_like(coarse), pair, torch.empty_like(pair), of_volume


def _shrink_zy(half: Tensor, coarse: Tensor | None, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """The rest of the way back through the upsampling of ``half`` [P, 2 R, 2 R, R, C]; with ``scale``, times that, and
    the sums [P, 2, C] over a prompt's voxels of what is scaled, and of it times ``coarse``."""
    prompts, *_, side, width = half.shape
    out = half.new_empty((prompts, side, side, side, width))
    scaled = scale is not None
    tile = _tile(side, width)
    sums = torch.empty((prompts, side * side, 2, width) if scaled else (1, 1), device=half.device)
    options = {"COARSE": tile["FINE"], "CHANNELS": min(32, tile["CHANNELS"]), "num_warps": 4}
    with torch.cuda.device_of(half):
        on(kernels.shrink_zy, (prompts * side * side, triton.cdiv(width, options["CHANNELS"])))(
            *(half, coarse if scaled else half, scale if scaled else half, out, sums),
            **{"C": width, "R": side, **options, "SCALED": scaled},
        )
    return out, sums.sum(dim=1)


def _grow_save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _grow_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    volume = ctx.saved_tensors[5]
    of_coarse, one, other, of_volume = _grow_gradients(grad.contiguous(), *ctx.saved_tensors)
    of_strength = one[:, 1].sum()[None] if ctx.needs_input_grad[3] else None
    of_style, of_bias, of_scale = one[:, 0], other[:, 0].sum(dim=0), other[:, 1]
    return of_coarse, of_scale, None, of_strength, of_bias, None if volume is None else of_volume, of_style


grow.register_autograd(_grow_backward, setup_context=_grow_save)


FINISH = (
    "Tensor volume, Tensor scale, Tensor? noise, Tensor strength, Tensor bias, Tensor? style, Tensor head, "
    "Tensor head_bias"
)


@operator("synthesis_finish", f"({FINISH}, Tensor? before, bool wide=False) -> (Tensor, Tensor)")
def finish(
    volume: Tensor,
    scale: Tensor,
    noise: Tensor | None,
    strength: Tensor,
    bias: Tensor,
    style: Tensor | None,
    head: Tensor,
    head_bias: Tensor,
    before: Tensor | None,
    wide: bool = False,
) -> tuple[Tensor, Tensor]:
    """(x * style, up(before) + x @ head + head_bias) with x = act(scale * volume + strength * noise + bias).

    Args:
        volume: [P, S, S, S, C]; scale: [P, C]; bias: [C]; strength: [1].
        noise: [P, 1, S, S, S] or, for all prompts the same, [S, S, S].
        style: [P, C]; None: nothing comes next, and the first output is empty.
        head: [P, C, F]; head_bias: [F].
        before: features [P, R, R, R, F].
        wide: whether the features are in float32 whatever the volumes are in.
    """
    out, features = _finished(volume, scale, noise, strength, bias, style, head, head_bias, before, wide)
    side, width, shown = volume.shape[1], volume.shape[-1], head.shape[-1]
    grains, step = _noise(noise, bias, side)
    tile = _tile(side, width)
    given = style is not None, before is not None
    with torch.cuda.device_of(volume):
        on(kernels.finish, _grid(volume, tile, blocks=False))(
            *(volume, scale, grains, strength, bias, style if given[0] else bias, head, head_bias),
            *(before if given[1] else bias, out, features, step),
            **{"C": width, "F": shown, "S": side, **tile, "FEATURES": max(16, triton.next_power_of_2(shown))},
            NOISE=noise is not None,
            STYLED=given[0],
            ADDED=given[1],
            SPREAD=_spread(volume),
        )
    return out, features


@finish.register_fake
def _finished(
    volume: Tensor,
    scale: Tensor,
    noise: Tensor | None,
    strength: Tensor,
    bias: Tensor,
    style: Tensor | None,
    head: Tensor,
    head_bias: Tensor,
    before: Tensor | None,
    wide: bool = False,
) -> tuple[Tensor, Tensor]:
    out = volume.new_empty((0,)) if style is None else torch.empty_like(volume)
    dtype = torch.float32 if wide else volume.dtype
    return out, volume.new_empty((*volume.shape[:-1], head.shape[-1]), dtype=dtype)


@operator(
    "synthesis_finish_gradients",
    f"(Tensor grad_out, Tensor grad_features, {FINISH}) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _finish_gradients(
    grad_out: Tensor,
    grad_features: Tensor,
    volume: Tensor,
    scale: Tensor,
    noise: Tensor | None,
    strength: Tensor,
    bias: Tensor,
    style: Tensor | None,
    head: Tensor,
    head_bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``volume``; of bias, scale, strength and style [P, 4, C]; of the head; of its bias."""
    prompts, side, *_, width = volume.shape
    shown = head.shape[-1]
    grains, step = _noise(noise, bias, side)
    tile = _tile(side, width)
    del tile["COARSE"]
    grid = _grid(volume, tile)
    out = torch.empty_like(volume)
    sums = scale.new_empty((prompts, grid[0] // prompts, 4, width))
    of_head = head.new_empty((prompts, grid[0] // prompts, width, shown))
    of_bias = head.new_empty((grid[0], shown))
    with torch.cuda.device_of(volume):
        on(kernels.finish_back, grid)(
            *(grad_out if style is not None else out, grad_features, volume, scale, grains, strength, bias),
            *(style if style is not None else bias, head, out, sums, of_head, of_bias, step),
            **{"C": width, "F": shown, "S": side, **tile, "FEATURES": max(16, triton.next_power_of_2(shown))},
            NOISE=noise is not None,
            STYLED=style is not None,
        )
    return out, sums.sum(dim=1), of_head.sum(dim=1), of_bias.sum(dim=0)


@_finish_gradients.register_fake
def _(
    grad_out: Tensor,
    grad_features: Tensor,
    volume: Tensor,
    scale: Tensor,
    noise: Tensor | None,
    strength: Tensor,
    bias: Tensor,
    style: Tensor | None,
    head: Tensor,
    head_bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sums = scale.new_empty((len(scale), 4, scale.shape[1]))
    return torch.empty_like(volume), sums, torch.empty_like(head), torch.empty_like(head_bias)


@operator("synthesis_upsample_gradient", "(Tensor grad) -> Tensor")
def _upsample_gradient(grad: Tensor) -> Tensor:
    """[P, R, R, R, F] of the gradient [P, 2 R, 2 R, 2 R, F] of what was upsampled."""
    prompts, side, *_, width = grad.shape
    tile = _tile(side, width)
    half = grad.new_empty((prompts, side, side, side // 2, width))
    with torch.cuda.device_of(grad):
        on(kernels.shrink_x, _grid(grad, tile))(grad, half, C=width, R=side // 2, SPREAD=_spread(grad), **tile)
    return _shrink_zy(half, None, None)[0]


@_upsample_gradient.register_fake
def _(grad: Tensor) -> Tensor:
    prompts, side, *_, width = grad.shape
    return grad.new_empty((prompts, side // 2, side // 2, side // 2, width))


def _finish_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *given, before, _ = inputs
    ctx.save_for_backward(*given)
    ctx.added = before is not None


def _finish_backward(ctx: Any, grad_out: Tensor, grad_features: Tensor) -> tuple[Tensor | None, ...]:
    grads = grad_out.contiguous(), grad_features.contiguous()
    return *finish_gradients(*grads, ctx.saved_tensors, added=ctx.added, asked=ctx.needs_input_grad), None


finish.register_autograd(_finish_backward, setup_context=_finish_save)


def finish_gradients(
    grad_out: Tensor,
    grad_features: Tensor,
    given: tuple[Tensor | None, ...],
    *,
    added: bool,
    asked: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """What the arguments of :func:`finish` but for ``wide`` receive.

    Args:
        grad_out: of the first output, or anything where no style is given.
        grad_features: contiguous, as :func:`finish` gives the features.
        given: the arguments but for the last two.
        added: whether there were features before.
        asked: which of the arguments need a gradient.
    """
    grad_features = grad_features.to(given[0].dtype)  # type: ignore[union-attr]
    of_volume, sums, of_head, of_head_bias = _finish_gradients(grad_out, grad_features, *given)
    of_bias, of_scale, of_noise, of_style = sums.unbind(dim=1)
    of_strength = of_noise.sum()[None] if asked[3] else None
    of_before = _upsample_gradient(grad_features) if added and asked[8] else None
    rest = of_style if given[5] is not None else None, of_head, of_head_bias, of_before
    return of_volume, of_scale, None, of_strength, of_bias.sum(dim=0), *rest
