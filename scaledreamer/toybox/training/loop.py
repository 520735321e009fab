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


def fit(model: nn.Module, loss: Callable[[torch.Generator], dict[str, Tensor]], plan: Plan, *, state: Path) -> bool:
    """Train ``model`` in place and leave the averaged weights in it; True once all steps are done.

    Args:
        model: on its device.
        loss: terms of one batch, drawn with the generator; their sum is minimised.
        plan: see :class:`Plan`.
        state: folder of the state that an interrupted call goes on from; gone when all is done.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    device = next(iter(parameters.values())).device
    fused = device.type == "cuda"
    optimizer = torch.optim.AdamW(parameters.values(), lr=plan.lr, weight_decay=plan.weight_decay, fused=fused)
    average = {name: p.detach().clone() for name, p in parameters.items()}
    begin = _load(state, parameters, average, optimizer)
    started = told = measured = time.monotonic()
    step = begin - 1
    while (step := step + 1) < plan.steps:
        if plan.fits and step - begin in (_UNMEASURED, _MEASURED) and device.type == "cuda":
            torch.cuda.synchronize()
        if plan.fits and step - begin == _MEASURED:
            rate = (_MEASURED - _UNMEASURED) / (time.monotonic() - measured)
            plan = replace(plan, steps=step + int(rate * (60 * plan.minutes - (time.monotonic() - started)) * 0.97))
            log.info("%d steps fit into %.1f minutes", plan.steps, plan.minutes)
        if step - begin == _UNMEASURED:
            measured = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = plan.lr_at(step)
        # A step's draws follow from the seed and its number alone, so a resumed training draws what it would have.
        generator = torch.Generator(device).manual_seed(plan.seed * 1_000_003 + step)
        terms = loss(generator)
        total = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        decay = min(plan.average, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), list(parameters.values()), 1 - decay)
        now = time.monotonic()
        if now - told > 15 or step == begin or step + 1 == plan.steps:
            told = now
            figures = "  ".join(f"{name} {value.item():.4f}" for name, value in terms.items())
            rate = (step + 1 - begin) / (now - started)
            log.info("step %d/%d  %s  %.1f steps/s", step + 1, plan.steps, figures, rate)
        if now - started > 60 * plan.minutes:
            break
    done = step >= plan.steps
    if done:
        shutil.rmtree(state, ignore_errors=True)
    else:
        _save(state, parameters, average, optimizer, step + 1)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(average[name])
    return done


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
                "step": torch.tensor(float(step), device=parameter.device if optimizer.defaults["fused"] else "cpu"),
                **moments,
            }
    log.info("going on after step %d", step)
    return step
