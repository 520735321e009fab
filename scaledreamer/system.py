"""The training step: text -> fields -> renders -> distillation loss, for any generator, renderer and guidance.

Axes: P prompts, V views per prompt, B = P * V images, H W pixels.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from scaledreamer.cameras import Cameras, RandomCameras
from scaledreamer.collectives import mean
from scaledreamer.corpora.dataset import PromptBatch
from scaledreamer.errors import UserError
from scaledreamer.fields.base import Field
from scaledreamer.generators.base import Generator
from scaledreamer.guidance.base import Distillation, Guidance
from scaledreamer.losses import LossWeights, regularisers
from scaledreamer.optim.fused import fuse
from scaledreamer.randomness import StepRandom
from scaledreamer.renderers.base import Renderer, Rendering
from scaledreamer.schedules import Schedule, value_at
from scaledreamer.text.embedding import TextEmbedding

LATENT_SEED = 0x5CA1E
"""Seed of the latents that pictures are made with, so that the same prompt always gives the same object."""


@dataclass(frozen=True)
class StepOutput:
    """What one training step computed; tensors stay on the device."""

    loss: Tensor  # []
    terms: dict[str, Tensor]  # each unweighted, []
    weights: dict[str, float]
    rendering: Rendering
    distillation: Distillation


class TextTo3D(pl.LightningModule):
    """Trains a generator; knows the seams of its parts and none of their classes.

    Args:
        generator, background, renderer, guidance, cameras, losses: the parts, built.
        optimizer: ``params -> torch.optim.Optimizer``.
        lr_schedule: factor of every learning rate over the run.
        parameter_groups: options of parameters whose name begins with a key ("background", "generator.synthesis");
            the longest matching key wins, the rest take the optimizer's own options.
        null_tokens: [L, D], the prior's negative prompt embedded; None where nothing is trained.
        encode: embeds prompts during training where no embeddings are stored; None where they are.
        seed: of every random draw of the run.
    """

    def __init__(
        self,
        *,
        generator: Generator,
        background: nn.Module,
        renderer: Renderer,
        guidance: Guidance,
        cameras: RandomCameras,
        losses: LossWeights,
        optimizer: Callable[[Iterable[Any]], torch.optim.Optimizer],
        parameter_groups: Mapping[str, Mapping[str, Any]],
        lr_schedule: Schedule,
        null_tokens: Tensor | None,
        encode: Callable[[list[str]], TextEmbedding] | None,
        seed: int,
    ) -> None:
        super().__init__()
        self.generator, self.background, self.renderer = generator, background, renderer
        self.guidance, self.cameras, self.losses = guidance, cameras, losses
        self._optimizer, self._parameter_groups = optimizer, parameter_groups
        self._lr_schedule = lr_schedule
        self._full_rates: list[float] = []  # each group's learning rate before the schedule's factor
        self._null_tokens, self._encode, self._seed = null_tokens, encode, seed
        self.batches_done = 0  # training batches of this process since the start of the run; in the checkpoint

    # -- the step ---------------------------------------------------------------------------------------------

    def step(self, text: TextEmbedding, *, progress: float, random: StepRandom) -> StepOutput:
        """One training step's loss, differentiable.

        Args:
            text: of P prompts, on the device.
            progress: fraction of the run that is done, in [0, 1]; schedules follow it.
            random: this step's draws.
        """
        cameras = self.cameras.sample(text.pooled.shape[0], random, progress=progress)
        rendering = self.render(text, cameras, self.cameras.size_at(progress), random)
        distillation = self.guidance(rendering, text, cameras, progress=progress, random=random)
        terms = {"distillation": distillation.loss, **regularisers(rendering)}
        weights = {name: value_at(getattr(self.losses, name), progress) for name in terms}
        loss = torch.stack([weight * terms[name] for name, weight in weights.items() if weight]).sum()
        return StepOutput(loss=loss, terms=terms, weights=weights, rendering=rendering, distillation=distillation)

    def render(self, text: TextEmbedding, cameras: Cameras, size: int, random: StepRandom | None = None) -> Rendering:
        """Images [P * V, size, size, 3] of P prompts, the views of a prompt consecutive.

        Without ``random`` everything is deterministic: fixed latents, no noise, no jitter, no colour augmentation.
        """
        field = self.field(text, random)
        if random is not None:
            self.renderer.update(field, random)
        return self.look(field, text, cameras, size, random)

    def field(self, text: TextEmbedding, random: StepRandom | None = None, *, latent_seed: int = LATENT_SEED) -> Field:
        """The generator's fields of P prompts; :meth:`look` at them as often as needed.

        Without ``random`` the latents follow from ``latent_seed`` alone; generators that take none do not mind it.
        """
        words = text.pooled if self.generator.text == "global" else text.tokens[:, 0]
        return self.generator(words, self._latents(words.shape[0], random, latent_seed), random)

    def look(
        self, field: Field, text: TextEmbedding, cameras: Cameras, size: int, random: StepRandom | None = None
    ) -> Rendering:
        """Images [P * V, size, size, 3] of the fields of P prompts, see :meth:`render`."""
        rays = cameras.rays(size, size)
        views = len(cameras) // text.pooled.shape[0]
        background = self.background(rays.directions, text.pooled.repeat_interleave(views, dim=0), random)
        return self.renderer(field, rays, background, random)

    def _latents(self, prompts: int, random: StepRandom | None, seed: int) -> Tensor | None:
        width = self.generator.latent_dim
        if width == 0:
            return None
        if random is not None:
            return random.normal(prompts, width)
        fixed = StepRandom(seed=seed, step=0, device=self.device).normal(1, width)
        return fixed.expand(prompts, width)  # the same for every prompt: a prompt's picture depends on it alone

    def training_step(self, batch: PromptBatch, batch_idx: int) -> Tensor:
        """Lightning's hook: one batch of prompts -> the loss; every ``log_every_n_steps`` its parts are logged."""
        random = StepRandom(
            seed=self._seed,
            step=self.batches_done,
            rank=self.global_rank,
            world_size=self.trainer.world_size,
            device=self.device,
        )
        text = batch.text if batch.text is not None else self._embed(batch.prompts)
        out = self.step(text, progress=self.progress, random=random)
        if self.logs_now:
            self._log(out)
        self.batches_done += 1
        return out.loss

    def _embed(self, prompts: list[str]) -> TextEmbedding:
        if self._encode is None:
            raise RuntimeError("a batch came without embeddings and there is nothing to compute them with")
        return self._encode(prompts).to(self.device)

    @property
    def progress(self) -> float:
        """Fraction of the run that is done, in [0, 1]."""
        return self.global_step / self.trainer.max_steps

    @property
    def logs_now(self) -> bool:
        """Whether this optimiser step's figures go to the loggers; reading them waits for the device."""
        every: int = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        return (self.global_step + 1) % every == 0 or self.global_step == 0

    def _log(self, out: StepOutput) -> None:
        figures: dict[str, Tensor | float] = {f"train/{name}": value for name, value in out.terms.items()}
        figures |= {"train/loss": out.loss, "train/opacity": out.rendering.opacity.mean()}
        figures |= {f"train/{name}": value for name, value in out.distillation.figures.items()}
        figures |= {f"weight/{name}": value for name, value in out.weights.items()}
        tensors = {name: v.detach().float() for name, v in figures.items() if isinstance(v, Tensor)}
        # The mean over processes is the figure of the global batch; numbers are the same in all of them.
        means = mean(torch.stack(list(tensors.values()))).unbind()
        self.log_figures({**figures, **dict(zip(tensors, means, strict=True))})

    def log_figures(self, figures: Mapping[str, Tensor | float], *, rank_zero_only: bool = False) -> None:
        """Log figures of this optimiser step; the device is not waited for before the step is done."""
        # Lightning copies what is no tensor to the device, and waits for it.
        there = {name: v if isinstance(v, Tensor) else torch.tensor(v) for name, v in figures.items()}
        self.log_dict(there, on_step=True, on_epoch=False, rank_zero_only=rank_zero_only)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Scale the learning rates; log them and the sizes of the gradients, before these are clipped."""
        for group, rate in zip(optimizer.param_groups, self._full_rates, strict=True):
            group["lr"] = rate * value_at(self._lr_schedule, self.progress)
        if self.logs_now:
            figures: dict[str, Tensor | float] = {}
            for group in optimizer.param_groups:
                gradients = [p.grad for p in group["params"] if p.grad is not None]
                figures[f"train/grad_norm/{group['name']}"] = torch.nn.utils.get_total_norm(gradients)
                figures[f"train/lr/{group['name']}"] = float(group["lr"])
            norms = [v for v in figures.values() if isinstance(v, Tensor)]
            figures["train/grad_norm"] = torch.nn.utils.get_total_norm(norms)
            self.log_figures(figures)

    # -- life of a run ----------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Load the prior onto this process's device."""
        if self._null_tokens is None:
            raise RuntimeError("a system without null_tokens renders, and cannot be trained")
        self.guidance.setup(self.device, self._null_tokens)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer over named groups of parameters."""
        groups: dict[str, dict[str, Any]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                keys = [k for k in self._parameter_groups if name == k or name.startswith(k + ".")]
                key = max(keys, key=len, default="")
                options = self._parameter_groups.get(key, {})
                group = groups.setdefault(key, {"name": key or "generator", "params": [], **options})
                group["params"].append(parameter)
        unused = sorted(set(self._parameter_groups) - set(groups))
        if unused:
            parts = sorted({n.split(".")[0] for n, _ in self.named_parameters()})
            raise UserError(f"parameter_groups.{unused[0]}: no parameter has that name; they begin with {parts}.")
        made = fuse(self._optimizer(list(groups.values())))
        self._full_rates = [group["lr"] for group in made.param_groups]
        return made

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the number of batches, from which all random draws and the place in the corpus follow."""
        checkpoint["batches_done"] = self.batches_done

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue the random draws where the checkpoint left them."""
        self.batches_done = checkpoint["batches_done"]
