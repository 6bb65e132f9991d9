"""The closed form against the dense oracle."""

import pytest
import torch
from torch import nn

from lightning_tansens.functional import tangent_sensitivity, tangent_sensitivity_blocks
from lightning_tansens.tangent.closed_form import exact, jacobian
from lightning_tansens.tangent.sensitivity import chosen_method
from tests.cases import CHAINS, Case, Lambda, frozen, mlp
from tests.oracle import squared_norms, squared_norms_of_each, tangent_matrices


def assert_equal(actual, expected):
    """To 1e-10, relative."""
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", CHAINS)
def test_blocks_are_those_of_the_dense_matrix(name):
    model, inputs = CHAINS[name].make()
    assert chosen_method(model, inputs).way == "closed_form"
    blocks = tangent_sensitivity_blocks(model, inputs)
    dense = {name: s.square().sum((1, 2)) for name, s in tangent_matrices(model, inputs).items()}
    assert sum(dense.values()).max() > 0
    for parameter, expected in dense.items():
        if parameter in blocks:
            assert_equal(blocks[parameter], expected)
        else:
            assert not expected.any(), f"the block of {parameter} is missing"
    assert set(blocks) <= set(dense)
    assert_equal(tangent_sensitivity(model, inputs), sum(dense.values()))


@pytest.mark.parametrize("name", ["with biases", "PReLU and batch norm", "single output (N,)", "narrow first"])
@pytest.mark.parametrize("seed", [1, 2])
def test_every_choice_of_outputs(name, seed):
    model, inputs = CHAINS[name].make(seed)
    outputs = CHAINS[name].outputs
    weighting = torch.linspace(-1, 2, outputs, dtype=torch.float64)
    assert_equal(tangent_sensitivity(model, inputs, outputs="sum"), squared_norms(model, inputs))
    assert_equal(tangent_sensitivity(model, inputs, outputs="each"), squared_norms_of_each(model, inputs, outputs))
    assert_equal(tangent_sensitivity(model, inputs, outputs=weighting), squared_norms(model, inputs, weighting))
    blocks = tangent_sensitivity_blocks(model, inputs, outputs="each", method="exact")
    assert {block.shape for block in blocks.values()} == {(3, outputs)}


WIDE = [
    "with biases", "narrow first", "batch norm before ReLU", "batch norm after ReLU", "PReLU", "PReLU per unit",
    "PReLU and batch norm", "LeakyReLU", "Hardtanh", "frozen middle", "deep", "two linear", "dropout modules",
    "PReLU with slope zero",
]  # fmt: skip


def gather(monkeypatch, from_width):
    """Lets active units be gathered from a width on, whatever it costs."""
    monkeypatch.setattr(jacobian, "GATHER_FROM_WIDTH", from_width)
    monkeypatch.setattr(jacobian, "GATHER_UP_TO_SHARE", 1)
    monkeypatch.setattr(jacobian, "CHOLESKY_COST", 0)


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("outputs", ["sum", "each"])
def test_wide_layers_are_gathered(name, outputs, monkeypatch):
    model, inputs = CHAINS[name].make(seed=3, samples=4)
    expected = tangent_sensitivity_blocks(model, inputs, outputs=outputs)
    gather(monkeypatch, 2)
    actual = tangent_sensitivity_blocks(model, inputs, outputs=outputs)
    for parameter in expected:
        assert_equal(actual[parameter], expected[parameter])
    assert_equal(tangent_sensitivity(model, inputs), squared_norms(model, inputs))


@pytest.mark.parametrize("inputs", [12, 100])
def test_layers_are_gathered_where_it_pays(inputs, monkeypatch):
    model, batch = Case(lambda: mlp(inputs, 80, 70, 64, 66, 65, 2), (inputs,)).make(samples=3)
    expected = tangent_sensitivity(model, batch, method="exact")
    factors = []
    cholesky = torch.linalg.cholesky_ex
    monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda gram: factors.append(gram) or cholesky(gram))
    for from_width, count in ((1000, 0), (64, inputs == 100)):
        monkeypatch.setattr(jacobian, "GATHER_FROM_WIDTH", from_width)
        assert_equal(tangent_sensitivity(model, batch, method="exact"), expected)
        assert bool(factors) == count
    if inputs == 12:
        assert_equal(expected[:1], squared_norms(model, batch[:1]))


@pytest.mark.parametrize("gather_from", [1, 512])
def test_gains_of_zero_pass_nothing_on_but_matter(gather_from, monkeypatch):
    gather(monkeypatch, gather_from)
    model, inputs = Case(lambda: nn.Sequential(*mlp(4, 6, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))).make()
    with torch.no_grad():
        model[3].weight[::2] = 0
    assert_equal(tangent_sensitivity(model, inputs), squared_norms(model, inputs))
    assert tangent_sensitivity_blocks(model, inputs)["3.weight"].min() > 0


def wide_net(activation, first):
    return Case(lambda: mlp(*first, 6, 2, activation=activation, between=lambda n: [nn.BatchNorm1d(n)]), first[:1])


@pytest.mark.parametrize("first", [(3, 8), (14, 6), (8, 6)], ids=["rank-deficient", "short form", "full rank"])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.PReLU, lambda: nn.PReLU(6)], ids=["ReLU", "PReLU", "PReLU per unit"])
def test_every_form_of_the_jacobian_is_reached(activation, first, monkeypatch):
    if first[1] != 6 and activation is not nn.ReLU:
        activation = nn.PReLU
    model, inputs = wide_net(activation, first).make(samples=2)
    seen = set()
    for form in (jacobian.SharedJacobian, jacobian.DenseJacobian, jacobian.GatheredJacobian):
        scale = form.scale
        monkeypatch.setattr(form, "scale", lambda self, s, scale=scale, form=form: seen.add(form) or scale(self, s))
    assert_equal(tangent_sensitivity(model, inputs), squared_norms(model, inputs))
    assert seen == {jacobian.SharedJacobian, jacobian.DenseJacobian}
    gather(monkeypatch, 2)
    assert_equal(tangent_sensitivity(model, inputs), squared_norms(model, inputs))
    assert jacobian.GatheredJacobian in seen


@pytest.mark.parametrize("gather_from", [1, 512])
@pytest.mark.parametrize("active", [6, 5])
def test_a_weight_of_deficient_rank(gather_from, active, monkeypatch):
    gather(monkeypatch, gather_from)
    model, inputs = Case(lambda: mlp(14, 6, 5, 2), (14,)).make(samples=2)
    with torch.no_grad():
        model[0].weight[3:] = model[0].weight[:3] if active == 6 else 0
        model[0].bias[:] = 5  # as many units are active that the Gram matrix is singular
        model[0].bias[active:] = -5
    assert_equal(tangent_sensitivity(model, inputs), squared_norms(model, inputs))


@pytest.mark.parametrize("gather_from", [1, 512])
def test_samples_without_active_units_have_none(gather_from, monkeypatch):
    gather(monkeypatch, gather_from)
    model, inputs = Case(lambda: mlp(4, 6, 5, 2)).make()
    with torch.no_grad():
        model[0].bias[:] = 0
        model[0].weight.abs_()
    inputs = torch.stack([inputs[0].abs(), -inputs[0].abs()])
    actual = tangent_sensitivity(model, inputs)
    assert_equal(actual, squared_norms(model, inputs))
    assert actual[0] > 0
    # the middle and the last layer see nothing, and the first one is cut off
    assert tangent_sensitivity_blocks(model, inputs)["0.weight"][1] == 0


@pytest.mark.parametrize("chunk_bytes", [1, 400, 2000])
@pytest.mark.parametrize("name", ["with biases", "PReLU and batch norm", "batch norm on the input", "arithmetic"])
@pytest.mark.parametrize("gather_from", [2, 512])
def test_chunks_do_not_matter(name, chunk_bytes, gather_from, monkeypatch):
    case = CHAINS[name]
    model, inputs = case.make(samples=11)
    expected = tangent_sensitivity_blocks(model, inputs, outputs="each")
    monkeypatch.setattr(exact, "CHUNK_BYTES", chunk_bytes)
    gather(monkeypatch, gather_from)
    actual = tangent_sensitivity_blocks(model, inputs, outputs="each")
    for parameter in expected:
        assert_equal(actual[parameter], expected[parameter])


def test_a_chunk_is_a_part_of_the_batch(monkeypatch):
    model, inputs = CHAINS["with biases"].make(samples=10)
    monkeypatch.setattr(exact, "CHUNK_BYTES", 4 * 4 * 6 * 3)  # 4 columns, 6 units, 3 samples
    sizes = []
    blocks = exact._blocks
    monkeypatch.setattr(exact, "_blocks", lambda chain, *args: sizes.append(len(chain.output)) or blocks(chain, *args))
    tangent_sensitivity(model, inputs)
    assert sizes == [3, 3, 3, 1]


def test_factors_of_a_sample():
    model, inputs = CHAINS["with biases"].make()
    factors = torch.tensor([[1.0], [2.0], [-0.5]], dtype=torch.float64)
    scaled = Lambda(lambda m, x: m.net(x * m.factors[: len(x)]), net=model, factors=factors)
    for n, factor in enumerate(factors):
        alone = Lambda(lambda m, x, factor=factor: m.net(x * factor), net=model)
        expected = squared_norms(alone, inputs[n : n + 1])
        assert_equal(tangent_sensitivity(scaled, inputs)[n : n + 1], expected)


def test_a_batch_of_one():
    model, inputs = CHAINS["PReLU and batch norm"].make()
    assert_equal(tangent_sensitivity(model, inputs[:1]), tangent_sensitivity(model, inputs)[:1])


def test_inputs_in_another_memory_format():
    model, inputs = CHAINS["nn.Flatten"].make()
    expected = squared_norms(model, inputs)
    assert_equal(tangent_sensitivity(model, inputs.to(memory_format=torch.channels_last)), expected)


def test_a_network_without_trainable_weights_has_none():
    model, inputs = CHAINS["with biases"].make()
    model.requires_grad_(False)
    assert tangent_sensitivity(model, inputs).tolist() == [0, 0, 0]


def test_frozen_weights_have_no_block():
    model = frozen(mlp(4, 6, 5, 2), "2.weight")
    assert list(tangent_sensitivity_blocks(model, torch.randn(2, 4))) == ["0.weight", "4.weight"]
    model.get_parameter("2.weight").requires_grad_(True)
    assert list(tangent_sensitivity_blocks(model, torch.randn(2, 4))) == ["0.weight", "2.weight", "4.weight"]


def test_frozen_layers_may_share_a_weight():
    layer = nn.Linear(4, 4).requires_grad_(False)
    model, inputs = Case(lambda: nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(4, 2))).make()
    assert_equal(tangent_sensitivity(model, inputs), squared_norms(model, inputs))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["with biases", "PReLU and batch norm", "nn.Flatten"])
def test_half_precision_gives_about_the_same(name, dtype):
    model, inputs = CHAINS[name].make(samples=8)
    expected = tangent_sensitivity(model.float(), inputs.float())
    actual = tangent_sensitivity(model.to(dtype), inputs.to(dtype))
    assert actual.dtype == torch.float32
    # a unit next to zero may switch, so the mean is compared
    torch.testing.assert_close(actual.mean(), expected.mean(), rtol=0.05, atol=0)


def test_half_precision_does_not_overflow():
    model = mlp(4, 100, 100, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    inputs = torch.full((1, 4), 0.01)
    expected = tangent_sensitivity(model, inputs)
    assert expected > 1e6
    torch.testing.assert_close(tangent_sensitivity(model.half(), inputs.half()), expected)


def test_autocast_is_off():
    model, inputs = CHAINS["with biases"].make()
    expected = tangent_sensitivity(model, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_equal(tangent_sensitivity(model, inputs), expected)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.net(x).double(),
        lambda m, x: m.net(x.double().float()),
        lambda m, x: m.net(x.clone().contiguous().to(torch.float32)).half(),
    ],
)
def test_changes_of_precision(forward):
    model = Lambda(forward, net=mlp(4, 6, 5, 2))
    inputs = torch.randn(3, 4)
    torch.testing.assert_close(tangent_sensitivity(model, inputs), tangent_sensitivity(model.net, inputs))


def test_a_double_network_on_single_inputs():
    model, inputs = CHAINS["with biases"].make()
    cast = Lambda(lambda m, x: m.net(x.double()).float(), net=model)
    torch.testing.assert_close(tangent_sensitivity(cast, inputs.float()), squared_norms(model, inputs), check_dtype=False)


@pytest.mark.filterwarnings("ignore:Using `torch.compile")
def test_a_compiled_network_is_run_eagerly():
    model, inputs = CHAINS["with biases"].make()
    expected = tangent_sensitivity(model, inputs)
    assert_equal(tangent_sensitivity(torch.compile(model), inputs), expected)
