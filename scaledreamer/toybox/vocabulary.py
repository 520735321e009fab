"""The words of the toybox and how they make a prompt: "a red robot wearing a top hat on a drum".

The only home of the words: prompts, truth and splits derive from it.
"""

import difflib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scaledreamer.errors import UserError

KINDS: tuple[str, ...] = (
    "robot", "duck", "cat", "elephant", "fish", "snowman", "mushroom", "house", "car", "train", "rocket", "airplane",
    "chair", "teapot",
)  # fmt: skip
"""What a toy may be; each has a front (+x) and a back."""

COLOURS: tuple[str, ...] = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black")
"""What its body may be painted with."""

HATS: tuple[str, ...] = ("top hat", "party hat", "crown", "cap")
"""What it may wear."""

STANDS: tuple[str, ...] = ("drum", "box", "cloud")
"""What it may stand on."""

ONLY_TOYS = (
    "the toybox's prior knows toys alone; choose another one for other prompts, as with generator=3dconv "
    "guidance=asd_sd, or corpus=toybox."
)

_WEARING, _ON = " wearing ", " on "
_EXAMPLE = "'a red robot wearing a top hat on a drum'"


@dataclass(frozen=True)
class Toy:
    """One composition. The order of toys is that of :func:`every_toy`.

    Raises:
        UserError: a word is not in the vocabulary.
    """

    kind: str
    colour: str
    hat: str | None = None
    stand: str | None = None

    def __post_init__(self) -> None:
        _known(self.kind, KINDS, "kind of toy")
        _known(self.colour, COLOURS, "colour")
        if self.hat is not None:
            _known(self.hat, HATS, "hat")
        if self.stand is not None:
            _known(self.stand, STANDS, "stand")

    @property
    def prompt(self) -> str:
        """The toy in words."""
        worn = f"{_WEARING}{_with_article(self.hat)}" if self.hat else ""
        below = f"{_ON}{_with_article(self.stand)}" if self.stand else ""
        return f"{_with_article(f'{self.colour} {self.kind}')}{worn}{below}"


def parse(prompt: str) -> Toy:
    """The toy that a prompt means; letter case, spacing and the choice of "a" or "an" do not matter.

    Raises:
        UserError: the prompt is not of the grammar; the message names the nearest valid word.
    """
    text, stand = _cut(" ".join(prompt.lower().split()), _ON)
    body, hat = _cut(text, _WEARING)
    words = _without_article(body).split()
    if len(words) != 2:
        raise UserError(f"{prompt!r} is no toy of the toybox; write a colour and a kind, as in {_EXAMPLE}.")
    colour, kind = words
    try:
        return Toy(kind=kind, colour=colour, hat=hat, stand=stand)
    except UserError as error:
        raise UserError(f"{prompt!r}: {error}") from error


def require_toys(prompts: Iterable[str]) -> None:
    """Check that the toybox's prior knows every prompt.

    Raises:
        UserError: one is no toy; the message says how to choose another prior.
    """
    for prompt in prompts:
        try:
            parse(prompt)
        except UserError as error:
            raise UserError(f"{error.args[0]} Note: {ONLY_TOYS}") from error


def every_toy() -> tuple[Toy, ...]:
    """All compositions, kinds changing slowest, then colours, hats (none first) and stands (none first)."""
    return tuple(Toy(*words) for words in itertools.product(KINDS, COLOURS, (None, *HATS), (None, *STANDS)))


def _known(word: str, words: Sequence[str], role: str) -> None:
    if word in words:
        return
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    nearest = f"did you mean {close[0]!r}? " if close else ""
    raise UserError(f"the toybox has no {role} {word!r}; {nearest}It has {', '.join(words)}.")


def _cut(text: str, keyword: str) -> tuple[str, str | None]:
    before, found, after = text.partition(keyword)
    return before, _without_article(after) if found else None


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _without_article(words: str) -> str:
    return words.removeprefix("an ").removeprefix("a ")
