"""The toybox's words, prompts and splits."""

from collections import Counter
from dataclasses import astuple

import pytest

from scaledreamer.corpora.corpus import Corpus
from scaledreamer.errors import UserError
from scaledreamer.toybox.catalogue import parts_of
from scaledreamer.toybox.palette import PALETTE
from scaledreamer.toybox.splits import ToyboxPrompts, full, held_out, small
from scaledreamer.toybox.vocabulary import COLOURS, HATS, KINDS, STANDS, Toy, every_toy, parse


def test_prompts_by_hand():
    assert Toy("robot", "red", "top hat", "drum").prompt == "a red robot wearing a top hat on a drum"
    assert Toy("duck", "orange").prompt == "an orange duck"
    assert Toy("elephant", "blue", stand="cloud").prompt == "a blue elephant on a cloud"
    assert parse("An  Orange duck wearing party hat") == Toy("duck", "orange", "party hat")


def test_every_toy_once_and_read_back():
    toys = every_toy()
    assert len(toys) == len(set(toys)) == len(KINDS) * len(COLOURS) * (1 + len(HATS)) * (1 + len(STANDS)) == 2520
    assert toys[0] == Toy("robot", "red")
    assert toys[1] == Toy("robot", "red", None, "drum")
    assert toys[-1] == Toy("teapot", "black", "cap", "cloud")
    assert all(parse(toy.prompt) == toy for toy in toys)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a red robto", "did you mean 'robot'?"),
        ("a rde robot", "did you mean 'red'?"),
        ("a red robot wearing a tophat", "did you mean 'top hat'?"),
        ("a red robot on a drun", "did you mean 'drum'?"),
        ("a red robot on", "write a colour and a kind"),
        ("a robot", "write a colour and a kind"),
        ("", "write a colour and a kind"),
        ("a red xylophone", "It has robot, duck"),
    ],
)
def test_wrong_words(prompt, message):
    with pytest.raises(UserError) as error:
        parse(prompt)
    assert message in str(error.value)
    assert repr(prompt) in str(error.value)


def test_every_colour_has_a_paint():
    assert set(COLOURS) <= set(PALETTE)
    used = {part.colour for toy in every_toy() for part in parts_of(toy)} - {"body"}
    assert used | set(COLOURS) == set(PALETTE)
    assert all(0 <= value <= 1 for paint in PALETTE.values() for value in paint)


@pytest.mark.parametrize(("splits", "sizes"), [(small, (48, 8, 16)), (full, (2016, 16, 504))])
def test_splits(splits, sizes):
    train, val, test = splits()
    assert (len(train), len(val), len(test)) == sizes
    assert len(set(train) | set(test)) == len(train) + len(test)
    assert set(val) <= set(train)
    assert len({parse(prompt).kind for prompt in val}) == min(len(val), len(KINDS))
    assert splits() == (train, val, test)
    for role, words in (("kind", KINDS), ("colour", COLOURS), ("hat", (None, *HATS)), ("stand", (None, *STANDS))):
        counts = Counter(getattr(parse(prompt), role) for prompt in train)
        assert set(counts) == set(words)
        assert min(counts.values()) >= 3
        assert max(counts.values()) - min(counts.values()) <= 3
        assert {getattr(parse(prompt), role) for prompt in test} <= set(words)


def differences(one, other):
    return sum(a != b for a, b in zip(astuple(one), astuple(other), strict=True))


def test_small_test_toys_complete_squares_of_train():
    train, _, test = small()
    for toy in map(parse, test):
        near = [t for t in map(parse, train) if t.kind == toy.kind and differences(t, toy) == 1]
        assert len(near) >= 2
    assert {parse(prompt).kind for prompt in test} == set(KINDS)


def test_small_is_part_of_full():
    assert set(small().train) <= set(full().train)
    assert set(small().test) <= set(full().test)
    assert sum(map(held_out, every_toy())) * 5 == len(every_toy())


def test_as_a_corpus():
    prompts = Corpus(name="toybox", source=ToyboxPrompts(size="small"), holdout="unseen").load()
    assert len(prompts.test) == 16
    assert prompts.duplicates == {"train": 0, "val": 0, "test": 0}
