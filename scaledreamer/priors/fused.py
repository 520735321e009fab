"""Puts faster modules of the same values into a frozen diffusion model of diffusers'."""

import logging
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import Encoder
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from scaledreamer.kernels import group_norm as norms
from scaledreamer.priors.fused_attention import FusedImageAttention, FusedTransformer
from scaledreamer.priors.fused_blocks import FrozenConv, FusedResnet, NormActivation
from scaledreamer.priors.turned import TurnedEncoder

log = logging.getLogger(__name__)

KINDS: dict[type[nn.Module], Any] = {
    ResnetBlock2D: FusedResnet,
    Transformer2DModel: FusedTransformer,
    Attention: FusedImageAttention,
    nn.Conv2d: FrozenConv,
}
"""What takes the place of what, where it ``fits``."""


def fuse(model: nn.Module) -> int:
    """Replace, in place, what can be; the model computes the same, to rounding, with gradients to its inputs alone.

    Call it when the weights are loaded and have their type: their names are others afterwards.

    Args:
        model: frozen and in eval mode.

    Returns:
        How many modules were replaced; the others stay as they are.

    Raises:
        ValueError: the model is not frozen.
    """
    if model.training or any(p.requires_grad for p in model.parameters()):
        raise ValueError("only a frozen model in eval mode can be fused")
    return _fuse(model)


def _fuse(model: nn.Module) -> int:
    replaced = 0
    encoder = getattr(model, "encoder", None)
    if isinstance(encoder, Encoder) and TurnedEncoder.fits(encoder):
        model.encoder = TurnedEncoder(encoder)
        replaced += 1
    norm = getattr(model, "conv_norm_out", None)
    if isinstance(norm, nn.GroupNorm) and isinstance(getattr(model, "conv_act", None), nn.SiLU):
        model.conv_norm_out, model.conv_act = NormActivation(norm), nn.Identity()
        replaced += 1
    for name, child in model.named_children():
        kind = KINDS.get(type(child))
        if kind is not None and kind.fits(child):
            setattr(model, name, kind(child))
            replaced += 1
        else:
            replaced += _fuse(child)
    return replaced


def can_fuse(device: torch.device) -> bool:
    """Whether the kernels run here; a warning says why not where Triton is installed but cannot build them."""
    if device.type != "cuda" or not norms.has_triton():
        return False
    x = torch.ones(1, 8, 8, device=device, dtype=torch.float16)
    try:
        norms.group_norm(x, x[0, 0], x[0, 0], groups=2, eps=1e-6)
    except Exception as error:  # compilers fail in many ways
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        log.warning("the prior runs without its fused kernels: Triton cannot build them here (%s)", reason)
        return False
    return True
