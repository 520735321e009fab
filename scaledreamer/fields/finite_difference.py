"""Gradients of a signed distance by forward differences."""

import torch
from torch import Tensor


def offsets(points: Tensor, *, eps: float, clamp: float | None = None) -> Tensor:
    """Points [P, N, 3] -> [P, 4 * N, 3]: the points, then the points moved by ``eps`` along x, y and z.

    ``clamp`` keeps the moved points in [-clamp, clamp]^3, as the reference does: differences taken from points
    outside that box are then wrong.
    """
    steps = eps * torch.eye(3, device=points.device, dtype=points.dtype)
    moved = points[:, None] + steps[:, None]  # [P, 3, N, 3]
    if clamp is not None:
        moved = moved.clamp(-clamp, clamp)
    return torch.cat([points, moved.flatten(1, 2)], dim=1)


def forward_difference(values: Tensor, *, eps: float) -> tuple[Tensor, Tensor]:
    """Values [P, 4 * N] at :func:`offsets` -> (values [P, N] at the points, gradients [P, N, 3])."""
    center, *moved = values.unflatten(1, (4, -1)).unbind(dim=1)
    return center, torch.stack([(m - center) / eps for m in moved], dim=-1)
