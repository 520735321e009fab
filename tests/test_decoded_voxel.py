"""The field that interpolates distance and colour: hand-worked values, derivatives, batches."""

import torch

from scaledreamer.fields.decoded_voxel import DecodedVoxelField, slopes
from scaledreamer.generators.conv3d import Conv3DGenerator


def field(voxels: torch.Tensor) -> DecodedVoxelField:
    return DecodedVoxelField(voxels=voxels, radius=1.0, sphere_radius=0.5)


def test_a_linear_volume_has_its_slope_everywhere():
    z, y, x = torch.meshgrid(*[torch.arange(4.0)] * 3, indexing="ij")
    found = slopes((2 * x - y + 3 * z)[None], spacing=0.5)
    assert found.shape == (1, 3, 4, 4, 4)
    for axis, slope in enumerate((4.0, -2.0, 6.0)):  # per voxel over 0.5 world units
        torch.testing.assert_close(found[0, axis], torch.full((4, 4, 4), slope))


def test_empty_voxels_are_the_sphere():
    points = torch.tensor([[[0.0, 0.0, 0.2], [0.6, 0.0, 0.8], [0.0, -3.0, 0.0]]])
    found = field(torch.zeros(1, 4, 8, 8, 8)).query(points)
    torch.testing.assert_close(found.sdf, torch.tensor([[-0.3, 0.5, 2.5]]))
    torch.testing.assert_close(found.gradient, torch.tensor([[[0.0, 0, 1], [0.6, 0, 0.8], [0, -1, 0]]]))
    torch.testing.assert_close(found.color, torch.full((1, 3, 3), 0.5))


def test_offset_and_colour_are_read_between_voxels():
    voxels = torch.zeros(1, 4, 2, 2, 2)
    voxels[0, 0, :, :, 1] = 0.4  # voxels sit at x = -0.5 and 0.5
    voxels[0, 1] = 100.0  # red
    found = field(voxels).query(torch.tensor([[[0.25, 0.0, 0.0]]]))
    torch.testing.assert_close(found.sdf, torch.tensor([[0.75 * 0.4 + 0.25 - 0.5]]))
    torch.testing.assert_close(found.color, torch.tensor([[[1.0, 0.5, 0.5]]]))
    torch.testing.assert_close(found.gradient, torch.tensor([[[1.4, 0.0, 0.0]]]))


def test_the_two_look_ups_agree_and_a_batch_equals_its_shapes():
    voxels = torch.randn(3, 4, 6, 6, 6)
    points = torch.rand(3, 50, 3) * 2 - 1
    batch = field(voxels).query(points)
    torch.testing.assert_close(field(voxels).sdf(points), batch.sdf)
    for i in range(3):
        one = field(voxels[i : i + 1]).query(points[i : i + 1])
        for name in ("sdf", "color", "gradient"):
            torch.testing.assert_close(getattr(one, name)[0], getattr(batch, name)[i])


def test_heads_at_voxels_equal_heads_at_points_on_the_voxels():
    options = {"text_dim": 5, "latent_dim": 4, "w_dim": 8, "resolution": 8, "widths": [8, 8], "channels": 6}
    torch.manual_seed(0)
    at_points = Conv3DGenerator(**options, radius=1.0)
    torch.manual_seed(0)
    at_voxels = Conv3DGenerator(**options, radius=1.0, heads="voxels")
    text, latent = torch.randn(2, 5), torch.randn(2, 4)
    centres = (torch.arange(8) + 0.5) / 4 - 1
    z, y, x = torch.meshgrid(centres, centres, centres, indexing="ij")
    points = torch.stack([x, y, z], dim=-1).view(1, -1, 3).expand(2, -1, -1)
    one, other = at_points(text, latent).query(points), at_voxels(text, latent).query(points)
    torch.testing.assert_close(one.sdf, other.sdf, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.color, other.color, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_voxels():
    voxels = torch.randn(1, 4, 4, 4, 4, dtype=torch.float32, requires_grad=True)
    found = field(voxels).query(torch.rand(1, 9, 3) - 0.5)
    (found.sdf.sum() + found.color.sum() + found.gradient.square().sum()).backward()
    assert voxels.grad is not None
    assert float(voxels.grad.abs().sum()) > 0
