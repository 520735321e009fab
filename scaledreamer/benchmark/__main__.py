"""Time and memory of a training step and of its parts, at any configuration.

python -m scaledreamer.benchmark generator=3dconv guidance=asd_sd [--steps 50] [--json FILE]
"""

import argparse
import json
import sys
from pathlib import Path

from scaledreamer.cli import clear_errors

PARTS = ("generator", "renderer", "VAE", "prior", "optimizer", "rest")


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m scaledreamer.benchmark",
        description="Time and memory of a training step and its parts. A prior that is not on this machine gets random "
        "weights of its sizes.",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as of train.py")
    parser.add_argument("--steps", type=_positive, default=20, help="steps that are timed (20)")
    parser.add_argument("--warmup", type=_positive, default=5, help="steps before them (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    given = parser.parse_intermixed_args(arguments)
    from scaledreamer.benchmark.run import benchmark

    report = benchmark(given.overrides, steps=given.steps, warmup=given.warmup)
    _show(report)
    if given.json is not None:
        given.json.write_text(json.dumps(report.as_dict(), indent=2) + "\n", encoding="utf-8")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def _show(report) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    stages, settings = report.stages, report.settings
    whole = stages["step"]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for column in ("forward ms", "backward ms", "share", "peak GiB"):
        table.add_column(column, justify="right")
    for part in PARTS:
        found = [stages.get(part), stages.get(f"{part} backward")]
        if found[0] is None:
            continue
        times = [f"{s.milliseconds:.1f}" if s else "" for s in found]
        share = sum(s.milliseconds for s in found if s) / whole.milliseconds
        peaks = [s.peak_gib for s in found if s and s.peak_gib is not None]
        table.add_row(part, *times, f"{share:.0%}", f"{max(peaks):.2f}" if peaks else "", end_section=part == PARTS[-1])
    peak = whole.peak_gib if whole.peak_gib is not None else report.process_peak_gib
    table.add_row("step", f"{whole.milliseconds:.1f}", "", "", f"{peak:.2f}")
    console = Console(highlight=False)
    console.print(
        f"{settings['device']}, torch {settings['torch']}; prior {settings['prior']}, {settings['precision']}; "
        f"{settings['prompts_per_step']} prompts x {settings['views_per_prompt']} views of "
        f"{settings['image_size']} x {settings['image_size']}; "
        f"generator {report.generator_parameters / 1e6:.1f} M parameters",
        soft_wrap=True,
    )
    console.print(table)
    memory = "GPU memory allocated" if whole.peak_gib is not None else "memory of the process"
    console.print(
        f"{report.steps_per_second:.2f} steps/s over {settings['steps']} steps; peaks are of {memory}.", soft_wrap=True
    )


if __name__ == "__main__":
    with clear_errors():
        main()
    sys.exit(0)
