"""A CLIP of random weights as small as can be, in transformers' layout."""

import json
import shutil
from pathlib import Path

import torch

from scaledreamer.toybox.judge import FOLDER

SIDE = 16
"""Pixels of its pictures."""

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def write_tiny_clip(folder: Path, *, seed: int = 0, safe: bool = True) -> Path:
    """Write one; its tokenizer is the bundled judge's, which spells whatever it does not know."""
    from transformers import CLIPConfig, CLIPModel

    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": 312, "eos_token_id": 313, "pad_token_id": 313}
    config = CLIPConfig(
        text_config={**shape, **ids, "vocab_size": 314, "max_position_embeddings": 24},
        vision_config={**shape, "image_size": SIDE, "patch_size": 8},
        projection_dim=12,
    )
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CLIPModel(config)
        for parameter in model.parameters():  # fresh weights are so small that all pictures look alike
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    if safe:
        model.save_pretrained(str(folder))
    else:
        config.save_pretrained(str(folder))
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"):
        shutil.copy(FOLDER / name, folder / name)
    options = {"size": {"shortest_edge": SIDE}, "crop_size": SIDE, "image_mean": CLIP_MEAN, "image_std": CLIP_STD}
    (folder / "preprocessor_config.json").write_text(json.dumps({**options, "resample": 3}))
    return folder
