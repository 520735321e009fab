"""Fixtures that every test may use."""

import json
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from interpreter import INTERPRETED
from torch import Tensor

SHARED = Path(os.environ.get("SCALEDREAMER_SHARED", Path(__file__).parents[2] / "shared"))
"""Folder of the reference's numbers and the published prompt files; tests that need it skip without it."""

THREADS = 2
torch.set_num_threads(THREADS)


@pytest.fixture(autouse=True, scope="module")
def _threads():
    """The same for every file, whatever the runs of another have set: rounding follows their number."""
    torch.set_num_threads(THREADS)


@dataclass(frozen=True)
class Golden:
    """Inputs and outputs of the reference implementation."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]

    def case(self, prefix: str) -> dict[str, Tensor]:
        """Tensors below ``prefix.``, with the prefix taken off."""
        return {k.removeprefix(f"{prefix}."): v for k, v in self.tensors.items() if k.startswith(f"{prefix}.")}


@pytest.fixture(scope="module")
def one_thread():
    """For sizes at which more threads cost more than they bring, most on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["cpu"] if INTERPRETED else [pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request) -> str:
    """Where Triton kernels run; skips where they do not."""
    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    return request.param


@pytest.fixture(scope="session")
def served_run(tmp_path_factory) -> Path:
    """A small run for the page to try a generator; not to be written to."""
    from serving import write_run

    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALEDREAMER_DATA", str(folder / "data"))
        return write_run(folder)


@pytest.fixture(scope="session")
def goldens():
    """``goldens("cameras")``: one golden set, or a skip where the folder is absent."""
    from safetensors.torch import load_file

    def load(name: str) -> Golden:
        path = SHARED / "goldens" / f"{name}.json"
        if not path.exists():
            pytest.skip(f"no golden numbers at {path.parent}")
        tensors = path.with_suffix(".safetensors")
        return Golden(tensors=load_file(tensors) if tensors.exists() else {}, meta=json.loads(path.read_text("utf-8")))

    return load


@pytest.fixture(scope="session")
def corpora_folder() -> Path:
    """Folder of the published prompt files, or a skip where it is absent."""
    folder = SHARED / "corpora"
    if not folder.is_dir():
        pytest.skip(f"no prompt files at {folder}")
    return folder
