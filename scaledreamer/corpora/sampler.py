"""The order in which a run sees its prompts, as a function of (seed, epoch) and a position alone.

The stream of a run is one random order of all prompts after another. Step k's global batch is the next
``world_size * batch_size`` of it, and each process takes its own rows. So any number of processes see the same
global batches, and a run goes on from its position in the stream whatever the number of processes before and after.
"""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor


def epoch_order(*, size: int, seed: int, epoch: int) -> Tensor:
    """The order of epoch ``epoch``: a permutation [size] of the prompts' indices, int64."""
    digest = hashlib.blake2b(f"prompts {seed} {epoch}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    return torch.randperm(size, generator=generator)


class PromptSampler:
    """Endless batches of prompt indices for one process; goes where a ``batch_sampler`` of a DataLoader goes.

    Args:
        size: prompts of the corpus.
        batch_size: prompts per batch and process; may exceed ``size``, the batch then runs over several epochs.
        seed: the run's seed.
        rank, world_size: this process among those that share the global batch.
        start: position in the stream, in samples of all processes, of the first global batch.
    """

    def __init__(
        self, *, size: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1, start: int = 0
    ) -> None:
        if size < 1 or batch_size < 1 or start < 0 or not 0 <= rank < world_size:
            raise ValueError(f"{size=}, {batch_size=}, {start=}, {rank=}, {world_size=}: out of range")
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world_size, self.start = rank, world_size, start

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order = -1, torch.empty(0, dtype=torch.int64)
        position = self.start + self.rank * self.batch_size
        while True:
            batch: list[int] = []
            while len(batch) < self.batch_size:
                now, offset = divmod(position + len(batch), self.size)
                if now != epoch:
                    epoch, order = now, epoch_order(size=self.size, seed=self.seed, epoch=now)
                batch += order[offset : offset + self.batch_size - len(batch)].tolist()
            yield batch
            position += self.world_size * self.batch_size
