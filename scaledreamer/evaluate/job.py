"""A call of ``evaluate.py``: what is not scored yet is looked at batch by batch, then everything is summed up."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from scaledreamer.errors import UserError
from scaledreamer.evaluate.gallery import Gallery, choose
from scaledreamer.evaluate.options import EvaluateOptions
from scaledreamer.evaluate.protocols import Protocol
from scaledreamer.evaluate.rows import Rows, made_with
from scaledreamer.evaluate.summary import Evaluation, grouped, write
from scaledreamer.evaluate.views import Judge, scored
from scaledreamer.render.items import sampled, select
from scaledreamer.render.source import identity
from scaledreamer.training import loggers
from scaledreamer.training.build import build
from scaledreamer.training.progress import Bar
from scaledreamer.training.trained import Trained, open_run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A run, and what of it is to be scored."""

    trained: Trained
    directory: Path  # of the run, absolute
    splits: dict[str, str | None]  # of each prompt: seen, unseen; None where the corpus is not known
    gallery: Gallery

    @property
    def prompts(self) -> list[str]:
        """All of them, each once."""
        return list(self.splits)


def evaluate(options: EvaluateOptions) -> list[Evaluation]:
    """Score the runs; one's files are written before the next one is begun.

    Raises:
        UserError: a run, its prompts, the gallery or the CLIP is not there; or a folder that cannot be written or in
            which another process is at work. Everything but the CLIP is looked for before anything is rendered.
    """
    torch.set_float32_matmul_precision("high")  # as in training; no effect on CPUs
    checkpoint = Path(options.checkpoint) if options.checkpoint is not None else None
    opened = [open_run(run, checkpoint=checkpoint, device=options.device) for run in options.runs]
    node: Any = options.protocol
    protocol = _protocol(build(node), options.runs, opened)
    tasks = [_task(run, trained, options, protocol) for run, trained in zip(options.runs, opened, strict=True)]
    if len({task.gallery.digest for task in tasks}) > 1 or len({frozenset(task.splits) for task in tasks}) > 1:
        log.warning("the runs' galleries or prompts differ, and so do their figures; prompts= and gallery= set them")
    judges: list[Judge] = []  # one, once it is needed

    def judge() -> Judge:
        if not judges:
            judges.append(Judge.of(protocol, opened[0].system.device))
        return judges[0]

    return [_evaluated(task, options, protocol, judge) for task in tasks]


def _protocol(choice: Any, runs: Sequence[Path], opened: Sequence[Trained]) -> Protocol:
    """The one protocol of all runs."""
    chosen = [choice.for_run(trained.config) for trained in opened]
    protocol, reason = chosen[0]
    for run, (other, _) in zip(runs, chosen, strict=True):
        if other.name != protocol.name:
            raise UserError(
                f"protocol: {runs[0]} would be scored by {protocol.name} and {run} by {other.name}; choose one for all."
            )
    log.info("protocol: %s, %s", protocol.name, reason)
    return protocol


def _task(run: Path, trained: Trained, options: EvaluateOptions, protocol: Protocol) -> Task:
    items = sampled(select(trained, options).items, options.sample)
    splits = {item.prompt: None if item.seen is None else "seen" if item.seen else "unseen" for item in items}
    protocol.require(list(splits))
    gallery = choose(trained, options.gallery)
    if not gallery.decides:
        log.warning("the gallery has one text: recall would say nothing and is left out; gallery=FILE gives it more")
    return Task(trained=trained, directory=run.resolve(), splits=splits, gallery=gallery)


def _evaluated(task: Task, options: EvaluateOptions, protocol: Protocol, judge: Callable[[], Judge]) -> Evaluation:
    folder = task.directory / "evaluate" / protocol.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            evaluation = _scored_and_written(task, options, protocol, judge, folder)
    except Timeout as error:
        raise UserError(f"run: another process evaluates into {folder}; wait for it.") from error
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror or error}; results go into {folder}.") from error
    if options.log_to_wandb:
        loggers.add_to_wandb_summary(evaluation.figures, directory=task.directory, config=task.trained.config)
    log.info("%s: prompts.csv, prompts.json, summary.json", folder)
    return evaluation


def _scored_and_written(
    task: Task, options: EvaluateOptions, protocol: Protocol, judge: Callable[[], Judge], folder: Path
) -> Evaluation:
    trained, gallery, prompts = task.trained, task.gallery, task.prompts
    recipe = {
        **identity(trained),
        "protocol": protocol.recipe,
        "gallery": {"name": gallery.name, "size": len(gallery.texts), "digest": gallery.digest},
    }
    others = made_with(folder, recipe)
    rows = Rows(folder, recipe)
    missing = [p for p in prompts if options.overwrite or p not in rows.known]
    log.info(
        "%s, step %d: %d prompts, %d of them new; gallery: %s%s",
        task.directory, trained.step, len(prompts), len(missing), gallery,
        f"; scored anew: what was scored before had another {', '.join(others)}" if others else "",
    )  # fmt: skip
    if missing:
        chosen, bar = judge(), Bar("picture", protocol.views * len(missing))
        try:
            for first in range(0, len(missing), options.batch):
                batch = missing[first : first + options.batch]
                rows.add(scored(trained, batch, protocol=protocol, gallery=gallery, judge=chosen, tick=bar.advance))
        finally:
            bar.stop()
    whole = protocol.completed([rows.known[prompt] for prompt in prompts], trained.config)
    evaluation = Evaluation(
        directory=task.directory, step=trained.step, recipe=recipe, groups=grouped(whole, task.splits)
    )
    write(evaluation, whole, task.splits, folder)
    return evaluation
