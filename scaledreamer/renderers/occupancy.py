"""Where matter may be: a grid of cells that remembers the densities of a run (Instant NGP, arXiv 2201.05989).

A cell's number is the largest share of light, to first order, that one step of a ray was seen to lose in it; it fades
from update to update. Cells above a threshold are looked at by rays, the rest is taken for empty.

The grid is over the box [-radius, radius]^3, its cells ordered x y z with z fastest, as in nerfacc. R cells per side.
"""

from typing import Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor, nn

from scaledreamer.collectives import largest
from scaledreamer.constraints import NonNegativeFloat, PositiveInt
from scaledreamer.fields.base import DensityField

SPREAD = (0.8191725133961645, 0.6710436067037893, 0.5497004779019703)
"""Powers 1 to 3 of 1 / 1.2207..., the root of x^4 = x + 1: their multiples fill the unit cube evenly (R sequence)."""


class OccupancyGrid(nn.Module):
    """Occupied cells, kept up to date while the field learns; in checkpoints, for training and evaluation alike.

    Nothing is random: an update looks at the same place of every cell, and the places of one update after another fill
    the cell. So all processes of a run agree, and a resumed run goes on as it was.

    Args:
        resolution: R.
        every: training batches between updates; the first batch makes one.
        decay: of a cell's number from one update to the next.
        threshold: cells with at least this number, or with the mean of all where that is less, are occupied.
    """

    occs: Tensor  # [R^3]
    binaries: Tensor  # [1, R, R, R] bool

    def __init__(
        self,
        *,
        resolution: PositiveInt = 32,
        every: PositiveInt = 16,
        decay: Annotated[float, Gt(0), Le(1)] = 0.95,
        threshold: NonNegativeFloat = 0.01,
    ) -> None:
        super().__init__()
        self.resolution, self.every, self.decay, self.threshold = resolution, every, decay, threshold
        self.register_buffer("occs", torch.zeros(resolution**3))
        # Before anything was seen, anything may be anywhere.
        self.register_buffer("binaries", torch.ones(1, resolution, resolution, resolution, dtype=torch.bool))

    @torch.no_grad()
    def update(self, field: DensityField, *, step_size: float, batch: int) -> None:
        """Look at every cell, where this batch's turn has come.

        Args:
            field: of the batch; a cell is occupied where one of its P shapes, or of another process's, has matter.
            step_size: of rays, world units.
            batch: number of training batches before this one.
        """
        turn, rest = divmod(batch, self.every)
        if rest:
            return
        points = self._points(turn, radius=field.radius).expand(field.prompts, -1, -1)
        seen = field.density(points).amax(dim=0) * step_size  # [R^3]
        self.occs.copy_(torch.maximum(self.occs * self.decay, largest(seen)))
        self.binaries.copy_((self.occs >= self.occs.mean().clamp(max=self.threshold)).view_as(self.binaries))

    def _points(self, turn: int, *, radius: float) -> Tensor:
        """One point [R^3, 3] of every cell."""
        side = torch.arange(self.resolution, device=self.occs.device)
        # Numbers of Python, so that nothing is copied to the device.
        axes = [(side + (0.5 + turn * s) % 1) * (2 * radius / self.resolution) - radius for s in SPREAD]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 3)

    def occupied(self, points: Tensor, *, radius: float) -> Tensor:
        """Whether the cells of points [..., 3] in the box are occupied, bool [...]."""
        cells = ((points + radius) * (self.resolution / (2 * radius))).long().clamp_(0, self.resolution - 1)
        x, y, z = cells.unbind(dim=-1)
        return self.binaries.view(-1)[(x * self.resolution + y) * self.resolution + z]
