"""Which file a key of a composed configuration comes from."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf


def origin_of(cfg: DictConfig, key: str) -> str | None:
    """Option file that sets ``key`` or, where none does, its nearest parent; None outside a Hydra composition."""
    hydra = cfg.hydra if "hydra" in cfg else HydraConfig.get() if HydraConfig.initialized() else None
    if hydra is None:
        return None
    best, depth = None, 0
    for label, path, package in _chosen_files(hydra):
        node = OmegaConf.load(path)
        if isinstance(node, DictConfig):
            relative = _below(key, package)
            found = _depth(node, relative) + (package.count(".") + 1 if package and relative is not None else 0)
            if relative is not None and found > depth:
                best, depth = label, found
    return best


def _chosen_files(hydra: DictConfig) -> list[tuple[str, Path, str]]:
    """(label, file, package) of the primary file and of every chosen option, in an order where later ones win."""
    folders = [Path(s.path) for s in hydra.runtime.config_sources if s.schema == "file"]
    names = [(hydra.job.config_name, "")]
    choices = hydra.runtime.choices
    names += [(f"{g}/{o}", g.replace("/", ".")) for g, o in choices.items() if o and not g.startswith("hydra/")]
    files = []
    for name, package in names:
        path = next((f / f"{name}.yaml" for f in folders if (f / f"{name}.yaml").exists()), None)
        if path is not None:
            header = path.read_text("utf-8").partition("@package")[2].split()
            files.append((f"{path.parents[len(Path(name).parts) - 1].name}/{name}.yaml", path, package))
            if header:
                files[-1] = (*files[-1][:2], "" if header[0] == "_global_" else header[0])
    return files


def _below(key: str, package: str) -> str | None:
    if not package:
        return key
    if key == package:
        return ""
    return key.removeprefix(package + ".") if key.startswith(package + ".") else None


def _depth(node: DictConfig, key: str | None) -> int:
    """How many parts of ``key`` the file spells out."""
    depth, current = 0, node
    for part in (key or "").split("."):
        if not isinstance(current, DictConfig) or part not in current:
            break
        depth, current = depth + 1, current._get_node(part)
    return depth
