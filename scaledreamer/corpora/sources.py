"""Where the prompts of a named corpus come from."""

import logging
from abc import ABC, abstractmethod
from pathlib import Path

from scaledreamer.corpora.download import download, sha256_of
from scaledreamer.corpora.files import Splits, read_prompts
from scaledreamer.errors import UserError
from scaledreamer.paths import data_folder

log = logging.getLogger(__name__)


def corpora_folder() -> Path:
    """Folder of the prompt files that are not the user's own: ``corpora`` in the data folder."""
    return data_folder() / "corpora"


class Source(ABC):
    """Gives the splits of one corpus. Constructors do nothing but keep their arguments.

    Attributes:
        sha256: hash of the published file, or None where no file was published.
    """

    sha256: str | None = None

    @property
    @abstractmethod
    def origin(self) -> str:
        """Where the prompts come from, for messages."""

    @abstractmethod
    def load(self) -> Splits:
        """The prompts, stripped; duplicates are still in.

        Raises:
            UserError: they cannot be had; the message says what to do.
        """


class DataFile(Source):
    """A prompt file in the data folder, downloaded if it is not there and the network is.

    Args:
        file: its name in :func:`corpora_folder`.
        sha256: what it must hash to; None accepts any content.
        url: where it can be downloaded; None for one that cannot. Needs ``sha256``.
        build: the command that makes the file, for the error message where it is missing and has no ``url``.
    """

    def __init__(
        self, *, file: str, sha256: str | None = None, url: str | None = None, build: str | None = None
    ) -> None:
        self.file, self.sha256, self.url, self.build = file, sha256, url, build

    @property
    def path(self) -> Path:
        """Where the file is, or has to be."""
        return corpora_folder() / self.file

    @property
    def origin(self) -> str:
        """The file's path."""
        return str(self.path)

    def load(self) -> Splits:
        """The file's prompts, downloaded first if need be.

        Raises:
            UserError: the file is missing, wrong or cannot be downloaded; a wrong file is left where it is.
        """
        if not self.path.exists():
            self._obtain()
        found = sha256_of(self.path) if self.sha256 else None
        if found != self.sha256:
            remedy = "remove it to have it downloaded" if self.url else "put the published file in its place"
            raise UserError(
                f"{self.path} is not the published file: sha256 {found}, expected {self.sha256}; {remedy}, or train "
                f"on it as it is with corpus.path={self.path}"
            )
        return read_prompts(self.path)

    def _obtain(self) -> None:
        if self.url and self.sha256:
            download(self.url, self.path, sha256=self.sha256)
            return
        remedy = f"build it with: {self.build}" if self.build else "put it there, or set $SCALEDREAMER_DATA"
        raise UserError(f"{self.path} is missing; {remedy}")
