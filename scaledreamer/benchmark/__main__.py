"""Time, memory and work of a training step and of its parts, at any configuration.

python -m scaledreamer.benchmark generator=3dconv guidance=asd_sd [--steps 50] [--json NEW] [--compare OLD]
"""

import json
import sys
from pathlib import Path

from scaledreamer.benchmark.arguments import parser_of, positive, require_place
from scaledreamer.cli import clear_errors
from scaledreamer.errors import UserError


def main(arguments: list[str] | None = None) -> None:
    """The command; it may be called again and again in one process.

    Raises:
        UserError: a file or the configuration is wrong, or it cannot run here.
    """
    parser = parser_of("scaledreamer.benchmark", "Time, memory and work of a training step and its parts.")
    parser.add_argument("--steps", type=positive, default=20, help="steps that are timed (20)")
    parser.add_argument("--warmup", type=positive, default=5, help="steps before them (5)")
    parser.add_argument("--no-floor", action="store_true", help="count no operations and bytes: times and memory alone")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="show the ratios to figures written before")
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="write a trace of a few more steps there")
    given = parser.parse_intermixed_args(arguments)
    # What is wrong with files is said before any time is spent.
    require_place(given.json)
    if given.profile is not None:
        _make(given.profile)
    from scaledreamer.benchmark.report import read_report

    old = read_report(given.compare) if given.compare is not None else None
    from scaledreamer.benchmark.run import benchmark

    report = benchmark(
        given.overrides, steps=given.steps, warmup=given.warmup, floor=not given.no_floor, profile=given.profile
    )
    if report.rank:
        return  # the first process speaks for all
    from scaledreamer.benchmark.show import show, show_comparison

    show(report)
    new = report.as_dict()
    if old is not None:
        show_comparison(old, new, str(given.compare))
    if given.json is not None:
        given.json.write_text(json.dumps(new, indent=2) + "\n", encoding="utf-8")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--profile {folder}: the folder cannot be made: {error.strerror}.") from error


if __name__ == "__main__":
    with clear_errors():
        main()
    sys.exit(0)
