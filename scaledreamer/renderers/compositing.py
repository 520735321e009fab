"""Alpha compositing along rays.

Axes: N rays, S samples from near to far; or packed, P lists of K places.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

OPAQUE = 1 - 1e-6  # an alpha of one would leave log(0) behind it


def alphas(density: Tensor, intervals: Tensor, kind: Literal["linear", "exp"]) -> Tensor:
    """Share [N, S] of the light that each interval stops, in [0, 1].

    ``exp``: 1 - exp(-density dt), the integral. ``linear``: density dt, its first order, as the reference; it is the
    larger one and is cut at 1.
    """
    optical = density * intervals
    return optical.clamp(max=1.0) if kind == "linear" else -torch.expm1(-optical)


def weights(alpha: Tensor) -> Tensor:
    """Share [N, S] of the light that comes from each sample: alpha_i prod_{j < i} (1 - alpha_j)."""
    # In logarithms: the backward pass of a product would wait for the device to look for zeros.
    passed = torch.log1p(-alpha.clamp(max=OPAQUE))
    before = torch.cumsum(passed, dim=1) - passed
    return alpha * torch.exp(before)


def packed_weights(optical: Tensor, ray: Tensor) -> Tensor:
    """Share [P, K] of the light of its ray that comes from each place: (1 - exp(-o_k)) exp(-sum of o_j before it).

    Args:
        optical: density times length, [P, K].
        ray: of each place; those of a ray follow each other, near to far.
    """
    # In 64 bits, since one sum runs over all rays.
    before = torch.cumsum(optical.double(), dim=1) - optical
    places = torch.arange(ray.shape[1], device=ray.device)
    begins = F.pad(ray[:, 1:] != ray[:, :-1], (1, 0), value=True)[:, : ray.shape[1]]
    first = torch.where(begins, places, 0).cummax(dim=1).values if ray.shape[1] else ray
    passed = torch.exp(before.gather(1, first) - before).to(optical.dtype)
    return -torch.expm1(-optical) * passed
