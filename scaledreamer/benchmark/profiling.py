"""A trace of a few training steps, and the kernels that take longest in it."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

MARK = "stage: "
"""Begins the names of the marks in a trace that say which stage is being launched from there on."""

ANNOTATIONS = (MARK, "Optimizer.", "ProfilerStep")
"""Begin the names of ranges that are no work of their own; on a GPU they last as long as the kernels in them."""

SHOWN = 20
"""Kernels that are told of."""


@dataclass(frozen=True)
class Kernel:
    """A GPU's kernel; on a CPU an operator, without the operators that it calls."""

    name: str
    calls: float  # per step
    milliseconds: float  # per step
    share: float  # of the time of all kernels


class Profiler:
    """Profiles what runs between :meth:`start` and :meth:`stop`.

    Args:
        folder: for ``trace.json``, which chrome://tracing and ui.perfetto.dev open.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "trace.json"
        self.kernels: list[Kernel] = []
        """The longest first, once stopped."""
        self._running: profile | None = None
        self._gpu = False

    def start(self, device: torch.device) -> None:
        """Profile from now on."""
        self._gpu = device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._gpu else [])]
        self._running = profile(activities=activities)
        self._running.start()

    def mark(self, stage: str) -> None:
        """Write the stage that begins into the trace: a mark without length, since backward passes change threads."""
        if self._running is not None:
            with record_function(MARK + stage):
                pass

    def stop(self, steps: int) -> None:
        """Write the trace of ``steps`` steps."""
        assert self._running is not None
        self._running.stop()
        self._running.export_chrome_trace(str(self.file))
        kernels = []
        for event in self._running.key_averages():
            annotates = getattr(event, "is_user_annotation", False) or event.key.startswith(ANNOTATIONS)
            if annotates or (event.device_type == DeviceType.CUDA) != self._gpu:
                continue
            microseconds = event.self_device_time_total if self._gpu else event.self_cpu_time_total
            kernels.append((microseconds, event.count, event.key))
        whole = sum(microseconds for microseconds, *_ in kernels) or 1
        self.kernels = [
            Kernel(name, calls / steps, microseconds / steps / 1000, microseconds / whole)
            for microseconds, calls, name in sorted(kernels, reverse=True)[:SHOWN]
        ]
        self._running = None
