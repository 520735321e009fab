"""The trained generator that a call renders."""

import shlex
import zlib
from pathlib import Path
from typing import Any

import torch

from scaledreamer.config import check, compose, plain
from scaledreamer.render.index import digest
from scaledreamer.render.options import WeightsChoice
from scaledreamer.training.trained import Trained, open_config, open_run

SEEN_IN = ("generator", "background", "renderer", "cameras", "text")
"""Parts of a run's configuration that its pictures depend on, besides its weights."""


def open_trained(options: WeightsChoice) -> Trained:
    """The generator that the options name, with its weights.

    Raises:
        UserError: it is not there, or not of this version.
    """
    torch.set_float32_matmul_precision("high")  # as in training; no effect on CPUs
    checkpoint = Path(options.checkpoint) if options.checkpoint is not None else None
    if options.run is not None:
        return open_run(Path(options.run), checkpoint=checkpoint, device=options.device)
    assert options.train is not None
    assert checkpoint is not None
    cfg = compose(shlex.split(options.train))
    check(cfg)
    return open_config(plain(cfg), checkpoint=checkpoint, device=options.device)


def identity(trained: Trained) -> dict[str, Any]:
    """What of a trained generator its pictures follow from, for recipes."""
    checksum = 0
    for tensor in trained.system.state_dict().values():
        content = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
        checksum = zlib.crc32(content.numpy().data, checksum)
    parts = {part: trained.config.get(part) for part in SEEN_IN}
    prior = trained.config["guidance"]["prior"].get("path")
    return {"step": trained.step, "weights": f"{checksum:08x}", "config": digest({**parts, "prior": prior})}
