"""Names of files: readable, safe anywhere, never the same for two prompts."""

import random
import re

import pytest

from scaledreamer.render.names import DIGITS, WORDS, name_of

TRICKY = (
    "a cat", "A cat", "a  cat", "a cat ", "a-cat", "a cat.", "a, cat", "ä cat", "a\tcat", "a\ncat", "a cat\0",
    "", " ", ".", "..", "/", "../../etc/passwd", "C:\\cat", "con", "CON", "nul.txt", "-rf", "~", "*?<>|\":",
    "日本語", "日本", "🙂", "🙃", "e\u0301", "\u00e9", "\ud800", "straße", "STRASSE", "ﬁ", "fi", "İ", "i",
    "x" * 5000, "x" * 5001, "word " * 900, "word " * 901, "-" * 300, "\u202egnp.exe",
)  # fmt: skip


def variants(seed: int, count: int) -> set[str]:
    """Prompts that differ as little as prompts can: case, spaces, punctuation, accents, order, length."""
    draw = random.Random(seed)
    words = ["cat", "Cat", "CAT", "cät", "a", "A", "red", "réd", "-", ".", "", " ", "1", "\uff11", "k", "K"]
    return {
        "".join(draw.choice(words) + draw.choice(["", " ", "-"]) for _ in range(draw.randint(0, 9)))
        for _ in range(count)
    }


@pytest.mark.parametrize("prompts", [set(TRICKY), variants(0, 5000), {c * n for c in "aA é" for n in range(200)}])
def test_different_prompts_have_different_names_whatever_the_file_system(prompts):
    names = [name_of(prompt) for prompt in prompts]
    assert len({name.casefold() for name in names}) == len(prompts)
    for name in names:
        assert re.fullmatch(rf"[a-z0-9]+(-[a-z0-9]+)*-[0-9a-f]{{{DIGITS}}}", name)
        assert len(name) <= WORDS + 1 + DIGITS


def test_names_are_the_same_everywhere_and_always():
    assert name_of("a red robot on a drum") == "a-red-robot-on-a-drum-76718098a52f"  # sha256("a red robot on a drum")
    assert name_of("A Red Röbot!") == "a-red-robot-" + name_of("A Red Röbot!")[-DIGITS:]
    assert name_of("日本語").startswith("prompt-")


def test_a_long_prompt_is_cut_between_words():
    words = name_of("a marble statue of an octopus that plays four violins at once on a stage")[: -DIGITS - 1]
    assert words == "a-marble-statue-of-an-octopus-that-plays-four-violins-at"


def test_a_pair_has_a_direction():
    there, back = name_of("a cat", "a dog"), name_of("a dog", "a cat")
    assert there.startswith("a-cat--a-dog-")
    assert back.startswith("a-dog--a-cat-")
    assert len({there, back, name_of("a cat\0a dog"), name_of("a cat a dog")}) == 4
    assert len(name_of("x" * 99, "y" * 99)) <= WORDS + 1 + DIGITS
