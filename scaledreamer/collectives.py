"""What the processes of a run work out together in the middle of a step, without waiting for each other on the host.

Sums are put into the device's stream like any kernel. (``Strategy.reduce`` of Lightning, and so ``sync_dist=True``, has
a barrier before each of them.) Without a process group they are those of this process alone.
"""

from collections.abc import Callable

import torch
from torch import Tensor, distributed


def together() -> bool:
    """Whether this process shares the run with others."""
    return distributed.is_available() and distributed.is_initialized()


def largest(values: Tensor) -> Tensor:
    """The largest of all processes' ``values``, elementwise and in place."""
    if together():
        distributed.all_reduce(values, op=distributed.ReduceOp.MAX)
    return values


def mean(values: Tensor) -> Tensor:
    """The mean of all processes' ``values``, elementwise and in place."""
    if together():
        distributed.all_reduce(values)  # gloo has no means
        values /= distributed.get_world_size()
    return values


def largest_number(mine: int, device: torch.device) -> Callable[[], int]:
    """Begin to find the largest of all processes' numbers.

    Returns:
        a call that gives it, and waits for what ``device`` was asked before now, but not for what was asked since.
    """
    found = largest(torch.full((), mine, device=device))  # a fill: a tensor made of a number would be waited for
    if device.type != "cuda":
        return lambda: int(found)
    read = torch.empty((), dtype=found.dtype, pin_memory=True).copy_(found, non_blocking=True)
    there = torch.cuda.Event()
    there.record()

    def number() -> int:
        there.synchronize()
        return int(read)

    return number
