"""A run's side of Weights & Biases: one run per folder, online or not, media and checkpoints."""

import configparser
import hashlib
import json
import logging
import netrc
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from scaledreamer.errors import UserError
from scaledreamer.paths import whole_file

log = logging.getLogger(__name__)

Mode = Literal["auto", "online", "offline"]
Kept = Literal["none", "last", "kept"]

_IDENTITY = "run.json"
_LONGEST_ID, _LONGEST_NAME = 64, 128  # W&B's own limits


class WandbRun(WandbLogger):
    """Lightning's logger with an identity that stays in the run's folder, ``wandb/run.json``.

    Args:
        directory: of the run; W&B's files go into ``wandb/`` there.
        mode: ``auto`` is online where a key is configured and W&B answers, else offline.
        checkpoints: that are uploaded as artifacts: ``none``, the ``last`` one, or every one that is ``kept``.
        name: None for that which the run had before, or for ``usual_name`` and its place in a sweep.
        options: more arguments of ``wandb.init``.

    Raises:
        UserError: ``online`` without a key, which W&B would ask for.
    """

    def __init__(
        self, *, directory: Path, mode: Mode, checkpoints: Kept, name: str | None, usual_name: str, **options: Any
    ) -> None:
        self.online = _is_online(mode)
        self._may_fall_back = mode == "auto"
        self.checkpoints: Kept = checkpoints
        directory = directory.absolute()
        identity = _identity(directory, usual_name)
        super().__init__(
            save_dir=directory,
            id=identity["id"],
            name=name or identity["name"],
            resume="allow",  # the folder's own run goes on, a new one begins
            mode=os.environ.get("WANDB_MODE") if _is_disabled() else "online" if self.online else "offline",
            log_model=False,
            **options,
        )
        if mode == "auto" and not self.online and not _is_disabled():
            log.info("W&B has no key here: logging offline; upload later with `%s`.", self.upload)

    @property
    def upload(self) -> str:
        """The command that uploads what was logged offline."""
        return f"wandb sync {self.save_dir}/wandb/offline-*"

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run, begun at first use.

        Raises:
            UserError: W&B refuses, or does not answer in ``online`` mode.
        """
        if self._experiment is None and self.online:
            from wandb.errors import AuthenticationError, CommError, UsageError

            try:
                return super().experiment
            except (AuthenticationError, UsageError) as error:
                raise UserError(f"W&B: {line_of(error)}; see `wandb login`, or logger.wandb.mode=offline.") from error
            except CommError as error:
                if not self._may_fall_back:
                    raise UserError(f"W&B: {line_of(error)}; or train with logger.wandb.mode=offline.") from error
                log.warning("W&B does not answer (%s): logging offline; `%s`.", line_of(error), self.upload)
                self.online, self._wandb_init["mode"] = False, "offline"
        return super().experiment

    @rank_zero_only
    def log_files(self, files: Mapping[str, Sequence[tuple[Path, str]]], *, step: int) -> None:
        """Videos (.mp4) and meshes (.glb) with their captions, by their names."""
        import wandb

        def media(path: Path, caption: str) -> Any:
            if path.suffix == ".mp4":
                return wandb.Video(str(path), caption=caption, format="mp4")
            return wandb.Object3D(str(path), caption=caption)

        shown = {name: [media(*file) for file in several] for name, several in files.items()}
        self.log_metrics(shown, step)  # pyright: ignore[reportArgumentType]

    @rank_zero_only
    def log_checkpoint(self, path: Path, *, step: int) -> None:
        """Upload a checkpoint that is kept for good as a version of the run's artifact ``checkpoint-ID``."""
        import wandb

        artifact = wandb.Artifact(f"checkpoint-{self.version}", type="model", metadata={"step": step})
        artifact.add_file(str(path), policy="immutable", skip_cache=True)  # read where it is, not copied
        self.experiment.log_artifact(artifact, aliases=["latest", f"step-{step}"])


def _identity(directory: Path, usual_name: str) -> dict[str, str]:
    """Id and name of the folder's run, which are written down: folders may be moved, and sweeps evaluated later."""
    file = directory / "wandb" / _IDENTITY
    if file.is_file():
        return json.loads(file.read_text("utf-8"))
    digest = hashlib.sha256(str(directory).encode()).hexdigest()[:8]
    spelled = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{directory.parent.name}-{directory.name}").strip("-")
    name = "/".join([usual_name, *_place_in_sweep(directory)])
    found = {"id": f"{spelled[: _LONGEST_ID - 9]}-{digest}", "name": name[:_LONGEST_NAME]}
    if rank_zero_only.rank == 0:
        with whole_file(file) as part:
            part.write_text(json.dumps(found), "utf-8")
    return found


def _place_in_sweep(directory: Path) -> tuple[str, ...]:
    """Folders of a sweep's job below the sweep's; none outside a sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return ()
    sweep = Path(HydraConfig.get().sweep.dir).absolute()
    return directory.relative_to(sweep).parts if directory.is_relative_to(sweep) else ()


def _is_disabled() -> bool:
    return os.environ.get("WANDB_MODE") == "disabled"


def _is_online(mode: Mode) -> bool:
    if mode == "offline" or (mode == "auto" and os.environ.get("WANDB_MODE", "online") != "online"):
        return False
    found = has_key()
    if mode == "online" and not found:
        raise UserError("logger.wandb.mode=online: W&B has no key here; run `wandb login`, or choose auto or offline.")
    return found


def has_key() -> bool:
    """Whether W&B would find credentials without asking: in the environment, in ``.netrc`` or in its settings."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    folder = os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    settings = configparser.ConfigParser()
    try:
        settings.read(Path(folder).expanduser() / "settings")
    except configparser.Error:
        settings.clear()
    own = dict(settings.items("default")) if settings.has_section("default") else {}
    if own.get("api_key"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or own.get("base_url") or "https://api.wandb.ai").netloc
    names = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for file in (Path(name).expanduser() for name in names):
        try:
            if netrc.netrc(file).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def line_of(error: Exception) -> str:
    """What W&B complains of, without what follows it."""
    return next(iter(str(error).splitlines()), type(error).__name__)
