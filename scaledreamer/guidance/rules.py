"""Rules of score distillation, written as the difference of predictions that they are.

A rule is a function of the step's timesteps that returns an expression of predictions of the prior. The guidance
collects what the expression asks for, answers all of it with one batched call, and takes

    g = w(t) * rule(t),    dL/dz = g / B

as the gradient of the loss at the latents z = E(render). No gradient flows through the predictions.

To add a rule, write such a function; its keyword arguments become the option's schema. B images, C h w latents.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from scaledreamer.constraints import NonNegativeFloat
from scaledreamer.guidance.timesteps import Timesteps, shifted

Words = Literal["text", "null", "negatives"]


@dataclass(frozen=True, eq=False)
class Answers:
    """What the prior predicted for a training step."""

    predicted: Mapping[tuple[Words, int], Tensor]  # [B, C, h, w]; negatives [M, B, C, h, w]
    negative_weights: Tensor  # [M, B]
    noise: Tensor  # [B, C, h, w]  the noise that was added

    def __call__(self, words: Words, t: Tensor) -> Tensor:
        """The prediction for noisy latents at ``t``, given ``words``."""
        return self.predicted[words, id(t)]


class Term(Protocol):
    """A part of a rule: says what it needs and what it makes of it."""

    def asks(self) -> tuple[tuple[Words, Tensor], ...]:
        """(words, timesteps [B]) of the predictions it needs."""
        ...

    def value(self, answers: Answers) -> Tensor:
        """[B, C, h, w]."""
        ...


@dataclass(frozen=True, eq=False)
class Conditional:
    """eps(x_t, t, words)."""

    words: Words
    t: Tensor

    def asks(self) -> tuple[tuple[Words, Tensor], ...]:
        """One prediction."""
        return ((self.words, self.t),)

    def value(self, answers: Answers) -> Tensor:
        """That prediction."""
        return answers(self.words, self.t)


@dataclass(frozen=True, eq=False)
class Guided:
    """Classifier-free guidance with Perp-Neg (Armandpour et al., arXiv 2304.04968).

    eps_null + s * (d + sum_i w_i perp(d_i, d)),  d = eps_text - eps_null,  d_i = eps_negative_i - eps_null,
    without the sum where the view prompts have no negatives.
    """

    t: Tensor
    scale: float

    def asks(self) -> tuple[tuple[Words, Tensor], ...]:
        """Text, null and negatives, all at t."""
        return ("text", self.t), ("null", self.t), ("negatives", self.t)

    def value(self, answers: Answers) -> Tensor:
        """[B, C, h, w]."""
        null = answers("null", self.t)
        direction = answers("text", self.t) - null
        away = answers("negatives", self.t) - null  # [M, B, C, h, w]
        weights = answers.negative_weights[..., None, None, None]  # [M, B, 1, 1, 1]
        return null + self.scale * (direction + (weights * perpendicular(away, direction)).sum(dim=0))


@dataclass(frozen=True, eq=False)
class Added:
    """The noise e that was added to the latents."""

    def asks(self) -> tuple[tuple[Words, Tensor], ...]:
        """Nothing."""
        return ()

    def value(self, answers: Answers) -> Tensor:
        """That noise."""
        return answers.noise


@dataclass(frozen=True, eq=False)
class Combination:
    """A weighted sum of terms; ``+``, ``-`` and ``*`` with numbers build it."""

    parts: tuple[tuple[float, Term], ...]

    def __add__(self, other: "Combination") -> "Combination":
        return Combination(self.parts + other.parts)

    def __mul__(self, factor: float) -> "Combination":
        return Combination(tuple((factor * weight, term) for weight, term in self.parts))

    __rmul__ = __mul__

    def __neg__(self) -> "Combination":
        return self * -1.0

    def __sub__(self, other: "Combination") -> "Combination":
        return self + -other

    def value(self, answers: Answers) -> Tensor:
        """[B, C, h, w]."""
        return torch.stack([weight * term.value(answers) for weight, term in self.parts]).sum(dim=0)


def perpendicular(x: Tensor, y: Tensor) -> Tensor:
    """The part of x that is perpendicular to y, by sample: x - <x, y> / max(<y, y>, 1e-6) y. [..., C, h, w] each."""
    along = (x * y).sum(dim=(-3, -2, -1), keepdim=True)
    return x - along / (y * y).sum(dim=(-3, -2, -1), keepdim=True).clamp_min(1e-6) * y


def guided(t: Tensor, scale: float) -> Combination:
    """eps_cfg(x_t, t, y) with guidance scale ``scale`` (and Perp-Neg)."""
    return Combination(((1.0, Guided(t, scale)),))


def text(t: Tensor) -> Combination:
    """eps(x_t, t, y)."""
    return Combination(((1.0, Conditional("text", t)),))


def null(t: Tensor) -> Combination:
    """eps(x_t, t, negative prompt)."""
    return Combination(((1.0, Conditional("null", t)),))


def noise() -> Combination:
    """The noise e itself."""
    return Combination(((1.0, Added()),))


Rule = Callable[[Timesteps], Combination]


def asd(
    step: Timesteps, *, guidance_scale: NonNegativeFloat = 7.5, eta: NonNegativeFloat = 0.1, random_shift: bool = True
) -> Combination:
    """Asynchronous Score Distillation (ScaleDreamer, arXiv 2407.02040): eps_cfg(x_t, t, y) - eps(x_t', t', y).

    The second prediction is made at a later timestep t' (see :func:`~scaledreamer.guidance.timesteps.shifted`), where
    the prior is closer to a denoiser that was tuned to the renders, as VSD's is, but stays frozen.
    """
    return guided(step.t, guidance_scale) - text(shifted(step, eta=eta, random_shift=random_shift))


def sds(step: Timesteps, *, guidance_scale: NonNegativeFloat = 100.0) -> Combination:
    """Score Distillation Sampling (DreamFusion, arXiv 2209.14988, eq. 3): eps_cfg(x_t, t, y) - e."""
    return guided(step.t, guidance_scale) - noise()


def csd(step: Timesteps, *, guidance_scale: NonNegativeFloat = 7.5) -> Combination:
    """Classifier Score Distillation (Yu et al., arXiv 2310.19415): s (eps(x_t, t, y) - eps(x_t, t, none))."""
    return guidance_scale * (text(step.t) - null(step.t))
