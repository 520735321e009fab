"""Feeds a Lightning run with batches of prompts, and keeps its place in the stream of prompts in the checkpoint."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from scaledreamer.constraints import NonNegativeInt
from scaledreamer.corpora.dataset import Embeddings, PromptBatch, PromptDataset, as_fetched
from scaledreamer.corpora.sampler import PromptSampler
from scaledreamer.errors import UserError


class PromptDataModule(LightningDataModule):
    """Endless training batches, sharded over the processes of the trainer.

    The trainer must be made with ``use_distributed_sampler=False``: the batches are sharded here.

    Args:
        prompts: the training prompts.
        embeddings: their text embeddings, or None where the step embeds them itself.
        batch_size: prompts per step and process.
        seed: the run's seed, which orders the prompts.
        num_workers: processes that fetch ahead; 0 fetches in the training process.
    """

    def __init__(
        self,
        *,
        prompts: Sequence[str],
        embeddings: Embeddings | None,
        batch_size: int,
        seed: int,
        num_workers: NonNegativeInt = 0,
    ) -> None:
        super().__init__()
        self.dataset = PromptDataset(prompts=prompts, embeddings=embeddings)
        self.batch_size, self.seed, self.num_workers = batch_size, seed, num_workers
        self._samples_before, self._batches_before = 0, 0  # when the checkpoint was saved that the run resumed

    def setup(self, stage: str) -> None:
        """Begin at the first prompt; a checkpoint that is resumed is loaded after this."""
        if stage == "fit":
            self._samples_before, self._batches_before = 0, 0

    def train_dataloader(self) -> DataLoader[PromptBatch]:
        """Batches from :attr:`samples_seen` on."""
        device = self.trainer.strategy.root_device.type if self.trainer else "cpu"
        return DataLoader(
            self.dataset,
            batch_sampler=_FromHere(self),  # pyright: ignore[reportArgumentType]
            collate_fn=as_fetched,
            num_workers=self.num_workers,
            pin_memory=device == "cuda",
        )

    @property
    def samples_seen(self) -> int:
        """Prompts that all processes together have trained on, batches fetched ahead not counted.

        Batches are counted by the trainer, whose count goes on where a resumed run was; the number of processes and
        the batch size count as they are now for the batches since then.
        """
        world_size = self.trainer.world_size if self.trainer else 1
        return self._samples_before + (self._batches - self._batches_before) * world_size * self.batch_size

    @property
    def _batches(self) -> int:
        # `processed` counts a batch once its step is done, before the callbacks that save checkpoints are called.
        if not self.trainer:
            return 0
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # pyright: ignore[reportAttributeAccessIssue]

    def sampler(self) -> PromptSampler:
        """This process's batches from :attr:`samples_seen` on."""
        return PromptSampler(
            size=len(self.dataset),
            batch_size=self.batch_size,
            seed=self.seed,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
            start=self.samples_seen,
        )

    def state_dict(self) -> dict[str, Any]:
        """Place in the stream of prompts, and what the stream depends on."""
        return {"samples_seen": self.samples_seen, "batches_seen": self._batches, **self._identity()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved place; the number of processes and the batch size may differ.

        Raises:
            UserError: the checkpoint is of another corpus or seed.
        """
        for key, mine in self._identity().items():
            if state_dict[key] != mine:
                what = "seed" if key == "seed" else "corpus"
                raise UserError(
                    f"the checkpoint was trained with another {what} ({key} {state_dict[key]}, now {mine}); resume "
                    f"with the {what} it had, or start a new run."
                )
        self._samples_before, self._batches_before = state_dict["samples_seen"], state_dict["batches_seen"]

    def _identity(self) -> dict[str, Any]:
        prompts = self.dataset.prompts
        digest = hashlib.sha256("\0".join(prompts).encode()).hexdigest()
        return {"size": len(prompts), "seed": self.seed, "prompts": digest}


class _FromHere:
    """Batches from where the run is at the moment somebody begins to iterate, which may be more than once."""

    def __init__(self, module: PromptDataModule) -> None:
        self.module = module

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.module.sampler())
