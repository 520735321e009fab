"""The hash grid by tiny-cuda-nn (https://github.com/NVlabs/tiny-cuda-nn), where somebody has built it.

Its parameters are laid out as ours, so it computes with ours: it reads them, and gradients go to them.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from scaledreamer.encodings.backends import require_gpu
from scaledreamer.errors import UserError


def hash_encode_tiny_cuda(
    points: Tensor,
    table: Tensor,
    *,
    dtype: torch.dtype | None = None,
    out: torch.dtype | None = None,
    **settings: Any,
) -> Tensor:
    """Features [N, L * F] of points [N, D] in the table [entries, F]; differentiable with respect to both.

    Args:
        points: in [0, 1]^D, on a GPU.
        table: of a :class:`scaledreamer.encodings.hash_grid.HashGrid` with these settings.
        dtype: None or float32, or float16: it then computes and adds up gradients in float16 all through.
        out: of the features; None is the table's.
        settings: n_levels, features, log2_size, base_resolution, growth and dims of the grid.

    Raises:
        UserError: the points are not on a GPU, or this version of tiny-cuda-nn lays its parameters out otherwise.
    """
    require_gpu("tinycudann", points)
    with torch.cuda.device_of(points):
        encoding, expected = _encoding(tuple(settings.items()), dtype or torch.float32, points.device)
    if expected != table.numel():
        raise UserError(
            f"hash grid with backend=tinycudann: its version here has {expected} parameters where this grid has "
            f"{table.numel()}; choose backend=auto or torch."
        )
    encoding.params = table.reshape(-1)
    try:
        with torch.cuda.device_of(points):
            return encoding(points).to(out or table.dtype)
    finally:
        encoding.params = None  # it is kept, the graph behind the table must not be


@lru_cache(maxsize=16)
def _encoding(settings: tuple[tuple[str, Any], ...], dtype: torch.dtype, device: torch.device) -> tuple[Any, int]:
    """One of its modules on the current device, which is ``device``, without parameters, and how many it had."""
    import tinycudann  # pyright: ignore[reportMissingImports]

    grid = dict(settings)
    config = {
        "otype": "HashGrid",
        "n_levels": grid["n_levels"],
        "n_features_per_level": grid["features"],
        "log2_hashmap_size": grid["log2_size"],
        "base_resolution": grid["base_resolution"],
        "per_level_scale": grid["growth"],
    }
    made = tinycudann.Encoding(grid["dims"], config, dtype=dtype)
    count = made.params.numel()
    del made.params  # an own parameter, in whose place any tensor can now be put
    return made, count
