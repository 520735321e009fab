"""The seam of every generator: text (and a latent) -> a batch of fields."""

from typing import ClassVar, Literal

from torch import Tensor, nn

from scaledreamer.fields.base import Field
from scaledreamer.randomness import StepRandom


class Generator(nn.Module):
    """Maps text embeddings to fields, one per prompt.

    Class attributes tell the rest of the system what to feed it; pairs that do not fit are refused when the
    configuration is composed.
    """

    text: Literal["global", "local"] = "global"
    """``global``: text is the pooled embedding [P, D]; ``local``: the tokens of the prompt as it is
    [P, L, D]. Of a class, or of an object whose options say it."""
    field: ClassVar[Literal["sdf", "density"]] = "sdf"
    """Kind of field that forward returns; a renderer lists the kinds it renders."""
    latent_dim: int = 0
    """Width of the latent z that forward takes; 0 when it takes none."""
    one_prompt: ClassVar[bool] = False
    """Whether it learns the prompt of its run alone; a corpus of more is refused."""

    def forward(self, text: Tensor, latent: Tensor | None = None, random: StepRandom | None = None) -> Field:
        """Fields of P prompts.

        Args:
            text: [P, D] or [P, L, D], see :attr:`text`.
            latent: z [P, latent_dim], standard normal in training; None stands for zeros.
            random: source of the generator's own noise in training; None turns that noise off.
        """
        raise NotImplementedError
