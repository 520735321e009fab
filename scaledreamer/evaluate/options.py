"""What ``evaluate.py`` can be told: names, types, ranges and defaults of ``conf/evaluate.yaml``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Len

from scaledreamer.config.signature import Part
from scaledreamer.constraints import PositiveInt
from scaledreamer.errors import UserError
from scaledreamer.render.options import SPLITS, PromptChoice, RunsChoice


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(PromptChoice, RunsChoice):
    """One call of ``evaluate.py``.

    Args:
        run: a run's folder, or a sweep's for all of its finished ones; or several, which are scored alike and shown
            side by side.
        protocol: how objects are looked at and by which CLIP (:mod:`scaledreamer.evaluate.protocols`).
        checkpoint: one of each run's checkpoints, by its file or its name; None for the newest.
        prompts: ``train``, ``val``, ``test`` or ``all`` of the run's; a prompt; or a list of prompts.
        sample: at most so many of the prompts that were trained on, and as many of the others, spread evenly.
        gallery: the texts that recall chooses among: a prompt file, or ``train``, ``val``, ``test`` or ``all`` of the
            run's corpus; None for its distinct prompts of train and test.
        batch: prompts that are generated at a time; memory follows it.
        overwrite: score anew what is scored already.
        log_to_wandb: write the means into the summary of the run's own W&B run.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UserError: the options name what is not there.
    """

    protocol: Part
    checkpoint: str | None = None
    prompts: str | Annotated[list[str], Len(1)] = "all"
    sample: PositiveInt | None = None
    gallery: str | None = None
    batch: PositiveInt = 1
    overwrite: bool = False
    log_to_wandb: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        PromptChoice.__post_init__(self)
        RunsChoice.__post_init__(self)
        if self.gallery is not None and self.gallery not in SPLITS and not Path(self.gallery).expanduser().is_file():
            raise UserError(
                f"gallery: '{self.gallery}' is neither a prompt file nor one of {', '.join(SPLITS)}; give one, or null "
                "for the corpus's distinct prompts of train and test."
            )
