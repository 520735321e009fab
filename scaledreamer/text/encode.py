"""Prompts and their wordings -> embeddings, by a prior's text encoder.

Axes: P prompts, K templates, L tokens, D width.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from scaledreamer.errors import UserError
from scaledreamer.priors.base import TextEncoding
from scaledreamer.text.embedding import TextEmbedding

StoredType = Literal["float16", "float32"]
TORCH_TYPES = {"float16": torch.float16, "float32": torch.float32}


class TextEncoder(Protocol):
    """What embedding text asks of a prior."""

    @property
    def text_dim(self) -> int:
        """D."""
        ...

    @property
    def text_length(self) -> int:
        """L."""
        ...

    @property
    def fingerprint(self) -> str:
        """Names the weights and the tokenizer."""
        ...

    def encode_text(self, prompts: Sequence[str], device: torch.device | None = None) -> TextEncoding:
        """Embed texts; on ``device``, or where the prior is set up."""
        ...

    def report_cut(self, prompts: Sequence[str]) -> list[str]:
        """Those of the texts that are longer than L tokens, with one warning for all of them."""
        ...


def wordings(prompts: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """Each prompt [P] worded by each template [K].

    Raises:
        UserError: a template has no ``{prompt}``, or braces of another kind.
    """
    for template in templates:
        try:
            filled = template.format(prompt="\0")
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(f"template '{template}': its only placeholder can be {{prompt}} ({error!r}).") from error
        if "\0" not in filled:
            raise UserError(f"template '{template}' does not contain {{prompt}}.")
    return [[template.format(prompt=prompt) for template in templates] for prompt in prompts]


def distinct_texts(prompts: Sequence[str], templates: Sequence[str]) -> list[str]:
    """The prompts and all their wordings, each text once."""
    return list(dict.fromkeys([*prompts, *(text for row in wordings(prompts, templates) for text in row)]))


def embed(
    prompts: Sequence[str],
    prior: TextEncoder,
    templates: Sequence[str],
    *,
    dtype: StoredType = "float16",
    device: torch.device | None = None,
) -> TextEmbedding:
    """Embed prompts [P], each distinct text once: float32 on the prior's device, rounded to ``dtype``.

    The rounding is that of :class:`scaledreamer.text.store.EmbeddingStore`, so both give the same numbers.

    Args:
        prompts: P texts; ``pooled`` [P, D] is theirs as they are.
        prior: has the text encoder.
        templates: K ways to word them; ``tokens`` [P, K, L, D] follow their order.
        dtype: what to round to.
        device: where to encode; None for the device that the prior is set up on.
    """
    worded, texts = wordings(prompts, templates), distinct_texts(prompts, templates)
    place = {text: i for i, text in enumerate(texts)}
    # A prior that is set up already knows its device.
    encoded = prior.encode_text(texts) if device is None else prior.encode_text(texts, device)
    at = encoded.pooled.device
    plain = torch.tensor([place[text] for text in prompts], dtype=torch.int64, device=at)
    views = torch.tensor([[place[text] for text in row] for row in worded], dtype=torch.int64, device=at)
    return TextEmbedding(
        pooled=_rounded(encoded.pooled, dtype)[plain],
        tokens=_rounded(encoded.tokens, dtype)[views.view(len(prompts), len(templates))],
        prompts=tuple(prompts),
    )


def _rounded(values: Tensor, dtype: StoredType) -> Tensor:
    return values.to(TORCH_TYPES[dtype]).float()


class LiveTextEncoder:
    """Embeds prompts when they are asked for, where storing all of them would take too much space.

    Not for the worker processes of a DataLoader: it runs on the prior's device.

    Args:
        prior: has the text encoder.
        templates: K wordings.
        prompts: those that :meth:`rows` counts.
        dtype: what the embeddings are rounded to, as if they had been stored.
        device: where to encode; None for the device that the prior is set up on at the time.
    """

    def __init__(
        self,
        prior: TextEncoder,
        templates: Sequence[str],
        *,
        prompts: Sequence[str] = (),
        dtype: StoredType = "float16",
        device: torch.device | None = None,
    ) -> None:
        self.prior, self.templates, self.prompts = prior, tuple(templates), prompts
        self.dtype: StoredType = dtype
        self.device = device

    def __len__(self) -> int:
        return len(self.prompts)

    def __call__(self, prompts: Sequence[str]) -> TextEmbedding:
        """Embeddings of P prompts, float32, on the prior's device."""
        return embed(prompts, self.prior, self.templates, dtype=self.dtype, device=self.device)

    def rows(self, indices: Tensor | Sequence[int]) -> TextEmbedding:
        """Embeddings of the prompts at ``indices`` [P], in that order."""
        return self([self.prompts[int(i)] for i in indices])
