"""Stable Diffusions with random weights: for tests, trials and benchmarks, where nothing can or need be downloaded.

They know nothing of images. ``tiny`` takes milliseconds on a CPU; ``sd15`` and ``sd21`` have the
sizes of Stable Diffusion 1.5 and 2.1-base.
"""

import hashlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from scaledreamer.errors import UserError
from scaledreamer.priors.layout import Configs
from scaledreamer.priors.weights import Weights, no_progress_bar

_SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = 2 * 256 + 2 * len(_LETTERS) ** 2 + 2
"""Tokens of the tokenizer: bytes and pairs of letters, each within and at the end of a word; start; end."""

SD21 = Configs(
    unet={
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "layers_per_block": 2,
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
    },
    vae={
        "sample_size": 512,
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "scaling_factor": 0.18215,
    },
    text_encoder={
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
        "projection_dim": 512,
        "max_position_embeddings": 77,
        "vocab_size": 49408,
    },
    scheduler=_SCHEDULER,
)
SD15 = replace(
    SD21,
    unet={**SD21.unet, "cross_attention_dim": 768, "attention_head_dim": 8, "use_linear_projection": False},
    text_encoder={
        **SD21.text_encoder,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "hidden_act": "quick_gelu",
        "projection_dim": 768,
    },
)
TINY = Configs(
    unet={
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [32, 64],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "attention_head_dim": [2, 4],
        "norm_num_groups": 8,
        "use_linear_projection": True,
    },
    vae={
        "sample_size": 64,
        "block_out_channels": [8, 16, 16, 16],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "scaling_factor": 0.18215,
    },
    text_encoder={
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_act": "gelu",
        "projection_dim": 32,
        "max_position_embeddings": 77,
        "vocab_size": VOCABULARY,
    },
    scheduler=_SCHEDULER,
)
ARCHITECTURES: dict[str, Configs] = {"tiny": TINY, "sd15": SD15, "sd21": SD21}


class RandomWeights(Weights):
    """Parts with random weights, the same for the same architecture, seed and kind of device.

    The text encoder is always drawn on the CPU, so that its embeddings do not depend on the device; the large parts
    are drawn where they will be used.

    Args:
        architecture: a key of :data:`ARCHITECTURES`.
        seed: of the weights.

    Raises:
        UserError: there is no such architecture.
    """

    def __init__(self, architecture: str, seed: int = 0) -> None:
        if architecture not in ARCHITECTURES:
            raise UserError(
                f"random:{architecture}: no such architecture; there are "
                f"{', '.join(f'random:{name}' for name in ARCHITECTURES)}."
            )
        self.architecture, self.seed = architecture, seed
        self.configs = ARCHITECTURES[architecture]
        sizes = json.dumps(self.configs.text_encoder, sort_keys=True).encode()
        self.fingerprint = f"random-{architecture}-{seed}-{hashlib.sha256(sizes).hexdigest()[:8]}"

    def unet(self, device: torch.device) -> nn.Module:
        """A random UNet on ``device``."""
        from diffusers import UNet2DConditionModel

        return self._draw(UNet2DConditionModel, self.configs.unet, device, 0)

    def vae(self, device: torch.device) -> nn.Module:
        """A random VAE on ``device``."""
        from diffusers import AutoencoderKL

        return self._draw(AutoencoderKL, self.configs.vae, device, 1)

    def text_encoder(self) -> nn.Module:
        """A random text encoder, on the CPU."""
        from transformers import CLIPTextConfig, CLIPTextModel

        sizes = self.configs.text_encoder
        start, end = sizes["vocab_size"] - 2, sizes["vocab_size"] - 1
        config = CLIPTextConfig(**sizes, bos_token_id=start, eos_token_id=end, pad_token_id=end)
        return self._draw(CLIPTextModel, {"config": config}, torch.device("cpu"), 2)

    def tokenizer(self) -> Any:
        """The tokenizer of :func:`write_tokenizer`."""
        from transformers import CLIPTokenizer

        with tempfile.TemporaryDirectory() as folder:  # its constructor differs between versions, its files do not
            write_tokenizer(Path(folder), self.configs)
            return CLIPTokenizer.from_pretrained(folder)

    def _draw(self, kind: Any, arguments: dict[str, Any], device: torch.device, part: int) -> nn.Module:
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), device:
            torch.manual_seed(3 * self.seed + part)
            return kind(**arguments)


def write_random_prior(folder: Path, architecture: Literal["tiny", "sd15", "sd21"] = "tiny", seed: int = 0) -> None:
    """Write a prior with random weights as a pipeline folder in diffusers' layout, which diffusers loads as well.

    Args:
        folder: made if it is not there.
        architecture: a key of :data:`ARCHITECTURES`.
        seed: of the weights.
    """
    random, cpu = RandomWeights(architecture, seed), torch.device("cpu")
    folder.mkdir(parents=True, exist_ok=True)
    models = {"unet": random.unet(cpu), "vae": random.vae(cpu), "text_encoder": random.text_encoder()}
    with no_progress_bar():
        for part, model in models.items():
            model.save_pretrained(str(folder / part))  # pyright: ignore[reportCallIssue]
    write_tokenizer(folder / "tokenizer", random.configs)
    write_index(folder, random.configs.scheduler)


def write_index(folder: Path, scheduler: dict[str, Any]) -> None:
    """Write a pipeline's scheduler and, last, the index of its parts: a folder that has it is whole."""
    _write_json(folder / "scheduler" / "scheduler_config.json", {"_class_name": "DDIMScheduler", **scheduler})
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    _write_json(folder / "model_index.json", index)


def write_tokenizer(folder: Path, configs: Configs) -> None:
    """Write the files of a byte-level CLIP tokenizer that joins letters in pairs, so that it needs no learned merges.

    Its start and end tokens are the last two of the text encoder's vocabulary, as in the published tokenizers.
    """
    alphabet = list(_byte_symbols())
    pairs = [(a, b) for a in _LETTERS for b in _LETTERS]
    merges = [*((a, f"{b}</w>") for a, b in pairs), *pairs]
    symbols = [*alphabet, *(f"{c}</w>" for c in alphabet), *("".join(pair) for pair in merges)]
    vocabulary = {symbol: i for i, symbol in enumerate(symbols)}
    size = configs.text_encoder["vocab_size"]
    vocabulary |= {"<|startoftext|>": size - 2, "<|endoftext|>": size - 1}
    _write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), "utf-8")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    special["pad_token"] = "<|endoftext|>"
    length = configs.text_length
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(
        folder / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, **special}
    )


def _byte_symbols() -> str:
    """The 256 characters that stand for bytes: printable Latin-1 for itself, the others from U+0100 on, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    moved = {byte: 0x100 + i for i, byte in enumerate(others)}
    return "".join(chr(moved.get(byte, byte)) for byte in range(256))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), "utf-8")
