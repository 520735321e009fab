"""Do a sweep's launcher and its runs' trainers ask for the same machine?"""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from scaledreamer.config.signature import Problem


def is_slurm(launcher: DictConfig | None) -> bool:
    """Whether a launcher's options are those of submitit for SLURM."""
    return launcher is not None and str(launcher.get("_target_", "")).endswith(".SlurmLauncher")


def problems_of_launcher(cfg: DictConfig, tree: dict[str, Any]) -> list[Problem]:
    """What would make every process of a job wait for others, or fail, after hours in a queue.

    Args:
        cfg: a job's configuration, composed; without its ``hydra`` node there is nothing to compare.
        tree: the plain one, of any command.
    """
    node = OmegaConf.select(cfg, "hydra.launcher")
    if not is_slurm(node) or "trainer" not in tree:
        return []
    launcher: dict[str, Any] = OmegaConf.to_container(node, resolve=False)  # type: ignore[assignment]
    trainer = tree["trainer"]
    nodes, tasks, gpus = launcher.get("nodes"), launcher.get("tasks_per_node"), launcher.get("gpus_per_node")
    devices, accelerator = trainer.get("devices", 1), trainer.get("accelerator", "auto")
    found = []
    if trainer.get("num_nodes", 1) != nodes:
        found.append(_unequal("trainer.num_nodes", trainer.get("num_nodes", 1), "nodes", nodes))
    if devices == "auto" and gpus != tasks:
        asked = f"{_asks('gpus_per_node', gpus)} and tasks_per_node {tasks}"
        found.append(
            Problem("trainer.devices", f"auto is every GPU of a node, but {asked}; set trainer.devices={tasks}.")
        )
    elif devices not in ("auto", tasks):
        found.append(_unequal("trainer.devices", devices, "tasks_per_node", tasks))
    if accelerator == "gpu" and not any(launcher.get(key) for key in ("gpus_per_node", "gpus_per_task", "gres")):
        found.append(Problem("trainer.accelerator", f"gpu, but {_asks('gpus_per_node', gpus)}; set it to {tasks}."))
    return found


def _unequal(key: str, value: Any, other: str, asked: Any) -> Problem:
    return Problem(key, f"is {value}, but {_asks(other, asked)}; set {key}={asked} or hydra.launcher.{other}={value}.")


def _asks(key: str, value: Any) -> str:
    return f"hydra.launcher.{key} is {value}"
