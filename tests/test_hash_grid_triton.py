"""The Triton kernels of the hash grid against the same grid in plain PyTorch: values and gradients.

On GPUs with ``-m gpu``; on CPUs through Triton's interpreter, in a process of their own, where Triton is installed.
"""

from importlib.metadata import version
from importlib.util import find_spec

import pytest
import torch
from interpreter import INTERPRETED, pass_in_the_interpreter

from scaledreamer.encodings.hash_grid import HashGrid, hash_encode
from scaledreamer.errors import UserError

GRIDS = {
    "dense levels": {"n_levels": 2, "log2_size": 10, "base_resolution": 6, "growth": 1.5},  # of 216 and 736 entries
    "hashed levels in two groups": {"n_levels": 5, "log2_size": 5, "base_resolution": 3, "growth": 1.6},
    "levels alike": {"n_levels": 2, "log2_size": 12, "base_resolution": 16, "growth": 1.0},
    "coarse and very fine": {"n_levels": 2, "log2_size": 12, "base_resolution": 16, "growth": 256.0},
    "one feature in a plane": {"n_levels": 3, "log2_size": 6, "growth": 1.7, "features": 1, "dims": 2},
    "four features": {"n_levels": 2, "log2_size": 7, "base_resolution": 4, "growth": 2.0, "features": 4},
    "eight features": {"n_levels": 1, "log2_size": 8, "base_resolution": 8, "features": 8},
}


@pytest.fixture
def encode(device, monkeypatch):
    """The function under test, which adds gradients up one by one unless a test changes ``MERGED_UP_TO``."""
    from scaledreamer.encodings import hash_grid_triton

    monkeypatch.setattr(hash_grid_triton, "MERGED_UP_TO", 0)
    return hash_grid_triton.hash_encode_triton


def triton_version() -> tuple[int, ...]:
    return tuple(int(number) for number in version("triton").split(".")[:2])


def grid(device, **options) -> HashGrid:
    torch.manual_seed(0)
    made = HashGrid(**options)
    torch.nn.init.normal_(made.params)
    return made.to(device)


def points_for(encoding: HashGrid, n: int) -> torch.Tensor:
    """Inside and outside the cube, on its faces, on faces of cells."""
    points = torch.rand(n, encoding.dims) * 1.4 - 0.2
    points[: n // 8] = points[: n // 8].round()  # corners of the cube
    points[n // 8 : n // 4, 0] = 1.0
    points[n // 4 : n // 3, 1] = 0.0
    scale = encoding.levels[-1].scale
    points[n // 3 : n // 2] = ((points[n // 3 : n // 2] * scale).round() - 0.5) / scale  # up to the last bit
    return points.to(encoding.params.device)


def results(function, points, table, levels, *, grad=None, **types):
    """Features, and the gradients to points and to the table that ``grad`` [N, L * F] gives; None: of the sum."""
    points, table = points.detach().requires_grad_(), table.detach().requires_grad_()
    found = function(points, table, levels, **types)
    found.backward(grad.to(found.dtype)) if grad is not None else found.sum().backward()
    return found.detach(), points.grad, table.grad


def assert_alike(found, expected, tolerance=1e-5):
    """All of the same type, and to ``tolerance`` of the greatest number (at least 1) the same."""
    for name, one, other in zip(("features", "points", "table"), found, expected, strict=True):
        assert one.dtype == other.dtype, name
        assert one.isfinite().all(), name
        worst = (one.float() - other.float()).abs().max()
        assert worst <= tolerance * max(1.0, float(other.abs().max())), (name, worst, other.abs().max())


# -- parity ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRIDS)
def test_values_and_gradients(encode, device, name):
    """Also where a cell's face decides which cell it is: both round a point's place in the same way."""
    encoding = grid(device, **GRIDS[name])
    n = 131 if name == "hashed levels in two groups" else 70  # a block is 128 points, and a second one takes its time
    points, table = points_for(encoding, n), encoding.params.view(-1, encoding.features)
    grad = torch.randn(n, encoding.width, device=device)
    expected = results(hash_encode, points, table, encoding.levels, grad=grad)
    assert_alike(results(encode, points, table, encoding.levels, grad=grad), expected)


@pytest.mark.parametrize("name", ["dense levels", "one feature in a plane"])
def test_runs_of_neighbours_add_up_first(encode, device, name, monkeypatch):
    """Runs within a warp, over its end, over the last point; and runs of one point."""
    if INTERPRETED and triton_version() < (3, 3):
        pytest.skip("the interpreter of Triton 3.2 cannot do the scan")
    encoding = grid(device, **GRIDS[name])
    line = torch.linspace(0.1, 0.4, 61)[:, None].expand(61, encoding.dims)
    points = torch.cat([line, torch.rand(9, encoding.dims), torch.full((3, encoding.dims), 0.3)]).to(device)
    table, grad = encoding.params.view(-1, encoding.features), torch.randn(73, encoding.width, device=device)
    expected = results(hash_encode, points, table, encoding.levels, grad=grad)
    monkeypatch.setattr("scaledreamer.encodings.hash_grid_triton.MERGED_UP_TO", encoding.levels[-1].resolution)
    assert_alike(results(encode, points, table, encoding.levels, grad=grad), expected)


def test_any_strides(encode, device):
    """Points across memory, a gradient of no stride at all, and one stored feature by feature."""
    encoding = grid(device, **GRIDS["dense levels"])
    table = encoding.params.view(-1, encoding.features)
    points = points_for(encoding, 60).t().contiguous().t()
    assert not points.is_contiguous()
    for grad in (None, torch.randn(encoding.width, 60, device=device).t()):
        expected = results(hash_encode, points, table, encoding.levels, grad=grad)
        assert_alike(results(encode, points, table, encoding.levels, grad=grad), expected)


@pytest.mark.parametrize("out", [None, "half"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(encode, device, dtype, out):
    """Parameters rounded once; gradients to them in float32, whatever the features are."""
    encoding = grid(device, n_levels=1, log2_size=6, base_resolution=4)
    points, table = points_for(encoding, 40), encoding.params.view(-1, encoding.features)
    types = {"dtype": dtype, "out": dtype if out else None}
    grad = torch.randn(40, encoding.width, device=device)
    found = results(encode, points, table, encoding.levels, grad=grad, **types)
    expected = results(hash_encode, points, table, encoding.levels, grad=grad, **types)
    assert found[0].dtype == (dtype if out else torch.float32)
    # A feature in half precision may be rounded the other way, no gradient is.
    assert_alike(found, expected, tolerance=torch.finfo(dtype).eps if out else 1e-5)
    assert_alike((expected[0], *found[1:]), expected)


# -- the rest of its contract --------------------------------------------------------------------------------------


def test_a_grid_with_this_backend(encode, device):
    """Any shape of points; gradients arrive at the flat parameters."""
    options = {"n_levels": 2, "log2_size": 5, "base_resolution": 2, "growth": 2.0}
    ours, reference = grid(device, **options, backend="triton"), grid(device, **options, backend="torch")
    points = torch.rand(2, 5, 3, 3, device=device)
    found, expected = ours(points), reference(points)
    assert found.shape == (2, 5, 3, 4)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for features in (found, expected):
        features.square().sum().backward()
    torch.testing.assert_close(ours.params.grad, reference.params.grad, rtol=1e-5, atol=1e-5)
    assert ours(torch.empty(0, 3, device=device)).shape == (0, 4)


def test_nan_and_far_away_points_do_not_leave_the_tables(encode, device):
    encoding = grid(device, **GRIDS["dense levels"])
    nan, inf = float("nan"), float("inf")
    points = torch.tensor([[nan, 0.5, 0.5], [1e12, -1e12, 3e4], [inf, 0.0, 0.0], [0.5, 0.5, 0.5]], device=device)
    table = encoding.params.view(-1, encoding.features)
    found, to_points, to_table = results(encode, points, table, encoding.levels)
    assert found[0].isnan().all()
    assert found[1].isfinite().all()
    assert torch.equal(found[3], encode(points[3:], table, encoding.levels)[0])
    assert to_points[3].isfinite().all()
    assert to_table.shape == table.shape


def test_only_the_gradients_that_are_asked_for(encode, device):
    encoding = grid(device, **GRIDS["dense levels"])
    table, points = encoding.params.detach().view(-1, 2), torch.rand(5, 3, device=device)
    assert not encode(points, table, encoding.levels).requires_grad
    encode(points, table.requires_grad_(), encoding.levels).sum().backward()
    assert points.grad is None
    torch.testing.assert_close(table.grad.sum(), torch.tensor(5.0 * encoding.width, device=device))


def test_a_second_derivative_is_refused(encode, device):
    encoding = grid(device, **GRIDS["dense levels"])
    points = torch.rand(5, 3, device=device, requires_grad=True)
    found = encode(points, encoding.params.view(-1, 2), encoding.levels)
    (slope,) = torch.autograd.grad(found.sum(), points, create_graph=True)
    with pytest.raises(RuntimeError, match="autograd"):
        slope.square().sum().backward()


def test_the_operators_are_what_they_say(encode, device):
    """Schemas, shapes without data, and gradients, as PyTorch's own check sees them."""
    from scaledreamer.encodings import hash_grid_triton as module

    encoding = grid(device, **GRIDS["one feature in a plane"])
    numbers = module._numbers(encoding.levels)
    points, table = torch.rand(6, 2, device=device), encoding.params.detach().view(-1, 1)
    grad, kind = torch.randn(encoding.width, 6, device=device), torch.float32
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    differentiable = (points.clone().requires_grad_(), table.clone().requires_grad_())
    for operator, arguments in (
        (module._encode, (*differentiable, kind, kind)),
        (module._table_gradient, (points, grad, table)),
        (module._point_gradient, (points, grad, table, kind)),
    ):
        torch.library.opcheck(operator, (*arguments, *numbers), test_utils=checks)


def test_compiles_in_one_piece(encode, device):
    encoding = grid(device, n_levels=1, log2_size=6, base_resolution=4, backend="triton")
    points = torch.rand(9, 3, device=device)

    def loss(x):
        return encoding(2 * x - 0.5).square().sum()

    loss(points).backward()
    expected, encoding.params.grad = encoding.params.grad, None
    torch.compile(loss, fullgraph=True, backend="aot_eager")(points).backward()
    torch.testing.assert_close(encoding.params.grad, expected)


# -- where there is no GPU, and where there is one ----------------------------------------------------------------


def test_on_a_cpu_through_the_interpreter():
    pass_in_the_interpreter(__file__)


@pytest.mark.skipif(INTERPRETED or find_spec("triton") is None, reason="triton is not installed, or interprets")
def test_points_on_a_cpu_are_refused():
    with pytest.raises(
        UserError, match="backend=triton: it needs a GPU, but the points are on the cpu; choose backend"
    ):
        HashGrid(n_levels=1, backend="triton")(torch.rand(2, 3))


@pytest.mark.gpu
@pytest.mark.parametrize("where", ["rays", "uniform"])
def test_at_full_size(where, device):
    """Of the paper's grid at a fifth of a step's points, with merged runs; sums of up to 10^5 numbers per entry."""
    from scaledreamer.benchmark.points import points_of
    from scaledreamer.encodings.hash_grid_triton import hash_encode_triton

    encoding = grid(device)
    points, table = points_of(where, 600_000, torch.device(device)), encoding.params.view(-1, 2)
    grad = torch.randn(len(points), encoding.width, device=device)
    expected = results(hash_encode, points, table, encoding.levels, grad=grad)
    found = results(hash_encode_triton, points, table, encoding.levels, grad=grad)
    assert_alike((*found[:2], expected[2]), expected)
    assert_alike(found, expected, tolerance=1e-4)  # neither knows so long a sum to more digits


@pytest.mark.gpu
def test_auto_is_triton_on_a_gpu(device):
    points = torch.rand(1000, 3, device=device)
    auto, triton = (grid(device, backend=name)(points) for name in ("auto", "triton"))
    assert torch.equal(auto, triton)


@pytest.mark.gpu
def test_runs_in_a_cuda_graph(device):
    encoding, points = grid(device, backend="triton"), torch.rand(1000, 3, device=device)
    encoding(points).sum().backward()
    expected = encoding.params.grad.clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        encoding.params.grad = None
        encoding(points).sum().backward()
    torch.cuda.current_stream().wait_stream(side)
    encoding.params.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        encoding(points).sum().backward()
    encoding.params.grad.fill_(7.0)
    graph.replay()
    torch.testing.assert_close(encoding.params.grad, expected, rtol=1e-5, atol=1e-5)
