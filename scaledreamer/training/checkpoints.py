"""Checkpoints: written whole or not at all, safe to load, tied to the configuration that made them."""

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from scaledreamer import __version__
from scaledreamer.constraints import PositiveInt
from scaledreamer.errors import UserError
from scaledreamer.slurm import job
from scaledreamer.training.callback import StepCallback
from scaledreamer.training.loggers import log_checkpoint

MUST_AGREE = ("generator", "background", "optimizer", "parameter_groups", "seed")
"""Parts of the configuration whose change would give the saved state another meaning (the corpus checks itself)."""


class Checkpoints(StepCallback):
    """Keeps ``last.ckpt`` fresh and one checkpoint of every N steps for good.

    Args:
        last_every: optimiser steps between refreshes of ``last.ckpt``.
        keep_every: optimiser steps between checkpoints that are kept as ``step-NNNNNNN.ckpt``.
        directory: of the run.
        config: resolved, plain; saved in every checkpoint.
    """

    def __init__(
        self, *, last_every: PositiveInt, keep_every: PositiveInt, directory: Path, config: dict[str, Any]
    ) -> None:
        self.last_every, self.keep_every = last_every, keep_every
        self.folder = directory / "checkpoints"
        self.config = config
        self._saved: int | None = None  # step of last.ckpt

    def on_step(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> None:
        """Save when due, and at the end."""
        if step % self.keep_every == 0 or step >= trainer.max_steps:
            self._keep(trainer, step)
        elif step % self.last_every == 0:
            self.save(trainer, step)

    def save(self, trainer: pl.Trainer, step: int) -> None:
        """Refresh ``last.ckpt`` unless it is of this step already."""
        if step != self._saved:
            trainer.save_checkpoint(self.folder / "last.ckpt", weights_only=False)
            self._saved = step

    def _keep(self, trainer: pl.Trainer, step: int) -> None:
        kept = self.folder / f"step-{step:07d}.ckpt"
        trainer.save_checkpoint(kept, weights_only=False)
        if trainer.is_global_zero:
            _link(kept, self.folder / "last.ckpt")
        log_checkpoint(trainer, kept, step=step)
        self._saved = step

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say in the checkpoint what made it."""
        checkpoint["scaledreamer"] = {"version": __version__, "config": self.config}


def _link(target: Path, name: Path) -> None:
    """Make ``name`` a second name of the file ``target`` (a copy where the file system has no links)."""
    temporary = name.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(target, temporary)
    except OSError:
        shutil.copyfile(target, temporary)
    os.replace(temporary, name)


def find(resume: str | None, directory: Path, *, again: bool = False) -> Path | None:
    """The checkpoint that ``resume`` means for the run in ``directory``; None starts from the beginning.

    ``auto``: the newest of this run's own, None where it has none. A path: that file, or the newest of that run. With
    ``again`` or in a job that SLURM has put back into its queue: the newest of this run's own, before all that.

    Raises:
        UserError: a path that holds no checkpoint.
    """
    if (again or job.restarts()) and (own := newest(directory)) is not None:
        return own
    if resume is None:
        return None
    if resume == "auto":
        return newest(directory)
    path = Path(resume)
    found = path if path.is_file() else newest(path)
    if found is None:
        raise UserError(f"resume={resume}: no checkpoint there; give a .ckpt file, a run's folder or 'auto'.")
    return found


def newest(directory: Path) -> Path | None:
    """The checkpoint of a run with the most steps, or None."""
    files = [*directory.glob("checkpoints/*.ckpt"), *directory.glob("*.ckpt")]
    return max(files, key=lambda f: f.stat().st_mtime_ns, default=None)


def load(path: Path) -> Any:
    """What a file of PyTorch's holds, on the CPU; memory-mapped where its format allows, and nothing of it is executed.

    Raises:
        UserError: not such a file, damaged, or it holds objects that only code of its own can make.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"  # since PyTorch 1.6; older ones cannot be mapped
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}.") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # on bytes of another kind the reader fails in any way
        if refused := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise UserError(
                f"{path} holds more than weights ({refused[1]}), which is not loaded since it could run code. If you "
                "trust the file, keep its weights alone: python -c \"import torch; torch.save({'state_dict': "
                f"torch.load('{path}', weights_only=False)['state_dict']}}, 'weights.pth')\""
            ) from error
        reason = next(iter(str(error).splitlines()), "")
        raise UserError(f"{path}: not a readable checkpoint ({type(error).__name__}: {reason}).") from error


def read(path: Path) -> dict[str, Any]:
    """A checkpoint of a run, see :func:`load`.

    Raises:
        UserError: not a checkpoint of this project, or damaged.
    """
    checkpoint = load(path)
    if not (isinstance(checkpoint, dict) and "config" in checkpoint.get("scaledreamer", ())):
        raise UserError(
            f"{path}: not a checkpoint of a run of scaledreamer; weights of others start a run as checkpoint=FILE."
        )
    return checkpoint


def require_same(path: Path, config: dict[str, Any]) -> None:
    """Raise :class:`UserError` unless the checkpoint's state means the same under ``config``; names each difference."""
    saved = read(path)["scaledreamer"]["config"]
    differences = differences_of(saved, config, MUST_AGREE)
    if differences:
        lines = "\n  ".join(f"{key}: {old!r} in the checkpoint, {new!r} in this run" for key, old, new in differences)
        raise UserError(f"{path} was made with another configuration:\n  {lines}\nresume it with the same options.")


def require_same_prompts(path: Path, data: pl.LightningDataModule) -> None:
    """Raise :class:`UserError` unless the checkpoint was trained on the prompts of ``data``."""
    state = read(path).get(type(data).__qualname__)  # where Lightning keeps it
    if state is not None:
        data.load_state_dict(state)


def differences_of(old: Mapping[str, Any], new: Mapping[str, Any], parts: Iterable[str]) -> list[tuple[str, Any, Any]]:
    """(key, old value, new value) of what differs between parts of two configurations."""
    return [difference for part in parts for difference in _differences(part, old.get(part), new.get(part))]


def _differences(key: str, old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [d for k in keys for d in _differences(f"{key}.{k}", old.get(k), new.get(k))]
    return [(key, old, new)]
