"""Group normalisation and the passes over rows, with their gradients, against PyTorch's in float64.

In plain PyTorch, on GPUs with ``-m gpu``, and through Triton's interpreter in a process of its own.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from interpreter import INTERPRETED, pass_in_the_interpreter
from torch import Tensor

from scaledreamer.kernels import group_norm as norms
from scaledreamer.kernels import rows

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]

SHAPES = {  # B, N, C, G and samples of the shift
    "groups of four": (2, 77, 32, 8, 2),
    "groups of ten": (1, 70, 40, 4, 1),
    "many parts": (1, 1500, 128, 32, 0),
    "one position": (2, 1, 16, 4, 2),
    "blocks of channels": (2, 33, 320, 32, 0),
}


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    """Where to compute; under the interpreter kernels run on the CPU."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    return request.param


def apart(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference over that of what is expected."""
    found, expected = found.detach(), expected.detach()
    return float((found.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-30))


def expected_norm(x, weight, bias, groups, silu, shift):
    moved = x.double() if shift is None else x.double() + shift.double()[:, None]
    y = F.group_norm(moved.transpose(1, 2), groups, weight.double(), bias.double(), 1e-6).transpose(1, 2)
    return F.silu(y) if silu else y


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_group_norm_and_its_gradient(device, shape, dtype, silu):
    """Also around a mean five times the standard deviation, where squares cancel."""
    torch.manual_seed(0)
    b, n, c, groups, shifted = SHAPES[shape]
    if INTERPRETED and (dtype == torch.bfloat16 or (n > 1000) != (dtype == torch.float16)):
        pytest.skip("slow in the interpreter")
    x = (torch.randn(b, n, c) * 2 + 10).to(device, dtype)
    weight, bias = torch.randn(2, c).to(device, dtype)
    shift = torch.randn(shifted, c).to(device, dtype) if shifted else None
    grad, skip = torch.randn(2, b, n, c).to(device, dtype)
    exact = x.double().requires_grad_()
    y = expected_norm(exact, weight, bias, groups, silu, shift)
    (dx,) = torch.autograd.grad(y, exact, grad.double())

    options = {"silu": silu, "shift": shift}
    leaf = x.clone().requires_grad_()
    found = norms.group_norm(leaf, weight, bias, groups=groups, eps=1e-6, **options)
    (by_autograd,) = torch.autograd.grad(found, leaf, grad)
    _, mean, rstd = norms.normalise(x, weight, bias, groups=groups, eps=1e-6, **options)
    by_hand = norms.gradient(grad, x, mean, rstd, weight, bias, **options, skip=skip)
    # PyTorch's own path rounds x + shift and what goes into the activation.
    tolerance = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
    assert (found.dtype, by_autograd.dtype, by_hand.dtype) == (dtype, dtype, dtype)
    assert (mean.dtype, rstd.dtype, tuple(mean.shape)) == (torch.float32, torch.float32, (b, groups))
    assert apart(found, y) < tolerance
    assert apart(by_autograd, dx) < tolerance
    assert apart(by_hand, dx + skip) < tolerance


def test_by_hand(device):
    """Values 1 and 3 of one group: mean 2, variance 1; with weights 2 and 1, bias 0 and 5: -2 and 6."""
    x = torch.tensor([[[1.0, 3.0]]], device=device)
    weight, bias = torch.tensor([[2.0, 1.0], [0.0, 5.0]], device=device)
    y, mean, rstd = norms.normalise(x, weight, bias, groups=1, eps=0.0)
    assert (y.flatten().tolist(), mean.item(), rstd.item()) == (pytest.approx([-2.0, 6.0]), 2.0, pytest.approx(1.0))
    # Two values can only change places along (1, -1), which normalisation undoes.
    grad = torch.tensor([[[1.0, -4.0]]], device=device)
    assert norms.gradient(grad, x, mean, rstd, weight, bias, silu=False).abs().max() < 1e-6


def test_parameters_have_to_be_frozen(device):
    x, one = torch.randn(1, 4, 8, device=device), torch.ones(8, device=device)
    wanted = one.clone().requires_grad_()
    for weight, bias in ((wanted, one), (one, wanted)):
        with pytest.raises(ValueError, match="freeze them"):
            norms.group_norm(x, weight, bias, groups=2, eps=1e-6)
    with torch.no_grad():
        norms.group_norm(x, wanted, one, groups=2, eps=1e-6)
    with pytest.raises(ValueError, match="groups"):
        norms.group_norm(x, one, one, groups=3, eps=1e-6)


def test_nothing_in_gives_nothing_out(device):
    one = torch.ones(8, device=device)
    assert norms.group_norm(torch.empty(0, 4, 8, device=device), one, one, groups=2, eps=1e-6).shape == (0, 4, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_passes_over_rows(device, dtype):
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 37, 40).to(device, dtype)
    weight, bias = torch.randn(2, 40).to(device, dtype)
    tolerance = 1e-6 if dtype == torch.float32 else 2e-3
    exact = x.double() + y.double()
    assert apart(rows.add(x, y, bias.float()), exact + bias.double()) < tolerance
    assert apart(rows.add(x, y, None), exact) < tolerance
    both, normed = rows.add_layer_norm(x, y, weight, bias, 1e-5)
    assert apart(both, exact) < tolerance
    assert apart(normed, F.layer_norm(exact, (40,), weight.double(), bias.double())) < tolerance
    value, gate = x.double().chunk(2, dim=-1)
    found = rows.geglu(x)
    assert found.shape == (3, 37, 20)
    assert apart(found, value * F.gelu(gate)) < tolerance


@pytest.mark.parametrize("width", [16, 264])
def test_attention_of_one_head(device, width):
    """Narrow by PyTorch's, wide by our own with Triton: one formula, and the same gradients."""
    torch.manual_seed(0)
    inputs = [torch.randn(2, n, width, device=device).requires_grad_() for n in (19, 45, 45)]
    grad = torch.randn(2, 19, width, device=device)
    q, k, v = exact = [x.detach().double().requires_grad_() for x in inputs]
    expected = torch.softmax(q @ k.transpose(1, 2) / width**0.5, dim=-1) @ v
    slopes = torch.autograd.grad(expected, exact, grad.double())
    found = rows.attention(*inputs)
    tolerance = 1e-5 if device == "cpu" else 3e-3  # products of matrices in TF32
    assert apart(found, expected) < tolerance
    for one, other in zip(torch.autograd.grad(found, inputs, grad), slopes, strict=True):
        assert apart(one, other) < tolerance


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_the_operators_are_what_they_say(device):
    """Schemas, shapes without data, and gradients, as PyTorch's own check sees them."""
    if not INTERPRETED and device == "cpu":
        pytest.skip("kernels do not run here")
    from scaledreamer.kernels import group_norm_triton, rows_triton

    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    x, grad = torch.randn(2, 1, 6, 16, device=device)
    weight, bias, shift = torch.randn(3, 16, device=device)
    mean = rstd = torch.ones(1, 4, device=device)
    given = (weight, bias, shift[None])
    for operator, arguments in (
        (group_norm_triton.group_norm, (x.clone().requires_grad_(), *given, 4, 1e-6, True)),
        (group_norm_triton.group_norm_gradient, (grad, x, mean, rstd, *given, grad, True)),
        (rows_triton.add, (x, grad, bias)),
        (rows_triton.add_layer_norm, (x, grad, weight, bias, 1e-5)),
        (rows_triton.geglu, (x,)),
        (rows_triton.softmax, (x, 0.5, torch.float16)),
        (rows_triton.softmax_gradient, (x.softmax(-1), grad, 2.0)),
    ):
        torch.library.opcheck(operator, arguments, test_utils=checks)


def test_on_a_cpu_through_the_interpreter():
    pass_in_the_interpreter(__file__, str(Path(__file__).with_name("test_fused_prior.py")))
