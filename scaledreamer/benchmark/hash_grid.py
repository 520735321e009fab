"""Time and memory of the hash grid's backends, beside the time that its bytes take at the speed of a plain copy.

python -m scaledreamer.benchmark.hash_grid [--points 3145728] [--json FILE]

The grid is the paper's: 16 levels of 2 features, up to 2^19 entries, resolutions 16 to 4096. Points are those of a
training step of 64 x 64 rays (base points and three offsets each, for finite differences), or uniformly random.

Bytes of a pass: ``unique`` is what has to be moved at least: points in and features out, the table once; backwards the
same again as gradients. ``gathered`` is what the corners of the cells ask for: 8 corners x features x levels x points,
read forwards, added to in float32 backwards; caches serve most of it.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from scaledreamer.benchmark.arguments import natural, positive, require_place
from scaledreamer.benchmark.ceilings import copy_speed
from scaledreamer.benchmark.points import Where, points_of
from scaledreamer.benchmark.timeline import Timeline
from scaledreamer.cli import clear_errors
from scaledreamer.encodings.hash_grid import HashGrid
from scaledreamer.errors import UserError

WHERE: tuple[Where, ...] = ("rays", "uniform")

PASSES = ("forward", "to parameters", "to both")
"""Without gradients; forwards and back to the parameters, as in training; and to the points as well."""


@dataclass(frozen=True)
class Variant:
    """A backend, and in which types it reads the table and writes features."""

    name: str
    backend: Literal["torch", "triton", "tinycudann"]
    dtype: Literal["float32", "float16"] = "float32"
    half_features: bool = False  # as under autocast, where half precision was asked for


VARIANTS = (
    Variant("torch", "torch"),
    Variant("triton", "triton"),
    Variant("triton, float16 table", "triton", "float16"),
    Variant("triton, float16", "triton", "float16", half_features=True),
    Variant("tiny-cuda-nn", "tinycudann"),
    Variant("tiny-cuda-nn, float16", "tinycudann", "float16", half_features=True),
)


@dataclass(frozen=True)
class Measured:
    """One pass of one variant."""

    points: Where
    variant: str
    timed: str  # one of PASSES
    milliseconds: float  # median, the forward pass included
    peak_gib: float | None  # GPU memory on top of points, parameters and the features' gradient
    unique_bytes: int
    gathered_bytes: int


def benchmark(
    n: int, *, device: torch.device, log2_size: int = 19, repeats: int = 30, warmup: int = 5
) -> dict[str, Any]:
    """All variants that can run here: their measurements, the speed of a copy and what was measured on.

    Args:
        n: points.
        log2_size: of the tables.
        repeats: repetitions whose median counts.
        warmup: repetitions before them.

    Raises:
        UserError: there are too few points.
    """
    if min(n // 4, repeats, warmup) < 1:
        raise UserError("the benchmark needs at least 4 points, one repetition and one to warm up.")
    gpu = device.type == "cuda"
    there = [v for v in VARIANTS if v.backend == "torch" or (gpu and find_spec(v.backend) is not None)]
    found = []
    for where in WHERE:
        points = points_of(where, n, device)
        for variant in there:
            encoding = HashGrid(log2_size=log2_size, backend=variant.backend, dtype=variant.dtype).to(device)
            found += _measure(variant, encoding, where, points, repeats=repeats, warmup=warmup)
    return {
        "device": torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "triton": _version("triton"),
        "python": platform.python_version(),
        "repeats": repeats,
        "points": n,
        "log2_size": log2_size,
        "copy_bytes_per_second": copy_speed(device, repeats),
        "measurements": [asdict(m) for m in found],
    }


def _measure(
    variant: Variant, encoding: HashGrid, where: Where, points: Tensor, *, repeats: int, warmup: int
) -> Iterator[Measured]:
    half = torch.float16 if variant.half_features else torch.float32
    grad = torch.randn(len(points), encoding.width, device=points.device).to(half)

    def run(given: Tensor) -> Tensor:
        with torch.autocast(points.device.type, enabled=variant.half_features):
            return encoding(given)

    def forward() -> None:
        with torch.no_grad():
            run(points)

    works: tuple[Callable[[], Any], ...] = (
        forward,
        lambda: run(points).backward(grad),
        lambda: run(points.detach().requires_grad_()).backward(grad),
    )
    for timed, work in zip(PASSES, works, strict=True):
        milliseconds, peak = _time(work, points.device, repeats=repeats, warmup=warmup, parameters=encoding.params)
        unique, gathered = bytes_of(encoding, len(points), timed, variant)
        yield Measured(where, variant.name, timed, milliseconds, peak, unique, gathered)


def _time(
    work: Callable[[], Any], device: torch.device, *, repeats: int, warmup: int, parameters: Tensor | None = None
) -> tuple[float, float | None]:
    """Median milliseconds, and the GPU memory in GiB that one call takes on top of what is there."""
    timeline, before = Timeline(device), 0
    for step in range(warmup + repeats + 1):  # in the last one memory is tracked
        if step == warmup:
            timeline.forget()
        timeline.tracks_memory = step == warmup + repeats
        timeline.begin()
        if parameters is not None:
            parameters.grad = None
        if device.type == "cuda":
            before = torch.cuda.memory_allocated(device)
        timeline.enter("work")
        work()
        timeline.enter("end")
    stage = timeline.stages(repetitions=repeats)["work"]
    return stage.milliseconds, None if stage.peak_gib is None else stage.peak_gib - before / 2**30


def bytes_of(encoding: HashGrid, n: int, timed: str, variant: Variant) -> tuple[int, int]:
    """Unique and gathered bytes of a pass; see the module."""
    table = encoding.params.numel()
    read, written = (2 if half else 4 for half in (variant.dtype == "float16", variant.half_features))
    points, features = 4 * n * encoding.dims, written * n * encoding.width
    corners = n * encoding.width * 2**encoding.dims
    unique, gathered = points + features + read * table, corners * read
    if timed != "forward":
        unique, gathered = unique + points + features + 4 * table, gathered + 4 * corners
    if timed == "to both":  # the table is read again
        unique, gathered = unique + points + read * table, gathered + read * corners
    return unique, gathered


def _version(package: str) -> str | None:
    if find_spec(package) is None:
        return None
    from importlib.metadata import version

    return version(package)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m scaledreamer.benchmark.hash_grid", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--points", type=positive, default=64 * 64 * 192 * 4, metavar="N", help="points (3145728)")
    parser.add_argument("--log2-size", type=positive, default=19, metavar="N", help="of the tables (19)")
    parser.add_argument("--repeats", type=positive, default=30, metavar="N", help="repetitions that are timed (30)")
    parser.add_argument("--warmup", type=natural, default=5, metavar="N", help="repetitions before them (5)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda or cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    given = parser.parse_args(arguments)
    require_place(given.json)
    report = benchmark(
        given.points,
        device=torch.device(given.device),
        log2_size=given.log2_size,
        repeats=given.repeats,
        warmup=given.warmup,
    )
    _show(report)
    if given.json is not None:
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _show(report: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    speed = report["copy_bytes_per_second"]
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("points", "variant", "pass"):
        table.add_column(column, no_wrap=True)
    for column in ("ms", "peak GiB", "unique", "gathered"):
        table.add_column(column, justify="right")
    for row in report["measurements"]:
        peak = "" if row["peak_gib"] is None else f"{row['peak_gib']:.2f}"
        moved = [f"{1000 * row[key] / speed:.2f}" for key in ("unique_bytes", "gathered_bytes")]
        table.add_row(row["points"], row["variant"], row["timed"], f"{row['milliseconds']:.2f}", peak, *moved)
    console = Console(highlight=False)
    console.print(
        f"{report['device']}, torch {report['torch']}, triton {report['triton']}; {report['points']:,} points; "
        f"a copy moves {speed / 1e9:,.0f} GB/s",
        soft_wrap=True,
    )
    console.print(table)
    note = "unique, gathered: ms that these bytes take at the copy's speed; the forward pass is part of the others."
    console.print(note, soft_wrap=True)


if __name__ == "__main__":
    with clear_errors():
        main()
    sys.exit(0)
