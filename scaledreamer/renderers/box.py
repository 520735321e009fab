"""Where rays are in the box of a field."""

import torch
from torch import Tensor


def box_bounds(origins: Tensor, directions: Tensor, *, radius: float, nearest: float) -> tuple[Tensor, Tensor]:
    """Distances [..., 1] from which on and up to which rays [..., 3] are in the box [-radius, radius]^3.

    None is nearer than ``nearest``. A ray that misses the box gets two equal distances.
    """
    # A direction of 0 along an axis: the ray is between that axis's planes for ever or never.
    inverse = 1 / torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    one, other = (-radius - origins) * inverse, (radius - origins) * inverse
    enter = one.minimum(other).amax(dim=-1, keepdim=True).clamp(min=nearest)
    leave = one.maximum(other).amin(dim=-1, keepdim=True)
    return enter, leave.maximum(enter)
