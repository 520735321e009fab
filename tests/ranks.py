"""``python ranks.py FOLDER``: the same small run by 1, 2 and 4 processes that are started from outside, as by SLURM.

Of N processes, with 4 prompts a step altogether, ``FOLDER/N`` is the run's folder, and ``FOLDER/N-RANK.pt`` holds what
process RANK saw: the prompts of each step, the gradients of the first, whether it has stored text embeddings, and how
often it broadcast a tensor in a step.
"""

import os
import socket
import sys
from multiprocessing import get_context
from pathlib import Path

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_only
from runs import SMALL

from scaledreamer.config import check, compose, plain
from scaledreamer.text import open as text_open
from scaledreamer.training.build import build_run
from scaledreamer.training.directory import record
from scaledreamer.training.processes import launching, only_the_first_speaks

WORLDS, BATCH, STEPS = (1, 2, 4), 4, 2
PROMPTS = tuple(f"a thing of {i} parts" for i in range(8))


class Seen(Callback):
    """Notes prompts and the averaged gradients of the first step."""

    def __init__(self):
        self.prompts, self.gradients, self.broadcasts = [], {}, 0

    def on_train_epoch_start(self, trainer, pl_module):
        broadcast = torch.distributed.broadcast

        def counted(*arguments, **options):
            self.broadcasts += 1
            return broadcast(*arguments, **options)

        torch.distributed.broadcast = counted

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.prompts.append(batch.prompts)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if not self.gradients:
            named = pl_module.named_parameters()
            self.gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}


def options(world: int, folder: Path) -> list[str]:
    descent = ["optimizer._target_=torch.optim.SGD", "~optimizer.betas", "optimizer.lr=0.001", "generator.noise=random"]
    run = [f"corpus.path={folder}/prompts.txt", f"corpus.batch_size={BATCH // world}", f"trainer.max_steps={STEPS}"]
    shared = ["trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={world}"] if world > 1 else []
    return [*SMALL, *shared, *descent, *run, "callbacks.previews.every=2", "callbacks.checkpoints.keep_every=2"]


def process(rank: int, world: int, config: dict, folder: Path, port: int) -> None:
    if world > 1:
        place = {
            "LOCAL_RANK": rank,
            "NODE_RANK": 0,
            "WORLD_SIZE": world,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        os.environ.update({name: str(value) for name, value in place.items()})
    rank_zero_only.rank = rank
    only_the_first_speaks()
    directory, wrote = folder / str(world), []
    write, seen = text_open.write_store, Seen()
    text_open.write_store = lambda *arguments: (wrote.append(rank), write(*arguments))
    run = build_run(config, directory)
    rank_zero_only(record)(directory, config)
    run.trainer.callbacks.append(seen)
    with launching(directory):
        run.trainer.fit(run.system, datamodule=run.data)
    content = {
        "prompts": seen.prompts,
        "gradients": seen.gradients,
        "wrote": len(wrote),
        "broadcasts": seen.broadcasts,
    }
    torch.save(content, folder / f"{world}-{rank}.pt")


def main(folder: Path) -> None:
    torch.set_num_threads(1)  # forked processes have none of their parent's threads
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    context = get_context("fork")
    for world in WORLDS:
        os.environ["SCALEDREAMER_DATA"] = str(folder / f"data-{world}")  # nothing is there yet
        cfg = compose(options(world, folder))
        check(cfg)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        started = [context.Process(target=process, args=(r, world, plain(cfg), folder, port)) for r in range(world)]
        for one in started:
            one.start()
        for one in started:
            one.join(120)
            assert one.exitcode == 0, (world, one.exitcode)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
