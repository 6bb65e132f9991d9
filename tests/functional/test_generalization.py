"""Lemma 8, the radius of gradient descent, and the terms of Theorem 5."""

import math

import pytest
import torch
from torch import nn

from lightning_tansens.functional import gradient_norms, lipschitz_constant, theorem5_bound


def chain(bias=False):
    torch.manual_seed(0)
    layers = nn.Linear(3, 6, bias=bias), nn.ReLU(), nn.Linear(6, 5, bias=bias), nn.ReLU(), nn.Linear(5, 1, bias=bias)
    return nn.Sequential(*layers).double()


def gradient(model, x):
    parts = torch.autograd.grad(model(x[None]).sum(), list(model.parameters()), create_graph=True)
    return torch.cat([part.flatten() for part in parts])


@pytest.mark.parametrize("bias", [False, True])
def test_gradient_norms_are_those_of_autograd(bias):
    model, x = chain(bias), torch.randn(7, 3, dtype=torch.float64)
    expected = torch.stack([gradient(model, sample).norm() for sample in x])
    assert expected.min() > 0
    torch.testing.assert_close(gradient_norms(model, x), expected, rtol=1e-12, atol=0)


def test_movement_stays_below_the_radius_of_plain_gradient_descent():
    model, x = chain(), torch.randn(8, 3, dtype=torch.float64)
    y, start = x[:, :1].sin(), nn.utils.parameters_to_vector(chain().parameters())
    c_ts, c_gd, rate = 0.0, 0.0, 0.05
    for _ in range(20):
        matrices = [torch.autograd.functional.jacobian(lambda sample: gradient(model, sample), sample) for sample in x]
        for sample, matrix in zip(x, matrices):  # Lemma 8
            torch.testing.assert_close(matrix @ sample, gradient(model, sample), rtol=1e-10, atol=1e-14)
        c_ts = max(c_ts, max(matrix.norm().item() for matrix in matrices))
        residual = model(x) - y
        c_gd += rate * residual.abs().mean().item()
        steps = torch.autograd.grad(residual.square().mean() / 2, list(model.parameters()))
        with torch.no_grad():
            for parameter, step in zip(model.parameters(), steps):
                parameter -= rate * step
    moved = (nn.utils.parameters_to_vector(model.parameters()) - start).norm().item()
    assert 0 < moved <= x.norm(dim=1).max().item() * c_ts * c_gd


def test_lipschitz_constants():
    assert lipschitz_constant("logistic") == 1
    assert lipschitz_constant("cross_entropy") == math.sqrt(2)
    assert lipschitz_constant("squared", 3) == 6
    assert lipschitz_constant("half_squared", 3) == 3


ARGUMENTS = {
    "k_loss": 2.0,
    "k_gradient": 3.0,
    "k_initial": 0.5,
    "radius": 4.0,
    "loss_bound": 5.0,
    "num_samples": 16,
    "confidence": 1 - 4 / math.e**2,
}


def test_terms_by_hand():
    bound = theorem5_bound(**ARGUMENTS)
    assert (bound.complexity, bound.initial) == (12, 1)
    assert bound.confidence == pytest.approx(2.5, rel=1e-12)


def test_refusals():
    with pytest.raises(ValueError, match=r"loss: expected one of .*, but got 'hinge'"):
        lipschitz_constant("hinge")
    with pytest.raises(ValueError, match="largest_residual: expected a number for the loss 'squared'"):
        lipschitz_constant("squared")
    with pytest.raises(ValueError, match="num_samples: expected a positive integer, but got 0"):
        theorem5_bound(**ARGUMENTS | {"num_samples": 0})
    with pytest.raises(ValueError, match="confidence: expected a number between 0 and 1, both excluded, but got 1"):
        theorem5_bound(**ARGUMENTS | {"confidence": 1})
    for name in ("k_loss", "k_gradient", "k_initial", "radius", "loss_bound"):
        with pytest.raises(ValueError, match=f"{name}: expected a number >= 0, but got -1"):
            theorem5_bound(**ARGUMENTS | {name: -1})
