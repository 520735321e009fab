"""A checkpoint of the original layout, as small as ``tiny_mv``."""

from pathlib import Path

import torch
from torch import Tensor

from scaledreamer.priors.ldm_names import unet_names, vae_names
from scaledreamer.priors.random_weights import RandomWeights


def tiny_state() -> dict[str, Tensor]:
    """Weights of ``random:tiny_mv`` under their original names, with what else a published file holds."""
    weights, cpu = RandomWeights("tiny_mv"), torch.device("cpu")
    unet, vae = weights.unet(cpu).unet.state_dict(), weights.vae(cpu).state_dict()  # pyright: ignore
    names = unet_names(unet, weights.configs.unet) | vae_names(vae, weights.configs.vae)
    state = {names[ours]: value for ours, value in (unet | vae).items()}
    for name, value in state.items():
        if ".attn_1." in name and name.endswith("weight") and value.ndim == 2:
            state[name] = value[:, :, None, None]  # the original VAE attends by 1 x 1 convolutions
    return {**state, "cond_stage_model.model.logit_scale": torch.ones([]), "betas": torch.zeros(1000)}


def write_tiny_checkpoint(path: Path) -> Path:
    """Save :func:`tiny_state`; the path."""
    torch.save(tiny_state(), path)
    return path
