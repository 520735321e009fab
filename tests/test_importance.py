"""Sampling along rays against the reference's numbers and by hand."""

import torch

from scaledreamer.renderers.importance import merge, proposal_cdf, resample, uniform_edges

NEAR, FAR = torch.full((1, 1), 0.1), torch.full((1, 1), 4.0)
CENTER = torch.full((1, 1), 0.5)


def test_uniform_edges_by_hand():
    edges = uniform_edges(torch.zeros(1, 1), torch.ones(1, 1), 4, CENTER)
    torch.testing.assert_close(edges, torch.tensor([[0.0, 0.25, 0.5, 0.75, 1.0]]))
    shifted = uniform_edges(torch.zeros(1, 1), torch.ones(1, 1), 4, torch.tensor([[0.9]]))
    torch.testing.assert_close(shifted, torch.tensor([[0.1, 0.35, 0.6, 0.85, 1.0]]))


def test_resample_goes_where_the_chance_is():
    """All chance lies in the second of three intervals: its centres are equally spaced there."""
    edges = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    cdf = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    found = resample(edges, cdf, 4, CENTER)
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.25, 1.5, 1.75, 2.0]]))


def test_proposal_cdf_by_hand():
    """Optical depths log 2 and log 4: 1/2 ends in the first interval, the rest counts as ended at the last edge."""
    edges = torch.tensor([[0.0, 1.0, 3.0]])
    density = torch.tensor([[2.0, 4.0]]).log() / torch.tensor([[1.0, 2.0]])
    torch.testing.assert_close(proposal_cdf(edges, density), torch.tensor([[0.0, 0.5, 1.0]]))


def test_edges_stay_ascending_and_inside():
    generator = torch.Generator().manual_seed(0)
    density = torch.rand(50, 32, generator=generator) ** 8 * 100
    jitter = torch.rand(50, 1, generator=generator)
    coarse = uniform_edges(NEAR.expand(50, 1), FAR.expand(50, 1), 32, jitter)
    fine = resample(coarse, proposal_cdf(coarse, density), 16, jitter)
    edges = merge(coarse, fine)
    assert edges.shape == (50, 33 + 17)
    assert (edges.diff(dim=1) >= 0).all()
    assert edges.min() >= 0.1
    assert edges.max() <= 4.0


def golden_edges(golden, first, second):
    mu, amp, sigma = (golden.tensors[f"in.est.{name}"] for name in ("mu", "amp", "sigma"))
    near, far = torch.full((5, 1), 0.1), torch.full((5, 1), 4.0)
    coarse = uniform_edges(near, far, 16, first)
    middles = (coarse[:, 1:] + coarse[:, :-1]) / 2
    density = amp * torch.exp(-(((middles - mu) / sigma) ** 2))
    return coarse, merge(coarse, resample(coarse, proposal_cdf(coarse, density), 8, second))


def test_golden_estimator(goldens):
    golden = goldens("volsdf_renderer")
    half = torch.full((5, 1), 0.5)
    jitters = (golden.tensors["in.est_strat.jitter0"][:, None], golden.tensors["in.est_strat.jitter1"][:, None])
    for name, (first, second) in {"est_det": (half, half), "est_strat": jitters}.items():
        case = golden.case(f"out.{name}")
        coarse, edges = golden_edges(golden, first, second)
        torch.testing.assert_close(coarse[:, :-1], case["coarse_t_starts"], rtol=2e-4, atol=2e-5)
        torch.testing.assert_close(edges[:, :-1], case["t_starts"], rtol=2e-4, atol=2e-5)
        torch.testing.assert_close(edges[:, 1:], case["t_ends"], rtol=2e-4, atol=2e-5)
