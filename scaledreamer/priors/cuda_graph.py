"""A frozen network as CUDA graphs: its thousand small kernels are launched by one call.

At one prompt per step a UNet's kernels finish faster than Python can launch them; replaying a recorded graph takes the
launching away (figures: README, "Speed").
"""

from collections.abc import Callable
from dataclasses import dataclass

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

    The function must not wait for the device, nor depend on anything but the values of its inputs. On a CPU it is
    simply called.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._recorded: dict[tuple, _Recorded] = {}

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's value, in memory of its own."""
        if not inputs[0].is_cuda:
            return self._function(*inputs)
        key = tuple((tuple(x.shape), x.dtype) for x in inputs)
        recorded = self._recorded.get(key)
        if recorded is None:
            if len(self._recorded) >= GRAPHS:
                return self._function(*inputs)
            recorded = self._recorded[key] = self._record(inputs)
        for mine, given in zip(recorded.inputs, inputs, strict=True):
            mine.copy_(given)
        recorded.graph.replay()
        return recorded.output.clone()

    def _record(self, inputs: tuple[Tensor, ...]) -> _Recorded:
        mine = [x.clone() for x in inputs]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARMUP):
                self._function(*mine)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads (loggers, data loading, other devices' collectives) may use CUDA meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            output = self._function(*mine)
        return _Recorded(graph=graph, inputs=mine, output=output)
