"""What a job's folder is called: by its overrides and its seed, whatever they are made of."""

import hashlib
import re
from collections.abc import Collection, Sequence

LONGEST = 160
"""Bytes of a name; file systems take 255, and some are left for who writes beside it."""


def job_name(overrides: Sequence[str], *, seed: int, without: Collection[str] = ()) -> str:
    """``guidance=sds_toy,optimizer.lr=0.01,seed=0``; the order of the overrides does not matter.

    Args:
        overrides: ``key=value`` each.
        seed: comes last.
        without: keys that make no other job.
    """
    own = {key_of(o): o for o in overrides if key_of(o) not in {"seed", *without}}
    return safe(",".join(own[key] for key in sorted(own)), end=f"seed={seed}")


def identity(overrides: Sequence[str], *, without: Collection[str]) -> tuple[str, ...]:
    """What two jobs have in common that are the same."""
    return tuple(sorted(o for o in overrides if key_of(o) not in without))


def digest(text: str) -> str:
    """Eight characters that stand for it."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def key_of(override: str) -> str:
    """``optimizer.lr`` of ``+optimizer.lr=0.01``."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def safe(text: str, *, end: str) -> str:
    """``text,end`` as one folder's name; a digest replaces what a name cannot hold, so that different texts differ."""
    slug = re.sub(r"[^A-Za-z0-9._=,+-]+", "-", text)
    room = LONGEST - len(end) - 1
    if slug != text or len(slug) > room:
        slug = f"{slug[: room - 9].rstrip('-,.')}-{digest(text)}"
    return ",".join(part for part in (slug, end) if part)
