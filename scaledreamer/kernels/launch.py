"""Starts Triton kernels, or only has them compiled: many at once instead of one after the other as they are met."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

_rehearses = False


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
        ThreadPoolExecutor(
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ) as pool,
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
