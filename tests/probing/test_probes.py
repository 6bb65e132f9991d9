"""Probes are functions of the seed and of the sample alone."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from lightning_tansens.tangent.probes import vectors as probes
from lightning_tansens.tangent.probes.vectors import BLOCK_SIZE, input_probes, parameter_probes
from tests.helpers import assert_equal

FLOAT = torch.empty(0)


def parameters(*shapes):
    return {str(i): nn.Parameter(torch.zeros(shape)) for i, shape in enumerate(shapes)}


@pytest.mark.parametrize("shape", [(), (1,), (7,), (64,), (65,), (3, 5, 7)])
def test_input_probes_are_signs(shape):
    drawn = input_probes(shape, 3, [0, 5, 2**40], 1, FLOAT)
    assert drawn.shape == (3, *shape)
    assert drawn.dtype == torch.float32
    assert torch.equal(drawn.abs(), torch.ones_like(drawn))


def test_input_probes_depend_on_the_sample_and_not_on_the_batch():
    whole = input_probes([40], 3, range(9), 2, FLOAT)
    for n in range(9):
        assert torch.equal(input_probes([40], 3, [n], 2, FLOAT)[0], whole[n])
    assert torch.equal(input_probes([40], 3, [8, 1, 1], 2, FLOAT), whole[[8, 1, 1]])


def test_every_probe_is_another():
    seeds, samples, numbers = (0, 1, 2**62), (0, 1, 31, 32), (0, 1)
    drawn = [
        tuple(input_probes([64], seed, [n], k, FLOAT)[0].tolist())
        for seed, n, k in itertools.product(seeds, samples, numbers)
    ]
    weights = parameters(64, 64)
    for seed, block, k in itertools.product(seeds, samples, numbers):
        drawn += [tuple(w.tolist()) for w in parameter_probes(weights, seed, block, k).values()]
    assert len(set(drawn)) == len(drawn)


def test_second_moments_are_the_identity():
    v = input_probes([6], 0, range(20_000), 0, FLOAT).double()
    assert_equal(v.T @ v / len(v), torch.eye(6).double(), rtol=0, atol=5 / len(v) ** 0.5)
    assert abs(float(v.mean())) < 5 / v.numel() ** 0.5
    weights = parameters((2, 2), 2)
    w = torch.stack([torch.cat([x.flatten() for x in parameter_probes(weights, 0, b, 0).values()]) for b in range(4000)])
    assert_equal(w.T @ w / len(w), torch.eye(6), rtol=0, atol=5 / len(w) ** 0.5)


def test_parameter_probes_have_the_shapes_of_the_parameters():
    weights = {"a": nn.Parameter(torch.zeros(3, 4)), "b": nn.Parameter(torch.zeros((), dtype=torch.float64))}
    drawn = parameter_probes(weights, 0, 0, 0)
    assert {name: (w.shape, w.dtype) for name, w in drawn.items()} == {n: (p.shape, p.dtype) for n, p in weights.items()}
    assert all((w.abs() == 1).all() for w in drawn.values())
    assert all(torch.equal(w, parameter_probes(weights, 0, 0, 0)[name]) for name, w in drawn.items())


def test_a_block_of_samples_shares_its_probe():
    assert BLOCK_SIZE == 32
    assert probes._INPUT_STREAM != probes._PARAMETER_STREAM


def test_the_stream_is_pinned():
    signs = input_probes([16], 0, [0], 0, FLOAT)[0]
    assert signs.tolist() == SIGNS  # values that were published rest on it


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_an_accelerator_unpacks_the_same_signs(dtype):
    drawn, like = np.arange(256, dtype=np.uint8).reshape(4, 64), torch.empty(0, dtype=dtype)
    unpacked = probes._unpacked(drawn, like)
    assert unpacked.dtype == dtype
    assert torch.equal(unpacked, probes._looked_up(drawn, like))


#: The first probe of seed 0.
SIGNS = [1, -1, -1, 1, 1, -1, 1, 1, 1, 1, -1, 1, 1, -1, -1, -1]


@pytest.mark.parametrize(("seed", "other"), [(-1, -2), (2**63 + 5, 2**63 + 7), (2**53, 2**53 + 1)])
def test_large_and_negative_seeds_are_told_apart(seed, other):
    draws = [input_probes([64], s, range(3), 0, FLOAT) for s in (seed, other)]
    assert not torch.equal(*draws)
