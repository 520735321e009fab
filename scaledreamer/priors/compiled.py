"""A function through torch.compile, or as it is where that fails."""

import logging
import os
from collections.abc import Callable
from typing import Any

import torch

from scaledreamer.paths import data_folder

log = logging.getLogger(__name__)

CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""Environment variable of the folder of compiled code."""


class Compiled:
    """``function`` compiled at its first call, once per shape of its inputs.

    What is compiled stays in the folder ``compiled`` beside the priors, for other runs and processes, unless
    :data:`CACHE` names another. Where the first call cannot be compiled, one warning says why.

    Args:
        function: of tensors.
        otherwise: makes what is called instead after such a failure; None for ``function`` as it is.
        options: of torch.compile.
    """

    def __init__(
        self, function: Callable[..., Any], *, otherwise: Callable[[], Callable[..., Any]] | None = None, **options: Any
    ) -> None:
        os.environ.setdefault(CACHE, str(data_folder() / "compiled"))
        self._otherwise = otherwise or (lambda: function)
        self._function = torch.compile(function, dynamic=False, **options)
        self._certain = False

    def __call__(self, *inputs: Any) -> Any:
        """The function's value."""
        if self._certain:
            return self._function(*inputs)
        try:
            found = self._function(*inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # compilers fail in many ways
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            log.warning("the prior runs without speedup=compile, which fails here: %s", reason)
            self._function = self._otherwise()
            found = self._function(*inputs)
        self._certain = True
        return found
