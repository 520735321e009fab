"""The hash grid by hand, against the reference's numbers, and where it is easily wrong."""

import subprocess
import sys
import zlib
from dataclasses import asdict
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from scaledreamer.encodings.hash_grid import HashGrid, hash_encode, levels_of, rows_of
from scaledreamer.encodings.tiny_cuda import _encoding, hash_encode_tiny_cuda
from scaledreamer.errors import UserError

TINY = {"n_levels": 3, "log2_size": 5, "base_resolution": 2, "growth": 2.0}
"""Resolutions 2, 4 and 8: 8 entries, then 32 for 64 and for 512 vertices."""


def grid(**options) -> HashGrid:
    torch.manual_seed(0)
    made = HashGrid(**{**TINY, **options})
    torch.nn.init.normal_(made.params)
    return made


# -- by hand -----------------------------------------------------------------------------------------------------


def test_levels_by_hand():
    """Scales 2 * 2^l - 1; the first level's 8 vertices fit, 64 and 512 do not."""
    found = [tuple(asdict(level).values()) for level in levels_of(**TINY)]
    assert found == [(1.0, 2, 0, 8, False), (3.0, 4, 8, 32, True), (7.0, 8, 40, 32, True)]


def test_dense_tables_are_rounded_up_to_eights():
    """scale 2 -> 27 vertices -> 32 entries; one that is full to the last entry is dense, not hashed."""
    (level,) = levels_of(n_levels=1, log2_size=19, base_resolution=3, growth=1.0)
    assert (level.scale, level.resolution, level.entries, level.hashed) == (2.0, 3, 32, False)
    (full,) = levels_of(n_levels=1, log2_size=6, base_resolution=4, growth=1.0)
    assert (full.entries, full.hashed) == (64, False)
    (shared,) = levels_of(n_levels=1, log2_size=5, base_resolution=4, growth=1.0)
    assert (shared.entries, shared.hashed) == (32, True)


def test_dense_rows_by_hand():
    """Resolution 4: x + 4 y + 16 z, modulo the 64 entries; the cell at (1, 2, 3) ends outside the lattice."""
    (level,) = levels_of(n_levels=1, log2_size=6, base_resolution=4, growth=1.0)
    inside, across = rows_of(torch.tensor([[0, 1, 2], [1, 2, 3]]), level).tolist()
    assert inside == [36, 37, 40, 41, 52, 53, 56, 57]
    assert across == [57, 58, 61, 62, 9, 10, 13, 14]


def test_hashed_rows_by_hand():
    """Modulo 8 the primes are 1, 1 and 5: corner (1, 2, 3) is 1 xor 2 xor 7 = 4, its neighbour in x 2 xor 2 xor 7."""
    (level,) = levels_of(n_levels=1, log2_size=3, base_resolution=4, growth=1.0)
    (found,) = rows_of(torch.tensor([[1, 2, 3]]), level).tolist()
    # z = 3 is 15 mod 8 = 7 and z = 4 is 20 mod 8 = 4.
    assert found == [1 ^ 2 ^ 7, 2 ^ 2 ^ 7, 1 ^ 3 ^ 7, 2 ^ 3 ^ 7, 1 ^ 2 ^ 4, 2 ^ 2 ^ 4, 1 ^ 3 ^ 4, 2 ^ 3 ^ 4]


def test_hashed_rows_use_all_32_bits():
    """4095 * 2654435761 = 10869914441295 = 3647182415 mod 2^32 and 3 * 805459861 = 2416379583: below, mod 2^19."""
    (level,) = levels_of(n_levels=1, log2_size=19, base_resolution=4096, growth=1.0)
    (found,) = rows_of(torch.tensor([[7, 4095, 3]]), level).tolist()
    assert found[0] == (7 ^ 3647182415 ^ 2416379583) % 2**19
    (outside,) = rows_of(torch.tensor([[-1, 0, 0]]), level).tolist()
    assert outside[0] == 2**19 - 1  # -1 is 2^32 - 1


def test_rows_outside_a_dense_lattice_wrap():
    """27 vertices in 32 entries: (-1, 0, 0) is 2^32 - 1, which is 31 modulo 32; (-1, 1, 0) is -1 + 3."""
    (level,) = levels_of(n_levels=1, log2_size=19, base_resolution=3, growth=1.0)
    (found,) = rows_of(torch.tensor([[-1, 0, 0]]), level).tolist()
    assert (found[0], found[2]) == (31, 2)


def test_values_by_hand():
    """Entries 0 .. 7 at the 8 vertices, which lie at -0.5 and 0.5 along each axis: value x + 2 y + 4 z there."""
    encoding = grid(n_levels=1, features=1, log2_size=3)
    with torch.no_grad():
        encoding.params.copy_(torch.arange(8.0))
    points = torch.tensor([[0.5, 0.5, 0.5], [0.0, 0.0, 0.0], [0.25, 0.5, 0.5], [0.5, 0.0, 0.25]])
    torch.testing.assert_close(encoding(points)[:, 0], torch.tensor([7.0, 3.5, 6.75, 1 + 2 * 0.5 + 4 * 0.75]))


def test_levels_and_features_are_in_the_published_order():
    """Each entry holds its own place in the parameters; (0.5, 0.5, 0.5) is a vertex of each level of odd scale."""
    encoding = HashGrid(n_levels=2, features=2, log2_size=6, base_resolution=2, growth=2.0)
    with torch.no_grad():
        encoding.params.copy_(torch.arange(encoding.params.numel()))
    found = encoding(torch.full((1, 3), 0.5))[0]
    # Entry 7 of level 0; entry 2 + 4 * 2 + 16 * 2 = 42 of level 1, which begins at entry 8.
    torch.testing.assert_close(found, torch.tensor([14.0, 15.0, 100.0, 101.0]))


def test_two_dimensions():
    encoding = grid(n_levels=1, features=1, log2_size=3, dims=2)
    with torch.no_grad():
        encoding.params.copy_(torch.arange(8.0))  # four vertices, rounded up to eight entries
    torch.testing.assert_close(encoding(torch.tensor([[0.5, 0.25]])), torch.tensor([[1 + 2 * 0.75]]))


# -- against others ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["geo", "bg", "real"])
def test_golden_levels(goldens, kind):
    meta = goldens("hyper_ingp").meta
    config = meta["config"]
    settings = {
        "geo": config["geometry"]["pos_encoding_config"],
        "bg": config["background"]["pos_encoding_config"],
        "real": config["real_grid"],
    }
    encoding = HashGrid(**options_of(settings[kind]))
    expected = meta["facts"]["levels"][kind]
    for found, level in zip(encoding.levels, expected, strict=True):
        assert found.scale == pytest.approx(level["scale"], rel=1.2e-7)  # the last bit is the exponential's
        shape = (found.resolution, found.offset, found.entries, found.hashed)
        assert shape == (level["resolution"], level["offset"], level["n_entries"], level["hashed"])
    assert encoding.params.numel() == 2 * (expected[-1]["offset"] + expected[-1]["n_entries"])


def options_of(settings):
    """Our names for those of the reference."""
    return {
        "n_levels": settings["n_levels"],
        "features": settings["n_features_per_level"],
        "log2_size": settings["log2_hashmap_size"],
        "base_resolution": settings["base_resolution"],
        "growth": settings["per_level_scale"],
    }


@torch.no_grad()
def test_golden_full_size(goldens):
    golden = goldens("hyper_ingp")
    encoding = HashGrid(**options_of(golden.meta["config"]["real_grid"]))
    random = np.random.RandomState(zlib.crc32(b"hashgrid_real") & 0x7FFFFFFF)
    encoding.params.copy_(torch.from_numpy(random.standard_normal(encoding.params.numel()).astype(np.float32)))
    case = golden.case("real")
    for name, points in (("enc", case["in.x"]), ("enc_outside", case["in.x_outside"])):
        torch.testing.assert_close(encoding(points), case[f"out.{name}"], rtol=1e-4, atol=2e-3)


def test_a_dense_level_equals_grid_sample():
    encoding = grid(n_levels=1, features=4, base_resolution=8, log2_size=9)
    points = torch.rand(500, 3) * 13 / 14  # up to the lattice's last vertex, 6.5 of its 7 cells
    volume = encoding.params.view(8, 8, 8, 4).permute(3, 0, 1, 2)[None]  # z y x
    place = (points * 7 + 0.5) / 7 * 2 - 1
    expected = F.grid_sample(volume, place[None, None, None], align_corners=True)[0, :, 0, 0].t()
    torch.testing.assert_close(encoding(points), expected, rtol=1e-4, atol=1e-5)


# -- properties --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [2, 3])
def test_gradients_to_parameters_and_points(dims):
    """Of dense and hashed levels together, inside the cube and outside."""
    encoding = grid(dims=dims, log2_size=3).double()
    points = (torch.rand(6, dims, dtype=torch.double) * 1.4 - 0.2).requires_grad_()
    table = encoding.params.detach().view(-1, 2).requires_grad_()
    assert {level.hashed for level in encoding.levels} == {False, True}
    assert torch.autograd.gradcheck(lambda x, t: hash_encode(x, t, encoding.levels), (points, table), eps=1e-7)


def test_vertices_that_share_an_entry_add_up_their_gradients():
    """Shares sum to 1 at every point, so each level's table gets one gradient of 1 per point and feature."""
    encoding = grid()
    encoding(torch.rand(50, 3)).sum().backward()
    per_level = torch.tensor([g.sum() for g in encoding.params.grad.view(-1, 2).split([8, 32, 32])])
    torch.testing.assert_close(per_level, torch.full((3,), 50.0 * 2))


def test_continuous_also_across_the_cubes_faces():
    encoding = grid()
    line = torch.linspace(-1, 2, 30_001)[:, None] * torch.tensor([1.0, 0.7, 0.4]) + torch.tensor([0.0, 0.1, 0.2])
    steps = encoding(line).diff(dim=0).abs()
    steepest = 7 * 2 * encoding.params.abs().max() * 2.1e-4  # scale * greatest difference * step, per axis at most
    assert steps.max() < steepest


def test_any_shape_of_points():
    encoding, points = grid(), torch.rand(2, 5, 4, 3)
    found = encoding(points)
    assert found.shape == (2, 5, 4, encoding.width)
    torch.testing.assert_close(found[1, 2], encoding(points[1, 2]))
    assert encoding(torch.empty(0, 3)).shape == (0, encoding.width)


def test_points_of_another_dimension_are_refused():
    with pytest.raises(ValueError, match="points have 3 coordinates, the hash grid has 2"):
        grid(dims=2)(torch.rand(4, 3))


def test_nan_and_far_away_points_do_not_leave_the_tables():
    found = grid()(torch.tensor([[float("nan"), 0.5, 0.5], [1e12, -1e12, 3e4], [float("inf"), 0.0, 0.0]]))
    assert found[0].isnan().all()
    assert found[1].isfinite().all()


def test_starts_near_zero():
    params = HashGrid().params
    assert params.numel() == 12_599_920
    assert 0.99e-4 < params.abs().max() <= 1e-4
    assert abs(params.mean()) < 1e-7


def test_nothing_but_the_parameters_is_stored():
    assert list(HashGrid(**TINY).state_dict()) == ["params"]


# -- backends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["triton", "tinycudann"])
def test_backends_that_are_not_there_say_so(backend, monkeypatch):
    monkeypatch.setattr("scaledreamer.encodings.backends.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=f"backend={backend}: it needs the package '{backend}', .* backend=auto or torch"
    ):
        HashGrid(**TINY, backend=backend)


def test_auto_is_torch_on_a_cpu():
    points, names = torch.rand(7, 3), ("auto", "torch")
    one, other = (grid(backend=name)(points) for name in names)
    assert torch.equal(one, other)


def test_nothing_but_torch_is_imported_on_a_cpu():
    code = (
        "import sys; sys.modules['triton'] = sys.modules['tinycudann'] = None; import torch; "
        "from scaledreamer.encodings.hash_grid import HashGrid; print(HashGrid(n_levels=1)(torch.rand(2, 3)).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "torch.Size([2, 2])", done.stderr


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_parameters_read_in_half_precision(name):
    """As a grid of rounded parameters, in float32; gradients arrive at what was not rounded."""
    half, points = grid(dtype=name), torch.rand(50, 3)
    rounded = grid()
    with torch.no_grad():
        rounded.params.copy_(half.params.to(getattr(torch, name)))
    found, expected = half(points), rounded(points)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert not torch.equal(found, grid()(points))
    for encoding, features in ((half, found), (rounded, expected)):
        features.square().sum().backward()
        assert encoding.params.grad.dtype == torch.float32
    assert torch.equal(half.params.grad, rounded.params.grad)


def test_autocast_chooses_the_type_of_the_features_only_where_half_precision_was_asked_for():
    points = torch.rand(5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert grid(dtype="float16")(points).dtype == torch.float16
        assert grid()(points).dtype == torch.float32


class FakeEncoding(torch.nn.Module):
    """tiny-cuda-nn's, as far as it is used: the same layout of parameters, of its own at first."""

    made: ClassVar[list] = []

    def __init__(self, n_input_dims, encoding_config, dtype):
        super().__init__()
        self.config, self.dtype = encoding_config, dtype
        self.levels = levels_of(**{k: v for k, v in options_of(encoding_config).items() if k != "features"})
        size = sum(level.entries for level in self.levels) * encoding_config["n_features_per_level"]
        self.params = torch.nn.Parameter(torch.zeros(size))
        self.made.append(self)

    def forward(self, points):
        table = self.params.to(self.dtype).view(-1, self.config["n_features_per_level"])
        return hash_encode(points, table, self.levels, out=self.dtype)


@pytest.fixture
def tiny_cuda(monkeypatch):
    """A ``tinycudann`` that computes on CPUs."""
    monkeypatch.setattr("scaledreamer.encodings.backends.find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "tinycudann", SimpleNamespace(Encoding=FakeEncoding))
    monkeypatch.setattr(FakeEncoding, "made", [])
    _encoding.cache_clear()
    yield lambda: monkeypatch.setattr("scaledreamer.encodings.tiny_cuda.require_gpu", lambda *_: None)
    _encoding.cache_clear()


def test_tiny_cuda_nn_computes_with_our_parameters(tiny_cuda):
    tiny_cuda()
    points = torch.rand(9, 3)
    results = []
    for backend in ("tinycudann", "torch"):
        encoding = grid(backend=backend, growth=1.5)
        for _ in range(2):
            encoding(points).sum().backward()
        results.append((encoding(points), encoding.params.grad))
        assert list(encoding.state_dict()) == ["params"]
    for found, expected in zip(*results, strict=True):
        assert torch.equal(found, expected)
    (module,) = FakeEncoding.made
    assert module.config == {
        "otype": "HashGrid",
        "n_levels": 3,
        "n_features_per_level": 2,
        "log2_hashmap_size": 5,
        "base_resolution": 2,
        "per_level_scale": 1.5,
    }
    assert module.params is None  # nothing of a step is kept


def test_tiny_cuda_nn_in_half_precision(tiny_cuda):
    tiny_cuda()
    encoding, points = grid(backend="tinycudann", dtype="float16"), torch.rand(9, 3)
    found = encoding(points)
    torch.testing.assert_close(found, grid()(points), rtol=1e-3, atol=2e-3)
    assert (found.dtype, FakeEncoding.made[0].dtype) == (torch.float32, torch.float16)
    with pytest.raises(UserError, match="backend=tinycudann: it has no bfloat16; set dtype=float16 or float32"):
        grid(backend="tinycudann", dtype="bfloat16")


def test_tiny_cuda_nn_needs_a_gpu_and_this_layout(tiny_cuda, monkeypatch):
    encoding, points = grid(backend="tinycudann"), torch.rand(4, 3)
    with pytest.raises(UserError, match="backend=tinycudann: it needs a GPU, but the points are on the cpu; choose"):
        encoding(points)
    tiny_cuda()
    with pytest.raises(UserError, match="its version here has 144 parameters where this grid has 24; choose"):
        hash_encode_tiny_cuda(points, torch.zeros(12, 2), **TINY, features=2, dims=3)
