"""Which toys are trained on and which are held out, by composition: test toys are new, their words are not.

A toy is held out where the places of its four words in the vocabulary add up to a multiple of five. As there are five
hats (no hat counts), exactly one of five is, whatever the other words: words and pairs of words are balanced. The
small corpus takes its train from the large one's train and its test from the large one's test.
"""

from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any, Literal

from scaledreamer.corpora.files import Splits
from scaledreamer.corpora.sources import Source
from scaledreamer.toybox.vocabulary import COLOURS, HATS, KINDS, STANDS, Toy, every_toy

_HATS, _STANDS = (None, *HATS), (None, *STANDS)
_ROLES: dict[str, tuple[str | None, ...]] = {"colour": COLOURS, "hat": _HATS, "stand": _STANDS}
_PLANES = (("colour", "hat"), ("colour", "stand"), ("hat", "stand"))
_TEST = 16
_CHOICES = 4  # of a role's words are tried, those that have been used least

_Word = tuple[str, str | None]  # its role and itself
_Square = tuple[Toy, Toy, Toy, Toy]


class ToyboxPrompts(Source):
    """The toybox's own prompts.

    Args:
        size: ``small`` has 48 + 16 toys, ``full`` all of them.
    """

    def __init__(self, *, size: Literal["small", "full"]) -> None:
        self.size = size

    @property
    def origin(self) -> str:
        """The split's name."""
        return f"the toybox ({self.size})"

    def load(self) -> Splits:
        """Spelled, not read: cannot fail."""
        return small() if self.size == "small" else full()


@cache
def small() -> Splits:
    """48 train and 16 test prompts in squares: of a kind in two colours and with two hats, say, three corners are in
    train and the fourth is in test. The squares span colour and hat, colour and stand, hat and stand in turn."""
    squares: list[_Square] = []
    for i in range(_TEST):
        squares.append(_square(KINDS[i % len(KINDS)], _PLANES[i % len(_PLANES)], squares))
    train = [corners[turn] for turn in range(3) for corners in squares]  # neighbours are of different kinds
    return _splits(train, [corners[3] for corners in squares], val=train[:8])


def full() -> Splits:
    """Every composition: four of five in train, one of five in test."""
    toys = every_toy()
    train = [toy for toy in toys if not held_out(toy)]
    return _splits(train, [toy for toy in toys if held_out(toy)], val=train[::125][:16])


def held_out(toy: Toy) -> bool:
    """Whether a toy belongs to test."""
    return (_place(toy) + _HATS.index(toy.hat)) % len(_HATS) == 0


def _place(toy: Toy) -> int:
    return KINDS.index(toy.kind) + COLOURS.index(toy.colour) + _STANDS.index(toy.stand)


def _square(kind: str, plane: tuple[str, str], before: list[_Square]) -> _Square:
    """The square of a kind whose words have been used least in those ``before`` it; its last corner is held out."""
    uses = (Counter[_Word](), Counter[_Word]())  # in train, in test
    for square in before:
        for place, toy in enumerate(square):
            uses[place == 3].update(_words(toy))
    rare = {role: sorted(words, key=lambda word: uses[0][role, word])[:_CHOICES] for role, words in _ROLES.items()}
    found: list[tuple[int, int, _Square]] = []
    for words in product(*rare.values()):
        given: dict[str, Any] = dict(zip(rare, words, strict=True))
        first = Toy(kind, **given)
        for others in product(*(rare[role] for role in plane)):
            one, other = ({role: word} for role, word in zip(plane, others, strict=True))
            square = (first, replace(first, **one), replace(first, **other), replace(first, **one, **other))
            if len(set(square)) == 4 and [held_out(toy) for toy in square] == [False, False, False, True]:
                cost = sum(uses[place == 3][word] ** 2 for place, toy in enumerate(square) for word in _words(toy))
                if not any(toy in old for toy in square for old in before):
                    found.append((cost, len(found), square))
    return min(found)[2]


def _words(toy: Toy) -> list[_Word]:
    return [(role, getattr(toy, role)) for role in _ROLES]


def _splits(train: list[Toy], test: list[Toy], val: list[Toy]) -> Splits:
    return Splits.of(*([toy.prompt for toy in toys] for toys in (train, val, test)))
