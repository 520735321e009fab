"""Where a run's figures go. Each function at the top is the ``_target_`` of an option of the group ``logger``.

All of them get the same figures: :mod:`scaledreamer.training.logged` lists their names and units.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scaledreamer.errors import Interrupted, UserError

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from lightning.pytorch.loggers import Logger, TensorBoardLogger
    from torch import Tensor

    from scaledreamer.training.metrics_file import MetricsFile
    from scaledreamer.training.wandb_run import WandbRun


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
    name: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
    notes: str | None = None,
    mode: Literal["auto", "online", "offline"] = "auto",
    checkpoints: Literal["none", "last", "kept"] = "none",
    directory: Path,
    config: dict[str, Any],
) -> "WandbRun":
    """Weights & Biases. It never asks for a key, and a run of a folder goes on as the same run of W&B.

    Args:
        project, entity: of W&B; None is the account's own entity.
        name: None for the run's name and, in a sweep, its place in the sweep's folder.
        group: runs that belong together; the option file sets the name of the sweep's folder.
        tags, notes: shown with the run.
        mode: ``auto`` is online where a key is configured and W&B answers, else offline.
        checkpoints: that are uploaded as artifacts: none, the last one, or all that are kept.

    Raises:
        UserError: ``mode=online`` without a key.
    """
    from scaledreamer.training.wandb_run import WandbRun

    return WandbRun(
        directory=directory,
        mode=mode,
        checkpoints=checkpoints,
        project=project,
        entity=entity,
        name=name,
        usual_name=config["name"],
        group=group,
        tags=tags,
        notes=notes,
        config=config,
    )


def log_image(logger: "Logger", name: str, picture: "Tensor", *, step: int, caption: str) -> None:
    """Send a picture [H, W, 3] in [0, 1] to a logger that takes pictures; others ignore it."""
    from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

    if isinstance(logger, WandbLogger):
        pixels = (picture * 255).round().byte().numpy()  # W&B takes any number for one in [0, 255]
        logger.log_image(name, [pixels], step=step, caption=[caption])
    elif isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, picture, step, dataformats="HWC")


def log_files(trainer: "pl.Trainer", files: Mapping[str, Sequence[tuple[Path, str]]], *, step: int) -> None:
    """Send videos (.mp4) and meshes (.glb) with their captions to the loggers that take them; others ignore them."""
    from scaledreamer.training.wandb_run import WandbRun

    for logger in trainer.loggers:
        if isinstance(logger, WandbRun):
            logger.log_files(files, step=step)


def log_checkpoint(trainer: "pl.Trainer", path: Path, *, step: int) -> None:
    """Send a checkpoint that is kept to the loggers that were asked for it."""
    from scaledreamer.training.wandb_run import WandbRun

    for logger in trainer.loggers:
        if isinstance(logger, WandbRun) and (
            logger.checkpoints == "kept" or (logger.checkpoints == "last" and step >= trainer.max_steps)
        ):
            logger.log_checkpoint(path, step=step)


def log_options(trainer: "pl.Trainer", config: Mapping[str, Any]) -> None:
    """Have TensorBoard's table of options show the run; W&B has the whole configuration from the start."""
    from lightning.pytorch.loggers import TensorBoardLogger

    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            from torch.utils.tensorboard.summary import hparams

            from scaledreamer.training.logged import COMPARED

            # Names of curves alone: a value here would be a point of the curve.
            for summary in hparams(_flat(config), dict.fromkeys(COMPARED, 0.0)):
                logger.experiment._get_file_writer().add_summary(summary)


def _flat(node: Any, key: str = "") -> dict[str, bool | int | float | str]:
    """``a.b.c`` -> value; lists and what is not set as text."""
    if isinstance(node, Mapping):
        return {k: v for name, value in node.items() for k, v in _flat(value, f"{key}.{name}" if key else name).items()}
    return {key: node if isinstance(node, (bool, int, float, str)) else str(node)}


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


@contextmanager
def closing() -> Iterator[None]:
    """Close W&B's run after the block, as failed if it failed, or as one that will come back."""
    try:
        yield
    except BaseException as error:
        finish(failed=True, coming_back=isinstance(error, Interrupted))
        raise
    finish()


def finish(*, failed: bool = False, coming_back: bool = False) -> None:
    """Close W&B's run if one is open, so that the runs of a sweep do not merge."""
    import sys

    if "wandb" not in sys.modules:
        return
    run = sys.modules["wandb"].run
    if run is not None and coming_back:
        run.mark_preempting()
    sys.modules["wandb"].finish(exit_code=int(failed))
