"""Alpha compositing along rays.

Axes: N rays, S samples from near to far.
"""

from typing import Literal

import torch
from torch import Tensor

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
