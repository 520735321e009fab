"""Frozen networks as CUDA graphs: their thousand small kernels are launched by one call.

At one prompt per step kernels finish faster than Python can launch them; replaying a recorded graph takes the launching
away (figures: README, "Speed"). Both classes are for one thread at a time, and simply call the function on a CPU.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

GRAPHS = 4
"""Shapes of inputs that are recorded; each holds memory. Further shapes are computed plainly."""
WARMUP = 3  # calls before recording, in which libraries choose their kernels and allocate their workspaces


@dataclass(frozen=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    output: Tensor


class GraphedFunction:
    """``function(*tensors) -> Tensor`` without gradients, recorded once per shape of its inputs and then replayed.

    The function must not wait for the device, nor depend on anything but the values of its inputs.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._recorded: dict[tuple, _Recorded] = {}
        self._pool: Any = None  # shared by all shapes: nothing in it is needed after a replay

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's value, in memory of its own."""
        if not inputs[0].is_cuda:
            return self._function(*inputs)
        key = _key(inputs)
        recorded = self._recorded.get(key)
        if recorded is None:
            if len(self._recorded) >= GRAPHS:
                return self._function(*inputs)
            recorded = self._recorded[key] = self._record(inputs)
        _fill(recorded.inputs, inputs)
        recorded.graph.replay()
        return recorded.output.clone()

    def _record(self, inputs: tuple[Tensor, ...]) -> _Recorded:
        mine = [x.clone() for x in inputs]
        with _aside(mine[0].device):
            for _ in range(WARMUP):
                self._function(*mine)
        graph = torch.cuda.CUDAGraph()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        with _capture(graph, self._pool, mine[0].device):
            output = self._function(*mine)
        return _Recorded(graph=graph, inputs=mine, output=output)


@dataclass(frozen=True)
class _RecordedGradient:
    forward: torch.cuda.CUDAGraph
    backward: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    output: Tensor
    grad: Tensor
    found: Tensor


class _Call:
    """A forward replay, alive as long as something can still ask for its gradient."""

    used = False


class GraphedGradient:
    """``function(x, *others) -> Tensor``, differentiable with respect to x, as two graphs per shape of its inputs.

    What the second graph needs of the first lies in their memory until the next call. A call that comes while an
    earlier one still waits for its gradient is computed plainly instead, and so is one without gradients. Of one call
    the gradient can be taken once.

    The function must not wait for the device, nor depend on anything but the values of its inputs; what it depends on
    beside them is frozen.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._recorded: dict[tuple, _RecordedGradient] = {}
        self._pool: Any = None  # shared by all shapes: one call at a time waits for its gradient
        self._waiting: Callable[[], _Call | None] = lambda: None

    def __call__(self, x: Tensor, *others: Tensor) -> Tensor:
        """The function's value, in memory of its own."""
        if not (x.is_cuda and x.requires_grad and torch.is_grad_enabled()) or self._is_waiting():
            return self._function(x, *others)
        key = _key((x, *others))
        if key not in self._recorded:
            if len(self._recorded) >= GRAPHS:
                return self._function(x, *others)
            self._recorded[key] = self._record((x, *others))
        return cast(Tensor, _Replay.apply(self, self._recorded[key], x, *others))

    def start(self) -> _Call:
        """A call whose gradient is waited for from now on."""
        call = _Call()
        self._waiting = weakref.ref(call)
        return call

    def _is_waiting(self) -> bool:
        call = self._waiting()
        return call is not None and not call.used

    def _record(self, inputs: tuple[Tensor, ...]) -> _RecordedGradient:
        mine = [x.detach().clone() for x in inputs]
        mine[0].requires_grad_()
        device = mine[0].device
        with _aside(device):
            for _ in range(WARMUP):
                output = self._function(*mine)
                torch.autograd.grad(output, mine[0], torch.ones_like(output))
                grad = torch.ones_like(output)
                del output  # and the memory that its gradient needed
        forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        with _capture(forward, self._pool, device):
            output = self._function(*mine)
        with _capture(backward, self._pool, device):
            (found,) = torch.autograd.grad(output, mine[0], grad)
        return _RecordedGradient(forward, backward, mine, output.detach(), grad, found)


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, owner: GraphedGradient, recorded: _RecordedGradient, *inputs: Tensor) -> Tensor:
        ctx.recorded, ctx.call, ctx.others = recorded, owner.start(), len(inputs) - 1
        _fill(recorded.inputs, inputs)
        recorded.forward.replay()
        return recorded.output.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.call.used:
            raise RuntimeError("the gradient of a recorded network can be taken once per call; call it again")
        ctx.call.used = True
        ctx.recorded.grad.copy_(grads[0])
        ctx.recorded.backward.replay()
        return None, None, ctx.recorded.found.clone(), *[None] * ctx.others


def _key(inputs: tuple[Tensor, ...]) -> tuple:
    return tuple((tuple(x.shape), x.dtype, x.device) for x in inputs)


@torch.no_grad()
def _fill(mine: list[Tensor], given: tuple[Tensor, ...]) -> None:
    for one, other in zip(mine, given, strict=True):
        one.copy_(other)


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """On a stream of its own, as calls before a recording have to be."""
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            yield
        torch.cuda.current_stream().wait_stream(stream)


@contextmanager
def _capture(graph: torch.cuda.CUDAGraph, pool: Any, device: torch.device) -> Iterator[None]:
    # Other threads (loggers, data loading, other devices' collectives) may use CUDA meanwhile.
    with torch.cuda.device(device), torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        yield
