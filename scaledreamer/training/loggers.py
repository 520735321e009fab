"""Where a run's figures go. Each function is the ``_target_`` of an option of the group ``logger``."""

import logging
import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scaledreamer.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
    from torch import Tensor

    from scaledreamer.training.metrics_file import MetricsFile

log = logging.getLogger(__name__)


def csv(*, directory: Path, config: dict[str, Any]) -> "MetricsFile":
    """``csv/metrics.csv`` in the run's folder; a resumed run continues it."""
    from scaledreamer.training.metrics_file import MetricsFile

    return MetricsFile(path=directory / "csv" / "metrics.csv")


def tensorboard(*, directory: Path, config: dict[str, Any]) -> "TensorBoardLogger":
    """Event files in ``tensorboard/`` of the run's folder.

    Raises:
        UserError: the package is not installed.
    """
    from lightning.pytorch.loggers import TensorBoardLogger

    try:
        return TensorBoardLogger(directory, name="", version="tensorboard", default_hp_metric=False)
    except ModuleNotFoundError as error:
        raise UserError("logger=tensorboard needs a package: pip install 'scaledreamer[tensorboard]'.") from error


def wandb(
    *,
    project: str = "scaledreamer",
    entity: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
    notes: str | None = None,
    mode: Literal["auto", "online", "offline"] = "auto",
    directory: Path,
    config: dict[str, Any],
) -> "WandbLogger":
    """Weights & Biases; ``auto`` is online where a key is configured, else offline, and never asks for one.

    The run's id follows from its folder, so a resumed run continues the same curves.
    """
    from lightning.pytorch.loggers import WandbLogger

    offline = mode == "offline" or (mode == "auto" and not _has_wandb_key())
    if offline and mode == "auto":
        log.info("W&B has no key here: logging offline; upload later with `wandb sync %s/wandb/offline-*`.", directory)
    return WandbLogger(
        project=project,
        entity=entity,
        group=group,
        tags=tags,
        notes=notes,
        name=config["name"],
        id=f"{directory.parent.name}-{directory.name}".replace("/", "-")[-64:],
        save_dir=directory,
        config=config,
        offline=offline,
        resume="allow" if not offline else None,
        log_model=False,
    )


def _has_wandb_key() -> bool:
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def log_image(logger: "Logger", name: str, picture: "Tensor", *, step: int, caption: str) -> None:
    """Send a picture [H, W, 3] in [0, 1] to a logger that takes pictures; others ignore it."""
    from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

    if isinstance(logger, WandbLogger):
        pixels = (picture * 255).round().byte().numpy()  # W&B takes any number for one in [0, 255]
        logger.log_image(name, [pixels], step=step, caption=[caption])
    elif isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, picture, step, dataformats="HWC")


def add_to_wandb_summary(figures: Mapping[str, float], *, directory: Path, config: dict[str, Any]) -> None:
    """Add figures to the summary of a run's own W&B run, with the options that it trained with or the usual ones.

    Args:
        figures: by their names.
        directory: of the run, absolute: its W&B id follows from it.
        config: of the run.
    """
    from scaledreamer.training.build import build

    node = (config.get("logger") or {}).get("wandb") or {"_target_": f"{__name__}.wandb"}
    try:
        build(node, directory=directory, config=config).experiment.summary.update(dict(figures))
    finally:
        finish()


def finish() -> None:
    """Close W&B's run if one is open, so that the runs of a sweep do not merge."""
    import sys

    if "wandb" in sys.modules:
        sys.modules["wandb"].finish()
