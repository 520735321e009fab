"""Trilinear interpolation of voxel grids, by whichever operator is fast on the device.

Axes: P grids, N points per grid, F features, R voxels per side.
"""

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional as F


def sample(voxels: Tensor, points: Tensor) -> Tensor:
    """Features [P, N, F] of grids [P, F, R, R, R] (axes z y x) at points [P, N, 3] (x y z, the grid fills [-1, 1]^3).

    Voxel values sit at the centres of the voxels; beyond the outermost ones they fall to 0, as with ``grid_sample``'s
    ``padding_mode="zeros", align_corners=False``, which this equals. Differentiable with respect to both.
    """
    if points.device.type == "cpu":
        return _gathered(voxels, points)
    features = F.grid_sample(voxels, points[:, None, None], mode="bilinear", padding_mode="zeros", align_corners=False)
    return features[:, :, 0, 0].transpose(1, 2)


def _gathered(voxels: Tensor, points: Tensor) -> Tensor:
    """As a weighted sum of table rows: several times as fast as ``grid_sample`` on a CPU."""
    grids, width, side = voxels.shape[:3]
    framed = F.pad(voxels, (1,) * 6)  # zeros all around, so that no corner needs to be looked at
    table = framed.flatten(2).transpose(1, 2).reshape(-1, width)  # [P * (R + 2)^3, F]
    rows, shares = _corners(points, side)
    rows, shares = rows.view(-1, 8), shares.view(-1, 8)
    if shares.requires_grad:
        features = F.embedding_bag(rows, table, mode="sum", per_sample_weights=shares)
    else:
        features = _WeightedRows.apply(table, rows, shares)
    return features.view(grids, -1, width)  # type: ignore[union-attr]


def _corners(points: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The 8 voxels around each point: (their places in the flattened, framed grids, their shares), [P, N, 8] each."""
    place = ((points + 1) * (side / 2) - 0.5).clamp(-1, side)  # [P, N, 3] in voxels; -1 and side are the frame
    # NaN, of a run that diverged, becomes some very low number: its share stays NaN, its place must be one.
    low = place.detach().floor().clamp(max=side - 1).int().clamp_(min=-1)
    share = place - low
    (x, y, z), edge = low.unbind(dim=-1), side + 2
    first = ((z + 1) * edge + y + 1) * edge + x + 1  # [P, N]
    first += torch.arange(len(first), dtype=first.dtype)[:, None] * edge**3
    steps = torch.tensor([dx + edge * (dy + edge * dz) for dz in (0, 1) for dy in (0, 1) for dx in (0, 1)])
    # Corner by corner: products whose last axis is two long take several times as long.
    u, v, w = ((1 - s, s) for s in share.unbind(dim=-1))
    layers = [a * b for a in w for b in v]
    shares = torch.stack([a * b for a in layers for b in u], dim=-1)
    return first[..., None] + steps.to(first.dtype), shares


class _WeightedRows(torch.autograd.Function):
    """Sums [N, F] of table rows [M, F] by 8 shares [N, 8] each, differentiable with respect to the table.

    PyTorch's own backward passes sort the places or add one at a time; a sparse matrix product does neither.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, shares: Tensor) -> Tensor:
        ctx.save_for_backward(rows, shares)
        ctx.length = len(table)
        return F.embedding_bag(rows, table, mode="sum", per_sample_weights=shares)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rows, shares = ctx.saved_tensors
        (gradient,) = gradients
        ends = np.arange(0, rows.numel() + 1, 8, dtype=np.int32)
        matrix = sparse.csr_array((shares.numpy().ravel(), rows.numpy().ravel(), ends), shape=(len(rows), ctx.length))
        return torch.from_numpy(matrix.T @ gradient.contiguous().numpy()), None, None
