"""How fast a device computes and copies at best: two ceilings that no training step can break through."""

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch

from scaledreamer.benchmark.operators import Kind, has_tf32

REPEATS = 10


@dataclass(frozen=True)
class Ceilings:
    """Of a device, measured."""

    flop_per_second: Mapping[Kind, float]  # of a large matrix product, by arithmetic
    bytes_per_second: float  # read and written by a copy that no cache holds

    def floor(self, flop: Mapping[Kind, int], bytes_moved: int) -> float:
        """Seconds that work takes at least: computing, or moving, whichever is longer."""
        computing = sum(count / self.flop_per_second[kind] for kind, count in flop.items())
        return max(computing, bytes_moved / self.bytes_per_second)


@lru_cache
def ceilings(device: str, threads: int) -> Ceilings:
    """Those of a device, measured once per process.

    Args:
        device: its type, "cuda" for the current GPU.
        threads: of PyTorch on a CPU; another number is measured anew.
    """
    where = torch.device(device)
    speeds: dict[Kind, float] = {"16 bit": _product_speed(where, torch.bfloat16)}
    with _precision("highest"):
        speeds["float32"] = _product_speed(where, torch.float32)
    if has_tf32(where):
        with _precision("high"):
            speeds["tf32"] = _product_speed(where, torch.float32)
    return Ceilings(speeds, copy_speed(where, REPEATS))


def copy_speed(device: torch.device, repeats: int) -> float:
    """Bytes read and written per second by a copy that no cache holds: of 1 GiB on a GPU, else of 64 MiB."""
    source = torch.empty(2**28 if device.type == "cuda" else 2**24, device=device).normal_()
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), device, repeats=repeats)


def _product_speed(device: torch.device, dtype: torch.dtype) -> float:
    side = 8192 if device.type == "cuda" else 512
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    return 2 * side**3 / seconds(lambda: torch.mm(left, right, out=out), device, repeats=REPEATS)


def seconds(work: Callable[[], object], device: torch.device, *, repeats: int) -> float:
    """Median over ``repeats`` calls, after two that warm up."""
    times = []
    for _ in range(2 + repeats):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _precision(name: str):
    """Float32 products in this precision meanwhile."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
