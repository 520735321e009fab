"""Adan: Adaptive Nesterov Momentum Algorithm (Xie et al., arXiv 2208.06677)."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from scaledreamer.constraints import NonNegativeFloat, Probability


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
            if parameters:
                self._step_group(group, parameters, scale)
        return loss

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
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if not self.state[parameter]:
                zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_diff", "exp_avg_sq")}
                # The count is a tensor on the CPU, as in torch.optim: reading it does not wait for the device.
                self.state[parameter].update(step=torch.zeros(()), **zeros, previous=gradient.clone())
        for parameter in parameters:
            self.state[parameter]["step"] += 1
        counts = [float(self.state[p]["step"]) for p in parameters]  # a parameter may lack gradients at times
        m, v, n, previous = (
            [self.state[p][name] for p in parameters] for name in ("exp_avg", "exp_avg_diff", "exp_avg_sq", "previous")
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
