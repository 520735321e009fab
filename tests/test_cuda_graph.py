"""Recorded networks: the same values and gradients as the plain ones, for changing inputs and parameters."""

import copy

import pytest
import torch
from torch import nn

from scaledreamer.cuda_graph import GraphedGradient, _stand_ins
from scaledreamer.generators.conv3d import Conv3DGenerator
from scaledreamer.generators.triplane_transformer import TriplaneTransformerGenerator
from scaledreamer.kernels.launch import rehearsal, rehearses
from scaledreamer.randomness import StepRandom


@pytest.fixture
def cuda() -> torch.device:
    """A GPU."""
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    return torch.device("cuda")


def conv3d(device, **options):
    torch.manual_seed(0)
    sizes = {"text_dim": 7, "latent_dim": 6, "w_dim": 16, "resolution": 8, "channels": 5, "widths": (16, 16)}
    return Conv3DGenerator(**sizes, **options).to(device)


def transformer(device, **options):
    torch.manual_seed(0)
    sizes = {
        "text_dim": 7,
        "resolution": 8,
        "channels": 8,
        "width": 32,
        "layers": 2,
        "attention_heads": 2,
        "hidden": 16,
    }
    return TriplaneTransformerGenerator(**sizes, **options).to(device)


def trained(generator, steps=4, *, prompts=(2, 2, 1, 2), autocast=None):
    """Parameters after a few steps with other inputs each, and what the last step's features are."""
    optimizer = torch.optim.SGD(generator.parameters(), lr=0.01)
    device = next(generator.parameters()).device
    for step in range(steps):
        n = prompts[step]
        random = StepRandom(seed=1, step=step, device=device)
        text = random.normal(n, 7) if isinstance(generator, Conv3DGenerator) else random.normal(n, 3, 7)
        latent = random.normal(n, 6)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            field = generator(text, latent, random)
        features = field.voxels if isinstance(generator, Conv3DGenerator) else field.planes
        with torch.no_grad():
            generator(text, latent, random)  # a look in between changes nothing
        features.float().square().mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in generator.parameters()], features.detach()


def test_on_a_cpu_it_is_the_function():
    weight = torch.tensor([2.0, 3.0], requires_grad=True)
    graphed = GraphedGradient(lambda x: x * weight, lambda: [weight])
    graphed(torch.tensor([5.0, 7.0])).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [5.0, 7.0]


@pytest.mark.parametrize("make", [conv3d, transformer])
def test_a_copy_is_a_generator_of_its_own(make):
    generator = make("cpu")
    other = copy.deepcopy(generator)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    assert other._graphed._parameters()[0] is not generator._graphed._parameters()[0]
    assert other._graphed._parameters()[0].abs().sum() == 0
    assert other._graphed is not generator._graphed


def test_a_rehearsal_without_triton_changes_nothing():
    assert not rehearses()
    with rehearsal():
        x = torch.ones(3, requires_grad=True)
        x.sum().backward()
    assert not rehearses()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1, 1]


@pytest.mark.gpu
def test_gradients_to_parameters(cuda):
    layer = nn.Linear(3, 4).to(cuda)
    graphed = GraphedGradient(lambda x, y: layer(x).sin() * y, layer.parameters)
    for step in range(3):
        torch.manual_seed(step)
        x, y, g = (torch.randn(5, n, device=cuda) for n in (3, 4, 4))
        x.requires_grad_()
        expected = torch.autograd.grad(layer(x).sin() * y, (x, layer.weight, layer.bias), g)
        layer.zero_grad(set_to_none=True)
        out = graphed(x, y)
        out.backward(g)
        for found, exact in zip((x.grad, layer.weight.grad, layer.bias.grad), expected, strict=True):
            torch.testing.assert_close(found, exact)
        kept = layer.weight.grad
        x.grad = None
        graphed(x, y).backward(g)  # gradients add up, and those of before are not written over
        assert layer.weight.grad is kept
        torch.testing.assert_close(kept, 2 * expected[1])
        with torch.no_grad():
            layer.weight += 0.1  # in place, as optimisers do


@pytest.mark.gpu
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("make", [conv3d, transformer])
def test_a_recorded_generator_learns_the_same(cuda, make, autocast):
    plain = trained(make(cuda, cuda_graph=False), autocast=autocast)
    generator = make(cuda, cuda_graph=True)
    recorded = trained(generator, autocast=autocast)
    assert generator._graphed._recorded
    assert None not in generator._graphed._recorded.values()
    tolerance = 1e-4 if autocast is None else 1e-2
    torch.testing.assert_close(recorded[1], plain[1], rtol=tolerance, atol=tolerance)
    for found, expected in zip(recorded[0], plain[0], strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_parameters_are_themselves_again_after_a_recording():
    layer = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = list(layer.parameters())
    other = torch.ones(3, requires_grad=True)
    with _stand_ins(layer.forward, [*before, other]) as those:
        assert those[-1] is other
        assert all(p is q for p, q in zip(layer.parameters(), those, strict=False))
        assert all(p is not q and p.data_ptr() == q.data_ptr() for p, q in zip(before, those, strict=False))
        torch.autograd.grad(layer(other).sum(), those)
    assert all(p is q for p, q in zip(layer.parameters(), before, strict=True))


@pytest.mark.gpu
def test_a_graph_of_autograd_that_is_kept_does_not_stop_a_recording(cuda):
    generator = conv3d(cuda)
    kept = [p.expand_as(p).grad_fn for p in generator.parameters()]  # as DDP does
    trained(generator)
    assert None not in generator._graphed._recorded.values()
    del kept


@pytest.mark.gpu
def test_what_cannot_be_recorded_is_computed(cuda, caplog):
    """And leaves nothing behind: numbers can be drawn, and other functions recorded."""
    weight = torch.tensor([2.0], device=cuda, requires_grad=True)
    waits = GraphedGradient(lambda x: x * weight * x.sum().item(), lambda: [weight])
    x = torch.tensor([3.0, 4.0], device=cuda)
    assert waits(x).tolist() == [42.0, 56.0]
    assert "not recorded as a CUDA graph" in caplog.text
    assert torch.randn_like(x).isfinite().all()
    other = GraphedGradient(lambda x: x * weight, lambda: [weight])
    assert other(x).tolist() == [6.0, 8.0]
    assert next(iter(other._recorded.values())) is not None


@pytest.mark.gpu
def test_a_rehearsal_starts_no_kernel(cuda):
    pytest.importorskip("triton.runtime._async_compile")
    from scaledreamer.kernels import group_norm

    x, one = torch.ones(1, 8, 8, device=cuda, dtype=torch.float16), torch.ones(8, device=cuda, dtype=torch.float16)
    with rehearsal():
        assert rehearses()
        group_norm.group_norm(x, one, one, groups=2, eps=1e-6)
    found = group_norm.group_norm(x, one, 0 * one, groups=2, eps=1e-6)
    torch.testing.assert_close(found, torch.zeros_like(x))
