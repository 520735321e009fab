"""A corpus by name: the prompts that a run trains on, previews and is scored on."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from scaledreamer.constraints import PositiveInt
from scaledreamer.corpora.download import sha256_of
from scaledreamer.corpora.files import Splits, read_prompts
from scaledreamer.corpora.sources import Source
from scaledreamer.errors import UserError

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Prompts:
    """The splits of a corpus: stripped, each prompt once per split, in the order of their source."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    duplicates: dict[str, int]
    """How many repetitions were dropped from each split."""


def spread(items: Sequence[T], count: int) -> list[T]:
    """``count`` of the items, evenly; all where there are no more."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


class Corpus:
    """Names a list of prompts and reads it on demand.

    Args:
        name: what the corpus is called in logs and messages.
        source: where its prompts come from.
        path: the user's own .json, .txt or .csv file instead (see :mod:`scaledreamer.corpora.files`).
        prompt: one prompt instead, for all splits.
        holdout: which prompts test has. ``published``: those of the source; ``unseen``: those not in train.
        batch_size: prompts per step and process.
        max_prompts: keep only the first prompts of each split, for trials.
    """

    def __init__(
        self,
        *,
        name: str,
        source: Source | None = None,
        path: str | None = None,
        prompt: str | None = None,
        holdout: Literal["published", "unseen"] = "published",
        batch_size: PositiveInt = 1,
        max_prompts: PositiveInt | None = None,
    ) -> None:
        self.name, self.source, self.path, self.prompt = name, source, path, prompt
        self.holdout: Literal["published", "unseen"] = holdout
        self.batch_size, self.max_prompts = batch_size, max_prompts

    def load(self) -> Prompts:
        """Read, download or spell the prompts; the log says how many there are and how many were dropped.

        Raises:
            UserError: the options contradict each other, the prompts cannot be had, or ``holdout=unseen`` leaves none.
        """
        splits, origin = self._read()
        distinct = {name: tuple(dict.fromkeys(split)) for name, split in splits._asdict().items()}
        duplicates = {name: len(split) - len(distinct[name]) for name, split in splits._asdict().items()}
        if self.holdout == "unseen":
            distinct["test"] = self._unseen(distinct["train"], distinct["test"])
        prompts = Prompts(**{name: s[: self.max_prompts] for name, s in distinct.items()}, duplicates=duplicates)
        dropped = ", ".join(
            f"{count} of {name}'s {len(getattr(splits, name))}" for name, count in duplicates.items() if count
        )
        log.info(
            "corpus %s: %d train, %d val, %d test prompts from %s%s",
            self.name, len(prompts.train), len(prompts.val), len(prompts.test), origin,
            f"; dropped duplicates: {dropped}" if dropped else "",
        )  # fmt: skip
        return prompts

    def _read(self) -> tuple[Splits, str]:
        if self.path is not None and self.prompt is not None:
            raise UserError("corpus.path and corpus.prompt are both set; give one of them.")
        if self.prompt is not None:
            if not self.prompt.strip():
                raise UserError("corpus.prompt is blank; write what to make.")
            return Splits.of([self.prompt]), "corpus.prompt"
        if self.path is not None:
            splits = read_prompts(self.path)
            self._compare_with_published(Path(self.path).expanduser())
            return splits, self.path
        if self.source is not None:
            return self.source.load(), self.source.origin
        raise UserError(
            f"corpus={self.name} has no prompts of its own; set corpus.prompt='\"a corgi\"' or corpus.path=prompts.txt"
        )

    def _compare_with_published(self, path: Path) -> None:
        published = self.source.sha256 if self.source else None
        if published is None:
            return
        found = sha256_of(path)
        if found != published:
            log.warning(
                "corpus %s: %s is not the published file (sha256 %s, published %s); training on it as it is",
                self.name, path, found, published,
            )  # fmt: skip

    def _unseen(self, train: tuple[str, ...], test: tuple[str, ...]) -> tuple[str, ...]:
        seen = set(train)
        unseen = tuple(prompt for prompt in test if prompt not in seen)
        log.info(
            "corpus %s: %d of %d test prompts are in train and left out", self.name, len(test) - len(unseen), len(test)
        )
        if not unseen:
            raise UserError(
                f"corpus.holdout=unseen leaves no test prompt: all {len(test)} of {self.name} are in train; use "
                "corpus.holdout=published, or a corpus.path whose test prompts are new."
            )
        return unseen
