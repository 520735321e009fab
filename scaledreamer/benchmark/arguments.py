"""What the benchmark's commands read from their command lines."""

import argparse
from pathlib import Path

from scaledreamer.errors import UserError


def parser_of(module: str, description: str) -> argparse.ArgumentParser:
    """For overrides and a file of figures, of any training step."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=f"{description} A prior that is not on this machine gets random weights of its sizes.",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as of train.py")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser


def require_place(file: Path | None) -> None:
    """Check that figures can be written to ``--json FILE``, where one is given.

    Raises:
        UserError: they cannot.
    """
    if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
        raise UserError(f"--json {file}: name a file in a folder that is there.")


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def natural(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 on")
    return int(text)
