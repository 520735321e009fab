"""What computes a hash grid: PyTorch, our Triton kernels or tiny-cuda-nn, all with the same parameters.

None of their packages is needed to import this, nor to compose a configuration that does not name it.
"""

from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from scaledreamer.errors import UserError

Backend = Literal["auto", "torch", "triton", "tinycudann"]

SOURCES = {
    "triton": "which PyTorch for NVIDIA GPUs brings; install that",
    "tinycudann": "which is built from source, see github.com/NVlabs/tiny-cuda-nn; do that",
}
"""Where the packages come from, by their name, which is the backend's."""


class Encode(Protocol):
    """:func:`scaledreamer.encodings.hash_grid.hash_encode` and all that agree with it."""

    def __call__(
        self,
        points: Tensor,
        table: Tensor,
        levels: tuple[Any, ...],
        *,
        dtype: torch.dtype | None = None,
        out: torch.dtype | None = None,
    ) -> Tensor:
        """Points [N, D], table [entries, F] -> features [N, L * F]."""
        ...


def implementation(
    backend: Backend, *, reference: Encode, dtype: torch.dtype | None, settings: dict[str, Any]
) -> Encode:
    """The function behind a backend's name.

    Args:
        reference: the one in plain PyTorch.
        dtype: that the grid asks for; None is float32.
        settings: of the grid, under the names of ``HashGrid``.

    Raises:
        UserError: the backend is not installed, or cannot compute in this type.
    """
    if backend in SOURCES and find_spec(backend) is None:
        raise UserError(
            f"hash grid with backend={backend}: it needs the package '{backend}', {SOURCES[backend]}, or choose "
            "backend=auto or torch."
        )
    if backend == "torch":
        return reference
    if backend == "auto":
        return partial(_fastest, reference=reference)
    if backend == "triton":
        return _by_triton
    if dtype == torch.bfloat16:
        raise UserError("hash grid with backend=tinycudann: it has no bfloat16; set dtype=float16 or float32.")
    return partial(_by_tiny_cuda, settings=settings)


def require_gpu(backend: str, points: Tensor) -> None:
    """Raise a :class:`UserError` where the points are elsewhere."""
    if not points.is_cuda:
        raise UserError(
            f"hash grid with backend={backend}: it needs a GPU, but the points are on the {points.device.type}; choose "
            "backend=auto or torch."
        )


def _fastest(points: Tensor, table: Tensor, levels: tuple[Any, ...], *, reference: Encode, **types: Any) -> Tensor:
    """Triton on GPUs where it is installed; PyTorch elsewhere, and in float64, which the kernels have not."""
    there = points.is_cuda and table.dtype != torch.float64 and _has_triton()
    return (_by_triton if there else reference)(points, table, levels, **types)


@lru_cache(maxsize=1)
def _has_triton() -> bool:
    try:
        import triton  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    return True


def _by_triton(points: Tensor, table: Tensor, levels: tuple[Any, ...], **types: Any) -> Tensor:
    from scaledreamer.encodings.hash_grid_triton import hash_encode_triton

    return hash_encode_triton(points, table, levels, **types)


def _by_tiny_cuda(
    points: Tensor, table: Tensor, levels: tuple[Any, ...], *, settings: dict[str, Any], **types: Any
) -> Tensor:
    from scaledreamer.encodings.tiny_cuda import hash_encode_tiny_cuda

    return hash_encode_tiny_cuda(points, table, **types, **settings)
