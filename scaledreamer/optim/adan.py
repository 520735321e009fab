"""Adan: Adaptive Nesterov Momentum Algorithm (Xie et al., arXiv 2208.06677)."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from scaledreamer.constraints import NonNegativeFloat, Probability
from scaledreamer.kernels.launch import INTERPRETED, has_triton

LARGE = 1 << 14
"""Numbers from which on a tensor on a GPU is updated by a kernel of its own."""


class Adan(torch.optim.Optimizer):
    """One step, with g the gradient and d its change since the step before (0 at the first):

        m = b1 m + (1 - b1) g;   v = b2 v + (1 - b2) d;   n = b3 n + (1 - b3) (g + b2 d)^2
        x -= lr (m / (1 - b1^k) + b2 v / (1 - b2^k)) / (sqrt(n / (1 - b3^k)) + eps)

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        betas: b1, b2, b3.
        eps: added to the denominator.
        weight_decay: x is divided by 1 + lr * weight_decay after the step or, with ``decoupled``, multiplied by
            1 - lr * weight_decay before it.
        decoupled: see ``weight_decay`` (the authors' ``no_prox``).
        max_grad_norm: norm that the gradient of all parameters together is scaled down to; 0 does not.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: NonNegativeFloat = 1e-3,
        betas: tuple[Probability, Probability, Probability] = (0.98, 0.92, 0.99),
        eps: NonNegativeFloat = 1e-8,
        weight_decay: NonNegativeFloat = 0.0,
        decoupled: bool = False,
        max_grad_norm: NonNegativeFloat = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "decoupled": decoupled}
        super().__init__(params, {**defaults, "max_grad_norm": max_grad_norm})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        scale = self._clip_factor()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            large = [p for p in parameters if _by_kernel(p)]
            small = [p for p in parameters if not _by_kernel(p)]
            if large:
                self._step_large(group, large, scale)
            if small:
                self._step_group(group, small, scale)
        return loss

    def _state_of(self, parameter: Tensor, gradient: Tensor) -> dict[str, Any]:
        """With one more step counted. The count is a tensor on the CPU, as in torch.optim: reading it does not wait."""
        state = self.state[parameter]
        if not state:
            zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_diff", "exp_avg_sq")}
            state.update(step=torch.zeros(()), **zeros, previous=gradient.clone())
        state["step"] += 1
        return state

    def _step_large(self, group: dict[str, Any], parameters: list[Tensor], scale: Tensor | None) -> None:
        from scaledreamer.kernels import adan

        for parameter in parameters:
            gradient: Tensor = parameter.grad  # type: ignore[assignment]
            new = not self.state[parameter]
            state = self._state_of(parameter, gradient)
            if new and scale is not None:
                state["previous"] *= scale
            adan.step(
                *(parameter, gradient, state, scale),
                count=float(state["step"]),
                **{name: group[name] for name in ("lr", "betas", "eps", "decoupled")},
                decay=group["weight_decay"],
            )

    def _clip_factor(self) -> Tensor | None:
        largest = self.defaults["max_grad_norm"]
        if not largest:
            return None
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        return (largest / (norm + self.defaults["eps"])).clamp(max=1.0)

    def _step_group(self, group: dict[str, Any], parameters: list[Tensor], scale: Tensor | None) -> None:
        beta1, beta2, beta3 = group["betas"]
        lr, eps, decay = group["lr"], group["eps"], group["weight_decay"]
        gradients: list[Tensor] = [p.grad for p in parameters]  # type: ignore[misc]
        if scale is not None:
            gradients = list(torch._foreach_mul(gradients, scale))
        states = [self._state_of(p, g) for p, g in zip(parameters, gradients, strict=True)]
        counts = [float(state["step"]) for state in states]  # a parameter may lack gradients at times
        m, v, n, previous = (
            [state[name] for state in states] for name in ("exp_avg", "exp_avg_diff", "exp_avg_sq", "previous")
        )
        change = torch._foreach_sub(gradients, previous)
        torch._foreach_lerp_(m, gradients, 1 - beta1)
        torch._foreach_lerp_(v, list(change), 1 - beta2)
        ahead = torch._foreach_add(gradients, change, alpha=beta2)
        torch._foreach_mul_(n, beta3)
        torch._foreach_addcmul_(n, ahead, ahead, 1 - beta3)
        torch._foreach_copy_(previous, gradients)
        denominator = torch._foreach_sqrt(n)
        torch._foreach_div_(denominator, [math.sqrt(1 - beta3**k) for k in counts])
        torch._foreach_add_(denominator, eps)
        if group["decoupled"]:
            torch._foreach_mul_(parameters, 1 - lr * decay)
        torch._foreach_addcdiv_(parameters, m, denominator, [-lr / (1 - beta1**k) for k in counts])
        torch._foreach_addcdiv_(parameters, v, denominator, [-lr * beta2 / (1 - beta2**k) for k in counts])
        if not group["decoupled"]:
            torch._foreach_div_(parameters, 1 + lr * decay)


def _by_kernel(parameter: Tensor) -> bool:
    gradient: Tensor = parameter.grad  # type: ignore[assignment]
    there = parameter.is_cuda or INTERPRETED
    plain = parameter.dtype == gradient.dtype == torch.float32 and parameter.is_contiguous()
    return there and plain and gradient.is_contiguous() and parameter.numel() >= LARGE and has_triton()
