"""File names of prompts: readable, safe on every file system, and different for different prompts."""

import hashlib
import re
import unicodedata

WORDS, DIGITS = 60, 12
"""Characters of the words and of the hash: a name is 73 long at most. Two of a million prompts with the same words
collide with a chance of 0.2 %."""


def name_of(*prompts: str) -> str:
    """``a-red-robot-on-a-drum-4be1a80c9e21``: words in lower case ASCII, then a hash of the exact text.

    Of several prompts, as at the ends of an interpolation: ``a-red-robot--a-blue-duck-80c9e214be1a``.
    """
    length = (WORDS - 2 * (len(prompts) - 1)) // len(prompts)
    text = "\0".join(prompts)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]
    return f"{'--'.join(_words(prompt, length) for prompt in prompts)}-{digest}"


def _words(prompt: str, length: int) -> str:
    """The prompt's letters and digits, whole words where they fit; "prompt" where there are none."""
    plain = unicodedata.normalize("NFKD", prompt[: 10 * length]).encode("ascii", "ignore").decode()
    words = "-".join(re.findall(r"[a-z0-9]+", plain.lower())) or "prompt"
    if len(words) <= length:
        return words
    return words[: length + 1].rpartition("-")[0] or words[:length]
