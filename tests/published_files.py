"""Small systems, and files of weights as the paper's code would have written them."""

import functools
from pathlib import Path
from typing import Any

import torch

from scaledreamer.config import compose, plain
from scaledreamer.training.build import build_parts
from scaledreamer.training.saved_weights import SavedWeights

TINY_GRID = ("generator.encoding.n_levels=3", "generator.encoding.log2_size=8", "generator.encoding.base_resolution=4")

SMALL_PARTS = {
    "3dconv": ("generator.resolution=8", "generator.widths=[6,4]", "generator.w_dim=5", "generator.channels=3"),
    "triplane_transformer": (
        "generator.width=8",
        "generator.layers=2",
        "generator.attention_heads=2",
        "generator.resolution=8",
    ),
    "hyper_ingp": (*TINY_GRID, *(o.replace("generator", "background") for o in TINY_GRID)),
    "ingp": (*TINY_GRID, *(o.replace("generator", "background") for o in TINY_GRID), "renderer.grid.resolution=4"),
}
"""Every kind of generator with a published counterpart, at sizes of a few numbers."""


@functools.cache
def configuration(option: str, *overrides: str):
    """Composed once; nothing changes it."""
    return plain(compose([f"generator={option}", *overrides]))


def parts_of(option: str, *overrides: str, seed: int = 0, text_dim: int = 12) -> dict[str, Any]:
    return build_parts({**configuration(option, *overrides), "seed": seed}, text_dim=text_dim)


def published(parts) -> dict[str, torch.Tensor]:
    """The weights of built parts under the names of the paper's code, written down here once more."""
    kind = type(parts["generator"]).__name__
    found = {}
    for name, value in parts["generator"].state_dict().items():
        theirs = name
        if kind == "Conv3DGenerator" and not name.startswith(("sdf_network", "feature_network")):
            theirs = f"space_generator.{name}"
        if kind == "TriplaneTransformerGenerator" and not name.startswith(("sdf_network", "feature_network")):
            theirs = f"space_generator.{name}"
        found[f"geometry.{theirs.replace('encoding.params', 'encoding.encoding.encoding.params')}"] = value
    for name, value in parts["background"].state_dict().items():
        found[f"background.{name.replace('encoding.params', 'encoding.encoding.encoding.params')}"] = value
    for name, value in parts["renderer"].state_dict().items():
        theirs = {"log_inv_std": "variance._inv_std"}.get(name, name.replace("grid.", "estimator."))
        found[f"renderer.{theirs}"] = value
    radius = parts["generator"].radius
    corners = torch.tensor([[-radius] * 3, [radius] * 3])
    found |= {"geometry.bbox": corners, "renderer.bbox": corners}
    found.setdefault("background.encoding.encoding.encoding.params", torch.empty(0))
    return {name: value.clone() for name, value in found.items()}


def file_of(tensors, path=Path("weights.pth"), **more) -> SavedWeights:
    return SavedWeights(**{"path": path, "tensors": tensors, "step": 0, "made_by": {}, **more})
