"""Fixtures that every test may use."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

SHARED = Path(os.environ.get("SCALEDREAMER_SHARED", Path(__file__).parents[2] / "shared"))
"""Folder of the reference's numbers and the published prompt files; tests that need it skip without it."""

torch.set_num_threads(2)


@dataclass(frozen=True)
class Golden:
    """Inputs and outputs of the reference implementation."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]

    def case(self, prefix: str) -> dict[str, Tensor]:
        """Tensors below ``prefix.``, with the prefix taken off."""
        return {k.removeprefix(f"{prefix}."): v for k, v in self.tensors.items() if k.startswith(f"{prefix}.")}


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
