"""A part of a network in float16, whose way back is scaled so that its gradients fit into that.

Float16 rounds eight times finer than bfloat16, which differences of neighbouring voxels show, but ends at 65,504 and
rounds away what is under 6e-8. So the gradient that comes to the part is scaled to a Euclidean norm of NORM, and what
goes to its float32 inputs and parameters is scaled back. All on the device: nothing waits, and no step is left out as
with a loss that is scaled as a whole.
"""

from typing import Any, cast

import torch
from torch import Tensor

NORM = 32.0
"""Of the gradient that goes into the part. Of 128^3 x 32 numbers it leaves each a few thousandths where all are of one
size, and the sums of all of them, should they have one sign, below the end; a single one still has room to grow."""

LEAST = 1e-30
"""Gradients of a smaller norm are scaled up less."""


class HalfPart:
    """Of one call; with ``active`` false :meth:`enter` does nothing."""

    def __init__(self, *, active: bool) -> None:
        self.active = active
        self.scale: Tensor  # of the gradients inside, set by the way back

    def enter(self, x: Tensor) -> Tensor:
        """A float32 tensor that the part reads, for which it has a gradient."""
        return cast(Tensor, _Enter.apply(x, self)) if self.active else x

    def narrow(self, grad: Tensor) -> Tensor:
        """The gradient inside, float16, of the float32 one that comes to the part's only output."""
        from scaledreamer.kernels.scaled import scaled

        self.scale = NORM / torch.linalg.vector_norm(grad).clamp(min=LEAST)
        return scaled(grad, self.scale, torch.float16)


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, part: HalfPart) -> Tensor:
        ctx.part = part
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] / ctx.part.scale, None
