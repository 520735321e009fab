"""A VAE's encoder that runs on images turned by 180 degrees, and gives what it gave before.

Stable Diffusion's halves the size by convolutions that are padded on one side only, which no library does: the volumes
are copied into larger ones first, and their gradients back. With image and kernels turned, the side is the one at
which a convolution of stride 2 that is padded on both sides begins, and its last row is never reached.
"""

from typing import Any, cast

import torch
from diffusers.models.downsampling import Downsample2D
from torch import Tensor, nn


class TurnedEncoder(nn.Module):
    """The same function of images whose sides its downsampling divides.

    Args:
        encoder: frozen, of which :meth:`fits` is true; its kernels are turned in place.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.halvings = 0
        for module in encoder.modules():
            if isinstance(module, Downsample2D):
                module.padding, cast(nn.Conv2d, module.conv).padding = 1, (1, 1)
                self.halvings += 1
        for conv in _convolutions(encoder):
            layout = torch.channels_last if _has_channels_last(conv.weight) else torch.contiguous_format
            conv.weight.data = conv.weight.data.flip(2, 3).contiguous(memory_format=layout)

    @staticmethod
    def fits(encoder: nn.Module) -> bool:
        """Whether every layer either does not know of places, or is turned here."""
        halving = [module for module in encoder.modules() if isinstance(module, Downsample2D)]
        one_sided = {id(module.conv) for module in halving if _is_one_sided(module)}
        around = all(id(conv) in one_sided or _is_centred(conv) for conv in _convolutions(encoder))
        return len(one_sided) == len(halving) > 0 and around

    def forward(self, images: Tensor, *args: Any, **options: Any) -> Tensor:
        """[B, 3, H, W] -> moments [B, C, H / 2^halvings, W / 2^halvings]."""
        factor = 2**self.halvings
        if images.shape[2] % factor or images.shape[3] % factor:
            raise ValueError(f"images have sides of a multiple of {factor} here, not {tuple(images.shape[2:])}")
        return self.encoder(images.flip(2, 3), *args, **options).flip(2, 3)


def _convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def _is_one_sided(module: Downsample2D) -> bool:
    conv = module.conv
    shape = (conv.kernel_size, conv.stride, conv.padding) if isinstance(conv, nn.Conv2d) else ()
    return shape == ((3, 3), (2, 2), (0, 0)) and module.padding == 0 and module.norm is None


def _is_centred(conv: nn.Conv2d) -> bool:
    half = tuple((size - 1) // 2 for size in conv.kernel_size)
    odd = all(size % 2 for size in conv.kernel_size)
    return odd and conv.padding == half and {*conv.stride, *conv.dilation} == {1} and conv.padding_mode == "zeros"


def _has_channels_last(weight: Tensor) -> bool:
    return weight.is_contiguous(memory_format=torch.channels_last)
