"""The field that is moved and scaled: hand-worked values, derivatives, batches."""

import torch

from scaledreamer.fields.base import FieldSamples
from scaledreamer.fields.decoded_voxel import DecodedVoxelField
from scaledreamer.fields.placed import PlacedField


class Balls:
    """Balls of radius 0.5, red where x > 0 in their own frame."""

    radius, prompts = 1.0, 2

    def sdf(self, points):
        return points.norm(dim=-1) - 0.5

    def query(self, points):
        red = (points[..., :1] > 0).float()
        return FieldSamples(
            sdf=self.sdf(points),
            color=torch.cat([red, 0 * red, 0 * red], dim=-1),
            gradient=points / points.norm(dim=-1, keepdim=True),
        )


SHIFT = torch.tensor([[0.3, 0.0, 0.0], [0.0, 0.0, -0.2]])
SCALE = torch.tensor([[2.0], [0.5]])


def test_a_ball_that_was_moved_and_scaled():
    field = PlacedField(field=Balls(), shift=SHIFT, scale=SCALE)
    assert (field.radius, field.prompts) == (1.0, 2)
    points = torch.tensor([[[0.3, 0.0, 2.0], [0.2, 0.0, 0.0]], [[0.0, 0.0, 0.8], [-1.0, 0.0, -0.2]]])
    found = field.query(points)
    # Radii 1 and 0.25 about (0.3, 0, 0) and (0, 0, -0.2).
    torch.testing.assert_close(found.sdf, torch.tensor([[1.0, -0.9], [0.75, 0.75]]))
    torch.testing.assert_close(field.sdf(points), found.sdf)
    torch.testing.assert_close(found.gradient, torch.tensor([[[0.0, 0, 1], [-1, 0, 0]], [[0, 0, 1], [-1, 0, 0]]]))
    assert (found.color == 0).all()
    assert field.query(torch.tensor([[[0.4, 0.0, 0.0]]] * 2)).color[0, 0, 0] == 1


def test_shift_scale_and_points_learn_by_the_distance():
    points = (torch.rand(2, 30, 3, dtype=torch.float64) * 2 - 1).requires_grad_()
    shift, scale = (x.double().requires_grad_() for x in (SHIFT, SCALE))

    def sdf(points, shift, scale):
        return PlacedField(field=Balls(), shift=shift, scale=scale).sdf(points)

    assert torch.autograd.gradcheck(sdf, (points, shift, scale))  # balls, whose gradient is exact


def test_a_batch_equals_its_shapes_and_voxels_learn():
    voxels, points = torch.randn(2, 4, 6, 6, 6, requires_grad=True), torch.rand(2, 50, 3) - 0.5
    field = DecodedVoxelField(voxels=voxels, radius=1.0, sphere_radius=0.5)
    batch = PlacedField(field=field, shift=SHIFT, scale=SCALE).query(points)
    for i in range(2):
        one = DecodedVoxelField(voxels=voxels[i : i + 1], radius=1.0, sphere_radius=0.5)
        alone = PlacedField(field=one, shift=SHIFT[i : i + 1], scale=SCALE[i : i + 1]).query(points[i : i + 1])
        for name in ("sdf", "color", "gradient"):
            torch.testing.assert_close(getattr(alone, name)[0], getattr(batch, name)[i])
    batch.sdf.sum().backward()
    assert voxels.grad is not None
    assert float(voxels.grad[:, 0].abs().sum()) > 0
