"""Which prompts a call renders, and what is known of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from scaledreamer.corpora.corpus import spread
from scaledreamer.errors import UserError
from scaledreamer.render.index import digest
from scaledreamer.render.names import name_of
from scaledreamer.render.options import PromptChoice
from scaledreamer.training.build import require_known_prompts
from scaledreamer.training.trained import Trained


@dataclass(frozen=True)
class Item:
    """A prompt to render."""

    prompt: str
    splits: tuple[str, ...] | None  # that have it; None where the corpus is not on this machine

    @property
    def name(self) -> str:
        """Of its files."""
        return name_of(self.prompt)

    @property
    def seen(self) -> bool | None:
        """Whether it was trained on; None where that is not known."""
        return None if self.splits is None else "train" in self.splits

    @property
    def caption(self) -> str:
        """The prompt, with a star where it was not trained on."""
        return f"{self.prompt} *" if self.seen is False else self.prompt


@dataclass(frozen=True)
class Selection:
    """The prompts of a call, each once."""

    name: str
    """``test``; of prompts that were given themselves a hash of them."""
    items: tuple[Item, ...]


def select(trained: Trained, choice: PromptChoice, *, limit: int | None = None) -> Selection:
    """The prompts that a choice means, or the first so many of them.

    Raises:
        UserError: the corpus is not there, or the generator knows one prompt and others are wanted.
    """
    listed = choice.listed()
    splits = None
    try:
        corpus = trained.prompts
        splits = {"train": corpus.train, "val": corpus.val, "test": corpus.test}
    except UserError:
        if listed is None:
            raise
    wanted = _of_split(splits or {}, str(choice.prompts)) if listed is None else list(listed)
    wanted = wanted[:limit]
    require_known(trained, wanted)
    places = {split: set(prompts) for split, prompts in (splits or {}).items()}
    found = [tuple(split for split, prompts in places.items() if p in prompts) if splits else None for p in wanted]
    return Selection(
        name=str(choice.prompts) if listed is None else f"prompts-{digest(listed)}",
        items=tuple(Item(prompt, of) for prompt, of in zip(wanted, found, strict=True)),
    )


def sampled(items: Sequence[Item], count: int | None) -> list[Item]:
    """Those that were trained on first; at most ``count`` of them and of the others, spread evenly, or all."""
    seen, others = [i for i in items if i.seen], [i for i in items if not i.seen]
    return [*seen, *others] if count is None else [*spread(seen, count), *spread(others, count)]


def require_known(trained: Trained, prompts: Sequence[str]) -> None:
    """Raise :class:`UserError` for prompts that the prior does not know, or a generator that knows one prompt alone."""
    if trained.system.generator.one_prompt:
        own = trained.prompts.train[0]
        other = next((prompt for prompt in prompts if prompt != own), None)
        if other is not None:
            raise UserError(f"prompts: this run has learned '{own}' alone, it cannot make '{other}'.")
    require_known_prompts(trained.config, prompts)


def _of_split(known: dict[str, tuple[str, ...]], split: str) -> list[str]:
    return list(dict.fromkeys(p for name, prompts in known.items() if split in (name, "all") for p in prompts))
