"""Random probes: unbiased, and the same whatever the batch."""

import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightning_tansens.functional import (
    chosen_method,
    tangent_sensitivity,
    tangent_sensitivity_blocks,
)
from lightning_tansens.tangent import memory, methods
from lightning_tansens.tangent.network import Network
from lightning_tansens.tangent.probes import all_directions, input_space, parameter_space
from tests.cases import CHAINS, Lambda, mlp
from tests.helpers import assert_equal, reference
from tests.modules import Example, normal
from tests.networks import COVERED, UNCOVERED
from tests.tiers import cases

KINDS = ["input_space", "parameter_space"]
ALL = COVERED | UNCOVERED
TANH = COVERED["MLP with tanh"]

#: Draws of one probe each, on which the means and their errors rest.
BUDGET = 200


def repeated(example, draws, method, num_probes=1):
    """The first sample of an example, measured with independent probes: its values and its exact value."""
    model, inputs = example.make(samples=1)
    exact = tangent_sensitivity(model, inputs, method="exact", **example.options)
    assert exact > 0
    many = inputs.expand(draws, *inputs.shape[1:])
    positions = range(0, 32 * draws, 32)  # each in a block of its own
    options = {"positions": positions, "method": method, "num_probes": num_probes, **example.options}
    return tangent_sensitivity(model, many, **options), float(exact)


UNBIASED = [(name, kind) for name in ["MLP with tanh", "ViT, tokens first", "embedding"] for kind in KINDS] + [
    (name, "parameter_space") for name in ["LSTM", "GRU", "weight norm"]
]


@pytest.mark.parametrize(
    ("name", "method"),
    cases(
        {f"{name}, {method}": (name, method) for name, method in UNBIASED},
        *("MLP with tanh, input_space", "MLP with tanh, parameter_space", "ViT, tokens first, input_space"),
        *("embedding, input_space", "LSTM, parameter_space"),
    ),
)
def test_the_mean_over_probes_is_the_exact_value(name, method):
    values, exact = repeated(ALL[name], BUDGET, method)
    error = float(values.std()) / math.sqrt(BUDGET)
    assert 0 < error < exact
    assert abs(float(values.mean()) - exact) < 5 * error


@pytest.mark.parametrize("method", KINDS)
def test_the_error_falls_with_the_number_of_probes(method):
    one, exact = repeated(TANH, BUDGET, method)
    four, _ = repeated(TANH, BUDGET, method, num_probes=4)
    assert abs(float(four.mean()) - exact) < 5 * float(four.std()) / math.sqrt(BUDGET)
    assert 3 < float(one.var() / four.var()) < 5.4  # 4, within three deviations of a ratio of variances


def test_the_error_in_input_space_is_the_one_of_rademacher_probes():
    example = TANH
    model, inputs = example.make(samples=1)
    values, _ = repeated(example, 4 * BUDGET, "input_space")
    s = torch.cat([block[0] for block in reference(example, model, inputs).values()])
    gram = s.T @ s
    expected = 2 * (gram.square().sum() - gram.diagonal().square().sum())
    assert 0.8 < float(values.var() / expected) < 1.25


@pytest.mark.parametrize("method", KINDS)
def test_probes_are_averaged(method):
    model, inputs = TANH.make()
    values = tangent_sensitivity(model, inputs, method=method, num_probes=3)
    assert not torch.equal(values, tangent_sensitivity(model, inputs, method=method, num_probes=1))
    probes = [tangent_sensitivity(model, inputs, method=method, num_probes=k) for k in (1, 2)]
    third = 3 * values - 2 * probes[1]  # what the third probe adds to the sum
    second = 2 * probes[1] - probes[0]
    assert (third > 0).all()
    assert (second > 0).all()
    assert not torch.isclose(third, second).any()


def measure(model, inputs, method, positions, **options):
    return tangent_sensitivity(model, inputs, method=method, positions=positions, **options)


@pytest.mark.parametrize("method", KINDS)
@pytest.mark.parametrize("name", ["MLP with tanh", "residual in place"])
def test_order_split_and_rank_do_not_matter(name, method):
    model, inputs = COVERED[name].make(samples=7)
    positions = [31, 32, 5, 100, 33, 0, 64]  # three blocks of probes and more
    whole = measure(model, inputs, method, positions, num_probes=2)
    order = [3, 6, 0, 2, 5, 1, 4]
    shuffled = measure(model, inputs[order], method, [positions[i] for i in order], num_probes=2)
    assert_equal(shuffled, whole[order])
    split = [measure(model, inputs[n : n + 2], method, positions[n : n + 2], num_probes=2) for n in range(0, 7, 2)]
    assert_equal(torch.cat(split), whole)
    for rank in range(3):
        assert_equal(measure(model, inputs[rank::3], method, positions[rank::3], num_probes=2), whole[rank::3])
    other = measure(model, inputs, method, [index + 1000 for index in positions], num_probes=2)
    assert not torch.isclose(other, whole).any()


@pytest.mark.parametrize("method", KINDS)
def test_tensors_name_samples_as_lists_do(method):
    model, inputs = TANH.make()
    expected = measure(model, inputs, method, [4, 2])
    assert torch.equal(measure(model, inputs, method, torch.tensor([4, 2])), expected)
    assert torch.equal(measure(model, inputs, method, None), measure(model, inputs, method, range(2)))


@pytest.mark.parametrize("method", [*KINDS, "stochastic"])
def test_seeds(method):
    model, inputs = TANH.make()

    def draw(seed):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return tangent_sensitivity(model, inputs, method=method, generator=generator)

    assert torch.equal(draw(1), draw(1))
    assert not torch.allclose(draw(1), draw(2))
    assert torch.equal(draw(None), draw(None))
    generator = torch.Generator().manual_seed(1)
    first, second = (tangent_sensitivity(model, inputs, method=method, generator=generator) for _ in range(2))
    assert torch.equal(first, draw(1))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("name", ["MLP with tanh", "residual", "LSTM", "embedding"])
@pytest.mark.parametrize("method", ["exact", "stochastic", "parameter_space"])
def test_global_random_states_are_untouched(name, method):
    example = ALL[name]
    model, inputs = example.make()
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    for _ in range(2):
        tangent_sensitivity(model, inputs, method=method, **example.options)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]


def limited(function, most, sizes, error):
    def measure(network, *args):
        sizes.append(len(network))
        if len(network) > most:
            raise error
        return function(network, *args)

    return measure


MEASURES = {
    "input_space": (input_space, "input_space_blocks"),
    "parameter_space": (parameter_space, "parameter_space_norms"),
}

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
@pytest.mark.parametrize("method", KINDS)
def test_batches_are_halved_when_memory_runs_out(method, error, monkeypatch):
    model, inputs = TANH.make(samples=7)
    expected = tangent_sensitivity_blocks(model, inputs, method=method, num_probes=2)
    room, name = MEASURES[method]
    sizes = []
    monkeypatch.setattr(room, name, limited(getattr(room, name), 2, sizes, error))
    blocks = tangent_sensitivity_blocks(model, inputs, method=method, num_probes=2)
    assert list(dict.fromkeys(sizes)) == [7, 4, 2, 1]
    assert blocks.keys() == expected.keys()
    for parameter, block in expected.items():
        assert_equal(blocks[parameter], block)


@pytest.mark.parametrize(
    ("error", "attempts"), [(OUT_OF_MEMORY[0], [7, 4, 2, 1]), (RuntimeError("a bug"), [7])], ids=["memory", "bug"]
)
def test_errors_that_no_smaller_batch_cures_are_raised(error, attempts, monkeypatch):
    model, inputs = TANH.make(samples=7)
    sizes = []
    monkeypatch.setattr(input_space, "input_space_blocks", limited(input_space.input_space_blocks, 0, sizes, error))
    with pytest.raises(RuntimeError, match=str(error)):
        tangent_sensitivity(model, inputs, method="input_space")
    assert sizes == attempts


def test_micro_batches_know_their_places():
    model, inputs = TANH.make(samples=5)
    network = Network(model, inputs)
    seen = []

    def measure(part, places):
        if len(part) > 2:
            raise torch.OutOfMemoryError("full")
        seen.append(places)
        return {"all": part.x[:, :1]}

    result = memory.in_micro_batches(network, measure)["all"]
    assert torch.equal(result, inputs[:, :1])
    assert seen == [slice(0, 2), slice(2, 4), slice(4, 5)]


@pytest.mark.parametrize(("budget", "sizes"), [(10**9, [7]), (4, [4, 3]), (3, [3, 3, 1]), (0, [1] * 7)])
@pytest.mark.parametrize("method", KINDS)
def test_micro_batches_from_a_budget(budget, sizes, method, monkeypatch):
    model, inputs = TANH.make(samples=7)
    expected = tangent_sensitivity(model, inputs, method=method)
    one = memory.bytes_per_sample(Network(model, inputs))
    monkeypatch.setattr(memory, "CPU_BUDGET", budget * one)
    seen = []
    for room, name in MEASURES.values():
        monkeypatch.setattr(room, name, limited(getattr(room, name), 7, seen, None))
    assert_equal(tangent_sensitivity(model, inputs, method=method), expected)
    assert seen == sizes


def test_bytes_of_a_sample():
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    # a reverse pass keeps x and the eight units behind the tanh, not the weights
    assert memory.bytes_per_sample(Network(net, x)) == memory.COPIES * (4 + 8) * 8


@pytest.mark.parametrize(("limit", "level"), [(0.0, "WARNING"), (1e9, "INFO")])
@pytest.mark.parametrize("covered", [True, False])
def test_the_cost_of_all_directions_is_said(limit, level, covered, monkeypatch, caplog):
    monkeypatch.setattr(all_directions, "SECONDS_TO_WARN", limit)
    net, x = nn.Sequential(nn.Linear(65, 2), nn.Tanh()), torch.randn(3, 65)
    if not covered:
        monkeypatch.setattr(methods, "_axes", lambda network: "no rules")
    with caplog.at_level("INFO", logger="lightning_tansens"):
        tangent_sensitivity(net, x, method="exact")
    (record,) = caplog.records
    assert record.levelname == level
    assert record.getMessage().startswith("method='exact' takes 65 directions for each of 3 samples, about ")
    assert "65 passes a sample, each about a training step" in chosen_method(net, x, "exact").reason


def checkpointed(reentrant):
    return Lambda(
        lambda m, x: m.head(checkpoint(m.body, m.first(x), use_reentrant=reentrant)),
        first=nn.Linear(4, 3),
        body=nn.Sequential(nn.Tanh(), nn.Linear(3, 3), nn.Tanh()),
        head=nn.Linear(3, 2),
    )


def plain():
    return Lambda(lambda m, x: m.head(m.body(m.first(x))), **dict(checkpointed(True).named_children()))


@pytest.mark.parametrize("method", ["auto", "exact", *KINDS])
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints(method, reentrant):
    model, inputs = Example(lambda: checkpointed(reentrant), normal(4)).make()
    same = plain().double()
    same.load_state_dict(model.state_dict())
    expected = tangent_sensitivity(same, inputs, method=method)
    assert_equal(tangent_sensitivity(model, inputs, method=method), expected)
    output = model(inputs.requires_grad_())
    output.sum().backward()  # checkpoints work as before
    assert model.body[1].weight.grad is not None
    assert chosen_method(model, inputs).way == "input_space"


def test_a_checkpointed_chain_has_its_closed_form():
    model = Lambda(lambda m, x: checkpoint(m.net, x, use_reentrant=True), net=mlp(4, 5, 2)).double()
    inputs = normal(4)(3)
    assert chosen_method(model, inputs).way == "closed_form"
    assert_equal(tangent_sensitivity(model, inputs), tangent_sensitivity(model.net, inputs))


@pytest.mark.parametrize("method", ["auto", "exact", *KINDS])
@pytest.mark.parametrize("name", ["MLP with tanh", "residual"])
def test_compiled_modules(name, method):
    model, inputs = COVERED[name].make()
    expected = tangent_sensitivity(model, inputs, method=method)
    assert_equal(tangent_sensitivity(torch.compile(model, backend="aot_eager"), inputs, method=method), expected)


@pytest.mark.parametrize("name", ["with biases", "PReLU and batch norm", "changed in place", "ReLU in place"])
@pytest.mark.parametrize("method", KINDS)
def test_chains_by_probes(name, method):
    chain = CHAINS[name]
    values, exact = repeated(Example(chain.build, normal(*chain.shape)), BUDGET, method)
    error = float(values.std()) / math.sqrt(BUDGET)
    assert error > 0
    assert abs(float(values.mean()) - exact) < 5 * error


def test_single_precision_is_near_double():
    for name in ["MLP with tanh", "ViT, batch first"]:
        model, inputs = COVERED[name].make()
        for method in KINDS:
            double = tangent_sensitivity(model.double(), inputs, method=method)
            single = tangent_sensitivity(model.float(), inputs.float(), method=method)
            assert single.dtype == torch.float32
            assert_equal(single.double(), double, rtol=1e-3)
