"""The values of a configuration by their full keys, without those that make no other experiment."""

from typing import Any

INCIDENTAL = (
    "resume",
    "sweep",
    "objective",
    "logger",
    "callbacks",
    "trainer.threads",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.accelerator",
    "trainer.strategy",
)


def leaves(config: Any, *, without: tuple[str, ...] = INCIDENTAL, path: str = "") -> dict[str, Any]:
    """``{"guidance.rule.eta": 0.5, ...}``."""
    if path in without:
        return {}
    if not isinstance(config, dict):
        return {path: config}
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= leaves(value, without=without, path=f"{path}.{key}" if path else str(key))
    return found


def differing(configs: list[dict[str, Any]]) -> list[str]:
    """Keys whose values are not the same in all of some flat configurations."""
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if any(c.get(key) != configs[0].get(key) for c in configs)]
