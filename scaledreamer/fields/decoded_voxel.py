"""A field whose heads were applied to the voxels: what is interpolated is distance and colour, not features.

Several times as cheap as :class:`scaledreamer.fields.voxel.VoxelField`, which applies its heads at every point and
takes finite differences there: one look-up of seven numbers per point. In return what lies between two voxels is
linear.

Axes: P shapes, N points per shape, R voxels per side.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from scaledreamer.fields import trilinear
from scaledreamer.fields.base import FieldSamples


@dataclass(frozen=True)
class DecodedVoxelField:
    """Signed distance offset + |x| - sphere_radius and colour sigmoid(logits) of P voxel grids.

    Beyond the outermost voxels offset and logits fall to zero, and the signed distance becomes the sphere's.
    """

    voxels: Tensor  # [P, 4, R, R, R], axes z y x: offset of the distance (world units), three colour logits
    radius: float  # half the side of the box that the voxels fill, world units
    sphere_radius: float

    @property
    def prompts(self) -> int:
        """P, the number of shapes."""
        return self.voxels.shape[0]

    def sdf(self, points: Tensor) -> Tensor:
        """Signed distances [P, N]; see :class:`scaledreamer.fields.base.SdfField`."""
        with torch.autocast(points.device.type, enabled=False):
            offset = trilinear.sample(self.voxels[:, :1].float(), points / self.radius)[..., 0]
            return offset + points.norm(dim=-1) - self.sphere_radius

    def query(self, points: Tensor) -> FieldSamples:
        """Signed distance, colour and gradient at points [P, N, 3]."""
        with torch.autocast(points.device.type, enabled=False):
            voxels = self.voxels.float()
            table = torch.cat([voxels, slopes(voxels[:, 0], spacing=2 * self.radius / voxels.shape[-1])], dim=1)
            offset, logits, slope = trilinear.sample(table, points / self.radius).split([1, 3, 3], dim=-1)
            distance = points.norm(dim=-1)
            return FieldSamples(
                sdf=offset[..., 0] + distance - self.sphere_radius,
                color=torch.sigmoid(logits),
                gradient=slope + points / distance.clamp_min(1e-6)[..., None],
            )


def slopes(volume: Tensor, *, spacing: float) -> Tensor:
    """Central differences [P, 3, R, R, R] along x, y and z of volumes [P, R, R, R] (axes z y x); one-sided at the ends.

    Args:
        spacing: between voxels, world units.
    """
    padded = F.pad(volume[:, None], (1,) * 6, mode="replicate")[:, 0]
    side = volume.shape[-1]
    steps = volume.new_full((side,), 2 * spacing)
    steps[0] = steps[-1] = spacing  # the end's neighbour beyond is itself
    inner = slice(1, -1)
    x = (padded[:, inner, inner, 2:] - padded[:, inner, inner, :-2]) / steps
    y = (padded[:, inner, 2:, inner] - padded[:, inner, :-2, inner]) / steps[:, None]
    z = (padded[:, 2:, inner, inner] - padded[:, :-2, inner, inner]) / steps[:, None, None]
    return torch.stack([x, y, z], dim=1)
