"""PyTorch's own optimizers by their single kernel on GPUs."""

import torch


def fuse(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Have each group of parameters that are all on a GPU updated by one kernel, where the optimizer has it.

    A group whose options name an implementation keeps it. Set after construction, since an optimizer that was
    constructed with ``fused=True`` refuses to have its gradients clipped under mixed precision.
    """
    for group in optimizer.param_groups:
        free = "fused" in group and group["fused"] is None and group.get("foreach") is None
        plain = not any(group.get(name) for name in ("differentiable", "capturable"))
        if free and plain and all(p.is_cuda for p in group["params"]):
            group["fused"] = True
    return optimizer
