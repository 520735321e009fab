"""The Triton kernels of voxel fields and of rays against plain PyTorch, in float64 where it counts.

On GPUs with ``-m gpu``; on CPUs through Triton's interpreter, in a process of their own, where Triton is installed.
"""

import pytest
import torch
from interpreter import INTERPRETED, pass_in_the_interpreter
from torch.nn import functional as F

from scaledreamer.cameras import Rays
from scaledreamer.errors import UserError
from scaledreamer.fields import trilinear
from scaledreamer.fields.mlp import MLP
from scaledreamer.fields.voxel import VoxelField
from scaledreamer.generators.conv3d import Conv3DGenerator
from scaledreamer.randomness import StepRandom
from scaledreamer.renderers.volsdf import VolSDFRenderer

TOLERANCE = 3e-5 if INTERPRETED else 3e-3
"""Relative, of norms: GPUs multiply in tf32 what is not a value itself."""

FIELDS = {
    "two shapes": {"prompts": 2, "width": 8, "hidden": 16, "side": 8},
    "paper's heads, kept in the box": {"width": 32, "hidden": 64, "side": 8, "clamp_offsets": True, "eps": 0.2},
    "odd sizes": {"width": 5, "hidden": 20, "side": 6, "eps": 0.3, "widened": True},
    "bfloat16": {"width": 16, "hidden": 16, "side": 8, "dtype": torch.bfloat16},
    "float16": {"width": 8, "hidden": 16, "side": 8, "dtype": torch.float16},
}


class Exact(VoxelField):
    """Plain PyTorch in float64."""

    def encode(self, points):
        return trilinear.sample(self.voxels.double(), points / self.radius)


def field_of(device, *, prompts=1, width=8, hidden=16, side=8, dtype=torch.float32, **options) -> VoxelField:
    torch.manual_seed(0)
    voxels = torch.randn(prompts, width, side, side, side).to(device, dtype)
    heads = {"sdf_network": MLP([width, hidden, 1]), "feature_network": MLP([width, hidden, 3])}
    return VoxelField(
        voxels=voxels.contiguous(memory_format=torch.channels_last_3d).requires_grad_(),
        **{name: head.to(device) for name, head in heads.items()},
        **{"radius": 2.0, "sphere_radius": 0.8, "eps": 0.01, "backend": "triton"} | options,
    )


def parameters(field) -> list[torch.Tensor]:
    return [*field.sdf_network.parameters(), *field.feature_network.parameters()]


def changed(field, kind=VoxelField, **changes):
    return kind(**{name: getattr(field, name) for name in field.__dataclass_fields__} | changes)


def exact(field) -> Exact:
    """The same voxels, and copies of the heads."""
    heads = {name: MLP([8, 1]) for name in ("sdf_network", "feature_network")}
    for name, head in heads.items():
        head.layers = torch.nn.Sequential(
            *(
                torch.nn.Linear(layer.in_features, layer.out_features, bias=False)
                if isinstance(layer, torch.nn.Linear)
                else layer
                for layer in getattr(field, name).layers
            )
        )
        head.load_state_dict(getattr(field, name).state_dict())
    return changed(field, Exact, backend="torch", **{k: v.to(field.voxels.device).double() for k, v in heads.items()})


def points_for(field, n=100) -> torch.Tensor:
    """Inside and outside the box, at its faces and corners, at voxels and between them."""
    points = (torch.rand(field.prompts, n, 3) - 0.5) * 2.5 * field.radius
    side, radius = field.voxels.shape[-1], field.radius
    points[:, :10] = points[:, :10].sign() * radius
    points[:, 10:20, 1] = -radius
    points[:, 20:40] = (points[:, 20:40] * side / (2 * radius)).round() * 2 * radius / side
    points[:, 40:50] += radius / side  # where those were: at voxels' centres
    points[:, 50] = 0
    points[:, 51] = 9.0
    return points.to(field.voxels.device)


def results(field, points, *, toward=None, dtype=torch.float32) -> dict[str, torch.Tensor]:
    """What a query says, and the gradients that ``toward`` gives."""
    sampled = field.query(points.to(dtype))
    found = {"sdf": sampled.sdf, "color": sampled.color, "gradient": sampled.gradient}
    toward = toward or {name: torch.ones_like(value) for name, value in found.items()}
    loss = sum((found[name] * toward[name].to(dtype)).sum() for name in found)
    names = ("voxels", "first of sdf", "second of sdf", "first of color", "second of color")
    gradients = torch.autograd.grad(loss, [field.voxels, *parameters(field)])
    return {name: value.detach() for name, value in (found | dict(zip(names, gradients, strict=True))).items()}


def random_toward(points) -> dict[str, torch.Tensor]:
    shapes = {"sdf": points[..., 0], "color": points, "gradient": points}
    return {name: torch.randn_like(shape) for name, shape in shapes.items()}


def assert_alike(found, expected, tolerance=TOLERANCE):
    """To ``tolerance`` of its norm each."""
    for name, one in found.items():
        off, norm = (one.double() - expected[name].double()).norm(), expected[name].double().norm()
        assert one.isfinite().all(), name
        assert off <= tolerance * norm, (name, float(off / norm))


# -- the field ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIELDS)
def test_values_and_gradients(device, name):
    field = field_of(device, **FIELDS[name])
    points = points_for(field)
    toward = random_toward(points)
    found = results(field, points, toward=toward)
    assert found["voxels"].dtype == field.voxels.dtype
    assert found["sdf"].dtype == found["color"].dtype == torch.float32
    expected = results(exact(field), points, toward=toward, dtype=torch.float64)
    half = field.voxels.dtype != torch.float32
    voxels = {"voxels": found.pop("voxels")}
    assert_alike(voxels, expected, max(TOLERANCE, torch.finfo(field.voxels.dtype).eps if half else 0))
    assert_alike(found, expected)
    assert_alike({"sdf": found["sdf"]}, expected, 1e-6)  # no tf32 here


def test_distances_alone_are_the_same(device):
    field = field_of(device, prompts=2)
    points = points_for(field)
    with torch.no_grad():
        torch.testing.assert_close(field.sdf(points), field.query(points).sdf)
    torch.testing.assert_close(field.sdf(points), field.query(points).sdf, rtol=1e-5, atol=1e-5)
    assert field.sdf(points).requires_grad  # which kernels have not


def test_differences_keep_their_digits(device):
    """Tiny steps, and points that float32 can move by them: PyTorch subtracts distances and keeps few digits."""
    step = 2.0**-13
    field = field_of(device, eps=step)
    points = (points_for(field)[:, 52:] / step).round() * step
    found, expected = field.query(points).gradient, exact(field).query(points.double()).gradient
    plain = changed(field, backend="torch").query(points).gradient
    off, plain_off = ((x - expected).norm() / expected.norm() for x in (found, plain))
    assert off < max(TOLERANCE, 1e-4)
    assert plain_off > 10 * off or not INTERPRETED  # GPUs compute theirs in tf32


def test_a_batch_is_its_samples(device):
    field = field_of(device, prompts=3, width=4)
    points = points_for(field, 60)
    together, gradients = field.query(points), results(field, points)["voxels"]
    for i in range(3):
        alone = changed(field, voxels=field.voxels[i : i + 1])
        sampled = alone.query(points[i : i + 1])
        assert torch.equal(sampled.sdf[0], together.sdf[i])
        assert torch.equal(sampled.color[0], together.color[i])
        assert torch.equal(sampled.gradient[0], together.gradient[i])
        torch.testing.assert_close(results(alone, points[i : i + 1])["voxels"][0], gradients[i], rtol=1e-4, atol=1e-4)


def test_any_memory(device):
    """Voxels feature by feature, points across memory: one copy, whose gradient has the voxels' shape."""
    field = field_of(device, prompts=2)
    points = points_for(field, 60)
    expected = results(field, points)
    copied = changed(field, voxels=field.voxels.detach().contiguous().requires_grad_())
    assert copied.voxels.is_contiguous()
    found = results(copied, points.permute(2, 0, 1).contiguous().permute(1, 2, 0))
    assert found["voxels"].shape == field.voxels.shape
    assert_alike(found, expected, 1e-5)


def test_nan_stays_with_its_point(device):
    field = field_of(device)
    points = points_for(field, 60)
    points[0, 0, 0], points[0, 1, 2] = float("nan"), float("inf")
    sampled = field.query(points)
    assert sampled.sdf[0, 0].isnan()
    assert sampled.color[0, 0].isnan().all()
    expected = field.query(points[:, 2:])
    torch.testing.assert_close(sampled.sdf[:, 2:], expected.sdf)
    torch.testing.assert_close(sampled.gradient[:, 2:], expected.gradient)
    (sampled.sdf.sum() + sampled.color.sum()).backward()  # reaches no memory but the voxels'


def test_no_points(device):
    field = field_of(device)
    found = results(field, torch.empty(1, 0, 3, device=device))
    assert found["color"].shape == (1, 0, 3)
    assert not found["voxels"].any()


def test_points_that_ask_for_gradients_get_them_from_pytorch(device):
    field = field_of(device)
    points = points_for(field, 60).requires_grad_()
    field.query(points).sdf.sum().backward()
    assert points.grad.abs().max() > 0


def test_what_kernels_cannot(device):
    points = torch.zeros(1, 1, 3, device=device)
    for refused, message in (
        (field_of(device, eps=0.5), "it has steps normal_eps below the voxels' 0.5 only"),
        (field_of(device, width=65), "it has 64 features and 128 hidden values at most"),
        (changed(field_of(device), sdf_network=MLP([8, 1]).to(device)), "heads with one hidden layer only"),
        (changed(field_of(device), voxels=field_of(device).voxels.double()), "not torch.float64"),
    ):
        with pytest.raises(UserError, match=message):
            refused.query(points)
    refused = changed(field_of(device, eps=0.5), backend="auto")
    assert refused.query(points).sdf.isfinite().all()


def test_the_operators_are_what_they_say(device):
    """Schemas, shapes without data, and gradients, as PyTorch's own check sees them."""
    from scaledreamer.kernels import voxel_field as module

    field = field_of(device)
    table, points = field._table.detach().requires_grad_(), points_for(field, 60)
    weights = [w.detach().requires_grad_() for w in field._weights]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    gradients = random_toward(points).values()
    constants = [x.detach() for x in (table, *weights)]
    for operator, arguments in (
        (module._query, (table, points, *weights, 0.01, 2.0, 0.8, False, 0.0)),
        (module._distance, (constants[0], points, *constants[1:3], 2.0, 0.8)),
        (module._query_backward, (constants[0], points, *constants[1:], *gradients, 0.01, 2.0, False, 0.0)),
    ):
        torch.library.opcheck(operator, arguments, test_utils=checks)


# -- rays --------------------------------------------------------------------------------------------------------


def rays_of(device, images, height=4, width=3) -> Rays:
    """Some miss the box."""
    generator = torch.Generator().manual_seed(1)
    origins = F.normalize(torch.randn(images, 1, 1, 3, generator=generator), dim=-1) * 3.4
    directions = F.normalize(-origins + 2 * torch.randn(images, height, width, 3, generator=generator), dim=-1)
    return Rays(origins.expand_as(directions).to(device), directions.to(device))


def rendered(field, rays, *, jittered, **options):
    torch.manual_seed(2)
    renderer = VolSDFRenderer(proposals=24, samples=12, **options).to(rays.origins.device)
    background = torch.rand_like(rays.origins)
    random = StepRandom(seed=0, step=0, device=rays.origins.device) if jittered else None
    found = renderer(field, rays, background, random)
    names = ("rgb", "foreground", "opacity", "depth", "depth_variance", "normal", "gradient")
    values = {name: getattr(found, name) for name in names}
    loss = sum((value * torch.randn_like(value)).sum() for value in values.values())
    gradients = torch.autograd.grad(loss, [field.voxels, *parameters(field)])
    return {name: value.detach() for name, value in values.items()} | {
        str(i): gradient for i, gradient in enumerate(gradients)
    }


@pytest.mark.parametrize(
    ("prompts", "options"),
    [
        (2, {"jittered": True}),
        (1, {"jittered": False, "bounds": "fixed", "alpha": "exp"}),
        (1, {"jittered": True, "alpha": "exp", "log_inv_std": 0.5}),  # an inverse deviation beyond its limit
    ],
)
def test_renders_and_their_gradients(device, prompts, options):
    """Rays by kernels and by PyTorch, of one and the same field."""
    field = changed(field_of(device, prompts=prompts), backend="torch")
    rays = rays_of(device, 2)
    found = rendered(field, rays, backend="triton", **options)
    expected = rendered(field, rays, backend="torch", **options)
    assert_alike(found, expected, 5e-4)


def test_a_ray_that_misses_shows_exactly_the_background(device):
    field = field_of(device)
    rays = Rays(
        torch.tensor([3.0, 0.0, 2.5], device=device).view(1, 1, 1, 3),
        torch.tensor([-1.0, 0.0, 0.0], device=device).view(1, 1, 1, 3),
    )
    background = torch.rand(1, 1, 1, 3, device=device)
    found = VolSDFRenderer(proposals=16, samples=8, backend="triton").to(device)(field, rays, background)
    assert torch.equal(found.rgb, background)
    assert found.gradient.isfinite().all()
    found.depth_variance.sum().backward()
    assert field.voxels.grad.isfinite().all()


def test_slopes_of_compositing_are_differences_of_it(device):
    """Central differences over 0.001 of sums of what a ray sees, at a random ray."""
    from scaledreamer.kernels import rays

    torch.manual_seed(0)
    edges = torch.linspace(0, 1, 9, device=device)[None]
    sdf = (torch.linspace(0.12, -0.1, 8)[None] + 0.02 * torch.randn(1, 8)).to(device)
    color, gradient = torch.rand(1, 8, 3, device=device), torch.randn(1, 8, 3, device=device)
    inv_std, toward = torch.tensor(20.0, device=device), torch.randn(6, device=device)

    def seen(distances):
        foreground, opacity, depth, variance, _ = rays.composite(distances, edges, color, gradient, inv_std, "exp")
        return (torch.cat([foreground, opacity[:, None], depth[:, None], variance[:, None]], dim=1) * toward).sum()

    (slope,) = torch.autograd.grad(seen(sdf.requires_grad_()), sdf)
    with torch.no_grad():
        steps = 1e-3 * torch.eye(8, device=device)
        differences = torch.stack([(seen(sdf + step) - seen(sdf - step)) / 2e-3 for step in steps])
    torch.testing.assert_close(slope[0], differences, rtol=5e-3, atol=5e-3)


# -- where there is no GPU, and where there is one ----------------------------------------------------------------


def test_on_a_cpu_through_the_interpreter():
    pass_in_the_interpreter(__file__)


def test_without_triton_its_name_is_refused(monkeypatch):
    monkeypatch.setattr("scaledreamer.fields.backends.has_triton", lambda: False)
    with pytest.raises(UserError, match=r"generator\.backend=triton: it needs the package 'triton'"):
        Conv3DGenerator(text_dim=4, resolution=8, backend="triton")
    with pytest.raises(UserError, match=r"renderer\.backend=triton: it needs the package 'triton'"):
        VolSDFRenderer(backend="triton")


@pytest.mark.skipif(INTERPRETED, reason="the interpreter takes any device")
def test_points_on_a_cpu_are_refused(monkeypatch):
    monkeypatch.setattr("scaledreamer.fields.backends.has_triton", lambda: True)
    with pytest.raises(UserError, match="needs a GPU, but the points are on the cpu; choose backend=auto or torch"):
        field_of("cpu").query(torch.zeros(1, 1, 3))


@pytest.mark.skipif(INTERPRETED, reason="backend=auto is then PyTorch, too")
def test_auto_on_a_cpu_is_pytorch_bit_for_bit():
    field = field_of("cpu", backend="auto")
    points = points_for(field)
    sampled, expected = field.query(points), changed(field, backend="torch").query(points)
    assert torch.equal(sampled.sdf, expected.sdf)
    assert torch.equal(sampled.gradient, expected.gradient)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_at_full_size(device, dtype):
    """A step of the paper's run, rendered by kernels and by PyTorch: 64^2 rays of 193 samples in 128^3 voxels."""
    field = field_of(device, width=32, hidden=64, side=128, dtype=dtype)
    rays = rays_of(device, 1, 64, 64)
    found, expected = (
        rendered_at_full_size(changed(field, backend=backend), rays, backend) for backend in ("triton", "torch")
    )
    for one, other in zip(found, expected, strict=True):
        one, other = one.double().flatten(), other.double().flatten()
        assert F.cosine_similarity(one, other, dim=0) > 0.999
        assert abs(one.norm() / other.norm() - 1) < 0.01


def rendered_at_full_size(field, rays, backend):
    renderer = VolSDFRenderer(backend=backend).to(rays.origins.device)
    random = StepRandom(seed=0, step=0, device=rays.origins.device)
    found = renderer(field, rays, torch.zeros_like(rays.origins), random)
    loss = found.rgb.square().mean() + (found.gradient.norm(dim=-1) - 1).square().mean()
    return [found.rgb.detach(), *torch.autograd.grad(loss, [field.voxels, *parameters(field)])]


@pytest.mark.gpu
def test_runs_in_a_cuda_graph(device):
    field = field_of(device, width=32, hidden=64, side=32)
    rays, background = rays_of(device, 1, 8, 8), torch.zeros(1, 8, 8, 3, device=device)
    renderer = VolSDFRenderer().to(device)

    def run():
        field.voxels.grad = None
        found = renderer(changed(field), rays, background)
        (found.rgb.sum() + found.gradient.square().mean()).backward()

    run()
    expected = field.voxels.grad.clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    field.voxels.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = renderer(changed(field), rays, background)
        (found.rgb.sum() + found.gradient.square().mean()).backward()
    field.voxels.grad.fill_(7.0)
    graph.replay()
    torch.testing.assert_close(field.voxels.grad, expected, rtol=1e-4, atol=1e-5)
