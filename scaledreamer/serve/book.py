"""Which prompts a trained generator understands, and what is said of the others."""

import unicodedata
from dataclasses import dataclass

from scaledreamer.config.pairs import of_one_prompt
from scaledreamer.corpora.corpus import spread
from scaledreamer.errors import UserError
from scaledreamer.priors import locate
from scaledreamer.render.items import require_known
from scaledreamer.toybox import vocabulary
from scaledreamer.training.trained import Trained

_JOINERS = "\u200c\u200d"  # invisible, and part of how Persian, Hindi or emoji are spelled


@dataclass(frozen=True)
class Example:
    """A prompt of the run's corpus."""

    prompt: str
    seen: bool
    """Whether it was trained on."""


class PromptBook:
    """Reads what people type.

    Args:
        trained: that is asked for objects.
        examples: how many to offer.
        longest: most characters of a prompt.
    """

    def __init__(self, trained: Trained, *, examples: int, longest: int) -> None:
        self.longest = longest
        self._trained = trained
        self._toys = trained.config["guidance"]["prior"].get("path") in locate.BUNDLED
        try:
            prompts = trained.prompts
        except UserError:  # the corpus is not on this machine: the generator works without it
            self._train, self.examples = None, ()
            return
        self._train = {_key(prompt) for prompt in prompts.train}
        others = dict.fromkeys((*prompts.test, *prompts.val))
        unseen = [prompt for prompt in others if _key(prompt) not in self._train]
        seen = list(dict.fromkeys(prompts.train))
        if of_one_prompt(trained.config) is not None:
            unseen = []
        most = min(len(unseen), max(examples // 2, examples - len(seen)))
        chosen = [*spread(seen, examples - most), *spread(unseen, most)]
        self.examples: tuple[Example, ...] = tuple(Example(prompt, self.seen(prompt) is True) for prompt in chosen)

    @property
    def words(self) -> dict[str, tuple[str, ...]]:
        """All words that are understood, by their role in :attr:`sentence`; empty where that is any text."""
        if not self._toys:
            return {}
        return {
            "colour": vocabulary.COLOURS,
            "toy": vocabulary.KINDS,
            "hat": vocabulary.HATS,
            "stand": vocabulary.STANDS,
        }

    @property
    def sentence(self) -> str | None:
        """How they make a prompt; None where any text does."""
        return "a COLOUR TOY wearing a HAT on a STAND; hat and stand may be left out" if self._toys else None

    def read(self, text: object) -> str:
        """A prompt in one line of clean text.

        Raises:
            UserError: it is none, is too long, or the generator or its prior cannot know it.
        """
        prompt = cleaned(text, longest=self.longest)
        if self._toys:
            vocabulary.parse(prompt)  # its own words, without the advice to those who train
        require_known(self._trained, [prompt])
        return prompt

    def seen(self, prompt: str) -> bool | None:
        """Whether a prompt was trained on, but for case and spaces; None where the corpus is not on this machine."""
        return None if self._train is None else _key(prompt) in self._train


def cleaned(text: object, *, longest: int) -> str:
    """Text in one line, without characters that are not seen.

    Raises:
        UserError: it is no text, blank, or longer than ``longest`` characters.
    """
    if not isinstance(text, str):
        raise UserError("A prompt is text.")
    if len(text) > longest:
        raise UserError(f"A prompt may have {longest} characters, this one has {len(text):,}.")
    composed = unicodedata.normalize("NFC", text)
    shown = "".join(_shown(character) for character in composed)
    if not (prompt := " ".join(shown.split())):
        raise UserError("Write what you want to see.")
    if len(prompt) > longest:  # a few characters are longer when they are composed
        raise UserError(f"A prompt may have {longest} characters, this one has {len(prompt):,}.")
    return prompt


def _shown(character: str) -> str:
    """A space for what breaks lines, nothing for what steers, is not assigned or is half a character."""
    kind = unicodedata.category(character)
    if kind in ("Cc", "Zl", "Zp"):
        return " "
    return character if kind[0] != "C" or character in _JOINERS else ""


def _key(prompt: str) -> str:
    return " ".join(prompt.casefold().split())
