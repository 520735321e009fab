"""Where along a ray to sample: uniform proposals first, then more where they found density.

The edges of intervals are distances t along the ray, ascending. Dense tensors of fixed shapes, no gradients.

Axes: N rays, K proposal intervals, S intervals.
"""

import torch
from torch import Tensor


def resample(edges: Tensor, cdf: Tensor, count: int, jitter: Tensor) -> Tensor:
    """Edges [N, count + 1] of intervals whose centres are drawn from a piecewise linear distribution.

    Centre i is the inverse of the distribution at (i + jitter) / count of its range; edges lie halfway between
    neighbouring centres, the outer ones half a distance beyond, inside the old range (as nerfacc's
    ``importance_sampling``).

    Args:
        edges: [N, K + 1].
        cdf: [N, K + 1] at the edges, ascending.
        jitter: [N, 1] in [0, 1); 0.5 is the deterministic choice.
    """
    steps = torch.arange(count, device=edges.device, dtype=edges.dtype)
    low, high = cdf[:, :1], cdf[:, -1:]
    u = low + (steps + jitter) * (high - low) / count  # [N, count]
    above = torch.searchsorted(cdf.contiguous(), u.contiguous(), right=True).clamp(1, cdf.shape[1] - 1)
    cdf_0, cdf_1 = cdf.gather(1, above - 1), cdf.gather(1, above)
    edge_0, edge_1 = edges.gather(1, above - 1), edges.gather(1, above)
    rise = cdf_1 - cdf_0
    share = torch.where(rise < 1e-10, 0.5, (u - cdf_0) / rise.clamp_min(1e-10))
    centers = edge_0 + share * (edge_1 - edge_0)
    inner = (centers[:, 1:] + centers[:, :-1]) / 2
    first = centers[:, :1] - (centers[:, 1:2] - centers[:, :1]) / 2
    last = centers[:, -1:] + (centers[:, -1:] - centers[:, -2:-1]) / 2
    return torch.cat([first.maximum(edges[:, :1]), inner, last.minimum(edges[:, -1:])], dim=1)


def uniform_edges(near: Tensor, far: Tensor, count: int, jitter: Tensor) -> Tensor:
    """Edges [N, count + 1] of equal intervals between near [N, 1] and far [N, 1], all shifted by the jitter [N, 1]."""
    unit = torch.cat([torch.zeros_like(near), torch.ones_like(near)], dim=1)
    return near + (far - near) * resample(unit, unit, count, jitter)


def proposal_cdf(edges: Tensor, density: Tensor) -> Tensor:
    """Chance [N, K + 1] that a ray has ended before each edge, for densities [N, K] in the intervals.

    1 - T with T_k = exp(-sum_{j < k} density_j dt_j); the last value is 1, whatever passes the volume ends there.
    """
    optical = torch.cumsum(density * (edges[:, 1:] - edges[:, :-1]), dim=1)
    ended = 1 - torch.exp(-optical[:, :-1])
    return torch.cat([torch.zeros_like(ended[:, :1]), ended, torch.ones_like(ended[:, :1])], dim=1)


def merge(coarse: Tensor, fine: Tensor) -> Tensor:
    """All edges of both, each ascending, in ascending order: [N, A] and [N, B] -> [N, A + B]."""
    coarse, fine = coarse.contiguous(), fine.contiguous()
    # Each goes behind as many as come before it among its own and among the others: cheaper than sorting all.
    merged = coarse.new_empty(len(coarse), coarse.shape[1] + fine.shape[1])
    own = [torch.arange(edges.shape[1], device=edges.device) for edges in (coarse, fine)]
    merged.scatter_(1, own[0] + torch.searchsorted(fine, coarse), coarse)
    return merged.scatter_(1, own[1] + torch.searchsorted(coarse, fine, right=True), fine)
