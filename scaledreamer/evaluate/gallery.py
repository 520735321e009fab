"""The fixed list of texts among which recall looks for a picture's own: named, counted, and told apart by a digest."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from scaledreamer.corpora.files import read_prompts
from scaledreamer.errors import UserError
from scaledreamer.render.index import digest
from scaledreamer.render.options import SPLITS
from scaledreamer.training.trained import Trained


@dataclass(frozen=True)
class Gallery:
    """Distinct texts, sorted. A prompt that is not among them is ranked among them and itself."""

    name: str
    texts: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """Tells these texts from others."""
        return digest(self.texts)

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each text is."""
        return {text: place for place, text in enumerate(self.texts)}

    @property
    def decides(self) -> bool:
        """Whether there is anything to choose among."""
        return len(self.texts) > 1

    def __str__(self) -> str:
        return f"{self.name}, {len(self.texts)} texts, {self.digest}"


def choose(trained: Trained, wanted: str | None) -> Gallery:
    """The gallery of a run's figures.

    Args:
        trained: the run.
        wanted: a split of its corpus, ``all`` of them or a prompt file; None for train and test.

    Raises:
        UserError: the corpus or the file cannot be read.
    """
    if wanted is not None and wanted not in SPLITS:
        try:
            found = read_prompts(wanted)
        except UserError as error:
            raise UserError(f"gallery: {error}") from error
        return Gallery(name=Path(wanted).name, texts=_distinct(*found))
    try:
        corpus = trained.prompts
    except UserError as error:
        raise UserError(f"gallery: {error} Or give a prompt file, gallery=FILE.") from error
    splits = {"train": corpus.train, "val": corpus.val, "test": corpus.test}
    names = ("train", "test") if wanted is None else tuple(splits) if wanted == "all" else (wanted,)
    name = f"{trained.config['corpus']['name']} {'+'.join(names)}"
    return Gallery(name=name, texts=_distinct(*(splits[split] for split in names)))


def _distinct(*splits: "list[str] | tuple[str, ...]") -> tuple[str, ...]:
    return tuple(sorted({prompt for split in splits for prompt in split}))
