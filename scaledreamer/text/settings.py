"""The run's choices about text embeddings: the ``text`` node of its configuration."""

from collections.abc import Sequence

import torch

from scaledreamer.constraints import NonNegativeFloat, PositiveFloat
from scaledreamer.text.embedding import TextEmbedding
from scaledreamer.text.encode import LiveTextEncoder, StoredType, TextEncoder, embed
from scaledreamer.text.open import open_text_embeddings, stored_text_embeddings
from scaledreamer.text.store import EmbeddingStore
from scaledreamer.turns import PATIENCE


class TextSettings:
    """Where text embeddings come from.

    Args:
        budget_gb: corpora whose embeddings take up to this (10^9 bytes) are stored; larger ones are computed live.
        dtype: of stored embeddings; live ones are rounded alike.
        patience: seconds to wait for another process, which embeds or prepares the run, without seeing it get on.
    """

    def __init__(
        self, *, budget_gb: NonNegativeFloat = 8.0, dtype: StoredType = "float16", patience: PositiveFloat = PATIENCE
    ) -> None:
        self.budget_gb, self.patience = budget_gb, patience
        self.dtype: StoredType = dtype

    def open(
        self,
        prompts: Sequence[str],
        prior: TextEncoder,
        templates: Sequence[str],
        *,
        device: torch.device | None = None,
    ) -> EmbeddingStore | None:
        """The store of a corpus, built if need be; None where it would exceed the budget.

        See :func:`scaledreamer.text.open.open_text_embeddings`.
        """
        found = open_text_embeddings(
            prompts,
            prior,
            templates,
            budget_gb=self.budget_gb,
            dtype=self.dtype,
            device=device,
            patience=self.patience,
        )
        return found if isinstance(found, EmbeddingStore) else None

    def stored(self, prompts: Sequence[str], prior: TextEncoder, templates: Sequence[str]) -> EmbeddingStore | None:
        """The store of a corpus where this machine has it; a row for each distinct prompt, in order."""
        return stored_text_embeddings(prompts, prior, templates, dtype=self.dtype)

    def encode(
        self,
        prompts: Sequence[str],
        prior: TextEncoder,
        templates: Sequence[str],
        *,
        device: torch.device | None = None,
    ) -> TextEmbedding:
        """Embeddings of a few prompts, now: float32 on the prior's device, the numbers that a store would hold."""
        return embed(prompts, prior, templates, dtype=self.dtype, device=device)

    def live(self, prior: TextEncoder, templates: Sequence[str]) -> LiveTextEncoder:
        """``prompts -> TextEmbedding`` for the training step, on the device that the prior is set up on."""
        return LiveTextEncoder(prior, templates, dtype=self.dtype)
