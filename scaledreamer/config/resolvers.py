"""Values in the option files that only the file system knows."""

from datetime import datetime
from pathlib import Path
from typing import Any

from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.defaults_list import create_defaults_list
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from scaledreamer.sweep.folder import folder_of
from scaledreamer.sweep.names import job_name


def register_resolvers() -> None:
    """Make ``${run_folder:ROOT,NAME,RESUME}`` and a sweep's folders available; idempotent."""
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("sweep_folder", folder_of, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
    OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)
    OmegaConf.register_new_resolver("guidance_name", guidance_name, replace=True)


def job_folder(*, _root_: DictConfig) -> str:
    """The folder of a sweep's job, in the sweep's: see :func:`scaledreamer.sweep.names.job_name`."""
    hydra: Any = _root_.hydra
    overrides = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    without = hydra.job.config.override_dirname.exclude_keys
    return job_name(overrides, seed=_root_.seed, without=list(without))  # type: ignore[arg-type]


def sweep_name(mode: RunMode | None, folder: str) -> str | None:
    """The name of a sweep's folder; None for a single run."""
    return Path(folder).name if mode == RunMode.MULTIRUN else None


def guidance_name(runtime: DictConfig) -> str:
    """What a run's guidance is called: ``asd_sd``, with a rule or a prior that are not its own ``asd_sd_sds``.

    Args:
        runtime: ``${hydra:runtime}``, for the options that were chosen and the folders they are in.
    """
    guidance, own = runtime.choices["guidance"], _own_choices(runtime)
    chosen = {group: runtime.choices.get(group) for group in ("guidance/rule", "guidance/prior")}
    return "_".join([guidance, *(str(option) for group, option in chosen.items() if option != own.get(group, option))])


def _own_choices(runtime: DictConfig) -> dict[str, str | None]:
    """The options of other groups that the run's option of ``guidance`` chooses where nobody else does."""
    search = ConfigSearchPathImpl()
    for source in runtime.config_sources:
        search.append(source.provider, f"{source.schema}://{source.path}")
    repository, name = CachingConfigRepository(ConfigRepository(search)), f"guidance/{runtime.choices['guidance']}"
    found = create_defaults_list(repository, name, [], prepend_hydra=False, skip_missing=True)
    return found.overrides.known_choices


def run_folder(root: str, name: str, resume: str | None) -> str:
    """The folder of a run: that of the run it resumes, else a new one ``ROOT/NAME/TIME``.

    ``resume=auto`` means the newest run of that name that has a checkpoint, or a new run where there is none;
    ``resume=FOLDER`` means that run; a checkpoint file starts a new run from it unless it lies in a run's folder.
    """
    if resume == "auto":
        folders = sorted(p.parents[1] for p in Path(root, name).glob("*/checkpoints/*.ckpt"))
        if folders:
            return str(folders[-1])
    elif resume:
        path = Path(resume)
        folder = path.parents[1] if path.suffix == ".ckpt" and len(path.parents) > 1 else path
        if (folder / "config.yaml").exists():
            return str(folder)
    return str(Path(root, name, datetime.now().strftime("%Y-%m-%d_%H-%M-%S")))
