"""Two processes that talk through gloo, for what they work out together."""

from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import distributed


def _take_part(rank: int, folder: Path, act: Callable[[int], Any]) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(act(rank), folder / f"{rank}.pt")
    distributed.destroy_process_group()


def by_two(act: Callable[[int], Any], folder: Path) -> list[Any]:
    """``act(rank)`` of two processes: tensors, numbers, or dictionaries of them."""
    started = [get_context("fork").Process(target=_take_part, args=(rank, folder, act)) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
