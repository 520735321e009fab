"""Tests of Triton kernels on CPUs: through its interpreter, which a process is in or not from its start."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether this process is such a one."""


def pass_in_the_interpreter(*files: str) -> None:
    """Run the tests of files in a process whose kernels are interpreted; skips in that process and without Triton."""
    if INTERPRETED:
        pytest.skip("this is the process that the test starts")
    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
