"""Voxel fields against the reference's numbers, by hand, and outside their box."""

import torch

from scaledreamer.fields.mlp import MLP
from scaledreamer.fields.voxel import VoxelField
from scaledreamer.generators.conv3d import Conv3DGenerator


def golden_field(golden, batch=slice(None), clamp=True):
    case = golden.tensors
    sdf_network, feature_network = MLP([8, 64, 1]), MLP([8, 64, 3])
    for name, network in (("sdf_network", sdf_network), ("feature_network", feature_network)):
        network.load_state_dict(golden.case(f"state.{name}"))
    return VoxelField(
        voxels=case["out.space_cache"][batch],
        sdf_network=sdf_network,
        feature_network=feature_network,
        radius=2.0,
        sphere_radius=0.8,
        eps=0.01,
        clamp_offsets=clamp,
    )


@torch.no_grad()
def test_golden_samples_alone_and_in_a_batch(goldens):
    golden = goldens("conv3d_field")
    points = golden.tensors["in.points"]
    together = golden_field(golden).query(points)
    torch.testing.assert_close(golden_field(golden).encode(points), golden.tensors["out.enc_correct"])
    for i in range(2):
        expected = golden.case(f"out.b1_sample{i}")
        alone = golden_field(golden, slice(i, i + 1)).query(points[i : i + 1])
        for found, row in ((alone, 0), (together, i)):
            torch.testing.assert_close(found.sdf[row], expected["sdf"][:, 0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found.color[row], torch.sigmoid(expected["features"]), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found.gradient[row], expected["sdf_grad"], rtol=0, atol=2e-3)


def test_golden_gradients(goldens):
    """From points, text and latent through the generator to the differences of the sdf."""
    golden = goldens("conv3d_field")
    case = golden.tensors
    generator = Conv3DGenerator(
        text_dim=7,
        latent_dim=6,
        w_dim=10,
        resolution=16,
        widths=(20, 16, 12),
        channels=8,
        noise="none",
        clamp_offsets=True,
    )
    state = {k.removeprefix("space_generator."): v for k, v in golden.case("state").items() if k != "bbox"}
    generator.load_state_dict(state)
    z, c = case["in.z"][:1].clone().requires_grad_(), case["in.c"][:1].clone().requires_grad_()
    field = generator(c, z)
    torch.testing.assert_close(field.voxels, case["out.space_cache"][:1], rtol=1e-4, atol=1e-5)
    points = case["in.points"][:1, 6:].clone().requires_grad_()
    sampled = field.query(points)
    features = torch.logit(sampled.color)
    normal = torch.nn.functional.normalize(sampled.gradient, dim=-1)
    loss = (
        (sampled.sdf[0, :, None] * case["in.w_sdf"]).mean()
        + (features[0] * case["in.w_features"]).mean()
        + 0.1 * (normal[0] * case["in.w_normal"]).mean()
        + 0.1 * (sampled.gradient[0] * case["in.w_sdf_grad"]).mean()
    )
    torch.testing.assert_close(loss, case["out.loss_b1"], rtol=1e-3, atol=1e-5)
    loss.backward()
    found = {"points": points.grad, "z": z.grad, "c": c.grad}
    found |= {name: parameter.grad for name, parameter in generator.named_parameters()}
    expected = {k.removeprefix("space_generator."): v for k, v in golden.case("grad").items()}
    assert len(expected) == 10
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}")


def empty_field(prompts=1, **options):
    """Features of zero: an exact sphere of radius 0.8."""
    defaults = {"radius": 2.0, "sphere_radius": 0.8, "eps": 0.01} | options
    return VoxelField(
        voxels=torch.zeros(prompts, 2, 4, 4, 4), sdf_network=MLP([2, 4, 1]), feature_network=MLP([2, 4, 3]), **defaults
    )


def test_a_sphere_is_a_sphere_also_outside_the_box():
    points = (torch.rand(1, 2000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1) * 6
    sampled = empty_field().query(points)
    torch.testing.assert_close(sampled.sdf, points.norm(dim=-1) - 0.8)
    outside = points.norm(dim=-1) > 1
    eikonal = (sampled.gradient.norm(dim=-1) - 1).square()
    assert eikonal[outside].max() < 1e-3  # a forward difference over 0.01 at distance 1 is off by < 0.01
    wrong = empty_field(clamp_offsets=True).query(points).gradient.norm(dim=-1)
    assert wrong[(points.abs() > 2.5).any(dim=-1)].min() > 2  # what the reference feeds its eikonal loss


def test_the_centre_has_a_finite_gradient():
    points = torch.zeros(1, 1, 3, requires_grad=True)
    empty_field().query(points).sdf.sum().backward()
    assert torch.isfinite(points.grad).all()


def test_trilinear_by_hand():
    """Two voxels a side in [-2, 2]: centres at -1 and 1, so x = 0.5 is 3/4 of the way."""
    voxels = torch.zeros(1, 1, 2, 2, 2)
    voxels[..., 1] = 4.0  # the last axis is x
    field = VoxelField(
        voxels=voxels, sdf_network=MLP([1, 1]), feature_network=MLP([1, 3]), radius=2.0, sphere_radius=0.8, eps=0.01
    )
    points = torch.tensor([[[0.5, 0.0, 0.0], [-1.0, 0.3, 0.3], [1.5, 0.0, 0.0], [3.5, 0.0, 0.0]]])
    expected = torch.tensor([3.0, 0.0, 3.0, 0.0])  # at 1.5: 3/4 of 4, since zeros lie outside
    torch.testing.assert_close(field.encode(points)[0, :, 0], expected)


def test_half_precision_does_not_reach_distances():
    field, points = empty_field(), torch.rand(1, 100, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sampled = field.query(points)
    torch.testing.assert_close(sampled.gradient, field.query(points).gradient)
