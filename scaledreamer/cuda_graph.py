"""Networks as CUDA graphs: their thousand small kernels are launched by one call.

At one prompt per step kernels finish faster than Python can launch them; replaying a recorded graph takes the launching
away (figures: README, "Speed"). Both classes are for one thread at a time, and simply call the function on a CPU.
"""

import inspect
import logging
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from scaledreamer.kernels.launch import rehearsal

log = logging.getLogger(__name__)

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
            with rehearsal():
                self._function(*mine)
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
    found: tuple[Tensor | None, ...]
    """Gradients: of the inputs that ask for one, then of the parameters; None of what the function does not read."""


class _Call:
    """A forward replay, alive as long as something can still ask for its gradient."""

    used = False


class GraphedGradient:
    """``function(*tensors) -> Tensor``, differentiable, as two graphs per shape of its inputs.

    What the second graph needs of the first lies in their memory until the next call. A call that comes while an
    earlier one still waits for its gradient is computed plainly instead, and so is one without gradients. Of one call
    the gradient can be taken once.

    The function must not wait for the device, nor depend on anything but the values of its inputs and parameters; what
    else it depends on is frozen. Parameters stay where they are: optimisers change them in place.

    Args:
        function: takes floating-point tensors, of which those that require gradients get one. If it reads parameters,
            it is a method of the module that has them.
        parameters: names the tensors that get gradients beside the inputs, in the same order at every call.
        copies: give every value memory of its own. Without, a value is there until the call after the next gradient.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        parameters: Callable[[], Iterable[Tensor]] = tuple,
        *,
        copies: bool = True,
    ) -> None:
        self._held, self.copies = (_weak(function), _weak(parameters)), copies
        self._recorded: dict[tuple, _RecordedGradient | None] = {}
        self._pool: Any = None  # shared by all shapes: one call at a time waits for its gradient
        self._waiting: Callable[[], _Call | None] = lambda: None

    @property
    def _function(self) -> Callable[..., Tensor]:
        return self._held[0]()

    @property
    def _parameters(self) -> Callable[[], Iterable[Tensor]]:
        return self._held[1]()

    def __getstate__(self) -> dict[str, Any]:
        """A copy records anew: graphs are of the memory that they were recorded with."""
        return {"function": self._function, "parameters": self._parameters, "copies": self.copies}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """See :meth:`__getstate__`."""
        self.__init__(**state)  # type: ignore[misc]

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's value."""
        parameters = [p for p in self._parameters() if p.requires_grad]
        asked = any(x.requires_grad for x in inputs) or bool(parameters)
        if not (inputs[0].is_cuda and asked and torch.is_grad_enabled()) or self._is_waiting() or _captures():
            return self._function(*inputs)
        # Another place in memory is another graph: what moves about from call to call is soon computed plainly.
        key = (*_key(inputs), *(x.requires_grad for x in inputs), *(p.data_ptr() for p in parameters))
        if key not in self._recorded:
            if len(self._recorded) >= GRAPHS:
                return self._function(*inputs)
            self._recorded[key] = self._try_to_record(inputs, parameters)
        recorded = self._recorded[key]
        if recorded is None:
            return self._function(*inputs)
        return cast(Tensor, _Replay.apply(self, recorded, len(inputs), *inputs, *parameters))

    def start(self) -> _Call:
        """A call whose gradient is waited for from now on."""
        call = _Call()
        self._waiting = weakref.ref(call)
        return call

    def _is_waiting(self) -> bool:
        call = self._waiting()
        return call is not None and not call.used

    def _try_to_record(self, inputs: tuple[Tensor, ...], parameters: list[Tensor]) -> _RecordedGradient | None:
        # Casts that autocast remembers from before would not be recorded, and go stale with the parameters.
        kind = inputs[0].device.type
        options = {"dtype": torch.get_autocast_dtype(kind), "enabled": torch.is_autocast_enabled(kind)}
        try:
            with torch.autocast(kind, **options, cache_enabled=False):
                return self._record(inputs, parameters)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # libraries have kernels that cannot be recorded
            reason = next(iter(str(error).splitlines()), "")
            log.warning("not recorded as a CUDA graph, so it takes longer: %s", reason)
            return None

    def _record(self, inputs: tuple[Tensor, ...], parameters: list[Tensor]) -> _RecordedGradient:
        with _stand_ins(self._function, parameters) as those:
            return self._record_with(inputs, those)

    def _record_with(self, inputs: tuple[Tensor, ...], parameters: list[Tensor]) -> _RecordedGradient:
        mine = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
        wanted = [x for x in mine if x.requires_grad] + parameters
        device = mine[0].device
        with _aside(device):
            with rehearsal():
                output = self._function(*mine)
                _gradients(output, wanted, torch.ones_like(output))
                del output  # and the memory that its gradient needed
            for _ in range(WARMUP):
                output = self._function(*mine)
                grad = torch.ones_like(output)
                _gradients(output, wanted, grad)
                del output
        forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        with _capture(forward, self._pool, device):
            output = self._function(*mine)
        with _capture(backward, self._pool, device):
            found = _gradients(output, wanted, grad)
        return _RecordedGradient(forward, backward, mine, output.detach(), grad, found)


@contextmanager
def _stand_ins(function: Callable[..., Any], parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of the same memory, in the place of the parameters of the module whose method the function is.

    Who else has a graph of autograd that ends at the parameters (an earlier step, or DDP, which keeps such a thing for
    good) has tied them to a stream, with which a recording must have nothing to do.
    """
    owner = getattr(function, "__self__", None)
    modules = list(owner.modules()) if isinstance(owner, nn.Module) else []
    others = {id(p): p.detach().requires_grad_() for p in parameters}
    places = [(m, name, p) for m in modules for name, p in m._parameters.items() if id(p) in others]
    found = {id(p) for _, _, p in places}
    try:
        for module, name, parameter in places:
            module._parameters[name] = others[id(parameter)]  # type: ignore[assignment]
        yield [others[id(p)] if id(p) in found else p for p in parameters]
    finally:
        for module, name, parameter in places:
            module._parameters[name] = parameter


def _gradients(output: Tensor, wanted: list[Tensor], grad: Tensor) -> tuple[Tensor | None, ...]:
    # As outside of the autocast that the function may run in.
    with torch.autocast(output.device.type, enabled=False):
        return torch.autograd.grad(output, wanted, grad, allow_unused=True)


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, owner: GraphedGradient, recorded: _RecordedGradient, n: int, *tensors: Tensor) -> Tensor:
        ctx.recorded, ctx.call = recorded, owner.start()
        ctx.wanted = [x.requires_grad for x in tensors]
        ctx.inputs = n
        _fill(recorded.inputs, tensors[:n])
        recorded.forward.replay()
        return recorded.output.clone() if owner.copies else recorded.output.detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.call.used:
            raise RuntimeError("the gradient of a recorded network can be taken once per call; call it again")
        ctx.call.used = True
        ctx.recorded.grad.copy_(grads[0])
        ctx.recorded.backward.replay()
        found = iter(ctx.recorded.found)
        gradients = [next(found) if wanted else None for wanted in ctx.wanted]
        # Copies, since the next replay writes there again; where a parameter's gradients are added up, autograd copies.
        of_inputs = [g.clone() if g is not None else None for g in gradients[: ctx.inputs]]
        return None, None, None, *of_inputs, *gradients[ctx.inputs :]


def _weak(function: Callable[..., Any]) -> Callable[[], Any]:
    """What gives it back. The owner of a method mostly owns this, too: held weakly, both are freed at once."""
    return weakref.WeakMethod(function) if inspect.ismethod(function) else lambda: function


def _captures() -> bool:
    """Whether somebody else is recording."""
    return torch.cuda.is_current_stream_capturing()


def _key(inputs: tuple[Tensor, ...]) -> tuple:
    kind = inputs[0].device.type
    cast_to = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return cast_to, *((tuple(x.shape), x.dtype, x.device) for x in inputs)


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
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                yield
        except BaseException:
            # PyTorch's own numbers then count as still being recorded, and nobody could draw any.
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            generator.graphsafe_set_state(generator.clone_state())
            raise
        finally:
            torch.cuda.set_stream(stream)  # a recording that fails leaves its own
