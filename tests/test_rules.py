"""Rules by hand: what they ask for, what they make of it, and how they relate."""

import pytest
import torch
from fakes import FakePrior, mixing

from scaledreamer.guidance.distillation import ScoreDistillation, weight
from scaledreamer.guidance.rules import asd, csd, guided, noise, null, perpendicular, sds, text
from scaledreamer.guidance.timesteps import Timesteps, TimestepSchedule, shifted
from scaledreamer.guidance.views import PlainPrompt, ViewText
from scaledreamer.randomness import StepRandom


def step(t, u=0.5, t_min=20, t_max=980):
    t = torch.as_tensor(t)
    return Timesteps(t=t, u=torch.full(t.shape, u), t_min=t_min, t_max=t_max, num_timesteps=1000)


def guidance(rule, predict=mixing, **options):
    found = ScoreDistillation(
        prior=FakePrior(predict), rule=rule, timesteps=TimestepSchedule(), views=PlainPrompt(), **options
    )
    found.setup(torch.device("cpu"), torch.zeros(1, 1))
    return found


def words(positive, negatives=(), weights=()):
    """One number per image stands for its text."""
    positive = torch.as_tensor(positive, dtype=torch.float32)
    images = len(positive)
    return ViewText(
        positive=positive.view(images, 1, 1),
        negatives=torch.as_tensor(negatives, dtype=torch.float32).view(images, -1, 1, 1),
        weights=torch.as_tensor(weights, dtype=torch.float32).view(images, -1),
    )


def word_only(latents, timesteps, tokens):
    """eps = the text's number everywhere."""
    return tokens.view(-1, 1, 1, 1).expand_as(latents)


def gradient(rule, texts, t=500, predict=word_only, e=None, **options):
    images = texts.positive.shape[0]
    latents = torch.zeros(images, 4, 4, 4)
    e = torch.zeros_like(latents) if e is None else e
    t = torch.full((images,), t) if isinstance(t, int) else torch.as_tensor(t)
    return guidance(rule, predict, weighting="uniform", **options).distill(latents, texts, step(t), noise=e).gradient


def test_csd_by_hand():
    """s (eps(y) - eps(none)) = 7.5 * (3 - 0)."""
    found = gradient(csd, words([3.0]))
    torch.testing.assert_close(found, torch.full_like(found, 22.5))


def test_sds_by_hand():
    """eps_none + s (eps_y - eps_none) - e = 0 + 100 * 3 - 2."""
    found = gradient(sds, words([3.0]), e=torch.full((1, 4, 4, 4), 2.0))
    torch.testing.assert_close(found, torch.full_like(found, 298.0))


def test_asd_by_hand():
    """7.5 * 3 - 3, since this prior does not look at t."""
    found = gradient(asd, words([3.0]))
    torch.testing.assert_close(found, torch.full_like(found, 19.5))


def test_asd_looks_at_the_later_timestep():
    def clock(latents, timesteps, tokens):
        return timesteps.view(-1, 1, 1, 1).float().expand_as(latents)

    found = gradient(asd, words([3.0]), predict=clock)  # t' = 500 + trunc(.5 * .1 * 480) = 524
    torch.testing.assert_close(found, torch.full_like(found, 500.0 - 524.0))


def test_perp_neg_by_hand():
    """d = (3, 0), negative d_1 = (2, 5): its perpendicular part is (0, 5); weight -1/2."""
    x, y = torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)
    x[0, :, 0, 0], y[0, :, 0, 0] = torch.tensor([2.0, 5.0]), torch.tensor([3.0, 0.0])
    assert perpendicular(x, y)[0, :, 0, 0].tolist() == [0.0, 5.0]

    def plane(latents, timesteps, tokens):
        table = torch.tensor([[0.0, 0, 0, 0], [3.0, 0, 0, 0], [2.0, 5.0, 0, 0]])  # null, text, negative
        return table[tokens.flatten().long()][:, :, None, None].expand_as(latents)

    found = gradient(lambda s: guided(s.t, 10.0), words([1], [[2]], [[-0.5]]), predict=plane)
    assert found[0, :, 0, 0].tolist() == [30.0, -25.0, 0.0, 0.0]


def test_perpendicular_of_a_zero_direction_is_finite():
    x = torch.randn(2, 4, 4, 4)
    torch.testing.assert_close(perpendicular(x, torch.zeros_like(x)), x)


def test_asd_without_shift_is_csd():
    """eta = 0 and no Perp-Neg: eps_0 + s (eps_y - eps_0) - eps_y = (s - 1) (eps_y - eps_0)."""
    texts = words([3.0, -1.0])
    torch.manual_seed(0)
    e = torch.randn(2, 4, 4, 4)
    found = gradient(lambda s: asd(s, guidance_scale=7.5, eta=0.0), texts, predict=mixing, e=e)
    expected = gradient(lambda s: csd(s, guidance_scale=6.5), texts, predict=mixing, e=e)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_arithmetic_of_expressions():
    """2 text - (null - noise) / 4."""
    rule = lambda s: 2 * text(s.t) - 0.25 * (null(s.t) - noise())  # noqa: E731
    found = gradient(rule, words([3.0]), e=torch.ones(1, 4, 4, 4))
    torch.testing.assert_close(found, torch.full_like(found, 6.25))


@pytest.mark.parametrize(("rule", "inputs"), [(asd, 5), (sds, 4), (csd, 2)])
def test_one_call_of_the_prior_with_nothing_twice(rule, inputs):
    images = 3
    subject = guidance(rule)
    latents = torch.randn(images, 4, 4, 4)
    texts = words([1.0, 2, 3], [[4.0, 5]] * 3, [[-0.5, -0.2]] * 3)
    subject.distill(latents, texts, step([100, 500, 900]), noise=torch.randn_like(latents))
    assert subject.prior.calls == [inputs * images]


@pytest.mark.parametrize("rule", [asd, sds, csd])
def test_a_batch_equals_its_samples(rule):
    torch.manual_seed(0)
    latents, e = torch.randn(3, 4, 4, 4), torch.randn(3, 4, 4, 4)
    texts = words([1.0, 2, 3], [[4.0, 5], [6, 7], [8, 9]], [[-0.5, -0.2], [-0.1, -0.7], [0, -1]])
    subject = guidance(rule)
    together = subject.distill(latents, texts, step([100, 500, 900]), noise=e)
    alone = []
    for i, t in enumerate([100, 500, 900]):
        one = ViewText(texts.positive[i : i + 1], texts.negatives[i : i + 1], texts.weights[i : i + 1])
        alone.append(subject.distill(latents[i : i + 1], one, step([t]), noise=e[i : i + 1]))
    torch.testing.assert_close(together.gradient, torch.cat([a.gradient for a in alone]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.loss, torch.stack([a.loss for a in alone]).mean(), rtol=1e-5, atol=1e-5)


def test_the_gradient_at_the_latents_is_g_over_b():
    latents = torch.randn(2, 4, 4, 4, requires_grad=True)
    found = guidance(asd).distill(latents, words([1.0, 2]), step([100, 900]), noise=torch.randn(2, 4, 4, 4))
    found.loss.backward()
    torch.testing.assert_close(latents.grad, found.gradient / 2)


def test_broken_predictions_become_zero_and_large_ones_are_clipped():
    def broken(latents, timesteps, tokens):
        out = tokens.view(-1, 1, 1, 1).expand_as(latents).clone()
        out[:, 0] = float("nan")
        return out

    found = gradient(csd, words([3.0]), predict=broken, grad_clip=5.0)
    assert torch.equal(found[:, 0], torch.zeros(1, 4, 4))
    assert torch.equal(found[:, 1], torch.full((1, 4, 4), 5.0))


def test_weightings_by_hand():
    alpha = torch.tensor([0.25])
    assert weight(alpha, "sds").item() == 0.75
    assert weight(alpha, "uniform").item() == 1
    assert weight(alpha, "fantasia3d").item() == 0.375


def test_golden_shift(goldens):
    case = goldens("asd_sd_loss").case("t_plus")
    for random_shift, key in ((True, "out.random"), (False, "out.nonrandom")):
        found = [
            shifted(
                Timesteps(t=t[None], u=u[None], t_min=int(low), t_max=980, num_timesteps=1000),
                eta=0.1,
                random_shift=random_shift,
            )
            for t, u, low in zip(case["in.t"], case["in.u"], case["in.min_step"], strict=True)
        ]
        assert torch.equal(torch.cat(found), case[key])


def test_timesteps_are_uniform_between_their_bounds():
    schedule = TimestepSchedule(low=0.02, high=0.98)
    found = schedule.sample(
        images=200_000, together=1, progress=0.3, num_timesteps=1000, random=StepRandom(seed=0, step=0)
    )
    assert (int(found.t.min()), int(found.t.max())) == (20, 980)
    assert found.t.float().mean().item() == pytest.approx(500, abs=2)


def test_views_of_an_object_share_their_timestep():
    found = TimestepSchedule().sample(
        images=8, together=4, progress=0, num_timesteps=1000, random=StepRandom(seed=0, step=0)
    )
    assert torch.equal(found.t.view(2, 4), found.t.view(2, 4)[:, :1].expand(2, 4))
    assert torch.equal(found.u.view(2, 4), found.u.view(2, 4)[:, :1].expand(2, 4))
    assert found.t[0] != found.t[4]
