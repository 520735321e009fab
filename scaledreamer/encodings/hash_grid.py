"""The multi-resolution hash grid of Instant NGP (Mueller et al., SIGGRAPH 2022, arXiv 2201.05989), in plain torch.

Every level is a lattice over the unit cube with a table of learned features. A coarse level has one entry per vertex
of its lattice; from where that takes more than ``2^log2_size`` entries on, vertices share entries by their hash. A
point's features are those of its cell's corners, interpolated, one level after the other.

Levels, indices and the order of the parameters are tiny-cuda-nn's, so that weights trained with it load.

Axes: N points, D coordinates, L levels, F features per level, C = 2^D corners of a cell.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from scaledreamer.constraints import PositiveInt
from scaledreamer.encodings.backends import SOURCES, Backend, implementation

PRIMES = (1, 2654435761, 805459861)  # of equation 4, one per axis
WORD = 0xFFFFFFFF  # indices are unsigned numbers of 32 bits
INITIAL = 1e-4  # entries start uniform within this much of 0
PADDING = 8  # dense tables are rounded up to a multiple of it

Growth = Annotated[float, Ge(1)]
Log2Size = Annotated[int, Ge(3), Le(24)]

DTYPES = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Types to read parameters in, by their names; None is the parameters' own."""


@dataclass(frozen=True)
class Level:
    """One lattice and its place in the parameters."""

    scale: float  # cells per unit of length; a number of 32 bits
    resolution: int  # vertices per axis
    offset: int  # entries of all levels before it
    entries: int  # of its table
    hashed: bool  # whether vertices share entries


def levels_of(
    *, n_levels: int, log2_size: int, base_resolution: int, growth: float, dims: int = 3
) -> tuple[Level, ...]:
    """The levels, coarse to fine (equations 2 and 3, with tiny-cuda-nn's half cells and rounding).

    A level's scale is base_resolution * growth^level - 1 and its resolution one more than that rounded up.
    """
    found: list[Level] = []
    rate = np.log2(np.float32(growth))
    for level in range(n_levels):
        # In 32 bits, as published weights were trained: a scale next to an integer decides on a resolution.
        grown = np.float32(2.0 ** float(np.float32(level) * rate))
        scale = float(grown * np.float32(base_resolution) - np.float32(1))
        resolution = math.ceil(scale) + 1
        vertices = resolution**dims
        entries = min(-(-vertices // PADDING) * PADDING, 2**log2_size)
        offset = found[-1].offset + found[-1].entries if found else 0
        found.append(Level(scale, resolution, offset, entries, hashed=vertices > entries))
    return tuple(found)


def rows_of(cells: Tensor, level: Level) -> Tensor:
    """Entries [N, C] of the corners of cells [N, D] (int64, by their lowest corner); x changes fastest.

    Outside the lattice numbers wrap as unsigned 32 bits do: any cell has entries, those of other cells.
    """
    ends = torch.stack([cells, cells + 1], dim=-1).unbind(dim=1)  # D times [N, 2]
    if level.hashed:  # equation 4; the table's size is a power of two, so its remainder is a mask
        mixed = [(end * prime) & (level.entries - 1) for end, prime in zip(ends, PRIMES, strict=False)]
        return _corners(mixed, torch.bitwise_xor)
    index = _corners([end * level.resolution**axis for axis, end in enumerate(ends)], torch.add)
    return (index & WORD) % level.entries


def _corners(ends: list[Tensor], combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """[N, 2] of each axis, its lower and its upper end -> [N, C], of each corner its ends combined."""
    return reduce(lambda fast, slow: combine(slow[:, :, None], fast[:, None, :]).flatten(1), ends)


def hash_encode(
    points: Tensor,
    table: Tensor,
    levels: tuple[Level, ...],
    *,
    dtype: torch.dtype | None = None,
    out: torch.dtype | None = None,
) -> Tensor:
    """Features [N, L * F], level-major, of points [N, D] in [0, 1]^D; differentiable with respect to both.

    This is the seam of the backends: another implementation has this signature and agrees with these numbers.

    Args:
        points: a level's vertices lie half a cell off its multiples of 1 / scale.
        table: [entries of all levels, F].
        levels: of :func:`levels_of`.
        dtype: that the table is read in; its gradient is that of the table before it was rounded.
        out: of the features. None is, as for ``dtype``, the table's own.
    """
    if dtype is not None:  # rounded, with the gradient of what was there before
        table = table + (table.to(dtype).to(table.dtype) - table).detach()
    found = []
    # One level at a time: all of them at once would hold L times as many corners, for no less work.
    for level, part in zip(levels, table.split([level.entries for level in levels]), strict=True):
        place = points * level.scale + 0.5
        low = place.detach().floor()
        share = place - low
        shares = _corners(list(torch.stack([1 - share, share], dim=-1).unbind(dim=1)), torch.mul)
        rows = rows_of(low.long(), level)
        # One feature at a time: a gather of single numbers goes back several times as fast as one of rows.
        found += [(c.gather(0, rows.flatten()).view_as(rows) * shares).sum(dim=1) for c in part.unbind(dim=1)]
    features = torch.stack(found, dim=1)
    return features if out is None else features.to(out)


class HashGrid(nn.Module):
    """Points -> features of a multi-resolution hash grid.

    The encoding is continuous everywhere, and piecewise multilinear. It is meant for [0, 1]^D; beyond, entries of the
    inside recur.

    Args:
        n_levels: L.
        features: F, per level.
        log2_size: a level has at most ``2^log2_size`` entries.
        base_resolution: vertices per axis of the coarsest level.
        growth: of the resolution from level to level; 1 makes all levels alike.
        dims: D.
        backend: what computes it. ``torch`` runs everywhere, ``triton`` on GPUs; ``auto`` takes Triton where it can.
            ``tinycudann`` is for comparisons.
        dtype: that parameters are read in, which is most of the memory traffic; they and their gradients stay
            float32. Interpolation and features are float32 as well, so that finite differences of features hold;
            where autocast is on (fields switch it off) features come in this type, too.

    Raises:
        UserError: the backend is not installed; when it is first called, that it needs a GPU.
    """

    gpu_backends: ClassVar[tuple[str, ...]] = tuple(SOURCES)

    def __init__(
        self,
        *,
        n_levels: PositiveInt = 16,
        features: Literal[1, 2, 4, 8] = 2,
        log2_size: Log2Size = 19,
        base_resolution: Annotated[int, Ge(2)] = 16,
        growth: Growth = 1.447269237440378,
        dims: Literal[2, 3] = 3,
        backend: Backend = "auto",
        dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    ) -> None:
        super().__init__()
        lattice: dict[str, Any] = {
            "n_levels": n_levels,
            "log2_size": log2_size,
            "base_resolution": base_resolution,
            "growth": growth,
            "dims": dims,
        }
        self.levels = levels_of(**lattice)
        self.features, self.dims, self.width = features, dims, n_levels * features
        entries = sum(level.entries for level in self.levels)
        # Flat, as tiny-cuda-nn stores it: level by level, entry by entry, feature by feature.
        self.params = nn.Parameter(torch.empty(entries * features).uniform_(-INITIAL, INITIAL))
        self._dtype = DTYPES[dtype]
        self._encode = implementation(
            backend, reference=hash_encode, dtype=self._dtype, settings={"features": features, **lattice}
        )

    def forward(self, points: Tensor) -> Tensor:
        """[..., D] in [0, 1]^D -> [..., width], level-major."""
        if points.shape[-1] != self.dims:  # they would be read as other points
            raise ValueError(f"points have {points.shape[-1]} coordinates, the hash grid has {self.dims}")
        table = self.params.view(-1, self.features)
        out = self._dtype if torch.is_autocast_enabled(points.device.type) else None
        found = self._encode(points.reshape(-1, self.dims), table, self.levels, dtype=self._dtype, out=out)
        return found.view(*points.shape[:-1], self.width)
