"""Put an error of Hydra's, OmegaConf's or our own into words for the user."""

import argparse
import inspect
import os
import re
import sys
from pathlib import Path

import hydra
import yaml
from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, Node
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from scaledreamer.config.check import SUPPLIED
from scaledreamer.config.compose import CONF, compose
from scaledreamer.config.origin import Origins
from scaledreamer.config.signature import nearest
from scaledreamer.errors import UserError


def explain(error: BaseException) -> str | None:
    """The mistake in words, or None for an error that is not the user's."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, InstantiationException):
        return explain(error.__cause__) if error.__cause__ is not None else None
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: cannot be read as KEY=VALUE; a value with commas, spaces or quotes goes between two "
            "kinds of quotes: 'corpus.prompt=\"a corgi, sitting\"'."
        )
    if isinstance(error, HydraException):
        return _explain_composition(error)
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be"):
        return _explain_no_option() or str(error)
    if isinstance(error, OmegaConfBaseException):
        return str(error).splitlines()[0]
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem_mark.name} line {error.problem_mark.line + 1}: not YAML, {error.problem}."
    if type(error).__module__ == "submitit.core.utils":  # compared by name, since its import takes a while
        return _explain_job(str(error))
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or error}; choose a folder you can write, e.g. hydra.run.dir=DIR."
    return None


def _explain_composition(error: HydraException) -> str:
    """Hydra's own words, with the nearest valid name and the file added where a name was wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={name}: no such option; {nearest(name, error.options)}"
    cause = error.__cause__
    if isinstance(cause, (ConfigKeyError, ConfigAttributeError)) and cause.parent_node is not None:
        key = str(cause.full_key or cause.key)
        if "/" in key:
            return f"{key}: no such group; {nearest(key, _groups())}"
        where = _file_of_parent(key)
        return f"{key}: {_explain_key(str(cause.key), key, cause.parent_node)}" + (f" [{where}]" if where else "")
    if lines and (twice := re.match(r"Multiple values for ([\w/@]+)", lines[0])):
        return f"{twice[1]} is chosen twice; write {twice[1]}=OPTION without a +."
    detail = str(cause).splitlines()[0] if isinstance(cause, Exception) else ""
    return " ".join([*lines, detail]).strip()


def _explain_job(told: str) -> str | None:
    """A job of SLURM's that came to no result, in a line; the rest of what submitit tells is in the job's log."""
    if told.startswith("Job not requeued"):
        return f"{told.rstrip('.')}: it has saved, and hydra.launcher.max_num_timeout is how often it may come back."
    found = re.match(r"Job (\S+) \(task: \d+\) with path (\S+)_result\.pkl\n.*\(state: ([^)]*)\)", told)
    if found is None:
        return None
    job, log, state = found.groups()
    return f"job {job} ended without a result ({state}); see {log}_log.err. Other jobs of the sweep go on."


def _explain_key(name: str, key: str, node: Node) -> str:
    """What is wrong with ``name``, which ``node`` does not have: an option without a value in the files needs a +."""
    spelled = [str(k) for k in node if k != "hydra" and not str(k).startswith("_")]  # type: ignore[union-attr]
    advice = nearest(name, spelled)
    if isinstance(node, DictConfig) and "_target_" in node and "did you mean" not in advice:
        try:
            parameters = inspect.signature(hydra.utils.get_object(node._target_)).parameters
        except Exception:  # that the target is wrong as well will be told when the key is right
            parameters = {}
        options = {*parameters} - SUPPLIED.get(key.rpartition(".")[0], frozenset())
        if name in options:
            return f"the files give it no value; write +{key}=..."
        advice = nearest(name, options.union(spelled))
    return f"no such key; {advice}"


def _explain_no_option() -> str | None:
    """Words for ``logger=null`` and the like."""
    for override in sys.argv[1:]:
        group, _, value = override.partition("=")
        options = _groups().get(group.lstrip("+"), [])
        if options and value not in options:
            return f"{override}: no such option; {nearest(value, options)}"
    return None


def _groups() -> dict[str, list[str]]:
    """Every group's options, those of the user's own folder included."""
    groups: dict[str, list[str]] = {}
    for folder in [CONF, *_config_dir()]:
        for path in sorted(folder.glob("*/**/*.yaml")):
            groups.setdefault(path.parent.relative_to(folder).as_posix(), []).append(path.stem)
    return groups


def _config_dir() -> list[Path]:
    """The folder given as ``--config-dir``, if one is."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd")
    known, _ = parser.parse_known_args(sys.argv[1:])
    return [Path(known.config_dir)] if known.config_dir else []


def _file_of_parent(key: str) -> str | None:
    """The option file that sets the node a wrong key was looked for in, for the options on the command line."""
    options = [a for a in sys.argv[1:] if re.fullmatch(r"[\w/@]+=\w+|hydra\.searchpath=.*", a)]
    options += [f"hydra.searchpath=['file://{os.path.abspath(folder)}']" for folder in _config_dir()]
    command = Path(sys.argv[0]).stem  # render.py has conf/render.yaml
    name = command if (CONF / f"{command}.yaml").exists() else "train"
    try:
        return Origins(compose(options, config_name=name)).of(key)
    except Exception:  # a second mistake; the first is told without a file
        return None
