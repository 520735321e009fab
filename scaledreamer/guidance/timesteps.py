"""Which noise levels a training step looks at. B images, T timesteps of the prior."""

from dataclasses import dataclass

from torch import Tensor

from scaledreamer.errors import UserError
from scaledreamer.randomness import StepRandom
from scaledreamer.schedules import ShareSchedule, value_at


@dataclass(frozen=True)
class Timesteps:
    """Noise levels of one training step, and what rules need to derive others from them."""

    t: Tensor  # [B] int64, in [t_min, t_max]
    u: Tensor  # [B] in [0, 1), a uniform draw for rules that shift t at random
    t_min: int  # of the schedule, at this point of the run
    t_max: int
    num_timesteps: int  # T


class TimestepSchedule:
    """Uniform timesteps between two bounds that move over the run, as fractions of T.

    Args:
        low, high: schedules of the bounds; ScaleDreamer lowers both, from coarse to fine.
    """

    def __init__(
        self, *, low: ShareSchedule = ((0, 0.5), (1, 0.02)), high: ShareSchedule = ((0, 0.98), (1, 0.5))
    ) -> None:
        self.low, self.high = low, high
        for percent in range(101):
            if value_at(low, percent / 100) > value_at(high, percent / 100):
                raise UserError(f"guidance.timesteps: low is above high when {percent} % of the run is done.")

    def bounds(self, progress: float, num_timesteps: int) -> tuple[int, int]:
        """(t_min, t_max), both included and below T, when the fraction ``progress`` of the run is done."""
        low, high = (int(num_timesteps * value_at(bound, progress)) for bound in (self.low, self.high))
        return min(low, num_timesteps - 1), min(high, num_timesteps - 1)

    def sample(
        self, *, images: int, together: int, progress: float, num_timesteps: int, random: StepRandom
    ) -> Timesteps:
        """Timesteps of ``images`` images; each ``together`` consecutive ones (views of one object) share theirs."""
        t_min, t_max = self.bounds(progress, num_timesteps)
        count = images // together
        t = t_min + (random.uniform(count) * (t_max - t_min + 1)).long().clamp(max=t_max - t_min)
        return Timesteps(
            t=t.repeat_interleave(together),
            u=random.uniform(count).repeat_interleave(together),
            t_min=t_min,
            t_max=t_max,
            num_timesteps=num_timesteps,
        )


def shifted(step: Timesteps, *, eta: float, random_shift: bool = True) -> Tensor:
    """The asynchronous timesteps t' of ASD, [B] int64 (ScaleDreamer, section 4).

    t' = clamp(t + trunc(u * clamp(eta * (t - t_min), 0, T - t - 1)), 1, T - 1), with u = 1 without ``random_shift``.
    """
    room = step.num_timesteps - 1 - step.t
    reach = (eta * (step.t - step.t_min)).clamp(min=0).minimum(room)
    shift = (reach * step.u if random_shift else reach).long()
    return (step.t + shift).clamp(1, step.num_timesteps - 1)
