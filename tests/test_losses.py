"""Regularisers against the reference's numbers and by hand."""

import math

import pytest
import torch

from scaledreamer.losses import eikonal, opaque, sparsity


def test_by_hand():
    assert sparsity(torch.tensor([0.0, 1.0])).item() == pytest.approx((0.1 + 1.01**0.5) / 2)
    assert opaque(torch.tensor([0.5])).item() == pytest.approx(math.log(2))
    edge = -(0.001 * math.log(0.001) + 0.999 * math.log(0.999))
    assert opaque(torch.tensor([0.0, 1.0])).item() == pytest.approx(edge, rel=1e-3)
    assert eikonal(torch.tensor([[3.0, 4.0, 0.0], [1.0, 0.0, 0.0]])).item() == pytest.approx(8.0)


@pytest.mark.parametrize("name", ["bench50k_step0", "bench50k_step2500", "bench50k_step45000"])
def test_golden_losses_and_gradients(goldens, name):
    """The reference's training step: 3.25 mean(rgb) stands for the distillation; weights 20, opaque, eikonal."""
    golden = goldens("optim_schedules")
    rgb, opacity, gradient = (
        golden.tensors[f"loss.in.{key}"].clone().requires_grad_() for key in ("comp_rgb", "opacity", "sdf_grad")
    )
    weights = {"bench50k_step0": (0, 100), "bench50k_step2500": (0, None), "bench50k_step45000": (5, 1)}[name]
    step = golden.meta["facts"][f"loss.{name}"]["step"]
    eikonal_weight = weights[1] if weights[1] is not None else 100 - 99 * (step - 1) / 4999
    logged = golden.meta["facts"][f"loss.{name}"]["logged"]
    terms = {"sparsity": sparsity(opacity), "opaque": opaque(opacity), "eikonal": eikonal(gradient)}
    for key, value in terms.items():
        if f"train/loss_{key}" in logged:
            assert value.item() == pytest.approx(logged[f"train/loss_{key}"], abs=1e-5)
    loss = 3.25 * rgb.mean() + 20 * terms["sparsity"] + weights[0] * terms["opaque"] + eikonal_weight * terms["eikonal"]
    loss.backward()
    case = golden.case(f"loss.{name}")
    torch.testing.assert_close(loss, case["out.loss"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rgb.grad, case["grad.comp_rgb"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(opacity.grad, case["grad.opacity"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient.grad, case["grad.sdf_grad"], rtol=1e-4, atol=1e-6)
