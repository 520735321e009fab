"""A UNet that denoises V views of an object together, each told its camera (MVDream, arXiv 2308.16512).

It is diffusers' ``UNet2DConditionModel`` with two changes, both of which diffusers has a place for: self-attention
reads the tokens of all views of an object, and the camera's 16 numbers pass through two linear layers and add to the
time embedding (diffusers' class embedding of the kind "projection"). So its files are those of a diffusers UNet, whose
configuration also says how many ``views`` there are.

Axes: M objects, V views of each, N = M * V inputs (views of an object consecutive), L tokens, C channels or width.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.utils import logging
from torch import Tensor, nn

from scaledreamer.priors.layout import CAMERA_NUMBERS


class JointAttention(AttnProcessor2_0):
    """Attention among the tokens of all views of an object: [M * V, L, C] is read as [M, V * L, C].

    Args:
        views: V.
    """

    def __init__(self, views: int) -> None:
        super().__init__()
        self.views = views

    def __call__(self, attn: Attention, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[M * V, L, C] -> [M * V, L, C]."""
        joined = hidden_states.unflatten(0, (-1, self.views)).flatten(1, 2)  # [M, V * L, C]
        attended = super().__call__(attn, joined, *args, **kwargs)
        return attended.unflatten(1, (self.views, -1)).flatten(0, 1)


class MultiViewUNet(nn.Module):
    """The denoiser of a multi-view diffusion model.

    Args:
        unet: a diffusers UNet whose class embedding takes :data:`CAMERA_NUMBERS` numbers; its self-attention is
            replaced in place. :meth:`from_config` and :meth:`from_single_view` make one.
        views: V; with 1 every image is denoised by itself.
    """

    def __init__(self, unet: UNet2DConditionModel, *, views: int = 4) -> None:
        super().__init__()
        kind, width = unet.config["class_embed_type"], unet.config["projection_class_embeddings_input_dim"]
        if (kind, width) != ("projection", CAMERA_NUMBERS):
            raise ValueError(f"this UNet takes no {CAMERA_NUMBERS} camera numbers: class embedding {kind} of {width}")
        self.unet, self.views = unet, views
        self.unet.register_to_config(views=views)
        joint = JointAttention(views)
        processors: dict[str, Any] = unet.attn_processors
        unet.set_attn_processor({k: joint if k.endswith("attn1.processor") else p for k, p in processors.items()})

    def forward(self, latents: Tensor, timesteps: Tensor, tokens: Tensor, c2w: Tensor) -> Tensor:
        """The network's output [N, C, h, w], of the type of its weights.

        Args:
            latents: noisy latents [N, C, h, w]; N is a multiple of V.
            timesteps: [N] int64.
            tokens: text [N, L, D].
            c2w: cameras [N, 4, 4] (see :mod:`scaledreamer.cameras`), at any distance.
        """
        cameras = camera_numbers(c2w).to(latents.dtype)
        return self.unet(latents, timesteps, encoder_hidden_states=tokens, class_labels=cameras, return_dict=False)[0]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "MultiViewUNet":
        """New weights for a diffusers configuration; its key ``views`` is V, the camera's layers are added."""
        options = {k: v for k, v in config.items() if k != "views" and not k.startswith("_")}
        camera = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": CAMERA_NUMBERS}
        return cls(UNet2DConditionModel(**{**options, **camera}), views=config["views"])

    @classmethod
    def from_single_view(cls, unet: UNet2DConditionModel, views: int = 4) -> "MultiViewUNet":
        """A copy of a single-view UNet that knows cameras but does not yet heed them: their last layer is zero.

        With ``views=1`` it computes what ``unet`` does.
        """
        model = cls.from_config({**unet.config, "views": views})
        found = model.unet.load_state_dict(unet.state_dict(), strict=False)
        if found.unexpected_keys or not all(key.startswith("class_embedding.") for key in found.missing_keys):
            raise ValueError(f"weights that do not fit: {[*found.unexpected_keys, *found.missing_keys]}")
        for parameter in model.unet.get_submodule("class_embedding.linear_2").parameters():
            nn.init.zeros_(parameter)
        weight = next(unet.parameters())
        return model.to(weight.device, weight.dtype)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``diffusion_pytorch_model.safetensors``."""
        self.unet.save_pretrained(str(folder))

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, output_loading_info: bool = False, **options: Any) -> Any:
        """Read what :meth:`save_pretrained` wrote; ``options`` are diffusers'.

        Returns:
            The model; with ``output_loading_info`` also diffusers' report of missing and mis-shaped weights.
        """
        shown = logging.get_verbosity()
        logging.set_verbosity_error()  # diffusers would warn of the key ``views``, which it does not know
        try:
            loaded: Any = UNet2DConditionModel.from_pretrained(str(folder), output_loading_info=True, **options)
        finally:
            logging.set_verbosity(shown)
        unet, report = loaded
        model = cls(unet, views=unet.config["views"])
        return (model, report) if output_loading_info else model


def camera_numbers(c2w: Tensor) -> Tensor:
    """What MVDream is told of cameras [N, 4, 4]: their numbers, the position scaled to unit length; [N, 16] float32."""
    c2w = c2w.float()
    position = c2w[:, :3, 3:]
    unit = position / position.norm(dim=1, keepdim=True).clamp_min(1e-8)
    upper = torch.cat([c2w[:, :3, :3], unit], dim=2)  # [N, 3, 4]
    return torch.cat([upper, c2w[:, 3:]], dim=1).flatten(1)
