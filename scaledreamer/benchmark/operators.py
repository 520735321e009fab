"""What an operator of PyTorch has to move and to compute, from its arguments and results alone."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

Kind = Literal["float32", "tf32", "16 bit"]
"""Arithmetic of a device, each with a ceiling of its own: TF32 is float32 on the tensor cores of NVIDIA's GPUs."""

aten = torch.ops.aten


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


FORMULAS: dict[Any, Any] = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Of operators that PyTorch has and its counter of operations does not know."""

MOVES_NOTHING = frozenset(
    {
        "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_", "detach_",
        "squeeze_", "unsqueeze_", "transpose_", "t_", "as_strided_", "record_stream"
    }
)  # fmt: skip
OVERWRITES = frozenset(
    {
        "copy_", "fill_", "zero_", "normal_", "uniform_", "random_", "bernoulli_", "exponential_", "_foreach_copy_"
    }
)  # fmt: skip
"""Operators that write to an argument without reading it."""

PICKS = frozenset({"index", "index_select", "gather", "embedding", "take"})
"""Operators that read no more of their first argument than they return."""

PLACES = frozenset(
    {
        "index_put_", "_index_put_impl_", "index_add_", "index_copy_", "scatter_", "scatter_add_", "index_fill_"
    }
)  # fmt: skip
"""Operators that read and write no more of their first argument than the last one has."""


def bytes_moved(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any, device: torch.device) -> int | None:
    """Bytes that a call of an operator reads and writes at least, each of its inputs and outputs once.

    An argument that is changed counts twice, as read and as written, unless it is merely overwritten. Axes that were
    expanded count once. Views move nothing. Gathers and scatters touch no more than the picked elements.

    Args:
        func: the overload that was called.
        args, kwargs: that it was called with.
        out: that it returned.
        device: tensors elsewhere do not count.

    Returns:
        None if a tensor is sparse or of another layout than by strides.
    """
    name = func._schema.name.partition("::")[2]
    if name in MOVES_NOTHING:
        return 0
    reads: dict[tuple[Any, ...], int] = {}
    writes, given, changed, last = 0, set(), set(), 0
    first: tuple[Any, ...] | None = None
    for argument, value in _bound(func._schema, args, kwargs):
        for tensor in _tensors(value):
            if tensor.layout is not torch.strided:
                return None
            size = _bytes(tensor) if tensor.device.type == device.type else 0
            given.add(storage := tensor.untyped_storage()._cdata)
            identity = (storage, tensor.storage_offset(), tensor.shape, tensor.stride())
            last, first = size if tensor.numel() > 1 else 0, first or identity
            if argument.alias_info is not None and argument.alias_info.is_write:
                changed.add(storage)
                writes += size
                if argument.is_out or name in OVERWRITES:
                    continue
            reads[identity] = size
    if name.endswith("_like") or name.startswith("new_"):  # of their argument only the shape counts
        reads.clear()
    results = list(_tensors(out))
    if any(tensor.layout is not torch.strided for tensor in results):
        return None
    made = [tensor for tensor in results if tensor.untyped_storage()._cdata not in given]
    if not made and not changed:  # views, and what is asked of a tensor's shape
        return 0
    written = sum(_bytes(tensor) for tensor in made if tensor.device.type == device.type)
    if first is not None and name in PICKS:
        reads[first] = min(reads[first], written)
    if first is not None and name in PLACES and last:
        reads[first] = writes = min(writes, last)
    return sum(reads.values()) + writes + written


def kind_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Kind:
    """The arithmetic of an operator's products: what its first floating tensor and PyTorch's settings make of it."""
    floating = (t for t in _tensors([args, list(kwargs.values())]) if t.is_floating_point())
    tensor = next(floating, None)
    if tensor is not None and tensor.element_size() <= 2:
        return "16 bit"
    if tensor is None or tensor.dtype != torch.float32 or not has_tf32(tensor.device):
        return "float32"
    if "convolution" in func._schema.name:
        return "tf32" if torch.backends.cudnn.allow_tf32 else "float32"
    return "tf32" if torch.get_float32_matmul_precision() != "highest" else "float32"


def has_tf32(device: torch.device) -> bool:
    """Whether the device computes float32 products on tensor cores where it is allowed to."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def lacks_formula(func: Any, known: Any) -> bool:
    """Whether an operator may compute products of which nobody has told the counter: ours, and attention."""
    ours = func.namespace not in ("aten", "prim", "prims", "profiler")
    return (ours or "attention" in func._schema.name) and func._overloadpacket not in known


def _bound(schema: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    for place, argument in enumerate(schema.arguments):
        if place < len(args):
            yield argument, args[place]
        elif argument.name in kwargs:
            yield argument, kwargs[argument.name]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def _bytes(tensor: Tensor) -> int:
    """Of a tensor's distinct elements: an axis of stride 0 is one element long in memory."""
    elements = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        elements *= size if stride or size == 0 else 1
    return elements * tensor.element_size()
