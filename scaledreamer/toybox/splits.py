"""Which toys are trained on and which are held out, by composition: test toys are new, their words are not.

A toy is held out where the places of its four words in the vocabulary add up to a multiple of five. As there are five
hats (no hat counts), exactly one of five is, whatever the other words: words and pairs of words are balanced. The
small corpus takes its train from the large one's train and its test from the large one's test.
"""

from typing import Literal

from scaledreamer.corpora.files import Splits
from scaledreamer.corpora.sources import Source
from scaledreamer.toybox.vocabulary import COLOURS, HATS, KINDS, STANDS, Toy, every_toy

_HATS, _STANDS = (None, *HATS), (None, *STANDS)
_TRAIN, _TEST = 48, 16


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


def small() -> Splits:
    """48 train and 16 test prompts: each kind three or four times in train and once or twice in test."""
    toys = [_small_toy(i) for i in range(_TRAIN + _TEST)]
    return _splits(toys[:_TRAIN], toys[_TRAIN:], previews=8)


def full() -> Splits:
    """Every composition: four of five in train, one of five in test."""
    toys = every_toy()
    return _splits([t for t in toys if not held_out(t)], [t for t in toys if held_out(t)], previews=16)


def held_out(toy: Toy) -> bool:
    """Whether a toy belongs to test."""
    return (_place(toy) + _HATS.index(toy.hat)) % len(_HATS) == 0


def _place(toy: Toy) -> int:
    return KINDS.index(toy.kind) + COLOURS.index(toy.colour) + _STANDS.index(toy.stand)


def _small_toy(i: int) -> Toy:
    """The i-th toy: kinds in turn; the steps through the other words were searched for the most even counts."""
    turn, kind = divmod(i, len(KINDS))
    colour = COLOURS[(kind + 4 * turn) % len(COLOURS)]
    stand = _STANDS[(3 * kind + 3 * turn + i // 8) % len(_STANDS)]
    step = 0 if i >= _TRAIN else 1 + (2 * kind + 3 * turn) % (len(_HATS) - 1)
    hat = _HATS[(step - _place(Toy(KINDS[kind], colour, stand=stand))) % len(_HATS)]
    return Toy(KINDS[kind], colour, hat, stand)


def _splits(train: list[Toy], test: list[Toy], previews: int) -> Splits:
    prompts = [toy.prompt for toy in train]
    stride = len(prompts) // previews - 1  # a little less than would fit, so that the strides do not keep to some kinds
    return Splits.of(prompts, val=prompts[::stride][:previews], test=[toy.prompt for toy in test])
