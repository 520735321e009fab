"""Priors with random weights: for tests, trials and benchmarks, where nothing can or need be downloaded.

They know nothing of images. ``tiny`` takes milliseconds on a CPU, and so does ``tiny_mv``, which denoises 4 views
together; ``sd15``, ``sd21`` and ``mvdream`` have the sizes of Stable Diffusion 1.5, 2.1-base and MVDream.
"""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scaledreamer.errors import UserError
from scaledreamer.priors.layout import Configs
from scaledreamer.priors.sizes import ARCHITECTURES
from scaledreamer.priors.weights import Weights, no_progress_bar

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class RandomWeights(Weights):
    """Parts with random weights, the same for the same architecture, seed and kind of device.

    The text encoder is always drawn on the CPU, so that its embeddings do not depend on the device; the large parts
    are drawn where they will be used.

    Args:
        architecture: a key of :data:`scaledreamer.priors.sizes.ARCHITECTURES`.
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

        if "views" in self.configs.unet:
            from scaledreamer.priors.multiview_unet import MultiViewUNet

            return self._draw(MultiViewUNet.from_config, {"config": self.configs.unet}, device, 0)
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


def write_random_prior(folder: Path, architecture: str = "tiny", seed: int = 0) -> None:
    """Write a prior with random weights as a pipeline folder in diffusers' layout, which diffusers loads as well.

    Args:
        folder: made if it is not there.
        architecture: a key of :data:`scaledreamer.priors.sizes.ARCHITECTURES`.
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
