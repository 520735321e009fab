"""Operations and bytes of operators, worked out by hand."""

import sys
from contextlib import suppress

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from scaledreamer.benchmark.ceilings import Ceilings, ceilings, copy_speed
from scaledreamer.benchmark.counting import Counts, Tally
from scaledreamer.benchmark.report import Work

CPU = torch.device("cpu")


def counts_of(work) -> Counts:
    """Of a function that is called once."""
    with Tally(CPU) as tally:
        work()
    assert not tally.hidden
    assert set(tally.counts) <= {"rest"}
    return tally.counts["rest"]


def test_a_linear_layer_and_its_backward_pass():
    layer, x = nn.Linear(3, 4, bias=False), torch.randn(2, 3)
    with Tally(CPU) as tally:
        tally.stage = "forward"
        y = layer(x)
        tally.stage = "loss"
        loss = y.sum()
        tally.stage = "backward"
        loss.backward()
    # [2, 3] x [3, 4]: 2 * 2 * 3 * 4 operations; 6 + 12 values in and 8 out.
    assert tally.counts["forward"] == Counts({"float32": 48}, 4 * (6 + 12 + 8))
    assert tally.counts["loss"] == Counts({}, 4 * (8 + 1))
    # The loss's own gradient is written. It stands for all 8 of the sum's, and is multiplied with 6 values to 12.
    assert tally.counts["backward"] == Counts({"float32": 48}, 4 * (1 + (1 + 6 + 12)))
    assert tally.counted() == dict(tally.counts)


def test_a_convolution_and_its_backward_pass():
    conv = nn.Conv2d(2, 3, 3, padding=1, bias=False)
    x, gradient = torch.randn(1, 2, 4, 4, requires_grad=True), torch.ones(1, 3, 4, 4)
    with Tally(CPU) as tally:
        y = conv(x)
        tally.stage = "backward"
        torch.autograd.grad(y, (x, conv.weight), gradient)
    operations = 2 * (4 * 4) * (3 * 3) * 2 * 3
    assert tally.counts["rest"] == Counts({"float32": operations}, 4 * (32 + 54 + 48))
    assert tally.counts["backward"] == Counts({"float32": 2 * operations}, 4 * (48 + 32 + 54 + 32 + 54))


def test_attention():
    """2 heads of 4 tokens of width 8: two products of 4 x 4 x 8 each."""
    q, k, v = torch.randn(3, 1, 2, 4, 8).unbind()
    assert counts_of(lambda: F.scaled_dot_product_attention(q, k, v)).flop == {"float32": 2 * 2 * (2 * 4 * 4 * 8)}


def test_half_precision_has_its_own_ceiling():
    a = torch.ones(4, 4, dtype=torch.bfloat16)
    assert counts_of(lambda: a @ a) == Counts({"16 bit": 128}, 2 * (16 + 16))  # the same tensor is read once


X, Y, TABLE = torch.randn(2, 5), torch.randn(2, 5), torch.randn(1000, 4)
ROWS = torch.tensor([3, 7])


@pytest.mark.parametrize(
    ("work", "bytes_moved"),
    [
        (lambda: X + Y, 4 * 30),
        (lambda: X * X, 4 * 20),
        (lambda: X + 1, 4 * 20),
        (lambda: X.clone(), 4 * 20),
        (lambda: X + Y[:, :1].expand(2, 5), 4 * (10 + 2 + 10)),
        (lambda: (X.t(), X.view(10), X[0], X.detach(), X.contiguous(), X.split(1), X.float()), 0),
        (lambda: torch.empty(100), 0),
        (lambda: torch.zeros(100), 400),
        (lambda: torch.zeros_like(X), 40),
        (lambda: X.new_zeros(3), 12),
        (lambda: X.add_(Y), 4 * 30),
        (lambda: X.copy_(Y), 4 * 20),
        (lambda: X.zero_(), 4 * 10),
        (lambda: torch._foreach_add_([X, Y], 1.0), 4 * 40),
        (lambda: torch.add(X, Y, out=torch.empty(2, 5)), 4 * 30),
        (lambda: TABLE[ROWS], 16 + 32 + 32),
        (lambda: F.embedding(ROWS, TABLE), 16 + 32 + 32),
        (lambda: TABLE.index_add_(0, ROWS, torch.ones(2, 4)), 32 + 16 + 32 + 32 + 32),  # the ones are made first
        (lambda: X.double(), 4 * 10 + 8 * 10),
        (lambda: X.sum().item(), 4 * 11),
    ],
)
def test_bytes(work, bytes_moved):
    assert counts_of(work).bytes == bytes_moved


def test_tensors_elsewhere_do_not_count():
    with Tally(torch.device("cuda")) as tally:
        _ = X + Y
    assert tally.counts["rest"].bytes == 0


def test_stages_that_cannot_be_counted_are_told_of():
    before = torch.cuda.CUDAGraph.replay
    with Tally(CPU) as tally:
        _ = X + Y
        tally.stage = "by hand"
        _ = torch.from_numpy(X.numpy() * 2)
        tally.stage = "replayed"
        with suppress(Exception):  # there is no graph
            torch.cuda.CUDAGraph.replay(object())  # type: ignore[arg-type]
        tally.stage = "sparse"
        _ = torch.eye(3).to_sparse()
    assert tally.hidden == {"by hand": "NumPy", "replayed": "a CUDA graph", "sparse": "tensors that are sparse"}
    assert set(tally.counted()) == {"rest"}
    assert "numpy" not in vars(torch.Tensor)
    assert torch.cuda.CUDAGraph.replay is before


def test_packages_without_operators_are_told_of(monkeypatch):
    monkeypatch.setitem(sys.modules, "nerfacc", object())
    with Tally(CPU) as tally:
        tally.stage = "renderer"
        _ = X + Y
    assert tally.hidden == {"renderer": "kernels of nerfacc"}


def test_operators_of_ones_own_count_as_registered():
    @torch.library.custom_op("benchmark_test::doubled", mutates_args=())
    def doubled(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.numpy() * 2) + torch.mm(x, x) * 0  # inside it nothing is counted

    x = torch.randn(3, 3)
    with Tally(CPU) as tally:
        doubled(x)
    assert tally.unregistered == {"benchmark_test::doubled"}
    assert tally.hidden == {}
    assert tally.counts["rest"] == Counts({}, 4 * 18)
    register_flop_formula(torch.ops.benchmark_test.doubled)(lambda shape, **_: 7 * shape[0])
    with Tally(CPU) as tally:
        doubled(x)
    assert tally.unregistered == set()
    assert tally.counts["rest"] == Counts({"float32": 21}, 4 * 18)


def test_a_floor_is_the_longer_of_computing_and_moving():
    best = Ceilings({"float32": 100.0, "16 bit": 400.0}, bytes_per_second=10.0)
    assert best.floor({"float32": 50, "16 bit": 200}, 4) == 1.0
    assert best.floor({"float32": 50}, 40) == 4.0
    assert best.floor({}, 0) == 0.0


def test_a_step_is_counted_where_all_stages_are():
    best = Ceilings({}, 1.0)
    counts = {"prior": Counts({"16 bit": 5, "float32": 1}, 10), "rest": Counts({"float32": 2}, 4)}
    assert Work(best, counts, {}, []).of("step") == Counts({"16 bit": 5, "float32": 3}, 14)
    assert counts["prior"] == Counts({"16 bit": 5, "float32": 1}, 10)
    work = Work(best, counts, {"VAE": "a CUDA graph"}, [])
    assert work.of("step") is None
    assert work.of("VAE") is None
    assert work.of("rest") == counts["rest"]


def test_ceilings_of_this_machine():
    precision = torch.get_float32_matmul_precision()
    best = ceilings("cpu", torch.get_num_threads())
    assert set(best.flop_per_second) == {"float32", "16 bit"}
    assert all(1e8 < speed < 1e15 for speed in best.flop_per_second.values())
    assert 1e8 < best.bytes_per_second < 1e13
    assert ceilings("cpu", torch.get_num_threads()) is best
    assert torch.get_float32_matmul_precision() == precision
    assert 1e8 < copy_speed(CPU, repeats=1) < 1e13
