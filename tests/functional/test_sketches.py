"""Sketches of the tangent sensitivity against the matrices of small networks."""

import pytest
import torch
from torch import nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional import tangent_matrix, tangent_sketches
from lightning_tansens.tangent.probes.vectors import BLOCK_SIZE, input_probes, parameter_probes
from tests.cases import Case, mlp
from tests.helpers import assert_equal, mixed_modes, state_of

NET, INPUTS = Case(lambda: mlp(4, 6, 5, 3), outputs=3).make(samples=40)


def forms(model, inputs, probes, seed=0):
    """wᵀ S(x_n) v from the matrices."""
    columns = []
    for n, matrix in enumerate(tangent_matrix(model, inputs)):
        row = []
        for probe in range(probes):
            w = parameter_probes(dict(model.named_parameters()), seed, n // BLOCK_SIZE, probe)
            flat = torch.cat([part.flatten() for part in w.values()])
            v = input_probes([16, inputs[n].numel()], seed, [n], probe, inputs)[0].double()
            row.append(torch.einsum("p,pd,kd->k", flat, matrix, v))
        columns.append(torch.cat(row))
    return torch.stack(columns)


def test_bilinear_forms():
    assert_equal(tangent_sketches(NET, INPUTS, num_probes=2, seed=3), forms(NET, INPUTS, 2, seed=3))


def test_images_and_smooth_networks():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GELU(), nn.Flatten(), nn.Linear(8, 2)).double()
    inputs = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    assert_equal(tangent_sketches(model, inputs), forms(model, inputs, 1))


def test_each_output():
    each = tangent_sketches(NET, INPUTS[:3], outputs="each")
    assert each.shape == (3, 48)
    for c in range(3):
        of_output = tangent_sketches(NET, INPUTS[:3], outputs=torch.eye(3, dtype=torch.float64)[c])
        assert_equal(each[:, 16 * c : 16 * (c + 1)], of_output)


@pytest.mark.thorough
def test_mean_squares_are_the_squared_norms_of_differences():
    other, _ = Case(lambda: mlp(4, 6, 5, 3), outputs=3).make(samples=1)
    with torch.no_grad():
        for a, b in zip(other.parameters(), NET.parameters(), strict=True):
            a.copy_(b + 0.3 * torch.randn(b.shape, generator=torch.Generator().manual_seed(1), dtype=b.dtype))
    x = INPUTS[:2]
    difference = (tangent_matrix(other, x) - tangent_matrix(NET, x)).square().sum((1, 2))
    draws = (
        torch.stack([tangent_sketches(other, x, seed=s) - tangent_sketches(NET, x, seed=s) for s in range(1500)])
        .square()
        .mean(2)
    )
    error = draws.std(0) / len(draws) ** 0.5
    assert (draws.mean(0) - difference).abs().div(error).max() < 4
    assert (error / difference).max() < 0.05  # the test has power


def test_signs_belong_to_the_samples():
    whole = tangent_sketches(NET, INPUTS, positions=range(20, 60))
    order = [35, 2, 17]
    assert_equal(tangent_sketches(NET, INPUTS[order], positions=[20 + n for n in order]), whole[order])
    assert not torch.equal(tangent_sketches(NET, INPUTS, seed=1), tangent_sketches(NET, INPUTS))


def test_leaves_the_network_as_it_was():
    model = mixed_modes(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.Tanh(), nn.Linear(3, 2)))
    before = state_of(model)
    tangent_sketches(model, torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    assert state_of(model) == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"outputs": "all"}, ValueError, "outputs: expected 'sum', 'each' or a weighting"),
        ({"num_probes": 0}, ValueError, "num_probes: expected a positive integer, but got 0"),
        ({"inputs": INPUTS[:0]}, ValueError, "inputs: expected at least one sample, but got an empty batch"),
        ({"inputs": INPUTS.long()}, TypeError, "inputs: expected a floating-point tensor"),
        ({"model": nn.BatchNorm1d(4, track_running_stats=False)}, UnsupportedNetworkError, "BatchNorm1d"),
    ],
)
def test_refusals(options, error, message):
    with pytest.raises(error, match=message):
        tangent_sketches(**{"model": NET, "inputs": INPUTS, **options})
