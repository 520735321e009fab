"""Where the time and the memory of a repeated sequence of stages go, on a CPU or a GPU."""

import itertools
import resource
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Stage:
    """One stage, or the whole sequence."""

    milliseconds: float  # median over the repetitions
    peak_gib: float | None = None  # most GPU memory allocated meanwhile, what was there before included


class Timeline:
    """Notes when stages begin; one stage lasts until the next begins.

    On a GPU it records events in the stream of the work, so that nothing waits for the device until :meth:`stages`.
    """

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self._marks: list[list[tuple[str, Any]]] = []  # of every repetition
        self._peaks: dict[str, int] = defaultdict(int)  # bytes
        self.tracks_memory = False
        """Reading the memory's counters takes time, so it is done in repetitions of their own."""

    def begin(self) -> None:
        """A new repetition, in the stage ``rest``."""
        self._marks.append([])
        self.enter("rest")

    def enter(self, stage: str) -> None:
        """The stage that ran until now ends, ``stage`` begins; ``end`` ends the repetition."""
        marks = self._marks[-1]
        if marks and marks[-1][0] == stage:
            return
        if self.tracks_memory and self._gpu:
            if marks:
                before = marks[-1][0]
                self._peaks[before] = max(self._peaks[before], torch.cuda.max_memory_allocated())
            torch.cuda.reset_peak_memory_stats()
        marks.append((stage, self._now()))

    def _now(self) -> Any:
        if not self._gpu:
            return 1000 * time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def forget(self) -> None:
        """Drop the repetitions so far: they warmed up."""
        self._marks.clear()

    def stages(self, *, repetitions: int) -> dict[str, Stage]:
        """Every stage by name, over the first ``repetitions``, and ``step``: a whole one."""
        if self._gpu:
            torch.cuda.synchronize()
        times: dict[str, list[float]] = defaultdict(list)
        for marks in self._marks[:repetitions]:
            spent: dict[str, float] = defaultdict(float)
            for (stage, start), (_, stop) in itertools.pairwise(marks):
                spent[stage] += self._between(start, stop)
            spent["step"] = self._between(marks[0][1], marks[-1][1])
            for stage, milliseconds in spent.items():
                times[stage].append(milliseconds)
        peaks: dict[str, int] = dict(self._peaks)
        if peaks:
            peaks["step"] = max(peaks.values())
        return {
            stage: Stage(statistics.median(values), peaks[stage] / 2**30 if stage in peaks else None)
            for stage, values in times.items()
        }

    @staticmethod
    def _between(start: Any, stop: Any) -> float:  # two events, or two readings of the clock
        return start.elapsed_time(stop) if isinstance(start, torch.cuda.Event) else stop - start


def process_peak_gib() -> float:
    """Most memory that this process ever held, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
