"""Which file a key of a composed configuration comes from."""

import os
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf


class Origins:
    """The option files of one composed configuration.

    Args:
        cfg: what Hydra composed, with its ``hydra`` node or inside ``hydra.main``.
    """

    def __init__(self, cfg: DictConfig) -> None:
        hydra: Any = cfg.hydra if "hydra" in cfg else HydraConfig.get() if HydraConfig.initialized() else None
        self._files: list[tuple[Path, str, object]] = []  # file, package, content
        self._overrides: list[str] = []
        if hydra is not None:
            overrides, chosen = task_overrides(hydra), set(hydra.runtime.choices)
            self._files = [(path, package, OmegaConf.load(path)) for path, package in _files(hydra, overrides)]
            # generator=3dconv names a file; it sets nothing itself
            self._overrides = [o for o in overrides if o.partition("=")[0].lstrip("+~") not in chosen]

    def of(self, key: str) -> str | None:
        """Option file that sets ``key`` or, where none does, its nearest parent; None outside a Hydra composition.

        A key that the command line sets says so before the file: ``command line, over conf/train.yaml``.
        """
        best, depth, parts = None, 0, key.count(".") + 1
        for path, package, content in self._files:
            relative = _below(key, package)
            if relative is None:
                continue
            found = _depth(content, relative) + (package.count(".") + 1 if package else 0)
            # Of the files that set the key the last counts; of those that only know its parent the first made it.
            if found > depth or found == depth == parts:
                best, depth = path, found
        file = _label(best) if best is not None else None
        if not any(_sets(override, key) for override in self._overrides):
            return file
        return f"command line, over {file}" if file else "command line"


def task_overrides(hydra: DictConfig) -> list[str]:
    """The overrides of a run as they were written: their ``${...}`` are not this node's to resolve."""
    return OmegaConf.to_container(hydra.overrides.task, resolve=False)  # type: ignore[return-value]


def _files(hydra: DictConfig, overrides: list[str]) -> list[tuple[Path, str]]:
    """(file, package) of everything that was composed, in an order where later ones win."""
    search = ConfigSearchPathImpl()
    for source in hydra.runtime.config_sources:
        search.append(source.provider, f"{source.schema}://{source.path}")
    chosen = ConfigLoaderImpl(search).compute_defaults_list(
        hydra.job.config_name, overrides=overrides, run_mode=RunMode.RUN
    )
    folders = [Path(s.path) for s in hydra.runtime.config_sources if s.schema == "file"]
    files = []
    for option in chosen.defaults:
        path = next((f for folder in folders if (f := folder / f"{option.config_path}.yaml").exists()), None)
        if path is not None:
            files.append((path, option.package or ""))
    return files


def _label(path: Path) -> str:
    """Relative to the working folder where it is below it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _sets(override: str, key: str) -> bool:
    """Whether an override is of ``key``, or of something in it or around it."""
    name = override.partition("=")[0].lstrip("+~")
    return name == key or name.startswith(f"{key}.") or key.startswith(f"{name}.")


def _below(key: str, package: str) -> str | None:
    if not package:
        return key
    if key == package:
        return ""
    return key.removeprefix(package + ".") if key.startswith(package + ".") else None


def _depth(node: object, key: str) -> int:
    """How many parts of ``key`` the file spells out."""
    depth, current = 0, node
    for part in key.split("."):
        if not isinstance(current, DictConfig) or part not in current:
            break
        depth, current = depth + 1, current._get_node(part)
    return depth
