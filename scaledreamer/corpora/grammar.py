"""Corpora that are spelled by a grammar instead of listed: every combination of the words of a pattern."""

import itertools
import string

from scaledreamer.corpora.files import Splits
from scaledreamer.corpora.sources import Source
from scaledreamer.errors import UserError


class Grammar(Source):
    """All sentences of a pattern, the words of its first place changing slowest.

    ``Grammar(train="{animal} {activity}", words={"animal": ["a pig", "a cat"], "activity": ["running"]})`` has the
    prompts "a pig running" and "a cat running".

    Args:
        train, val, test: patterns with ``{place}`` where a word goes; test defaults to train, val to test's beginning.
        words: the words that may stand in each place.
        sha256: hash of the published file of the same prompts, to compare a user's own ``corpus.path`` with.
    """

    def __init__(
        self,
        *,
        train: str,
        words: dict[str, list[str]],
        val: str | None = None,
        test: str | None = None,
        sha256: str | None = None,
    ) -> None:
        self.patterns, self.words, self.sha256 = (train, val, test), words, sha256

    @property
    def origin(self) -> str:
        """The pattern of train."""
        return f"the grammar {self.patterns[0]!r}"

    def load(self) -> Splits:
        """Every combination, in the order of the patterns' places.

        Raises:
            UserError: a pattern is malformed, or has a place without words.
        """
        return Splits.of(*(sentences(pattern, self.words) if pattern else [] for pattern in self.patterns))


def sentences(pattern: str, words: dict[str, list[str]]) -> list[str]:
    """Every combination of words for the places of ``pattern``.

    Raises:
        UserError: the pattern is malformed, or has a place without words.
    """
    try:
        places = list(dict.fromkeys(place for _, place, _, _ in string.Formatter().parse(pattern) if place is not None))
    except ValueError as error:
        raise UserError(f"the grammar's pattern {pattern!r} is malformed: {error}.") from error
    missing = [place for place in places if not words.get(place)]
    if missing:
        raise UserError(
            f"the grammar's pattern {pattern!r} has no words for {', '.join(map(repr, missing))}; "
            f"words are given for {', '.join(map(repr, words)) or 'nothing'}."
        )
    chosen = itertools.product(*(words[place] for place in places))
    return [pattern.format(**dict(zip(places, choice, strict=True))) for choice in chosen]
