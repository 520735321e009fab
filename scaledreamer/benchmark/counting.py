"""Operations and bytes of the stages of a training step, counted operator by operator in a step that is not timed."""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from scaledreamer.benchmark.operators import FORMULAS, Kind, bytes_moved, kind_of, lacks_formula
from scaledreamer.benchmark.stages import StageHooks

STEPS = 2
"""In the first one optimisers make their state and kernels are built; the second is counted."""

FOREIGN = {"nerfacc": ("renderer",), "tinycudann": ("renderer", "renderer backward")}
"""Packages whose kernels are no operators, and the stages that they work in once they are imported."""


@dataclass
class Counts:
    """Of one stage."""

    flop: dict[Kind, int] = field(default_factory=dict)  # of products, convolutions and attention, by arithmetic
    bytes: int = 0  # moved by the operators as they are written


class Tally(TorchDispatchMode):
    """Counts what runs inside it, by :attr:`stage`.

    Operations are those of :class:`torch.utils.flop_counter.FlopCounterMode`: products, convolutions, attention, and
    operators registered with ``torch.utils.flop_counter.register_flop_formula``. Bytes are those of
    :func:`scaledreamer.benchmark.operators.bytes_moved`. Work that no operator shows (a replayed CUDA graph, NumPy, a
    Triton kernel outside an operator) puts its stage into :attr:`hidden`.

    Args:
        device: tensors elsewhere do not count.
    """

    supports_higher_order_operators = True

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device
        self._flops = FlopCounterMode(display=False, custom_mapping=FORMULAS)
        # Its own tells modules apart by hooks that fail where gradients of leaves are asked for within a step.
        self._flops.mod_tracker = _NoModules()  # pyright: ignore[reportAttributeAccessIssue]
        self._seen = self._inside = 0
        self._exits = ExitStack()
        self.stage = "rest"
        """That what runs now belongs to."""
        self.counts: dict[str, Counts] = defaultdict(Counts)
        """By stage."""
        self.hidden: dict[str, str] = {}
        """Stages that cannot be counted, and why."""
        self.unregistered: set[str] = set()
        """Operators whose operations nobody has registered: they count as none."""

    def counted(self) -> dict[str, Counts]:
        """By stage, without those that cannot be counted."""
        return {stage: counts for stage, counts in self.counts.items() if stage not in self.hidden}

    def hide(self, why: str) -> None:
        """The stage that runs now cannot be counted, unless it is inside an operator, which counts as a whole."""
        if not self._inside:
            self.hidden.setdefault(self.stage, why)

    def __enter__(self):
        self._exits.enter_context(_noticed(self.hide))
        self._exits.enter_context(self._flops)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._exits.close()
        for package, stages in FOREIGN.items():
            if package in sys.modules:
                self.hidden |= dict.fromkeys(stages, f"kernels of {package}")

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            self.hide(f"the operator {func.name()}")
            return func(*args, **kwargs)
        self._inside += 1
        try:
            out = func(*args, **kwargs)
        finally:
            self._inside -= 1
        counts = self.counts[self.stage]
        moved = bytes_moved(func, args, kwargs, out, self._device)
        if moved is None:
            self.hide("tensors that are sparse")
        else:
            counts.bytes += moved
        total = self._flops.get_total_flops()
        if total > self._seen:
            kind = kind_of(func, args, kwargs)
            counts.flop[kind] = counts.flop.get(kind, 0) + total - self._seen
            self._seen = total
        if lacks_formula(func, self._flops.flop_registry):
            self.unregistered.add(func._schema.name)
        return out


class _NoModules(nullcontext):
    """Counts all operations in one place, whatever module they are of."""

    parents = frozenset({"Global"})

    def __exit__(self, *_: Any) -> None:  # the counter gives no arguments
        pass


@contextmanager
def _noticed(hide: Callable[[str], None]) -> Iterator[None]:
    """Have every way around PyTorch's operators that we know of told meanwhile."""
    ways: list[tuple[Any, str, str]] = [
        (torch.cuda.CUDAGraph, "replay", "a CUDA graph"),
        (Tensor, "numpy", "NumPy"),
    ]
    if "triton.runtime.jit" in sys.modules:
        ways.append((sys.modules["triton.runtime.jit"].JITFunction, "run", "a Triton kernel outside an operator"))
    with ExitStack() as restored:
        for owner, name, why in ways:
            restored.callback(_replace(owner, name, why, hide))
        yield


def _replace(owner: Any, name: str, why: str, hide: Callable[[str], None]) -> Callable[[], None]:
    """Tell of calls of a method from now on; what is returned puts it back."""
    own, method = name in vars(owner), getattr(owner, name)

    def told(*args: Any, **kwargs: Any) -> Any:
        hide(why)
        return method(*args, **kwargs)

    setattr(owner, name, told)
    return lambda: setattr(owner, name, method) if own else delattr(owner, name)


class StageCounter(StageHooks):
    """Counts the last of :data:`STEPS` steps, forward and backward, by stage."""

    def __init__(self) -> None:
        super().__init__()
        self.tally: Tally
        self._stack = ExitStack()

    def enter(self, stage: str) -> None:
        """See :meth:`scaledreamer.benchmark.stages.StageHooks.enter`."""
        if self.seen == STEPS - 1:
            self.tally.stage = stage

    def begin(self, module: pl.LightningModule) -> None:
        """See :meth:`scaledreamer.benchmark.stages.StageHooks.begin`."""
        if self.seen == STEPS - 1:
            self.tally = self._stack.enter_context(Tally(module.device))

    def end(self) -> None:
        """See :meth:`scaledreamer.benchmark.stages.StageHooks.end`."""
        self._stack.close()

    def on_exception(self, *_: Any) -> None:
        """A step failed: nothing may count what comes then."""
        self._stack.close()
