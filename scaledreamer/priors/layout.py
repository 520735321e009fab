"""What a Stable Diffusion folder in diffusers' layout holds, read from its small files alone.

Such a folder has one sub-folder per part (``unet``, ``vae``, ``text_encoder``, ``tokenizer``, ``scheduler``), each with
a JSON configuration, and weights beside three of them. A multi-view model's UNet is diffusers' as well (see
:mod:`scaledreamer.priors.multiview_unet`); its configuration also says how many ``views`` it denoises together. The
parts that its folder has not are those of the Stable Diffusion it was made from.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaledreamer.errors import UserError

CONFIG_FILES = {
    "unet": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "scheduler": "scheduler_config.json",
}
"""The configuration that each part must have."""

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")

CAMERA_NUMBERS = 16
"""What a multi-view UNet is told of a camera: ``c2w``, row by row."""


@dataclass(frozen=True)
class Folders:
    """A pipeline folder, and another one for the parts besides the UNet that the first has not."""

    own: Path
    base: Path | None = None

    def of(self, part: str) -> Path:
        """The pipeline folder that holds a part's sub-folder."""
        if self.base is None or part == "unet" or (self.own / part).is_dir():
            return self.own
        return self.base


@dataclass(frozen=True)
class Configs:
    """The configurations of the four parts that matter, as their files spell them."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    text_encoder: dict[str, Any]
    scheduler: dict[str, Any]

    @property
    def vae_factor(self) -> int:
        """Pixels per latent, along a side."""
        return 2 ** (len(self.vae["block_out_channels"]) - 1)

    @property
    def latent_size(self) -> int:
        """Side of the latents that the UNet was trained on."""
        size = self.unet.get("sample_size") or self.vae["sample_size"] // self.vae_factor
        return int(size if isinstance(size, (int, float)) else max(size))

    @property
    def views(self) -> int:
        """Images of an object that the UNet denoises together."""
        return int(self.unet.get("views", 1))

    @property
    def scaling_factor(self) -> float:
        """Latents are the VAE's posterior times this."""
        return float(self.vae.get("scaling_factor", 0.18215))

    @property
    def prediction_type(self) -> str:
        """One of :data:`PREDICTION_TYPES`: what the UNet's output means."""
        return self.scheduler.get("prediction_type", "epsilon")

    @property
    def text_dim(self) -> int:
        """Width of the text encoder."""
        return int(self.text_encoder["hidden_size"])

    @property
    def text_length(self) -> int:
        """Tokens of a text, start and end included."""
        return int(self.text_encoder["max_position_embeddings"])

    @property
    def num_timesteps(self) -> int:
        """Steps of the noise schedule."""
        return int(self.scheduler.get("num_train_timesteps", 1000))

    def problem(self) -> str | None:
        """Why these are not the parts of a Stable Diffusion 1.x or 2.x, of one view or several; None if they are."""
        unet, kind = self.unet, self.unet.get("_class_name", "UNet2DConditionModel")
        _ = self.latent_size, self.text_length, self.num_timesteps  # raise where a size is missing
        latent, text = int(self.vae.get("latent_channels", 4)), self.text_encoder.get("model_type", "clip_text_model")
        if kind != "UNet2DConditionModel":
            return f"its UNet is a {kind}, not a UNet2DConditionModel"
        cameras = unet.get("class_embed_type"), unet.get("projection_class_embeddings_input_dim")
        if "views" in unet and cameras != ("projection", CAMERA_NUMBERS):
            return f"its UNet has {self.views} views but does not take their cameras' {CAMERA_NUMBERS} numbers"
        if unet.get("addition_embed_type") or (unet.get("class_embed_type") and "views" not in unet):
            return "its UNet wants more than text (as SDXL's and unCLIP's do)"
        if unet.get("in_channels", 4) != latent:
            return f"its UNet takes {unet['in_channels']} channels where the VAE makes {latent} (inpainting or depth?)"
        if text != "clip_text_model":
            return f"its text encoder is a '{text}', not a CLIP text model"
        if unet.get("cross_attention_dim") != self.text_dim:
            return f"its UNet wants text {unet.get('cross_attention_dim')} wide, its text encoder's is {self.text_dim}"
        if self.prediction_type not in PREDICTION_TYPES:
            return f"its scheduler's prediction_type is '{self.prediction_type}', none of {', '.join(PREDICTION_TYPES)}"
        return None


def read_configs(folders: Folders) -> Configs:
    """Read and check the configurations of a pipeline.

    Raises:
        UserError: a file is missing or unreadable, or the folder is of another kind of model.
    """
    others = {"text_encoder_2": "SDXL", "transformer": "a transformer, as SD 3 and Flux", "prior": "unCLIP"}
    for name, kind in others.items():
        if (folders.own / name).is_dir():
            raise _unfit(folders.own, f"it has a '{name}' folder ({kind})")
    found: dict[str, Any] = {}
    for part, file in CONFIG_FILES.items():
        place = folders.of(part)
        if folders.base is None and "views" in found.get("unet", ()) and not (place / part).is_dir():
            raise UserError(
                f"{place} holds a multi-view UNet without its {part}: choose guidance/prior=mvdream, with "
                "guidance.prior.base_path for the Stable Diffusion it was made from."
            )
        found[part] = read_json(place / part / file, place)
    configs = Configs(**found)
    try:
        problem = configs.problem()
    except (KeyError, TypeError, ValueError) as error:
        raise _unfit(folders.own, f"a size is missing in its configuration files ({error})") from error
    if problem:
        raise _unfit(folders.own, problem)
    return configs


def _unfit(folder: Path, why: str) -> UserError:
    return UserError(
        f"{folder} is not a Stable Diffusion 1.x or 2.x text-to-image model: {why}; choose another folder."
    )


def read_json(path: Path, folder: Path) -> dict[str, Any]:
    """A configuration file of a pipeline folder.

    Raises:
        UserError: it is missing, unreadable or not a JSON object.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing; {folder} must be a whole Stable Diffusion pipeline in diffusers' layout (unet, vae, "
            "text_encoder, tokenizer, scheduler). Fetch it anew, or name another folder."
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch that file anew, or name another folder.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold a configuration; fetch that file anew, or name another folder.")
    return content
