"""A small run behind a desk, for tests of the page to try a generator."""

import json
from pathlib import Path

import torch
from runs import trained

from scaledreamer.config import check, compose, plain
from scaledreamer.serve.desk import Desk
from scaledreamer.serve.options import ServeOptions
from scaledreamer.serve.server import open_desk

TRAIN = ("a cat", "a dog", "a red house", "a blue car")
MARKUP = "a <b>bold</b> </script><script>alert(1)</script> `${7*7}` {{7*7}} tree"
TEST = ("a cat", MARKUP, "a green bird on a rock")

HOSTILE = {
    "markup": "<img src=x onerror=alert(1)>",
    "template": "{{ constructor.constructor('alert(1)')() }}",
    "traversal": "../../../../etc/passwd",
    "absolute": "/etc/passwd",
    "shell": "'; rm -rf ~ #$(reboot)`reboot`",
    "option": "--help",
    "nul": "a cat\0/../x",
    "windows": "C:\\con.txt",
    "direction": "a \u202egnp.exe",
    "surrogate": "a \ud800 cat",
    "lines": "a cat\r\nSet-Cookie: x=1\u2028y",
    "emoji": "👩\u200d🚀 日本語 e\u0301",
    "format": "%s %n {0} ${HOME}",
}
"""Texts that do harm where they are taken for anything but text."""


def write_run(folder: Path) -> Path:
    """A run of two steps, in which each prompt has a shape of its own."""
    (folder / "prompts.json").write_text(json.dumps({"train": TRAIN, "test": TEST}))
    more = ["trainer.max_steps=2", "callbacks.previews=null"]
    trained([f"corpus.path={folder / 'prompts.json'}", *more], folder / "run")
    return folder / "run"


def open_small(run: Path, *overrides: str) -> Desk:
    """A desk for the run, which makes coarse meshes and small videos; its weights are shaken."""
    small = ("device=cpu", "mesh.resolution=12", "frames=3", "image_size=16")
    cfg = compose([f"run={run}", *small, *overrides], config_name="serve")
    check(cfg, ServeOptions)
    desk = open_desk(ServeOptions(**plain(cfg)))
    torch.manual_seed(1)
    for parameter in desk.workshop.trained.system.generator.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return desk
