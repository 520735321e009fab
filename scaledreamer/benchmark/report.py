"""What a benchmark found, for tables and for files."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scaledreamer.benchmark.ceilings import Ceilings
from scaledreamer.benchmark.counting import Counts
from scaledreamer.benchmark.operators import Kind
from scaledreamer.benchmark.profiling import Kernel
from scaledreamer.benchmark.timeline import Stage
from scaledreamer.errors import UserError


@dataclass(frozen=True)
class Work:
    """What the device has to do in a step, and how fast it could."""

    ceilings: Ceilings
    counts: dict[str, Counts]  # by stage, of those that can be counted
    hidden: dict[str, str]  # the others, and why
    unregistered: list[str]  # operators whose operations count as none

    def of(self, stage: str) -> Counts | None:
        """Of a stage, or of the whole ``step``, which is counted where all stages are."""
        if stage != "step":
            return self.counts.get(stage)
        if self.hidden:
            return None
        whole = Counts()
        for counts in self.counts.values():
            whole.bytes += counts.bytes
            for kind, flop in counts.flop.items():
                whole.flop[kind] = whole.flop.get(kind, 0) + flop
        return whole


@dataclass(frozen=True)
class Row:
    """One stage: how long it takes and how much of that it has to."""

    milliseconds: float
    share: float  # of the step
    peak_gib: float | None  # None where no GPU tells
    flop: Mapping[Kind, int] | None = None  # None, as all below, where it was not counted
    bytes: int | None = None
    tflop_per_second: float | None = None  # achieved
    gb_per_second: float | None = None  # that the operators as written would have to achieve
    floor_milliseconds: float | None = None
    of_floor: float | None = None  # floor / time: 1 is as fast as can be


@dataclass(frozen=True)
class Report:
    """What was measured, and of what."""

    stages: dict[str, Stage]
    steps_per_second: float
    process_peak_gib: float
    generator_parameters: int
    settings: dict[str, Any]
    first_steps: list[float]  # seconds until the first and the second step had ended
    first_steps_since: str  # "process start", or "call" of a later benchmark in the same process
    work: Work | None = None  # None where nothing was counted
    kernels: list[Kernel] = field(default_factory=list)  # of a profile
    rank: int = 0  # of this process

    def rows(self) -> dict[str, Row]:
        """By stage, the whole ``step`` as well."""
        return {name: self._row(name, stage) for name, stage in self.stages.items()}

    def _row(self, name: str, stage: Stage) -> Row:
        plain = Row(stage.milliseconds, stage.milliseconds / self.stages["step"].milliseconds, stage.peak_gib)
        counts = self.work.of(name) if self.work is not None else None
        if self.work is None or counts is None or stage.milliseconds <= 0:
            return plain
        seconds, floor = stage.milliseconds / 1000, self.work.ceilings.floor(counts.flop, counts.bytes)
        return Row(
            plain.milliseconds,
            plain.share,
            plain.peak_gib,
            flop=dict(counts.flop),
            bytes=counts.bytes,
            tflop_per_second=sum(counts.flop.values()) / seconds / 1e12,
            gb_per_second=counts.bytes / seconds / 1e9,
            floor_milliseconds=1000 * floor,
            of_floor=floor / seconds,
        )

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        work = None if self.work is None else {k: v for k, v in asdict(self.work).items() if k != "counts"}
        return {
            "stages": {name: asdict(row) for name, row in self.rows().items()},
            "steps_per_second": self.steps_per_second,
            "process_peak_gib": self.process_peak_gib,
            "generator_parameters": self.generator_parameters,
            "first_steps": self.first_steps,
            "first_steps_since": self.first_steps_since,
            "work": work,
            "kernels": [asdict(kernel) for kernel in self.kernels],
            "settings": self.settings,
        }


def read_report(file: Path) -> dict[str, Any]:
    """The dictionary that a benchmark wrote to a JSON file.

    Raises:
        UserError: the file is not there, or is none of a benchmark's.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{file} is no JSON file: {error}") from error
    try:
        numbers = [found["steps_per_second"], *(stage["milliseconds"] for stage in found["stages"].values())]
        whole = "step" in found["stages"] and isinstance(found["settings"], dict)
    except (TypeError, KeyError, AttributeError):
        whole, numbers = False, []
    if not whole or not all(isinstance(number, (int, float)) for number in numbers):
        raise UserError(f"{file} is no report of this benchmark; write one with --json.")
    return found
