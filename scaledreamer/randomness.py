"""Random numbers of a training step, as a function of (seed, step, place in the global batch) alone.

Nothing is carried from step to step, so a resumed run draws what the unbroken run would have drawn; and every
process draws the whole global batch's numbers and keeps its own rows, so N processes with batch B draw what one
process with batch N * B would have drawn.
"""

import torch
from torch import Tensor

_SEED_MIX, _STEP_MIX = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03  # odd 64-bit constants: near seeds land far apart
_MASK = (1 << 63) - 1


class StepRandom:
    """Draws on ``device``; the first axis of every shape is this process's share of the batch.

    Args:
        seed: the run's seed.
        step: number of the batch since the start of the run (not of the optimiser step).
        rank, world_size: this process among those that share the global batch; rank's rows come in rank order.
    """

    def __init__(
        self, *, seed: int, step: int, rank: int = 0, world_size: int = 1, device: torch.device | str = "cpu"
    ) -> None:
        self.device = torch.device(device)
        self.step = step
        self.rank, self.world_size = rank, world_size
        mixed = (seed * _SEED_MIX + step * _STEP_MIX) & _MASK
        self._generator = torch.Generator(self.device).manual_seed(mixed)

    def _mine(self, draw, shape: tuple[int, ...]) -> Tensor:
        everyone = draw(self.world_size * shape[0], *shape[1:], generator=self._generator, device=self.device)
        return everyone[self.rank * shape[0] : (self.rank + 1) * shape[0]]

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, float32."""
        return self._mine(torch.randn, shape)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), float32."""
        return self._mine(torch.rand, shape)

    def global_rows(self, n: int) -> Tensor:
        """Places [n] of this process's rows in the global batch, int64."""
        return torch.arange(self.rank * n, (self.rank + 1) * n, device=self.device)
