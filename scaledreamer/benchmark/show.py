"""Reports as tables in a terminal."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from scaledreamer.benchmark.compare import changes, differences
from scaledreamer.benchmark.report import Report, Row, Work

PARTS = ("generator", "renderer", "VAE", "prior", "optimizer", "rest")
STAGES = tuple(stage for part in PARTS for stage in (part, f"{part} backward"))


def show(report: Report) -> None:
    """What was measured, stage by stage."""
    console = make_console()
    settings, rows, work = report.settings, report.rows(), report.work
    console.print(
        f"{settings['device']}, torch {settings['torch']}; prior {settings['prior']}, {settings['precision']}; "
        f"{settings['prompts_per_step']} prompts x {settings['views_per_prompt']} views of "
        f"{settings['image_size']} x {settings['image_size']}; "
        f"generator {report.generator_parameters / 1e6:.1f} M parameters",
        soft_wrap=True,
    )
    columns = ["ms", "share", "peak GiB", *(["TFLOP/s", "GB/s", "floor ms", "of floor"] if work is not None else [])]
    table = make_table(*columns)
    there = [stage for stage in STAGES if stage in rows]
    for stage in there:
        table.add_row(stage, *_cells(rows[stage], work), end_section=stage == there[-1])
    whole = rows["step"]
    table.add_row("step", *_cells(whole, work))
    console.print(table)
    memory = "peaks are of GPU memory allocated"
    if whole.peak_gib is None:
        memory = f"the process took {report.process_peak_gib:.2f} GiB at most"
    first, second = report.first_steps
    console.print(
        f"{report.steps_per_second:.2f} steps/s over {settings['steps']} steps; {memory}.\n"
        f"The first step ended {first:.1f} s after the {report.first_steps_since}, the second {second - first:.1f} s "
        "later.",
        soft_wrap=True,
    )
    if work is not None:
        _show_work(console, work)
    if report.kernels:
        _show_kernels(console, report)


def show_comparison(old: dict[str, Any], new: dict[str, Any], name: str) -> None:
    """How two reports differ; ``name`` is the old one's."""
    console = make_console()
    console.print(f"Beside {name}:", soft_wrap=True)
    for line in differences(old, new):
        console.print(f"  {line}", soft_wrap=True)
    table = make_table("old ms", "new ms", "old / new", "old GiB", "new GiB", "old / new")
    places = {stage: place for place, stage in enumerate((*STAGES, "step"))}
    for change in sorted(changes(old, new), key=lambda change: places.get(change.stage, 0)):
        cells = [*(_number(v, 1) for v in change.milliseconds), _number(change.faster, 2)]
        cells += [*(_number(v, 2) for v in change.peak_gib), _number(change.smaller, 2)]
        table.add_row(change.stage, *cells)
    console.print(table)
    before, after = old["steps_per_second"], new["steps_per_second"]
    console.print(f"steps/s: {before:.2f} -> {after:.2f}, {after / before:.2f} times as many.")


def _show_work(console: Console, work: Work) -> None:
    speeds = ", ".join(f"{kind} {speed / 1e12:.3g}" for kind, speed in work.ceilings.flop_per_second.items())
    console.print(
        f"Ceilings: {speeds} TFLOP/s of a matrix product, {work.ceilings.bytes_per_second / 1e9:,.0f} GB/s of a copy. "
        "GB/s are of what the operators move as they are written. Floor: the longer of computing and moving.",
        soft_wrap=True,
    )
    for stage, why in work.hidden.items():
        console.print(f"{stage}: not counted, it works with {why}.", soft_wrap=True)
    if work.unregistered:
        console.print(
            f"No operations are counted of {', '.join(work.unregistered)}: nobody told "
            "torch.utils.flop_counter.register_flop_formula.",
            soft_wrap=True,
        )


def _show_kernels(console: Console, report: Report) -> None:
    table = make_table("calls", "ms", "share", first="per step")
    for kernel in report.kernels:
        name = kernel.name if len(kernel.name) <= 80 else f"{kernel.name[:77]}..."
        table.add_row(name, f"{kernel.calls:.4g}", f"{kernel.milliseconds:.2f}", f"{kernel.share:.1%}")
    console.print(table, soft_wrap=True)


def make_console() -> Console:
    """On a terminal as wide as that; in a file, where Rich would take 80 columns, wide enough for large numbers."""
    console = Console(highlight=False, markup=False)  # names of kernels have brackets of their own
    if not console.is_terminal:
        console.width = 120
    return console


def make_table(*columns: str, first: str = "") -> Table:
    """An empty table; the first column names the rows, the others hold numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _cells(row: Row, work: Work | None) -> list[str]:
    cells = [f"{row.milliseconds:.1f}", f"{row.share:.0%}", _number(row.peak_gib, 2)]
    if work is None:
        return cells
    speed = row.tflop_per_second
    cells.append(_number(speed, 4 if speed is not None and speed < 1 else 1))
    cells += [_number(row.gb_per_second, 0), _number(row.floor_milliseconds, 2)]
    return [*cells, "" if row.of_floor is None else f"{row.of_floor:.0%}"]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
