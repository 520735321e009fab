"""Configurations: composed by Hydra from ``conf/``, checked against the signatures they will be passed to."""

from scaledreamer.config.check import check, plain, run
from scaledreamer.config.compose import CONF, compose

__all__ = ["CONF", "check", "compose", "plain", "run"]
