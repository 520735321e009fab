"""Adan's update of one tensor as one Triton kernel, which reads six tensors and writes five.

The steps of :class:`scaledreamer.optim.adan.Adan` one by one read and write a number 38 times.
"""

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from scaledreamer.kernels.launch import on

BLOCK = 1024
"""Numbers per program: 16 bytes of each tensor per thread, twice."""


@triton.jit(do_not_specialize=["n_numbers"])
def _adan(
    parameter, grad, first, second, third, previous, factor,
    beta1, beta2, beta3, of_first, of_second, of_third, eps, before, after, n_numbers,
    CLIPPED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n_numbers
    g = tl.load(grad + i, inside, other=0.0)
    if CLIPPED:
        g *= tl.load(factor)
    d = g - tl.load(previous + i, inside, other=0.0)
    m, v = tl.load(first + i, inside, other=0.0), tl.load(second + i, inside, other=0.0)
    m += (1 - beta1) * (g - m)
    v += (1 - beta2) * (d - v)
    ahead = g + beta2 * d
    n = beta3 * tl.load(third + i, inside, other=0.0) + (1 - beta3) * ahead * ahead
    x = tl.load(parameter + i, inside, other=0.0) * before
    x -= (of_first * m + of_second * v) / (tl.sqrt_rn(n) * of_third + eps)
    tl.store(parameter + i, x * after, inside)
    tl.store(first + i, m, inside)
    tl.store(second + i, v, inside)
    tl.store(third + i, n, inside)
    tl.store(previous + i, g, inside)


kernel: Any = _adan  # type checkers do not know that it is launched by an index


def step(
    parameter: Tensor,
    grad: Tensor,
    state: dict[str, Tensor],
    factor: Tensor | None,
    *,
    count: float,
    lr: float,
    betas: tuple[float, float, float],
    eps: float,
    decay: float,
    decoupled: bool,
) -> None:
    """One step in place.

    Args:
        parameter, grad: contiguous, float32, on a GPU; and so the state's ``exp_avg``, ``exp_avg_diff``,
            ``exp_avg_sq`` and ``previous``.
        factor: [] of the gradient; None is 1.
        count: of steps, from 1 on.
        decay: ``weight_decay``.
    """
    beta1, beta2, beta3 = betas
    moments = (state[name] for name in ("exp_avg", "exp_avg_diff", "exp_avg_sq", "previous"))
    of_first, of_second = lr / (1 - beta1**count), lr * beta2 / (1 - beta2**count)
    of_third = (1 - beta3**count) ** -0.5
    before = 1 - lr * decay if decoupled else 1.0
    after = 1.0 if decoupled else 1 / (1 + lr * decay)
    clipped = factor is not None
    with torch.cuda.device_of(parameter):
        on(kernel, (triton.cdiv(parameter.numel(), BLOCK),))(
            *(parameter, grad, *moments, factor if clipped else grad, float(beta1), float(beta2), float(beta3)),
            *(of_first, of_second, of_third, float(eps), before, after, parameter.numel()),
            CLIPPED=clipped,
            BLOCK=BLOCK,
            num_warps=4,
        )
