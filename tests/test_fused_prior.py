"""Faster modules of a frozen prior against diffusers' own; recorded and compiled functions; values of ``speedup``."""

import copy
import gc
import logging
import os

import pytest
import torch
from torch import nn

from scaledreamer.cuda_graph import GraphedFunction, GraphedGradient
from scaledreamer.priors import compiled as compiling
from scaledreamer.priors.compiled import CACHE, Compiled
from scaledreamer.priors.fused import can_fuse, fuse
from scaledreamer.priors.fused_attention import FusedImageAttention, FusedTransformer
from scaledreamer.priors.fused_blocks import FrozenConv, FusedResnet, NormActivation
from scaledreamer.priors.random_weights import RandomWeights
from scaledreamer.priors.stable_diffusion import StableDiffusion
from scaledreamer.priors.turned import TurnedEncoder

CPU = torch.device("cpu")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
slow_in_the_interpreter = pytest.mark.skipif(INTERPRETED, reason="slow in the interpreter")

pytestmark = pytest.mark.usefixtures("one_thread")


def frozen(model: nn.Module) -> nn.Module:
    """With weights that leave no bias at zero and no scale at one."""
    torch.manual_seed(1)
    for parameter in model.eval().requires_grad_(False).parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def both(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    plain = frozen(model)
    fused = copy.deepcopy(plain)
    assert fuse(fused)
    return plain, fused


def kinds(model: nn.Module) -> list[type]:
    return [type(module) for module in model.modules()]


def test_a_fused_vae_gives_the_same_latents_and_gradients():
    vae = RandomWeights("tiny").vae(CPU)
    del vae.decoder, vae.post_quant_conv
    plain, fused = both(vae)
    assert kinds(fused).count(FusedResnet) == 6  # one in each of four levels, two in the middle
    assert (kinds(fused).count(FusedImageAttention), kinds(fused).count(NormActivation)) == (1, 1)
    assert kinds(fused).count(FrozenConv) == 6  # in, out, behind it, three to halve the size
    images, grad = torch.rand(2, 3, 64, 64, requires_grad=True), torch.randn(2, 8, 8, 8)
    found, expected = (model.encode(images).latent_dist.parameters for model in (fused, plain))  # type: ignore[operator]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    slopes = [torch.autograd.grad(y, images, grad)[0] for y in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-5 * float(slopes[1].abs().max()))


@pytest.mark.parametrize("linear", [pytest.param(True, marks=slow_in_the_interpreter), False])
def test_a_fused_unet_predicts_the_same(linear):
    """Also where the layers around a transformer are 1 x 1 convolutions, as in Stable Diffusion 1.5."""
    from diffusers import UNet2DConditionModel

    config = RandomWeights("tiny").configs.unet | {"use_linear_projection": linear}
    plain, fused = both(UNet2DConditionModel(**config))
    assert kinds(fused).count(FusedTransformer) == 4
    x, t, tokens = torch.randn(3, 4, 8, 8), torch.tensor([1, 500, 999]), torch.randn(3, 77, 32)
    with torch.no_grad():
        found, expected = (model(x, t, encoder_hidden_states=tokens).sample for model in (fused, plain))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@slow_in_the_interpreter
def test_a_fused_multi_view_unet_joins_the_views_of_an_object():
    plain, fused = both(RandomWeights("tiny_mv").unet(CPU))
    assert kinds(fused).count(FusedTransformer) == 4
    inputs = [torch.randn(8, 4, 8, 8), torch.full((8,), 300), torch.randn(8, 77, 32), torch.randn(8, 4, 4)]
    with torch.no_grad():
        found, expected = (model(*inputs) for model in (fused, plain))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        inputs[0][3] += 1.0  # a view of the first object
        changed = fused(*inputs)
    assert (changed - found)[:4].flatten(1).abs().amax(1).min() > 1e-4
    assert torch.equal(changed[4:], found[4:])


def test_a_turned_encoder_is_the_same_function():
    vae = frozen(RandomWeights("tiny").vae(CPU)).double()
    encoder, images = vae.encoder, torch.rand(2, 3, 64, 32, dtype=torch.float64)
    assert TurnedEncoder.fits(encoder)
    expected = encoder(images)
    turned = TurnedEncoder(encoder)
    assert turned.halvings == 3
    torch.testing.assert_close(turned(images), expected)
    with pytest.raises(ValueError, match="a multiple of 8"):
        turned(images[..., :-4])
    assert not TurnedEncoder.fits(encoder)  # its downsampling is centred now, in name


def test_what_is_not_of_the_known_kind_stays():
    vae = frozen(RandomWeights("tiny").vae(CPU))
    encoder = vae.encoder  # type: ignore[union-attr]
    encoder.mid_block.attentions[0].rescale_output_factor = 2.0  # type: ignore[union-attr]
    encoder.mid_block.resnets[0].output_scale_factor = 2.0  # type: ignore[union-attr]
    plain = copy.deepcopy(vae)
    fuse(vae)
    assert FusedImageAttention not in kinds(encoder)  # type: ignore[arg-type]
    assert kinds(encoder).count(FusedResnet) == 5  # type: ignore[arg-type]
    images = torch.rand(1, 3, 64, 64)
    found, expected = (model.encode(images).latent_dist.mean for model in (vae, plain))  # type: ignore[operator]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_only_frozen_models_are_fused():
    with pytest.raises(ValueError, match="frozen"):
        fuse(RandomWeights("tiny").vae(CPU).eval())
    with pytest.raises(ValueError, match="frozen"):
        fuse(RandomWeights("tiny").vae(CPU).requires_grad_(False))


@pytest.mark.parametrize("speedup", ["none", "cuda_graph", "compile", "auto"])
def test_on_a_cpu_every_speedup_gives_the_same_bits(speedup):
    assert not can_fuse(CPU)
    plain, prior = (
        StableDiffusion(path="random:tiny", speedup="none"),
        StableDiffusion(path="random:tiny", speedup=speedup),
    )
    torch.manual_seed(0)
    images, noise = torch.rand(1, 3, 64, 64, requires_grad=True), torch.randn(1, 4, 8, 8)
    results = []
    for each in (plain, prior):
        each.setup(CPU)
        z = each.encode_images(images, noise)
        (slope,) = torch.autograd.grad(z, images, noise)
        results.append((z, slope, each.predict_noise(noise, torch.tensor([500]), torch.ones(1, 77, 32))))
    for found, expected in zip(*results, strict=True):
        assert torch.equal(found, expected)
    assert FusedResnet not in [*kinds(prior._unet), *kinds(prior._vae)]


# -- recorded ------------------------------------------------------------------------------------------------------


def test_on_a_cpu_recorded_functions_are_called():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    assert GraphedFunction(lambda a, b: a * b)(torch.tensor([3.0]), torch.tensor([2.0])).item() == 6.0
    y = GraphedGradient(lambda a, b: a * a * b)(x, torch.tensor([1.0, 3.0]))
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [2.0, 12.0]


def test_a_call_waits_for_its_gradient_until_it_is_taken_or_dropped():
    graphed = GraphedGradient(lambda x: x)
    assert not graphed._is_waiting()
    call = graphed.start()
    assert graphed._is_waiting()
    call.used = True
    assert not graphed._is_waiting()
    call = graphed.start()
    del call
    gc.collect()
    assert not graphed._is_waiting()


@pytest.fixture
def cuda() -> torch.device:
    """A GPU."""
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    return torch.device("cuda")


@pytest.mark.gpu
def test_a_recorded_gradient(cuda):
    """Of other inputs than those recorded, twice in a row, interleaved, and asked for twice."""
    layer = nn.Conv2d(3, 5, 3).to(cuda).requires_grad_(False)

    def function(x, y):
        return layer(x * x).sin() * y

    graphed = GraphedGradient(function)
    torch.manual_seed(0)
    draws = [[torch.randn(2, c, s, s, device=cuda) for c, s in ((3, 8), (5, 6), (5, 6))] for _ in range(4)]

    def call(f, x, y, g):
        x = x.clone().requires_grad_()
        out = f(x, y)
        return out, lambda: torch.autograd.grad(out, x, g, retain_graph=True)[0]

    for draw in draws:
        (found, slope), (expected, exact) = call(graphed, *draw), call(function, *draw)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(slope(), exact())
        with pytest.raises(RuntimeError, match="once per call"):
            slope()
    first, second = call(graphed, *draws[0]), call(graphed, *draws[1])  # the second is computed plainly
    for (found, slope), draw in ((second, draws[1]), (first, draws[0])):
        expected, exact = call(function, *draw)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(slope(), exact())
    with torch.no_grad():
        torch.testing.assert_close(graphed(*draws[2][:2]), function(*draws[2][:2]))


@pytest.mark.gpu
@pytest.mark.parametrize("speedup", ["cuda_graph", "compile"])
def test_on_a_gpu_every_speedup_gives_the_same_numbers(cuda, speedup):
    priors = [StableDiffusion(path="random:tiny", dtype="float32", speedup=kind) for kind in ("none", speedup)]
    for prior in priors:
        prior.setup(cuda)
    for step in range(3):
        torch.manual_seed(step)
        images = torch.rand(2, 3, 64, 64, device=cuda, requires_grad=True)
        noise, tokens = torch.randn(2, 4, 8, 8, device=cuda), torch.randn(2, 77, 32, device=cuda)
        results = []
        for prior in priors:
            z = prior.encode_images(images, noise)
            (slope,) = torch.autograd.grad(z, images, noise)
            results.append((z, slope, prior.predict_noise(noise, torch.full((2,), 500, device=cuda), tokens)))
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-2, atol=3e-3 * float(expected.abs().max()))


# -- compiled ------------------------------------------------------------------------------------------------------


def test_a_function_that_cannot_be_compiled_is_called_with_one_warning(monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path))
    monkeypatch.delenv(CACHE, raising=False)

    def failing(function, **options):
        def call(*inputs):
            raise RuntimeError("no compiler\nmore")

        return call

    monkeypatch.setattr(torch, "compile", failing)
    function = Compiled(lambda x: x + 1, otherwise=lambda: lambda x: x + 2)
    with caplog.at_level(logging.WARNING):
        assert [function(1), function(2)] == [3, 4]
    (record,) = caplog.records
    assert record.getMessage() == "the prior runs without speedup=compile, which fails here: no compiler"
    assert Compiled(lambda x: x + 1)(1) == 2
    assert compiling.os.environ[CACHE] == str(tmp_path / "compiled")


def test_a_compiled_function_s_own_errors_are_its_own(monkeypatch):
    monkeypatch.setenv(CACHE, "unused")
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    function = Compiled(lambda x: 1 / x)
    assert function(2) == 0.5
    with pytest.raises(ZeroDivisionError):
        function(0)
