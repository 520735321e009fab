"""3DConv-net's kernels against the same layers in plain PyTorch: values and gradients.

On GPUs with ``-m gpu``; on CPUs through Triton's interpreter, in a process of their own, where Triton is installed.
"""

from importlib.util import find_spec

import pytest
import torch
from interpreter import INTERPRETED, pass_in_the_interpreter
from torch.nn import functional as F

from scaledreamer.errors import UserError
from scaledreamer.generators import fused
from scaledreamer.generators.conv3d import Conv3DGenerator
from scaledreamer.generators.modulated import leaky_clamp, upsample
from scaledreamer.randomness import StepRandom


@pytest.fixture
def kernels(device, monkeypatch):
    """The operators, with programs that go through two rows also of few voxels, as they do from 32 per side on."""
    from scaledreamer.kernels import synthesis

    tile = synthesis._tile
    monkeypatch.setattr(synthesis, "_tile", lambda side, width: {**tile(side, width), "ROWS": 2})
    return synthesis


# -- the same in plain PyTorch -----------------------------------------------------------------------------------


def doubled(volume):
    return upsample(volume.movedim(-1, 1).contiguous()).movedim(1, -1)


def each(factor):
    """[P, C] for volumes [P, S, S, S, C]."""
    return factor[:, None, None, None]


def grains(noise, strength):
    return 0.0 if noise is None else (noise[:, 0] if noise.dim() == 5 else noise[None])[..., None] * strength


def plain_grow(coarse, scale, noise, strength, bias, volume, style):
    x = leaky_clamp(doubled(coarse) * each(scale) + grains(noise, strength) + bias)
    return (x if volume is None else x + volume.movedim(0, -1)) * each(style)


def plain_finish(volume, scale, noise, strength, bias, style, head, head_bias, before):
    x = leaky_clamp(volume * each(scale) + grains(noise, strength) + bias)
    features = torch.einsum("pzyxc,pcf->pzyxf", x, head) + head_bias
    return x[:0] if style is None else x * each(style), features if before is None else features + doubled(before)


def plain_weights(weight, style):
    power = weight.square().flatten(2).sum(dim=-1)
    return weight.movedim(1, -1), (style.square() @ power.t() + 1e-8).rsqrt()


def results(function, arguments, dtype=None):
    """Outputs, and the gradients to arguments that random gradients of the outputs give."""
    mine = [x if x is None else x.detach().to(dtype or x.dtype).requires_grad_() for x in arguments]
    outputs = function(*mine)
    outputs = [x for x in ((outputs,) if isinstance(outputs, torch.Tensor) else outputs) if x.numel()]
    torch.manual_seed(1)
    weights = [torch.randn(x.shape).to(x) for x in outputs]
    torch.autograd.backward(outputs, weights)
    return outputs, [None if x is None else x.grad for x in mine]


def assert_alike(found, expected, tolerance):
    for n, (one, other) in enumerate(zip(found, expected, strict=True)):
        if one is not None and other is not None:
            error = (one.double() - other.double()).norm() / other.double().norm()
            assert error < tolerance, (n, float(error))


def check(function, plain, arguments, device, *, noise=2):
    # On a GPU a number near a kink of the activation may come to lie on its other side.
    tolerance = 1e-5 if device == "cpu" else 2e-2
    arguments = [x if x is None else x.to(device) for x in arguments]
    found, of_found = results(function, arguments)
    expected, of_expected = results(plain, arguments, torch.float64)
    if noise is not None:
        of_expected[noise] = None  # nobody learns it
    assert_alike(found, expected, tolerance)
    assert_alike(of_found, of_expected, tolerance)


# -- parity of the layers ----------------------------------------------------------------------------------------


def layer(prompts, channels, side, noise):
    """scale, noise, strength, bias; some outputs are clamped."""
    torch.manual_seed(0)
    scale = torch.rand(prompts, channels) + 0.5
    scale[:, 0] = 300.0
    shapes = {"random": (prompts, 1, side, side, side), "const": (side, side, side)}
    grain = torch.randn(shapes[noise]) if noise in shapes else None
    return [scale, grain, torch.randn(1), torch.randn(channels)]


@pytest.mark.parametrize(
    ("prompts", "channels", "noise", "volume"),
    [(1, 16, "random", True), (2, 5, "const", False), (2, 3, "none", True), (2, 70, "random", False)],
)
def test_first_layers(kernels, device, prompts, channels, noise, volume):
    given = layer(prompts, channels, 4, noise)
    coarse, style = torch.randn(prompts, 2, 2, 2, channels), torch.randn(prompts, channels)
    learned = torch.randn(channels, 4, 4, 4) if volume else None
    check(kernels.grow, plain_grow, [coarse, *given, learned, style], device)


@pytest.mark.parametrize(
    ("prompts", "channels", "noise", "styled", "added"),
    [(1, 16, "random", True, True), (2, 5, "const", False, True), (2, 70, "none", True, False)],
)
def test_second_layers(kernels, device, prompts, channels, noise, styled, added):
    given = layer(prompts, channels, 4, noise)
    volume, style = torch.randn(prompts, 4, 4, 4, channels), torch.randn(prompts, channels) if styled else None
    heads = torch.randn(prompts, channels, 6), torch.randn(6)
    before = torch.randn(prompts, 2, 2, 2, 6) if added else None
    check(kernels.finish, plain_finish, [volume, *given, style, *heads, before], device)


@pytest.mark.parametrize(("prompts", "window"), [(1, 3), (3, 3), (2, 1)])
def test_weights(device, prompts, window):
    from scaledreamer.kernels.synthesis_weights import weights

    torch.manual_seed(0)
    weight, style = torch.randn(6, 70, window, window, window), torch.randn(prompts, 70)
    check(lambda w, s: weights(w, s, torch.float32)[:2], plain_weights, [weight, style], device, noise=None)


def test_the_operators_are_what_they_say(kernels, device):
    """Schemas, shapes without data, and gradients, as PyTorch's own check sees them."""
    from scaledreamer.kernels import synthesis_weights
    from scaledreamer.kernels.scaled import scaled

    def given(*shape):
        return torch.randn(shape, device=device)

    given_layer = [x.to(device) for x in layer(1, 3, 4, "random")]
    grow = [given(1, 2, 2, 2, 3), *given_layer, given(3, 4, 4, 4), given(1, 3)]
    finish = [given(1, 4, 4, 4, 3), *given_layer, given(1, 3), given(1, 3, 2), given(2)]
    weight, style = given(2, 3, 3, 3, 3), given(1, 3)
    calls = [
        (kernels.grow, grow),
        (kernels.finish, [*finish, given(1, 2, 2, 2, 2)]),
        (kernels.finish, [*finish, None, True]),
        (scaled, [given(3, 5), given(), torch.float16]),
        (synthesis_weights.weights, [weight, style, torch.bfloat16]),
        (kernels._grow_gradients, [given(1, 4, 4, 4, 3), *grow]),
        (kernels._finish_gradients, [given(1, 4, 4, 4, 3), given(1, 4, 4, 4, 2), *finish]),
        (kernels._upsample_gradient, [given(1, 4, 4, 4, 2)]),
        (synthesis_weights._weights_gradient, [given(2, 3, 3, 3, 3), weight, style, given(1, 2)]),
    ]
    for operator, arguments in calls:
        torch.library.opcheck(operator, tuple(arguments), test_utils=("test_schema", "test_faketensor"))


# -- the generator -----------------------------------------------------------------------------------------------


def small(device, *, noise="random", **options) -> Conv3DGenerator:
    torch.manual_seed(0)
    sizes = {"text_dim": 7, "latent_dim": 6, "w_dim": 10, "resolution": 8, "widths": (12, 10), "channels": 5}
    generator = Conv3DGenerator(**{**sizes, **options}, noise=noise)
    for name, parameter in generator.named_parameters():
        if name.endswith(("noise_strength", "conv0.bias", "conv1.bias", "torgb.bias")):
            torch.nn.init.normal_(parameter)
    return generator.to(device)


def voxels_and_gradients(generator, text, latent, *, grad, backend):
    """Of one step, the same draws whatever the backend."""
    generator.backend = backend
    generator.zero_grad()
    voxels = generator.voxels(text, latent, StepRandom(seed=0, step=5, device=text.device))
    voxels.backward(grad.to(voxels.dtype))
    return voxels.detach(), {n: p.grad for n, p in generator.named_parameters() if p.grad is not None}


LONG = [pytest.mark.skipif(INTERPRETED, reason="takes the interpreter long"), pytest.mark.gpu]


@pytest.mark.parametrize(
    ("prompts", "noise"),
    [(2, "random"), pytest.param(1, "const", marks=LONG), pytest.param(3, "none", marks=LONG)],
)
def test_the_generator(kernels, device, prompts, noise):
    generator = small(device, noise=noise)
    text, latent = torch.randn(prompts, 7, device=device), torch.randn(prompts, 6, device=device)
    grad = torch.randn(prompts, 5, 8, 8, 8, device=device)
    expected, of_expected = voxels_and_gradients(generator, text, latent, grad=grad, backend="torch")
    found, of_found = voxels_and_gradients(generator, text, latent, grad=grad, backend="triton")
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    assert of_found.keys() == of_expected.keys()
    tolerance = 1e-4 if device == "cpu" else 6e-2
    assert_alike([found], [expected], tolerance)
    assert_alike(of_found.values(), of_expected.values(), tolerance)


@pytest.mark.skipif(INTERPRETED, reason="takes the interpreter long")
def test_a_batch_equals_its_samples(kernels, device):
    generator = small(device, noise="const", backend="triton")
    text, latent = torch.randn(3, 7, device=device), torch.randn(3, 6, device=device)
    with torch.no_grad():
        together = generator.voxels(text, latent)
        alone = torch.cat([generator.voxels(text[i : i + 1], latent[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("size", [1.0, 1e-6, 1e6])
def test_in_mixed_precision_it_computes_in_float16(kernels, device, size):
    """However large the gradient that comes: voxels, parameters and their gradients are in float32."""
    generator = small(device)
    text, latent = torch.randn(1, 7, device=device), torch.randn(1, 6, device=device)
    grad = size * torch.randn(1, 5, 8, 8, 8, device=device)
    expected, of_expected = voxels_and_gradients(generator, text, latent, grad=grad, backend="torch")
    with torch.autocast(device, dtype=torch.bfloat16):
        found, of_found = voxels_and_gradients(generator, text, latent, grad=grad, backend="triton")
    assert found.dtype == torch.float32
    assert_alike([found], [expected], 0.005)
    for name, gradient in of_found.items():
        assert gradient.dtype == torch.float32, name
        assert F.cosine_similarity(gradient.flatten(), of_expected[name].flatten(), dim=0) > 0.999, name
        assert 0.97 < gradient.norm() / of_expected[name].norm() < 1.03, name


@pytest.mark.skipif(INTERPRETED, reason="takes the interpreter long")
def test_the_same_inputs_give_the_same_bits(kernels, device):
    generator, grad = small(device), torch.randn(2, 5, 8, 8, 8, device=device)
    text, latent = torch.randn(2, 7, device=device), torch.randn(2, 6, device=device)
    first, again = (voxels_and_gradients(generator, text, latent, grad=grad, backend="triton") for _ in range(2))
    assert torch.equal(first[0], again[0])
    ours = [name for name in first[1] if "const_bias" in name or "strength" in name]
    assert ours
    assert all(torch.equal(first[1][name], again[1][name]) for name in ours)


# -- where there is no GPU, and where there is one ----------------------------------------------------------------


def test_on_a_cpu_through_the_interpreter():
    pass_in_the_interpreter(__file__)


@pytest.mark.skipif(INTERPRETED or find_spec("triton") is None, reason="triton is not installed, or interprets")
def test_a_cpu_is_refused():
    with pytest.raises(UserError, match=r"generator\.backend=triton: it needs a GPU"):
        small("cpu", backend="triton").voxels(torch.randn(1, 7))


def test_too_many_features_are_plain():
    generator = small("cpu", channels=fused.WIDEST + 1)
    assert "128 features at most, not 129" in (fused.refusal(generator.synthesis) or "")
    assert generator.voxels(torch.randn(1, 7)).shape == (1, 129, 8, 8, 8)


@pytest.mark.gpu
@pytest.mark.parametrize("prompts", [1, 2])
def test_gradients_at_full_size(prompts):
    """In half precision, of all weights together and of each large one, against float32."""
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    sizes = {"text_dim": 1024, "latent_dim": 64, "w_dim": 256, "resolution": 128, "channels": 32}
    generator = small("cuda", noise="random", **sizes, widths=(512, 512, 512, 256, 128, 64))
    text, latent = torch.randn(prompts, 1024, device="cuda"), torch.randn(prompts, 64, device="cuda")
    coarse = torch.randn(prompts, 32, 8, 8, 8, device="cuda")
    grad = F.interpolate(coarse, scale_factor=16, mode="trilinear") / 1000
    _, expected = voxels_and_gradients(generator, text, latent, grad=grad, backend="torch")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        _, found = voxels_and_gradients(generator, text, latent, grad=grad, backend="triton")
    one, other = (torch.cat([d[name].flatten() for name in expected]).double() for d in (found, expected))
    assert F.cosine_similarity(one, other, dim=0) > 0.999
    assert 0.99 < one.norm() / other.norm() < 1.01


@pytest.mark.gpu
def test_runs_in_a_cuda_graph(device):
    generator = small(device, noise="const", backend="triton", cuda_graph=False)
    text, latent = torch.randn(2, 7, device=device), torch.randn(2, 6, device=device)

    def step():
        generator.zero_grad(set_to_none=True)
        generator.voxels(text, latent).square().sum().backward()

    step()
    weight = generator.synthesis.blocks[0].conv1.weight
    expected = weight.grad.clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    weight.grad.fill_(7.0)
    graph.replay()
    torch.testing.assert_close(weight.grad, expected, rtol=1e-3, atol=1e-3)
