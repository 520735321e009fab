"""The distillation loss: a rule's gradient at the latents of renders.

Axes: P prompts, B images, H W pixels, [C, h, w] latents, L tokens, D text width, K prior inputs per image.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from scaledreamer.cameras import Cameras
from scaledreamer.constraints import PositiveFloat
from scaledreamer.guidance.base import Distillation
from scaledreamer.guidance.rules import Answers, Combination, Rule, Words
from scaledreamer.guidance.timesteps import Timesteps, TimestepSchedule
from scaledreamer.guidance.views import Views, ViewText
from scaledreamer.priors.base import Prior
from scaledreamer.randomness import StepRandom
from scaledreamer.renderers.base import Rendering
from scaledreamer.text.embedding import TextEmbedding

Weighting = Literal["sds", "uniform", "fantasia3d"]


class ScoreDistillation:
    """Prior + rule + timestep schedule + view prompts -> loss.

    A plain object: the frozen prior stays out of the system's parameters and checkpoints.

    Args:
        prior: frozen denoiser.
        rule: one of :mod:`scaledreamer.guidance.rules` with its options, or another of that signature.
        timesteps: bounds of t over the run.
        views: how prompts are worded for each camera.
        weighting: w(t), see :func:`weight`.
        grad_clip: largest magnitude of an element of g; None does not clip.
    """

    def __init__(
        self,
        *,
        prior: Prior,
        rule: Rule,
        timesteps: TimestepSchedule,
        views: Views,
        weighting: Weighting = "sds",
        grad_clip: PositiveFloat | None = None,
    ) -> None:
        self.prior, self.rule, self.timesteps, self.views = prior, rule, timesteps, views
        self.weighting: Weighting = weighting
        self.grad_clip = grad_clip
        self.null_tokens: Tensor | None = None  # [L, D] of the prior's negative prompt

    def setup(self, device: torch.device, null_tokens: Tensor) -> None:
        """Load the prior's weights; ``null_tokens`` [L, D] embed its negative prompt."""
        self.prior.setup(device)
        self.null_tokens = null_tokens.to(device)

    def __call__(
        self, rendering: Rendering, text: TextEmbedding, cameras: Cameras, *, progress: float, random: StepRandom
    ) -> Distillation:
        """The loss of renders.

        Args:
            rendering: of B images.
            text: of the P prompts; B is a multiple of P.
            cameras: of the B images.
            progress: fraction of the run that is done, in [0, 1].
            random: this step's draws.
        """
        images = rendering.rgb  # [B, H, W, 3] in [0, 1]
        step = self.timesteps.sample(
            images=images.shape[0],
            together=self.prior.views,
            progress=progress,
            num_timesteps=self.prior.num_timesteps,
            random=random,
        )
        shape = (images.shape[0], *self.prior.latent_shape)
        latents = self.encode(images, posterior=random.normal(*shape))
        worded = text.tokens[:, -len(self.views.templates) :]  # behind what the generator reads
        words = self.views.condition(worded, cameras)
        return self.distill(latents, words, step, noise=random.normal(*shape), c2w=cameras.c2w)

    def encode(self, images: Tensor, *, posterior: Tensor) -> Tensor:
        """Latents [B, C, h, w] of images [B, H, W, 3] in [0, 1], enlarged to the prior's size; differentiable."""
        size = (self.prior.image_size, self.prior.image_size)
        resized = F.interpolate(images.permute(0, 3, 1, 2).float(), size, mode="bilinear", align_corners=False)
        return self.prior.encode_images(resized * 2 - 1, posterior).float()

    def distill(
        self, latents: Tensor, words: ViewText, step: Timesteps, *, noise: Tensor, c2w: Tensor | None = None
    ) -> Distillation:
        """The loss at latents [B, C, h, w] with every draw given; L = 0.5 |z - stopgrad(z - g)|^2 / B."""
        with torch.no_grad():
            rule = self.rule(step)
            gradient = rule.value(self.ask(rule, latents, words, noise=noise, c2w=c2w))
            gradient = weight(self.prior.alphas_cumprod[step.t], self.weighting)[:, None, None, None] * gradient
            gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)  # half precision may overflow
            if self.grad_clip is not None:
                gradient = gradient.clamp(-self.grad_clip, self.grad_clip)
        target = (latents - gradient).detach()
        loss = 0.5 * F.mse_loss(latents, target, reduction="sum") / latents.shape[0]
        bounds = {"t_min": float(step.t_min), "t_max": float(step.t_max)}
        figures = {"t": step.t.float().mean(), **bounds, "score_norm": gradient.norm()}
        return Distillation(loss=loss, gradient=gradient, figures=figures)

    @torch.no_grad()
    def ask(
        self, rule: Combination, latents: Tensor, words: ViewText, *, noise: Tensor, c2w: Tensor | None = None
    ) -> Answers:
        """All predictions that a rule needs, each distinct one once, by one call of the prior."""
        if self.null_tokens is None:
            raise RuntimeError("ScoreDistillation.setup comes before its use")
        tokens = {
            "text": words.positive[None],
            "null": self.null_tokens.to(words.positive.dtype).expand_as(words.positive)[None],
            "negatives": words.negatives.transpose(0, 1),
        }  # [inputs, B, L, D] each
        asked: dict[tuple[Words, int], Tensor] = {(w, id(t)): t for _, term in rule.parts for w, t in term.asks()}
        noisy = {id(t): self.add_noise(latents, noise, t) for t in asked.values()}  # one noise for all
        counts = [len(tokens[w]) for w, _ in asked]
        predicted: list[Tensor] = []
        if asked:
            inputs = sum(counts)
            predicted = list(
                self.prior.predict_noise(
                    torch.cat([noisy[i].repeat(n, 1, 1, 1) for (_, i), n in zip(asked, counts, strict=True)]),
                    torch.cat([t.repeat(n) for t, n in zip(asked.values(), counts, strict=True)]),
                    torch.cat([tokens[w].flatten(0, 1) for w, _ in asked]),
                    c2w.repeat(inputs, 1, 1) if c2w is not None else None,
                )
                .float()
                .unflatten(0, (inputs, -1))
                .split(counts)
            )
        answers = {key: p if key[0] == "negatives" else p[0] for key, p in zip(asked, predicted, strict=True)}
        return Answers(predicted=answers, negative_weights=words.weights.t().float(), noise=noise)

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = sqrt(abar_t) z + sqrt(1 - abar_t) e, for t [B]."""
        alpha = self.prior.alphas_cumprod[t][:, None, None, None]
        return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise


def weight(alpha: Tensor, kind: Weighting) -> Tensor:
    """w(t) at abar_t = ``alpha`` (any shape): sds 1 - abar, uniform 1, fantasia3d sqrt(abar) (1 - abar)."""
    if kind == "sds":
        return 1 - alpha
    if kind == "uniform":
        return torch.ones_like(alpha)
    return alpha.sqrt() * (1 - alpha)
