"""Time and peak memory of a function, on a CPU or a GPU."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Measurement:
    """One measured function."""

    milliseconds: float  # median over the repeats
    spread: float  # half of the distance between the 10th and 90th percentile, milliseconds
    peak_gib: float | None  # most memory allocated on the GPU meanwhile, what was there before included; None on a CPU


def measure(function: Callable[[], object], *, device: torch.device, repeats: int, warmup: int) -> Measurement:
    """Call ``function`` ``warmup + repeats`` times; each timed call begins and ends with an idle device."""
    for _ in range(warmup):
        function()
    gpu = device.type == "cuda"
    if gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    times = [_timed_on_gpu(function, device) if gpu else _timed(function) for _ in range(repeats)]
    return Measurement(
        milliseconds=statistics.median(times),
        spread=_spread(times),
        peak_gib=torch.cuda.max_memory_allocated(device) / 2**30 if gpu else None,
    )


def _timed_on_gpu(function: Callable[[], object], device: torch.device) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    function()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end)


def _timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - start)


def _spread(times: list[float]) -> float:
    ordered = sorted(times)
    low, high = ordered[len(ordered) // 10], ordered[-1 - len(ordered) // 10]
    return (high - low) / 2
