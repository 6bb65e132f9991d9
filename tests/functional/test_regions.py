"""Activation regions against mpmath, enumeration and counts by hand."""

import importlib
import itertools
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp
from torch import nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional import active_nodes
from lightning_tansens.functional.regions import (
    activation_patterns,
    activation_regions,
    count_patterns,
    log_max_active_weights,
    neuron_margins,
    pattern_hashes,
)
from tests.cases import Case, mlp

relu_chain_module = importlib.import_module("lightning_tansens.tangent.closed_form.relu_chain")

TRACED = [activation_regions, activation_patterns, neuron_margins]


def passing(*layers):
    """Linear(1, n) with these weights on x, without biases, so that the preactivations are known exactly."""
    model = nn.Sequential(nn.Linear(1, len(layers), bias=False), nn.ReLU(), nn.Linear(len(layers), 1)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(layers, dtype=torch.float64).unsqueeze(1))
    return model


def batch_normed():
    return mlp(4, 6, 5, 2, between=lambda n: [nn.BatchNorm1d(n), nn.Dropout(0.5)])


def hidden_layers(model, inputs):
    """The preactivations of a chain of Linear and ReLU."""
    hidden, found = inputs, []
    for layer in model:
        if isinstance(layer, nn.ReLU):
            found.append(hidden.detach())
        hidden = layer(hidden)
    return found


def log_sigmoid(h):
    return -mp.log1p(mp.exp(-mp.mpf(h)))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4])
def test_probabilities_against_mpmath(scale):
    model, inputs = Case(lambda: mlp(5, 7, 4, 6, 3), (5,)).make(samples=4)
    regions = activation_regions(model, scale * inputs)
    assert regions.log_probability.dtype == torch.float64
    with mp.workdps(40):
        layers = hidden_layers(model, scale * inputs)
        for n in range(4):
            expected = mp.fsum(log_sigmoid(abs(h)) for hidden in layers for h in hidden[n].tolist())
            assert abs(float(regions.log_probability[n]) - expected) <= 1e-14 * abs(expected)


def test_probabilities_of_all_patterns_sum_to_one():
    """P(A|x) is a distribution over the patterns: each unit is active with probability sigmoid(h)."""
    hidden = [0.3, -1.2, 2.0]
    own = math.exp(activation_regions(passing(*hidden), torch.ones(1, 1, dtype=torch.float64)).log_probability)
    total, largest = 0.0, 0.0
    for signs in itertools.product([1, -1], repeat=3):
        probability = math.prod(1 / (1 + math.exp(-s * h)) for s, h in zip(signs, hidden))
        total, largest = total + probability, max(largest, probability)
    assert total == pytest.approx(1, rel=1e-14)
    assert own == pytest.approx(largest, rel=1e-14)


def test_paths_against_enumeration():
    model, inputs = Case(lambda: mlp(3, 4, 3, 2, 1), (3,)).make(seed=1, samples=12)
    regions = activation_regions(model, inputs)
    assert torch.equal(regions.active_nodes, active_nodes(model, inputs))
    layers = hidden_layers(model, inputs)
    paths = [
        sum(all(layers[i][n, unit] > 0 for i, unit in enumerate(path)) for path in itertools.product(*map(range, (4, 3, 2))))
        for n in range(12)
    ]
    assert 0 in paths
    assert max(paths) > 4
    assert [round(math.exp(value), 9) for value in regions.log_paths] == paths


def test_no_active_path():
    regions = activation_regions(passing(-1.0, -2.0), torch.tensor([[1.0], [-1.0]], dtype=torch.float64))
    assert regions.log_paths.tolist() == [-math.inf, math.log(2)]
    assert regions.log_probability[0].isfinite()


def test_sums_of_half_precision_are_wide():
    model = passing(*[8.0] * 4000)
    inputs = torch.ones(1, 1)
    expected = 4000 * float(log_sigmoid(8.0))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        regions = activation_regions(model.to(dtype), inputs.to(dtype))
        assert float(regions.log_probability) == pytest.approx(expected, rel=1e-12)


def test_patterns_come_in_the_order_of_the_forward_pass():
    model, inputs = Case(lambda: mlp(5, 7, 4, 3), (5,)).make(samples=6)
    patterns = activation_patterns(model, inputs)
    assert patterns.dtype == torch.bool
    assert torch.equal(patterns, torch.cat(hidden_layers(model, inputs), 1) > 0)


def test_convolutions():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 2, 2), nn.ReLU()).double()
    inputs = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    first = model[0](inputs).detach()
    second = model[3](model[2](first.relu())).detach()
    units = torch.cat([first.flatten(1), second.flatten(1)], 1)
    assert torch.equal(activation_patterns(model, inputs), units > 0)
    torch.testing.assert_close(neuron_margins(model, inputs).preactivation, units.abs().amin(0), rtol=0, atol=0)
    expected = -torch.log1p(torch.exp(-units.abs())).sum(1)
    torch.testing.assert_close(activation_regions(model, inputs).log_probability, expected, rtol=1e-13, atol=0)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(rows=st.lists(st.lists(st.booleans(), min_size=11, max_size=11), min_size=1, max_size=30), repeat=st.integers(1, 3))
def test_counts_of_distinct_patterns(rows, repeat):
    patterns = torch.tensor(rows * repeat)
    expected = len({tuple(row) for row in rows})
    assert count_patterns(patterns) == expected
    assert count_patterns(pattern_hashes(patterns)) == expected


def test_each_of_4096_patterns_has_its_own_hash():
    patterns = torch.tensor(list(itertools.product([False, True], repeat=12)))
    hashes = pattern_hashes(patterns)
    assert hashes.dtype == torch.int64
    assert len(set(hashes.tolist())) == 4096
    # spread over all 64 bits
    bits = np.unpackbits(hashes.numpy().view(np.uint8).reshape(4096, 8), axis=1).mean(0)
    assert abs(bits - 0.5).max() < 0.05
    # whole bytes are filled up
    assert pattern_hashes(torch.tensor([[True]])) != pattern_hashes(torch.tensor([[True, False]]))


def test_hashes_do_not_depend_on_batch_layout_or_process():
    patterns = torch.tensor([[True, False, True], [False] * 3, [True] * 3])
    # BLAKE2b of the length 3, eight bytes, and of one byte, 0b10100000, 0 and 0b11100000
    known = [4198342668685747998, -5071436850086484631, -5221833060979138125]
    assert pattern_hashes(patterns).tolist() == known
    assert pattern_hashes(patterns.T.contiguous().T).tolist() == known
    assert torch.cat([pattern_hashes(patterns[:1]), pattern_hashes(patterns[1:])]).tolist() == known


@pytest.mark.parametrize("patterns", [torch.zeros(3, 2), torch.zeros(3, dtype=torch.bool)])
def test_what_is_no_pattern_is_refused(patterns):
    with pytest.raises(TypeError, match=r"patterns: expected booleans of shape \(N, units\), but got torch\..* of shape"):
        pattern_hashes(patterns)


def test_margins():
    model, inputs = Case(lambda: mlp(5, 7, 4, 3), (5,)).make(samples=9)
    margins = neuron_margins(model, inputs)
    units = torch.cat(hidden_layers(model, inputs), 1)
    for unit in range(11):
        column = units[:, unit].tolist()
        assert float(margins.preactivation[unit]) == min(abs(h) for h in column)
        expected = min(abs(1 / (1 + math.exp(-h)) - 0.5) for h in column)
        assert float(margins.probability[unit]) == pytest.approx(expected, rel=1e-12)
    parts = [neuron_margins(model, part) for part in (inputs[:4], inputs[4:], inputs[:0])]
    for whole, pieces in zip(margins, zip(*parts)):
        assert torch.equal(torch.stack(pieces).amin(0), whole)


@pytest.mark.parametrize("margin", [1e-20, 1e-9, 1.0, 50.0, 1e4])
def test_tiny_and_large_margins(margin):
    margins = neuron_margins(passing(margin, -margin), torch.ones(1, 1, dtype=torch.float64))
    with mp.workdps(50):
        expected = 1 / (1 + mp.exp(-mp.mpf(margin))) - mp.mpf(1) / 2
    assert margins.probability.tolist() == pytest.approx([float(expected)] * 2, rel=1e-14, abs=0)


def largest_on_active_paths(model, x):
    """max |w| over every path through active units, path by path."""
    weights = [layer.weight.detach() for layer in model if isinstance(layer, nn.Linear)]
    active = [hidden[0] > 0 for hidden in hidden_layers(model, x.unsqueeze(0))]
    widths = [weights[0].shape[1], *(len(weight) for weight in weights)]
    largest = 0.0
    for path in itertools.product(*map(range, widths)):
        if all(active[i][unit] for i, unit in enumerate(path[1:-1])):
            largest = max(largest, *(float(w[b, a].abs()) for w, a, b in zip(weights, path, path[1:])))
    return largest


@pytest.mark.parametrize("candidates", [1, 3, 256])
@pytest.mark.parametrize("widths", [(3, 2), (3, 4, 2), (2, 4, 3, 2), (2, 3, 4, 3, 2)])
def test_largest_weights_on_active_paths(widths, candidates, monkeypatch):
    monkeypatch.setattr(relu_chain_module, "CANDIDATES", candidates)
    monkeypatch.setattr(relu_chain_module, "CHUNK_ENTRIES", 24)
    seen = set()
    for seed in range(4):
        model, inputs = Case(lambda: mlp(*widths), widths[:1]).make(seed, samples=10)
        with torch.no_grad():
            for layer in model[2::2]:
                layer.weight *= 1.5
        expected = [largest_on_active_paths(model, x) for x in inputs]
        seen.update(expected)
        actual = log_max_active_weights(model, inputs)
        assert actual.dtype == torch.float64
        assert actual.exp().tolist() == pytest.approx(expected, rel=1e-14)
    assert len(seen) >= 4
    assert 0.0 in seen or len(widths) < 4


@pytest.mark.parametrize("layer", [0, 2, 4])
def test_negative_weights_count_by_their_magnitude(layer):
    model, inputs = Case(lambda: mlp(3, 4, 5, 2), (3,)).make()
    nn.init.constant_(model[0].bias, 1e2)
    nn.init.constant_(model[2].bias, 1e4)
    with torch.no_grad():
        model[layer].weight[1, 2] = -9
    assert active_nodes(model, inputs).tolist() == [[4, 5]] * 3
    assert log_max_active_weights(model, inputs).exp().tolist() == pytest.approx([9] * 3)


def test_weights_beside_a_dead_layer_are_on_no_path():
    model, inputs = Case(lambda: mlp(3, 4, 4, 4, 2), (3,)).make()
    nn.init.constant_(model[0].bias, 1e2)
    nn.init.constant_(model[2].bias, -1e3)
    nn.init.constant_(model[4].bias, 1e2)
    assert active_nodes(model, inputs).tolist() == [[4, 0, 4]] * 3
    assert log_max_active_weights(model, inputs).tolist() == [-math.inf] * 3


@pytest.mark.parametrize("function", [*TRACED, log_max_active_weights])
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_nothing_is_left_behind(function, context):
    model = mlp(4, 6, 5, 2, between=lambda n: [nn.Dropout(0.5)]) if function is log_max_active_weights else batch_normed()
    inputs = torch.randn(6, 4)
    copy = inputs.clone()
    kept = {name: (id(t), t.detach().numpy().tobytes()) for name, t in [*model.named_parameters(), *model.named_buffers()]}
    randomness = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    model.train()
    with context():
        result = function(model, inputs)
    for tensor in result if isinstance(result, tuple) else (result,):
        assert not tensor.requires_grad
    assert torch.equal(inputs, copy)
    assert all(module.training for module in model.modules())
    after = {name: (id(t), t.detach().numpy().tobytes()) for name, t in [*model.named_parameters(), *model.named_buffers()]}
    assert after == kept
    assert torch.equal(torch.get_rng_state(), randomness[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == randomness[1:]


@pytest.mark.parametrize("function", TRACED)
def test_batch_norm_and_dropout_are_in_eval_mode(function):
    model, inputs = Case(batch_normed).make()
    expected = function(model.eval(), inputs)
    actual = function(model.train(), inputs)
    for one, other in zip(*(r if isinstance(r, tuple) else (r,) for r in (actual, expected))):
        assert torch.equal(one, other)


@pytest.mark.parametrize("function", TRACED)
def test_a_batch_without_samples(function):
    result = function(mlp(4, 6, 5, 2), torch.zeros(0, 4))
    if function is activation_regions:
        assert [tuple(tensor.shape) for tensor in result] == [(0,), (0,), (0, 2)]
    elif function is activation_patterns:
        assert result.shape == (0, 11)
        assert count_patterns(result) == 0
        assert pattern_hashes(result).shape == (0,)
    else:
        assert result.preactivation.tolist() == [math.inf] * 11
        assert result.probability.tolist() == [0.5] * 11


@pytest.mark.parametrize("function", TRACED)
def test_a_network_without_activations_is_refused(function):
    with pytest.raises(UnsupportedNetworkError, match="expected a network with activation functions"):
        function(nn.Linear(4, 2), torch.zeros(3, 4))


def test_no_chain_no_active_paths():
    with pytest.raises(UnsupportedNetworkError, match="expected a chain of Linear layers and ReLU"):
        log_max_active_weights(mlp(4, 5, 2, activation=nn.GELU), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="inputs: expected at least one sample"):
        log_max_active_weights(mlp(4, 5, 2), torch.zeros(0, 4))
