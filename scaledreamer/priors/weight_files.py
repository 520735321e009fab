"""The weight files of a Stable Diffusion folder: which to load, whether they are whole, which text encoder it is."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scaledreamer.errors import UserError
from scaledreamer.priors.layout import Folders, read_json

WEIGHT_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
"""How the weight files of each part begin."""


@dataclass(frozen=True)
class WeightFiles:
    """The files one part is loaded from, and the variant that names them ("fp16", or None)."""

    files: tuple[Path, ...]
    variant: str | None


def weight_files(folder: Path, part: str) -> WeightFiles:
    """Choose among the weight files of a part: full precision before fp16, safetensors before pickles.

    Raises:
        UserError: there are none, or one that an index names is missing.
    """
    stem, here = WEIGHT_STEMS[part], folder / part
    for suffix, prefix in (("safetensors", stem), ("bin", "pytorch_model" if part == "text_encoder" else stem)):
        for variant in (None, "fp16"):
            middle = f".{variant}" if variant else ""
            if (single := here / f"{prefix}{middle}.{suffix}").exists():
                return WeightFiles((single,), variant)
            for index in (
                here / f"{prefix}.{suffix}.index{middle}.json",
                here / f"{prefix}{middle}.{suffix}.index.json",
            ):
                if index.exists():
                    return WeightFiles(_shards(index, folder), variant)
    raise UserError(
        f"{here / f'{stem}.safetensors'} is missing; {folder} has the configuration but not the weights of its {part}. "
        "Fetch it anew, or name another folder."
    )


def _shards(index: Path, folder: Path) -> tuple[Path, ...]:
    names = read_json(index, folder).get("weight_map", {})
    files = tuple(index.parent / name for name in sorted(set(names.values())))
    for file in files:
        if not file.exists():
            raise UserError(f"{file} is missing; {index.name} names it. Fetch it anew, or name another folder.")
    return files


def check_weights(folders: Folders, parts: Sequence[str] = (*WEIGHT_STEMS, "tokenizer")) -> None:
    """Check that the weight files of all parts, or of some, are there and whole, reading only their first bytes.

    Raises:
        UserError: one is missing, cut short or not what its name says.
    """
    for part in parts:
        if part in WEIGHT_STEMS:
            for file in weight_files(folders.of(part), part).files:
                check_safetensors(file)
    tokenizer = folders.of("tokenizer") / "tokenizer"
    if "tokenizer" in parts and not any((tokenizer / name).exists() for name in ("vocab.json", "tokenizer.json")):
        raise UserError(f"{tokenizer / 'vocab.json'} is missing; fetch it anew, or name another folder.")


def check_safetensors(path: Path) -> None:
    """Compare a safetensors file's length with what its header promises; other files only must not be empty.

    Raises:
        UserError: they differ, or there is no such header.
    """
    size, again = path.stat().st_size, "remove it and fetch it anew, or name another folder."
    if path.suffix != ".safetensors":
        if size == 0:
            raise UserError(f"{path} is empty; {again}")
        return
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise UserError(f"{path} is cut short or not a safetensors file ({size} bytes); {again}")
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is not a safetensors file; {again}") from error
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise UserError(f"{path} has {size} bytes, its header promises {expected}; {again}")


def text_fingerprint(folders: Folders) -> str:
    """A hash that tells one text encoder with its tokenizer from another, in milliseconds whatever the size.

    Small files (configurations, vocabulary) count whole. Of a weight file its name, its length and 32 blocks of 64 KiB
    evenly spread over it count, so any training of the encoder shows, and a change of single weights may not.
    """
    digest, folder = hashlib.sha256(), folders.of("text_encoder")
    weights = weight_files(folder, "text_encoder").files
    tokenizer = sorted(p for p in (folders.of("tokenizer") / "tokenizer").glob("*") if p.is_file())
    for path in (folder / "text_encoder" / "config.json", *tokenizer, *weights):
        size, block, blocks = path.stat().st_size, 1 << 16, 32
        digest.update(f"{path.parent.name}/{path.name}:{size}\n".encode())
        with path.open("rb") as file:
            if size <= block * blocks or path not in weights:
                digest.update(file.read())
                continue
            for i in range(blocks):
                file.seek((size - block) * i // (blocks - 1))
                digest.update(file.read(block))
    return digest.hexdigest()[:32]
