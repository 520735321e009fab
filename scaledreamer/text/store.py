"""Text embeddings of a list of prompts in one file, of which only the rows that are asked for are read.

The file: a header of 4096 bytes (a line of JSON, padded), then one record per distinct prompt (its pooled embedding
[D], then its tokens [K, L, D]), then the CRC-32 of each record. Numbers are little-endian.

Axes: P rows asked for, N distinct prompts, K templates, L tokens, D width.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scaledreamer.errors import UserError
from scaledreamer.text.embedding import TextEmbedding
from scaledreamer.text.encode import TORCH_TYPES, StoredType

FORMAT_VERSION = 1
HEADER_BYTES = 4096
CHECKED_BYTES = 256 << 20
"""How much of a file is compared with its checksums when it is opened: all of a small one, a sample of a large one."""


class BrokenStoreError(Exception):
    """A file is not the store it should be; it can be built anew."""


@dataclass(frozen=True)
class StoreKey:
    """What a store is of. Stores with the same key hold the same numbers."""

    fingerprint: str
    rows: int  # N
    templates: int  # K
    length: int  # L
    width: int  # D
    dtype: StoredType

    @property
    def elements(self) -> int:
        """Numbers in a record."""
        return self.width * (1 + self.templates * self.length)

    @property
    def record_bytes(self) -> int:
        """Bytes of a record."""
        return self.elements * np.dtype(self.dtype).itemsize

    @property
    def file_bytes(self) -> int:
        """Bytes of the whole file."""
        return HEADER_BYTES + self.rows * (self.record_bytes + 4)

    def header(self) -> bytes:
        """The beginning of the file."""
        content = {"format": "scaledreamer text embeddings", "version": FORMAT_VERSION, **asdict(self)}
        return json.dumps(content).encode().ljust(HEADER_BYTES - 1) + b"\n"


def fingerprint(prompts: Sequence[str], templates: Sequence[str], prior: str, dtype: str) -> str:
    """A hash of everything that the numbers of a store depend on; the order of prompts and templates counts.

    Args:
        prompts: those that have a record each.
        templates: their wordings.
        prior: the prior's fingerprint.
        dtype: of the stored numbers.
    """
    digest = hashlib.sha256(json.dumps([FORMAT_VERSION, prior, list(templates), dtype]).encode())
    for prompt in prompts:
        digest.update(json.dumps(prompt).encode() + b"\n")
    return digest.hexdigest()[:32]


class EmbeddingStore:
    """Rows of a store file. May be pickled and forked; every process maps the file for itself.

    Args:
        path: the file.
        key: what it must be of.
        records: the record of each row; None where row i is record i.

    Raises:
        BrokenStoreError: the file is of something else, cut short or damaged.
    """

    def __init__(self, path: Path, key: StoreKey, records: Sequence[int] | None = None) -> None:
        self.path, self.key = path, key
        self._records = np.asarray(records if records is not None else range(key.rows), dtype=np.int64)
        self._map: np.memmap | None = None
        _check(path, key)

    def __len__(self) -> int:
        return len(self._records)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}

    def rows(self, indices: Tensor | Sequence[int]) -> TextEmbedding:
        """Embeddings of the prompts at ``indices`` [P], in that order: float32 on the CPU."""
        if self._map is None:
            self._map = _map(self.path, self.key)
        # The lookup by a list copies these records and reads no others.
        read = self._map[self._records[np.asarray(indices, dtype=np.int64).reshape(-1)]]
        values = torch.from_numpy(np.asarray(read)).float()  # [P, D + K * L * D]
        pooled, tokens = values.split([self.key.width, self.key.elements - self.key.width], dim=1)
        shape = (len(values), self.key.templates, self.key.length, self.key.width)
        return TextEmbedding(pooled=pooled.contiguous(), tokens=tokens.reshape(shape))


def write_store(path: Path, key: StoreKey, batches: Iterable[TextEmbedding]) -> None:
    """Write a store from batches of embeddings, in order; the file appears when it is whole.

    Memory is that of one batch.

    Args:
        path: where; a file with a longer name beside it grows meanwhile.
        key: what it is of.
        batches: of N rows altogether.

    Raises:
        UserError: an embedding is not finite.
        OSError: the file cannot be written.
    """
    part = path.with_name(f"{path.name}.{os.uname().nodename}-{os.getpid()}.part")
    checksums: list[int] = []
    try:
        with part.open("wb") as file:
            file.write(key.header())
            for batch in batches:
                block = torch.cat([batch.pooled, batch.tokens.flatten(1)], dim=1).to("cpu", TORCH_TYPES[key.dtype])
                if block.shape[1] != key.elements:
                    raise ValueError(f"embeddings of {block.shape[1]} numbers, expected {key.elements}")
                if not block.isfinite().all():
                    raise UserError(
                        "the prior's text encoder gives numbers that are not finite; try "
                        "guidance.prior.dtype=float32, or fetch its weights anew."
                    )
                for record in block.numpy():
                    data = record.tobytes()
                    checksums.append(zlib.crc32(data))
                    file.write(data)
            if len(checksums) != key.rows:
                raise ValueError(f"{len(checksums)} embeddings, expected {key.rows}")
            file.write(np.asarray(checksums, dtype="<u4").tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def parts(path: Path) -> list[Path]:
    """Files that :func:`write_store` is writing for ``path``, or has left behind when it was killed."""
    return list(path.parent.glob(f"{path.name}.*.part"))


def _map(path: Path, key: StoreKey) -> np.memmap:
    return np.memmap(path, dtype=key.dtype, mode="r", offset=HEADER_BYTES, shape=(key.rows, key.elements))


def _check(path: Path, key: StoreKey) -> None:
    """Raise unless header, length and checksums are right; at most :data:`CHECKED_BYTES` of the records are read."""
    with path.open("rb") as file:
        if file.read(HEADER_BYTES) != key.header():
            raise BrokenStoreError("its header is of other embeddings")
        size = os.fstat(file.fileno()).st_size
        if size != key.file_bytes:
            raise BrokenStoreError(f"it has {size} bytes instead of {key.file_bytes}")
        file.seek(HEADER_BYTES + key.rows * key.record_bytes)
        checksums = np.frombuffer(file.read(), dtype="<u4")
        looked_at = min(key.rows, max(1, CHECKED_BYTES // key.record_bytes))
        for i in np.linspace(0, key.rows - 1, looked_at).round().astype(int).tolist():
            file.seek(HEADER_BYTES + i * key.record_bytes)
            if zlib.crc32(file.read(key.record_bytes)) != checksums[i]:
                raise BrokenStoreError(f"record {i} does not match its checksum")
