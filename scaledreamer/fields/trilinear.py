"""Trilinear interpolation of voxel grids, by whichever operator is fast on the device.

Axes: P grids, N points per grid, F features, R voxels per side.
"""

import torch
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
    """As a weighted sum of table rows: two to three times as fast as ``grid_sample`` on a CPU."""
    grids, width, side = voxels.shape[:3]
    table = voxels.flatten(2).transpose(1, 2).reshape(-1, width)  # [P * R^3, F]
    rows, shares = _corners(points, side)
    rows += torch.arange(grids).view(-1, 1, 1) * side**3
    features = F.embedding_bag(rows.view(-1, 8), table, mode="sum", per_sample_weights=shares.view(-1, 8))
    return features.view(grids, -1, width)


def _corners(points: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The 8 voxels around each point: (their places in the flattened grid, their shares), [P, N, 8] each."""
    place = (points + 1) * (side / 2) - 0.5  # [P, N, 3] in voxels
    low = place.floor()
    share = torch.stack([1 - (place - low), place - low], dim=-1)  # [P, N, 3, 2]
    index = torch.stack([low, low + 1], dim=-1)
    share = share * ((index >= 0) & (index < side))
    index = index.clamp(0, side - 1).long().clamp_(min=0)  # NaN, of a run that diverged, becomes some very low number
    (x, y, z), (u, v, w) = index.unbind(dim=2), share.unbind(dim=2)  # [P, N, 2] each
    rows = (z[..., :, None, None] * side + y[..., None, :, None]) * side + x[..., None, None, :]
    shares = w[..., :, None, None] * v[..., None, :, None] * u[..., None, None, :]
    return rows.flatten(2), shares.flatten(2)
