"""A few training steps of any configuration, without corpus, text encoder or downloads."""

import gc
import logging
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from scaledreamer.benchmark import process
from scaledreamer.benchmark.ceilings import ceilings
from scaledreamer.benchmark.counting import STEPS, StageCounter
from scaledreamer.benchmark.profiling import Profiler
from scaledreamer.benchmark.report import Report, Work
from scaledreamer.benchmark.setting import RandomPrompts, configuration, random_prompts, trainer_of
from scaledreamer.benchmark.stages import StageTimer
from scaledreamer.benchmark.timeline import process_peak_gib
from scaledreamer.corpora.dataset import as_fetched
from scaledreamer.errors import Interrupted, UserError
from scaledreamer.guidance.base import Guidance
from scaledreamer.system import TextTo3D

log = logging.getLogger(__name__)


def benchmark(
    overrides: Sequence[str] = (),
    *,
    steps: int = 20,
    warmup: int = 5,
    floor: bool = False,
    profile: Path | None = None,
) -> Report:
    """Train ``warmup + steps`` steps with random text, and say where the time went.

    Callbacks and loggers are left out, but for the one that hears signals: nothing but the step is measured. What is
    counted and profiled is counted and profiled in more steps, which are not timed.

    A prior that is not on this machine is replaced by random weights of its sizes, unless the overrides name it.
    Renders have the size that they have at the end of a run.

    Args:
        overrides: as of ``train.py``.
        steps: that are timed.
        warmup: steps before them.
        floor: count operations and bytes, and measure how fast the device could be; one process only.
        profile: folder that is there, for a trace.

    Raises:
        UserError: the configuration is wrong, or cannot run here.
    """
    since, age = _stopwatch()
    profiler = Profiler(profile) if profile is not None else None
    timer = StageTimer(warmup=warmup, steps=steps, age=age, profiler=profiler)
    config = configuration(overrides, timer.total_steps)
    # Heavy imports come after the check, so that a mistake is answered at once.
    from scaledreamer.training.build import build, build_system

    trainer = trainer_of(config, timer)
    guidance: Guidance = build(config["guidance"])
    prior = guidance.prior
    prior.prepare()
    null = torch.zeros(prior.text_length, prior.text_dim)
    system = build_system(config, guidance=guidance, null_tokens=null, encode=None)
    batches = RandomPrompts(random_prompts(config, system))
    device = trainer.strategy.root_device
    gpu = device.type == "cuda"
    data = DataLoader(batches, batch_size=None, collate_fn=as_fetched, pin_memory=gpu)
    _fit(trainer, system, data)
    found = {
        "stages": timer.stages(),
        "process_peak_gib": process_peak_gib(),
        "rank": trainer.global_rank,
        "settings": {
            "device": torch.cuda.get_device_name(device) if gpu else f"CPU, {torch.get_num_threads()} threads",
            "processes": trainer.world_size,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "prior": config["guidance"]["prior"]["path"],
            "precision": config["trainer"]["precision"],
            "prompts_per_step": config["corpus"]["batch_size"],
            "views_per_prompt": config["cameras"]["views_per_prompt"],
            "image_size": config["cameras"]["image_size"],
            "steps": steps,
            "overrides": list(overrides),
        },
    }
    if floor and trainer.world_size > 1:
        log.warning("operations and bytes are counted of one process only: left away")
        floor = False
    del trainer, guidance, prior
    return Report(
        **found,
        work=_work(config, system, data, device) if floor else None,
        steps_per_second=timer.steps_per_second,
        generator_parameters=sum(p.numel() for p in system.generator.parameters()),
        first_steps=timer.first_steps,
        first_steps_since=since,
        kernels=profiler.kernels if profiler is not None else [],
    )


def _fit(trainer: Trainer, system: TextTo3D, data: DataLoader) -> None:
    try:
        trainer.fit(system, data)
    except Interrupted as error:
        raise UserError(f"the benchmark was ended by {error.notice.name} before all its steps were done.") from None


def _work(config: dict[str, Any], system: TextTo3D, data: DataLoader, device: torch.device) -> Work:
    """What a step of a trained system has to do: counted without what would hide it, and the device's ceilings.

    The system goes on where it was: how much a renderer does may depend on what it has learned. Its prior is set up
    anew with ``speedup: none``, where it has that option, since replayed CUDA graphs and compiled code show no
    operators.
    """
    from scaledreamer.training.build import build

    prior = config["guidance"]["prior"]
    plainly = {**prior, "speedup": "none"} if "speedup" in prior else prior
    system.zero_grad(set_to_none=True)
    del system.guidance  # its memory may be needed for the other one
    _free()
    system.guidance = build({**config["guidance"], "prior": plainly})
    system.guidance.prior.prepare()
    counter = StageCounter()
    with _uncompiled():
        _fit(trainer_of({**config, "trainer": {**config["trainer"], "max_steps": STEPS}}, counter), system, data)
    tally = counter.tally
    del system.guidance
    _free()
    return Work(
        ceilings=ceilings(device.type, torch.get_num_threads()),
        counts=tally.counted(),
        hidden=tally.hidden,
        unregistered=sorted(tally.unregistered),
    )


def _free() -> None:
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _uncompiled() -> AbstractContextManager[Any]:
    """Compiled functions run as they are written; before PyTorch 2.6 only those of the prior do."""
    stance = getattr(torch.compiler, "set_stance", None)
    return stance("force_eager") if stance is not None else nullcontext()


_called = False


def _stopwatch() -> tuple[str, Callable[[], float]]:
    """Since when, and how long ago that is: the start of the process, or of this call where it is not the first."""
    global _called
    began = process.age() if _called else 0.0
    since = "call" if _called else "process start"
    _called = True
    return since, lambda: process.age() - began
