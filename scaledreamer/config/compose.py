"""Compose a run's configuration outside ``hydra.main``: benchmarks, notebooks and tests."""

from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

CONF = Path(__file__).resolve().parents[2] / "conf"
"""The project's option files."""


def compose(
    overrides: Sequence[str] = (), *, config_folder: Path | str = CONF, config_name: str = "train"
) -> DictConfig:
    """The configuration that ``python train.py OVERRIDES`` would run, with its ``hydra`` node.

    Raises:
        hydra.errors.ConfigCompositionException: an override names no key or no option.
    """
    from scaledreamer.config.resolvers import register_resolvers

    register_resolvers()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(Path(config_folder).resolve()), version_base="1.3", job_name="train"):
        cfg = hydra.compose(config_name, overrides=list(overrides), return_hydra_config=True)
    OmegaConf.set_readonly(cfg.hydra, False)
    HydraConfig.instance().set_config(cfg)  # `${hydra:...}` in the options is looked up there
    return cfg
