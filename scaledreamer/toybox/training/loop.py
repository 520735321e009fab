"""The loop that every network here is trained by: AdamW, warm-up and cosine, averaged weights, resumable."""

import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

log = logging.getLogger(__name__)

SHARD_BYTES = 14 << 20
"""Largest file of a saved state, so that it travels where files are limited."""

_UNMEASURED, _MEASURED = 50, 350  # steps at the start in which things settle, and after which the speed is known


Loss = Callable[[torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True)
class Plan:
    """How a network is trained.

    Args:
        steps: optimiser steps in all.
        lr: highest learning rate.
        warmup: steps up to it; then a half cosine down to a hundredth.
        average: decay of the averaged weights, from some hundreds of steps on.
        minutes: stop and save after this long; the same command goes on.
        fits: take as many steps as fit into ``minutes`` instead of ``steps``, as measured after some hundreds.
        seed: of weights and data.
    """

    steps: int
    lr: float
    warmup: int = 200
    weight_decay: float = 0.01
    average: float = 0.9995
    minutes: float = 1e9
    fits: bool = False
    seed: int = 0

    def lr_at(self, step: int) -> float:
        """Learning rate of a step."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def fit(model: nn.Module, loss: Loss, plan: Plan, *, state: Path) -> bool:
    """Train ``model`` in place and leave the averaged weights in it; True once all steps are done.

    Args:
        model: on its device.
        loss: terms of one batch, drawn with the generator; their sum is minimised.
        plan: see :class:`Plan`.
        state: folder of the state that an interrupted call goes on from; gone when all is done.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    training = _Training(parameters, loss, plan)
    begin = _load(state, parameters, training.average, training.optimizer)
    started = told = measured = time.monotonic()
    step = begin - 1
    while (step := step + 1) < plan.steps:
        if plan.fits and step - begin in (_UNMEASURED, _MEASURED) and training.device.type == "cuda":
            torch.cuda.synchronize()
        if plan.fits and step - begin == _MEASURED:
            rate = (_MEASURED - _UNMEASURED) / (time.monotonic() - measured)
            plan = replace(plan, steps=step + int(rate * (60 * plan.minutes - (time.monotonic() - started)) * 0.97))
            log.info("%d steps fit into %.1f minutes", plan.steps, plan.minutes)
        if step - begin == _UNMEASURED:
            measured = time.monotonic()
        terms = training.step(step, lr=plan.lr_at(step), decay=min(plan.average, (1 + step) / (10 + step)))
        now = time.monotonic()
        if now - told > 15 or step == begin or step + 1 == plan.steps:
            figures = "  ".join(f"{name} {value.item():.4f}" for name, value in terms.items())  # waits for the device
            told = now = time.monotonic()
            rate = (step + 1 - begin) / (now - started)
            log.info("step %d/%d  %s  %.1f steps/s", step + 1, plan.steps, figures, rate)
        if now - started > 60 * plan.minutes:
            break
    done = step >= plan.steps
    if done:
        shutil.rmtree(state, ignore_errors=True)
    else:
        _save(state, parameters, training.average, training.optimizer, step + 1)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(training.average[name])
    return done


class _Training:
    """One step at a time. On a GPU a whole step, optimiser and averages included, becomes one CUDA graph: networks this
    small are otherwise limited by how fast their kernels can be launched."""

    EAGER = 4  # steps before the graph is recorded, in which kernels are compiled and the optimiser's state is made

    def __init__(self, parameters: dict[str, nn.Parameter], loss: Loss, plan: Plan) -> None:
        self.parameters: list[Tensor] = list(parameters.values())
        self.loss, self.seed = loss, plan.seed
        self.device = self.parameters[0].device
        self.graphed = self.device.type == "cuda"
        self.lr, self.rest = (torch.zeros((), device=self.device) for _ in range(2))  # rest: 1 - decay
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=self.lr, weight_decay=plan.weight_decay, fused=self.graphed, capturable=self.graphed
        )
        self.average = {name: p.detach().clone() for name, p in parameters.items()}
        self.generator = torch.Generator(self.device)
        self.stream = torch.cuda.Stream() if self.graphed else None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.terms: dict[str, Tensor] = {}
        self.done = 0

    def step(self, number: int, *, lr: float, decay: float) -> dict[str, Tensor]:
        """The terms of the loss, on the device."""
        # A step's draws follow from the seed and its number alone, so a resumed training draws what it would have.
        self.generator.manual_seed(self.seed * 1_000_003 + number)
        self.lr.fill_(lr)
        self.rest.fill_(1 - decay)
        if self.stream is None:
            self._run()
        elif self.done < self.EAGER:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self._run()
            torch.cuda.current_stream().wait_stream(self.stream)
        else:
            if self.graph is None:
                self.graph = torch.cuda.CUDAGraph()
                self.graph.register_generator_state(self.generator)
                self.optimizer.zero_grad(set_to_none=True)
                with torch.cuda.graph(self.graph, stream=self.stream):
                    self._run()
            self.graph.replay()
        self.done += 1
        return self.terms

    def _run(self) -> None:
        self.terms = self.loss(self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(self.terms.values())).sum().backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            averages = list(self.average.values())
            change = torch._foreach_sub(self.parameters, averages)
            torch._foreach_mul_(change, self.rest)  # not a lerp, whose weight would be read by the host
            torch._foreach_add_(averages, change)


def _save(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    """Shards below :data:`SHARD_BYTES`; the optimizer's moments in bfloat16, which are noise beyond that anyway."""
    tensors = {f"weight.{name}": p.detach() for name, p in parameters.items()}
    tensors |= {f"average.{name}": value.half() for name, value in average.items()}
    for name, parameter in parameters.items():
        moments = optimizer.state[parameter]
        tensors |= {f"{key}.{name}": moments[key].bfloat16() for key in ("exp_avg", "exp_avg_sq")}
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("state-*.safetensors"):
        old.unlink()
    shard: dict[str, Tensor] = {"step": torch.tensor(step)}
    count = size = 0
    for name, tensor in tensors.items():
        bytes_ = tensor.numel() * tensor.element_size()
        if size + bytes_ > SHARD_BYTES:
            save_file(shard, folder / f"state-{count:02d}.safetensors")
            shard, size, count = {}, 0, count + 1
        shard[name], size = tensor.contiguous(), size + bytes_
    save_file(shard, folder / f"state-{count:02d}.safetensors")
    log.info("stopped after step %d; the same command goes on from %s", step, folder)


def _load(
    folder: Path, parameters: dict[str, nn.Parameter], average: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> int:
    """Steps done, 0 where nothing is saved."""
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("state-*.safetensors")):
        tensors |= load_file(file)
    if not tensors:
        return 0
    step = int(tensors["step"])
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weight.{name}"])
            average[name].copy_(tensors[f"average.{name}"])
            moments = {key: tensors[f"{key}.{name}"].float().to(parameter.device) for key in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step), device=parameter.device),
                **moments,
            }
    log.info("going on after step %d", step)
    return step
