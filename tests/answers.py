"""What ``train.py`` and its like answer, without the seconds that a process takes to import PyTorch and Lightning."""

import contextlib
import functools
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass

import hydra
from commands import ROOT
from hydra.core.global_hydra import GlobalHydra

from scaledreamer.cli import clear_errors
from scaledreamer.config import CONF

QUIET = ("hydra/job_logging=none", "hydra/hydra_logging=none")
"""Hydra would set up logging for the whole process; ``disabled`` would do so too, and silence every logger there is."""


@functools.cache
def _main(script: str) -> Callable[[], None]:
    specification = importlib.util.spec_from_file_location(script, ROOT / f"{script}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    # Hydra looks for the option files of an imported script in a package; those of a script that is run lie beside it.
    return hydra.main(version_base="1.3", config_path=str(CONF), config_name=script)(module.main.__wrapped__)


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    errors: str  # stderr

    @property
    def error(self) -> str:
        """The message, after making sure that it is the only one and the last thing that a user sees."""
        assert self.code == 1
        assert self.errors.count("error: ") == 1, self.errors
        assert "Traceback" not in self.errors
        assert "Error executing job" not in self.errors
        return self.errors.partition("error: ")[2].rstrip("\n")


def answer(*arguments: str, capsys, monkeypatch, script: str = "train") -> Answer:
    """``python SCRIPT.py ARGUMENTS`` in this process and its working folder."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # here, so that it is taken back afterwards
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments, *QUIET])
    capsys.readouterr()
    code = 0
    with contextlib.ExitStack() as stack:
        stack.callback(GlobalHydra.instance().clear)
        try:
            with clear_errors():
                _main(script)()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return Answer(code=code, errors=capsys.readouterr().err)
