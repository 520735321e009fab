"""What a training step gets of the corpus. P is the number of prompts of the step in one process."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from scaledreamer.text.embedding import TextEmbedding


class Embeddings(Protocol):
    """Text embeddings of a whole corpus, in the order of its prompts."""

    def rows(self, indices: Sequence[int]) -> TextEmbedding:
        """Embeddings of the prompts at ``indices``, in that order."""
        ...


@dataclass(frozen=True)
class PromptBatch:
    """Prompts of one step."""

    index: Tensor  # [P] int64, places in the corpus
    prompts: list[str]  # P
    text: TextEmbedding | None  # of P prompts; None where the step embeds them itself

    def to(self, device: torch.device | str) -> "PromptBatch":
        """A copy on ``device``; non-blocking, so pinned memory overlaps with the step."""
        text = self.text.to(device) if self.text is not None else None
        return PromptBatch(self.index.to(device, non_blocking=True), self.prompts, text)

    def pin_memory(self) -> "PromptBatch":
        """A copy in page-locked memory, from which transfers to a GPU need not wait."""
        text = self.text
        if text is not None:
            text = replace(text, pooled=text.pooled.pin_memory(), tokens=text.tokens.pin_memory())
        return PromptBatch(self.index.pin_memory(), self.prompts, text)


class PromptDataset(Dataset[PromptBatch]):
    """Prompts with their embeddings, fetched a whole batch at a time.

    Args:
        prompts: the corpus.
        embeddings: rows for the same prompts, or None where the step embeds them itself.
    """

    def __init__(self, *, prompts: Sequence[str], embeddings: Embeddings | None) -> None:
        self.prompts, self.embeddings = prompts, embeddings

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: int) -> PromptBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> PromptBatch:
        """The batch of the prompts at ``indices``; a DataLoader calls this once per batch."""
        prompts = [self.prompts[i] for i in indices]
        text = self.embeddings.rows(indices) if self.embeddings is not None else None
        return PromptBatch(
            index=torch.tensor(indices, dtype=torch.int64),
            prompts=prompts,
            text=replace(text, prompts=tuple(prompts)) if text is not None else None,
        )


def as_fetched(batch: Any) -> Any:
    """The DataLoader's collate function: the dataset gives whole batches already."""
    return batch
