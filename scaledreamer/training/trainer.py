"""Lightning's Trainer, with the arguments that a run may set."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scaledreamer.constraints import NonNegativeFloat, PositiveInt
from scaledreamer.errors import UserError
from scaledreamer.slurm import job

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer
    from lightning.pytorch.loggers import Logger
    from lightning.pytorch.strategies import Strategy

log = logging.getLogger(__name__)


def trainer(
    *,
    max_steps: PositiveInt,
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    devices: PositiveInt | Literal["auto"] = 1,
    num_nodes: PositiveInt = 1,
    strategy: str = "auto",
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true",
    accumulate_grad_batches: PositiveInt = 1,
    gradient_clip_val: NonNegativeFloat | None = None,
    log_every_n_steps: PositiveInt = 10,
    threads: PositiveInt | None = None,
    lightning: dict[str, Any] | None = None,
    callbacks: Sequence["Callback"] = (),
    logger: Sequence["Logger"] = (),
    directory: Path,
) -> "Trainer":
    """A trainer for ``max_steps`` optimiser steps.

    Args:
        strategy: of Lightning: ``auto``, ``ddp``, ...
        gradient_clip_val: largest norm of the whole gradient; None does not clip.
        log_every_n_steps: optimiser steps between figures; reading them waits for the device.
        threads: CPU threads of PyTorch; None leaves its choice.
        lightning: any other argument of ``lightning.pytorch.Trainer``.
        directory: of the run.

    Raises:
        UserError: the machine lacks the accelerator or the devices, or ``lightning`` has an unknown argument.
    """
    import torch
    from lightning.pytorch import Trainer
    from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from scaledreamer.training.checkpoints import Checkpoints
    from scaledreamer.training.interruption import Interruptions

    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError("trainer.accelerator=gpu: PyTorch sees no GPU here; use trainer=cpu.")
    if threads is not None:
        torch.set_num_threads(threads)
    _quiet(alone=devices == 1 and num_nodes == 1)
    options = dict(lightning or {})
    if job.job_id() is not None and SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        # Requeues are ours: scaledreamer.training.interruption.
        options.setdefault("plugins", [SLURMEnvironment(auto_requeue=False)])
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs, as the reference's convolutions; no effect on CPUs
    try:
        made = Trainer(
            max_steps=max_steps,
            max_epochs=-1,
            accelerator=accelerator,
            devices=devices,
            num_nodes=num_nodes,
            strategy=_strategy(strategy),
            precision=precision,
            accumulate_grad_batches=accumulate_grad_batches,
            gradient_clip_val=gradient_clip_val,
            log_every_n_steps=log_every_n_steps,
            # A checkpoint says that the others have finished with its step; who may leave after a step comes last.
            callbacks=sorted(callbacks, key=lambda c: isinstance(c, Checkpoints) + 2 * isinstance(c, Interruptions)),
            logger=list(logger),
            default_root_dir=directory,
            enable_checkpointing=False,  # ours: scaledreamer.training.checkpoints
            enable_model_summary=False,
            use_distributed_sampler=False,  # ours: the sampler knows ranks
            limit_val_batches=0,
            num_sanity_val_steps=0,
            **options,
        )
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"trainer: {str(error).splitlines()[0]}") from error
    log.info(
        "%d steps on %d x %s, precision %s", max_steps, made.world_size, made.strategy.root_device.type, made.precision
    )
    return made


def _strategy(name: str) -> "str | Strategy":
    """Lightning's, but for what its ``ddp`` copies and waits for in every step."""
    if name != "ddp":
        return name
    from lightning.pytorch.strategies import DDPStrategy
    from torch.nn import Module
    from torch.nn.parallel import DistributedDataParallel

    class OnOneStream(DDPStrategy):
        def _setup_model(self, model: Module) -> DistributedDataParallel:
            # On a stream of its own, as Lightning has it, every parameter's gradient would wait for that one.
            return DistributedDataParallel(model, device_ids=self.determine_ddp_device_ids(), **self._ddp_kwargs)

    # Buffers are constants, or follow from the prompts of all processes; gradients are summed where they lie.
    return OnOneStream(broadcast_buffers=False, gradient_as_bucket_view=True)


def _quiet(*, alone: bool) -> None:
    """Have Lightning speak through our log alone, and only when something is wrong."""
    logging.getLogger("lightning").handlers.clear()  # the root logger has them too: every line would appear twice
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")  # its own, with new PyTorch
    # Its other name is newer than the oldest PyTorch that we take.
    warnings.filterwarnings("ignore", message=r".*broadcast_buffers. is deprecated")
    if alone:  # where SLURM is installed it says so to everybody
        warnings.filterwarnings("ignore", message=r"The `srun` command is available")
