"""Names of weights in the original latent-diffusion checkpoints, and what diffusers calls them.

The original numbers the UNet's layers through: ``input_blocks.4.1`` is the attention of the fourth one, which diffusers
calls ``down_blocks.1.attentions.0``. Names within an attention are the same.
"""

from collections.abc import Iterable, Mapping
from typing import Any

UNET, VAE = "model.diffusion_model.", "first_stage_model."
"""How names of the two networks begin in a checkpoint."""

_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "class_embedding.linear_1": "camera_embed.0",  # MVDream's own
    "class_embedding.linear_2": "camera_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.attentions.0": "middle_block.1",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_RESNET = {**{name: name for name in ("norm1", "conv1", "norm2", "conv2")}, "conv_shortcut": "nin_shortcut"}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_names(names: Iterable[str], config: Mapping[str, Any]) -> dict[str, str]:
    """Original name of each weight of a (multi-view) diffusers UNet.

    Args:
        names: of the weights, as diffusers has them.
        config: of the UNet, with its ``layers_per_block`` and ``up_block_types``.
    """
    layers, modules = int(config["layers_per_block"]), dict(_UNET_ENDS)
    for i in (0, 1):
        modules |= _below(f"mid_block.resnets.{i}", f"middle_block.{2 * i}", _UNET_RESNET)
    for block, kind in enumerate(config["up_block_types"]):
        first = 1 + block * (layers + 1)  # input_blocks.0 is conv_in
        for layer in range(layers):
            place = f"input_blocks.{first + layer}"
            modules |= _below(f"down_blocks.{block}.resnets.{layer}", f"{place}.0", _UNET_RESNET)
            modules[f"down_blocks.{block}.attentions.{layer}"] = f"{place}.1"
        modules[f"down_blocks.{block}.downsamplers.0.conv"] = f"input_blocks.{first + layers}.0.op"
        for layer in range(layers + 1):
            place = f"output_blocks.{block * (layers + 1) + layer}"
            modules |= _below(f"up_blocks.{block}.resnets.{layer}", f"{place}.0", _UNET_RESNET)
            modules[f"up_blocks.{block}.attentions.{layer}"] = f"{place}.1"
        behind = 2 if "CrossAttn" in kind else 1  # the upsampler follows resnet and attention
        last = block * (layers + 1) + layers
        modules[f"up_blocks.{block}.upsamplers.0.conv"] = f"output_blocks.{last}.{behind}.conv"
    return {name: UNET + _renamed(name, modules) for name in names}


def vae_names(names: Iterable[str], config: Mapping[str, Any]) -> dict[str, str]:
    """Original name of each weight of a diffusers VAE.

    Args:
        names: of the weights, as diffusers has them.
        config: of the VAE, with its ``layers_per_block`` and ``block_out_channels``.
    """
    layers, blocks = int(config["layers_per_block"]), len(config["block_out_channels"])
    modules = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for half in ("encoder", "decoder"):
        ends = {"conv_in": "conv_in", "conv_norm_out": "norm_out", "conv_out": "conv_out"}
        modules |= _below(half, half, ends)
        for i in (0, 1):
            modules |= _below(f"{half}.mid_block.resnets.{i}", f"{half}.mid.block_{i + 1}", _VAE_RESNET)
        modules |= _below(f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1", _VAE_ATTENTION)
    for block in range(blocks):
        # The original counts the decoder's blocks from the finest to the coarsest.
        down, up = f"encoder.down.{block}", f"decoder.up.{blocks - 1 - block}"
        for layer in range(layers):
            modules |= _below(f"encoder.down_blocks.{block}.resnets.{layer}", f"{down}.block.{layer}", _VAE_RESNET)
        for layer in range(layers + 1):
            modules |= _below(f"decoder.up_blocks.{block}.resnets.{layer}", f"{up}.block.{layer}", _VAE_RESNET)
        modules[f"encoder.down_blocks.{block}.downsamplers.0.conv"] = f"{down}.downsample.conv"
        modules[f"decoder.up_blocks.{block}.upsamplers.0.conv"] = f"{up}.upsample.conv"
    return {name: VAE + _renamed(name, modules) for name in names}


def _below(ours: str, theirs: str, modules: Mapping[str, str]) -> dict[str, str]:
    return {f"{ours}.{a}": f"{theirs}.{b}" for a, b in modules.items()}


def _renamed(name: str, modules: Mapping[str, str]) -> str:
    """``name`` with the module it begins with renamed."""
    module = name
    while module not in modules:
        module, dot, _ = module.rpartition(".")
        if not dot:
            raise KeyError(f"{name} is in none of the modules of this layout")
    return modules[module] + name.removeprefix(module)
