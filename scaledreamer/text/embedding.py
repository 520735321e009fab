"""What a batch of prompts is to the generator and to the guidance.

Axes: P prompts, K templates (ways the prompt is worded, see :mod:`scaledreamer.guidance.views`), L tokens, D width.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class TextEmbedding:
    """Embeddings of P prompts."""

    pooled: Tensor  # [P, D]  of the plain prompt ("global")
    tokens: Tensor  # [P, K, L, D]  of the prompt worded by each template ("local"); a generator reads the first
    prompts: tuple[str, ...] = ()  # the P texts themselves, where they are known

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "TextEmbedding":
        """A copy on ``device``; non-blocking, so pinned memory overlaps with the step."""
        return replace(
            self,
            pooled=self.pooled.to(device, dtype, non_blocking=True),
            tokens=self.tokens.to(device, dtype, non_blocking=True),
        )
