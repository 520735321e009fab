"""Draws depend on seed, step and place alone."""

import torch

from scaledreamer.randomness import StepRandom


def test_the_same_step_draws_the_same():
    one, other = StepRandom(seed=1, step=7), StepRandom(seed=1, step=7)
    assert torch.equal(one.normal(3, 4), other.normal(3, 4))
    assert torch.equal(one.uniform(2), other.uniform(2))


def test_other_steps_and_seeds_draw_otherwise():
    draws = [StepRandom(seed=s, step=t).uniform(4) for s in range(5) for t in range(50)]
    assert len({tuple(d.tolist()) for d in draws}) == len(draws)


def test_processes_draw_their_rows_of_the_global_batch():
    one = StepRandom(seed=0, step=0)
    ranks = [StepRandom(seed=0, step=0, rank=r, world_size=3) for r in range(3)]
    for shape in ((2, 5), (2,), (2, 1, 3)):
        whole = one.normal(3 * shape[0], *shape[1:])
        assert torch.equal(torch.cat([r.normal(*shape) for r in ranks]), whole)
    assert torch.equal(torch.cat([r.global_rows(2) for r in ranks]), torch.arange(6))
