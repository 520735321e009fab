"""What computes a field or a rendering: plain PyTorch, or Triton kernels that agree with it.

Triton is not needed to import this, nor to compose a configuration that does not name it.
"""

from typing import Literal

from torch import Tensor

from scaledreamer.errors import UserError
from scaledreamer.kernels.launch import INTERPRETED, has_triton

Backend = Literal["auto", "torch", "triton"]


def check_backend(backend: Backend, *, of: str = "generator") -> None:
    """Raise a :class:`UserError` where Triton is named and not installed; ``of`` is whose option it is."""
    if backend == "triton" and not has_triton():
        raise UserError(
            f"{of}.backend=triton: it needs the package 'triton', which PyTorch for NVIDIA GPUs brings; install that, "
            "or choose backend=auto or torch."
        )


def by_triton(backend: Backend, points: Tensor, *, refusal: str | None, of: str = "generator") -> bool:
    """Whether kernels answer for ``points``.

    Args:
        refusal: why the kernels cannot compute this; None: they can.
        of: whose option ``backend`` is.

    Raises:
        UserError: ``backend`` is triton, and they cannot or the points are not on a GPU.
    """
    if backend == "torch" or (backend == "auto" and not points.is_cuda):
        return False
    check_backend(backend, of=of)
    if backend == "auto":
        return refusal is None and has_triton()
    if not points.is_cuda and not INTERPRETED:
        refusal = f"it needs a GPU, but the points are on the {points.device.type}"
    if refusal is not None:
        raise UserError(f"{of}.backend=triton: {refusal}; choose backend=auto or torch.")
    return True
