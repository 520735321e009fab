"""What all Triton kernels share: whether they run here, their operators, and how they are started.

Or only compiled: many at once instead of one after the other as they are met. Importing this does not need Triton.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any

import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Kernels then run on CPUs, slowly: for tests."""

_rehearses = False


@lru_cache(maxsize=1)
def has_triton() -> bool:
    """Whether the package is installed, without importing it."""
    return find_spec("triton") is not None


def operator(name: str, schema: str) -> Any:
    """Decorator: an operator ``scaledreamer::name`` of PyTorch that changes none of its arguments."""
    return torch.library.custom_op(f"scaledreamer::{name}", mutates_args=(), schema=schema)


def on(kernel: Any, grid: tuple[int, ...]) -> Callable[..., Any]:
    """``kernel[grid]``; inside :func:`rehearsal` its call compiles and does not start it."""
    return partial(kernel.run, grid=grid, warmup=_rehearses)


def rehearses() -> bool:
    """Whether kernels are not started at present."""
    return _rehearses


@contextmanager
def rehearsal() -> Iterator[None]:
    """What runs inside starts no kernel of ours; when it ends, all it would have started are compiled, side by side.

    What such kernels would have written holds anything, so results are to be thrown away; backward passes inside run in
    the same thread. A kernel that does not compile says so where it is first needed. Without effect, so that kernels
    are started, where Triton is not installed or too old to compile in other threads.
    """
    global _rehearses
    try:
        from triton.runtime._async_compile import (  # pyright: ignore[reportMissingImports]
            AsyncCompileMode,
            active_mode,
        )
    except ImportError:
        yield
        return
    if _rehearses or active_mode.get() is not None:
        yield
        return
    with (
        ThreadPoolExecutor(_cores()) as pool,
        AsyncCompileMode(pool, ignore_errors=True),
        torch.autograd.set_multithreading_enabled(False),
    ):
        _rehearses = True
        try:
            yield
        finally:
            _rehearses = False


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # those of a job on a shared node; not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
