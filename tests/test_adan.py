"""Adan and the paper's optimizers against the reference's trajectories."""

import pytest
import torch

from scaledreamer.optim.adan import Adan

BETAS = (0.98, 0.92, 0.99)
CASES = {
    "adan_bench": (Adan, 4e-3, 1e-3, {"betas": BETAS, "eps": 1e-15}),
    "adan_bench_foreach_false": (Adan, 4e-3, 1e-3, {"betas": BETAS, "eps": 1e-15}),
    "adan_mv": (Adan, 2e-4, 2e-4, {"betas": BETAS, "eps": 1e-15}),
    "adan_wd_prox": (Adan, 1e-2, 1e-2, {"betas": BETAS, "weight_decay": 0.02}),
    "adan_wd_noprox": (Adan, 1e-2, 1e-2, {"betas": BETAS, "weight_decay": 0.02, "decoupled": True}),
    "adan_clip": (Adan, 1e-2, 1e-2, {"betas": BETAS, "max_grad_norm": 1.0}),
    "adam_3dconv": (torch.optim.Adam, 4e-3, 1e-3, {"betas": (0.0, 0.99)}),
    "adamw_single": (torch.optim.AdamW, 1e-2, 1e-3, {"betas": (0.0, 0.99), "eps": 1e-15}),
}


@pytest.mark.parametrize("name", CASES)
def test_golden_trajectories(goldens, name):
    case = goldens("optim_schedules").case(f"opt.{name}")
    kind, lr_x, lr_y, options = CASES[name]
    x, y = (case[f"out.{n}"][0].clone().requires_grad_() for n in "xy")
    optimizer = kind([{"params": [x], "lr": lr_x}, {"params": [y], "lr": lr_y}], **options)
    for i in range(20):
        x.grad, y.grad = case["in.grads_x"][i].clone(), case["in.grads_y"][i].clone()
        optimizer.step()
        torch.testing.assert_close(x.detach(), case["out.x"][i + 1], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(y.detach(), case["out.y"][i + 1], rtol=1e-5, atol=1e-6)


def test_first_step_by_hand():
    """m/(1-b1) = g, v = 0, n/(1-b3) = g^2: a step of lr against the sign."""
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    x.grad = torch.tensor([0.3, -5.0])
    Adan([x], lr=0.1).step()
    torch.testing.assert_close(x.detach(), torch.tensor([0.9, -1.9]))


def test_state_survives_a_safe_checkpoint(tmp_path):
    def trajectory(save_at=None):
        x = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
        optimizer = Adan([x], lr=0.1)
        for i in range(6):
            if i == save_at:
                torch.save({"x": x.detach(), "state": optimizer.state_dict()}, tmp_path / "state.pt")
                saved = torch.load(tmp_path / "state.pt", weights_only=True)
                x = saved["x"].requires_grad_()
                optimizer = Adan([x], lr=0.1)
                optimizer.load_state_dict(saved["state"])
            x.grad = x.detach() * (i + 1)
            optimizer.step()
        return x.detach()

    assert torch.equal(trajectory(), trajectory(save_at=3))


def test_parameters_without_gradient_stay():
    x, y = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    x.grad = torch.ones(2)
    Adan([x, y], lr=0.1).step()
    assert torch.equal(y, torch.ones(2))
