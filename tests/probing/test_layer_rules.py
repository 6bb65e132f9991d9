"""Layer rules against the dense oracle: for a fixed probe v, ‖S_p v‖² of every parameter p."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional import chosen_method, tangent_sensitivity_blocks
from lightning_tansens.tangent.isolation import evaluation
from lightning_tansens.tangent.network import Network
from lightning_tansens.tangent.operators.layer_rules import Direct, Outer, Scatter, squared_norm
from lightning_tansens.tangent.operators.substitutes import twice_differentiable
from lightning_tansens.tangent.probes.batch_axis import BatchAxis, find_batch_axis
from lightning_tansens.tangent.probes.coverage import find_batch_axes
from lightning_tansens.tangent.probes.input_space import input_space_blocks
from tests.cases import Lambda
from tests.helpers import assert_equal, reference, squares
from tests.modules import Example, normal
from tests.networks import COVERED, UNCOVERED


def by_rules(example, model, inputs, probes):
    with evaluation(model):
        network = Network(model, inputs, example.wrt, example.output)
        with twice_differentiable(model):
            return input_space_blocks(network, probes, example.outputs, find_batch_axes(network))


@pytest.mark.parametrize("name", COVERED)
def test_blocks_of_a_probe(name):
    example = COVERED[name]
    model, inputs = example.make()
    dense = reference(example, model, inputs)
    with evaluation(model):
        shape = Network(model, inputs, example.wrt, example.output).x.shape
    probes = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    blocks = by_rules(example, model, inputs, probes)
    assert sum(s.abs().sum() for s in dense.values()) > 0
    for parameter, matrix in dense.items():
        expected = torch.einsum("npd,nd->np", matrix, probes.flatten(1)).square().sum(1)
        if parameter in blocks:
            assert_equal(blocks[parameter][:, 0], expected)
        else:
            assert not expected.any(), f"the block of {parameter} is missing"
    assert set(blocks) <= set(dense)


@pytest.mark.parametrize("name", [*COVERED, *UNCOVERED])
def test_all_directions_give_the_exact_value(name):
    example = (COVERED | UNCOVERED)[name]
    model, inputs = example.make(seed=1)
    dense = squares(reference(example, model, inputs))
    blocks = tangent_sensitivity_blocks(model, inputs, method="exact", **example.options)
    if name in UNCOVERED:
        assert_equal(blocks["all"], sum(dense.values()))
    else:
        assert_equal(sum(blocks.values()), sum(dense.values()))
        for parameter, block in blocks.items():
            assert_equal(block, dense[parameter])


@pytest.mark.parametrize("name", ["MLP with tanh", "residual in place", "ViT, tokens first", "LSTM", "weight norm"])
def test_each_output(name):
    example = (COVERED | UNCOVERED)[name]
    model, inputs = example.make()
    options = {"wrt": example.wrt, "output": example.output, "method": "exact"}
    each = tangent_sensitivity_blocks(model, inputs, outputs="each", **options)
    for c in range(next(iter(each.values())).shape[1]):
        weighting = torch.zeros(next(iter(each.values())).shape[1], dtype=torch.float64)
        weighting[c] = 1
        one = tangent_sensitivity_blocks(model, inputs, outputs=weighting, **options)
        for parameter, block in one.items():
            assert_equal(each[parameter][:, c], block)


def test_parameters_upstream_of_x_do_not_count():
    example = COVERED["embedding"]
    model, tokens = example.make()
    blocks = tangent_sensitivity_blocks(model, tokens, method="stochastic", wrt="tokens")
    assert not blocks.get("tokens.weight", torch.zeros(1)).any()
    assert blocks["places.weight"].all()
    tied = COVERED["embedding, tied to the output"]
    model, tokens = tied.make()
    assert tangent_sensitivity_blocks(model, tokens, method="stochastic", wrt="tokens")["tokens.weight"].all()


def tied_table(m, x):
    table = m.table(torch.arange(3).expand(len(x), 3))
    return F.linear(torch.tanh(x.unsqueeze(1) * table), m.table.weight).mean(1)


TO_PARAMETER_SPACE = {
    "a table used otherwise": (
        lambda: Lambda(tied_table, table=nn.Embedding(3, 4)),
        "there is no layer rule for parameter 'table.weight', which is used both as a table and otherwise",
    ),
    "a layer on parameters alone": (
        lambda: Lambda(
            lambda m, x: torch.tanh(x) * m.layer(m.scale), layer=nn.Linear(3, 4), scale=nn.Parameter(torch.ones(3))
        ),
        "there is no layer rule for parameter 'scale' in torch.nn.functional.linear called in module 'layer' (Linear)",
    ),
    "a layer on a constant": (
        lambda: Lambda(lambda m, x: torch.tanh(x) * m.layer(m.constant), layer=nn.Linear(3, 4), constant=torch.ones(1, 3)),
        "the samples cannot be told apart inside of the layer of layer.weight",
    ),
    "a weight that is made by a layer": (
        lambda: Lambda(lambda m, x: F.linear(x, m.maker(m.seed).view(2, 4) * m.scale, m.bias),
                       maker=nn.Linear(3, 8), seed=torch.ones(3), scale=nn.Parameter(torch.ones(1)),
                       bias=nn.Parameter(torch.ones(2))),
        "the samples cannot be told apart inside of the layer of maker.weight",
    ),
    "an embedding with a maximal norm": (
        lambda: Lambda(lambda m, x: torch.tanh(x + m.table(torch.arange(4)).T.expand(len(x), -1)[:, :4]),
                       table=nn.Embedding(4, 1, max_norm=1.0)),
        "there is no layer rule for parameter 'table.weight' in torch.nn.functional.embedding called in module 'table'",
    ),
    "the transpose of a weight": (
        lambda: Lambda(lambda m, x: torch.tanh(x @ m.layer.weight.T), layer=nn.Linear(4, 2, bias=False)),
        r"there is no layer rule for parameter 'layer.weight' in torch.Tensor.T.__get__ called in module 'Lambda'",
    ),
    "three factors": (
        lambda: Lambda(lambda m, x: torch.addcmul(x, x, m.scale), scale=nn.Parameter(torch.ones(4))),
        "there is no layer rule for parameter 'scale' in torch.addcmul called in module 'Lambda' (Lambda)",
    ),
    "a sum with a factor": (
        lambda: Lambda(lambda m, x: torch.add(x, m.scale, alpha=2).tanh(), scale=nn.Parameter(torch.ones(4))),
        "there is no layer rule for parameter 'scale' in torch.add called in",
    ),
    "a product of parameters": (
        lambda: Lambda(lambda m, x: torch.tanh(x @ (m.a @ m.b)), a=nn.Parameter(torch.ones(4, 2)),
                       b=nn.Parameter(torch.ones(2, 3))),
        "there is no layer rule for parameter 'a'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TO_PARAMETER_SPACE)
def test_what_has_no_rule_is_left_to_parameter_space(name):
    build, reason = TO_PARAMETER_SPACE[name]
    example = Example(build, normal(4))
    model, inputs = example.make()
    choice = chosen_method(model, inputs, "stochastic")
    assert choice.way == "parameter_space"
    assert reason in choice.reason
    exact = tangent_sensitivity_blocks(model, inputs, method="exact")["all"]
    assert_equal(exact, sum(squares(reference(example, model, inputs)).values()))
    with pytest.raises(
        UnsupportedNetworkError, match=r"method='input_space': .*; use method='parameter_space', which needs"
    ):
        chosen_method(model, inputs, "input_space")


def test_an_input_that_is_overwritten_is_refused():
    def forward(m, x):
        h = m.first(x)
        out = m.second(h)
        return out + (h.tanh_() if m.overwrite else h.tanh()).sum(1, keepdim=True)

    model = Lambda(forward, first=nn.Linear(4, 4), second=nn.Linear(4, 2)).double()
    model.overwrite = False
    tangent_sensitivity_blocks(model, normal(4)(1), method="input_space")
    model.overwrite = True
    message = "the input of the layer of second.weight is changed in place after the layer has used it; take inplace=True"
    with pytest.raises(UnsupportedNetworkError, match=message):
        tangent_sensitivity_blocks(model, normal(4)(1), method="input_space")


def test_a_forward_pass_that_depends_on_the_data_is_refused():
    model = Lambda(
        lambda m, x: m.b(torch.tanh(m.a(x))) if x.sum() > 0 else m.a(x).tanh()[:, :2],
        a=nn.Linear(4, 4), b=nn.Linear(4, 2),
    )  # fmt: skip
    tangent_sensitivity_blocks(model, torch.ones(2, 4), method="input_space")
    message = (
        "expected Lambda to call the same layers for every batch, but its forward pass depends on the data; use method="
    )
    with pytest.raises(UnsupportedNetworkError, match=message):
        tangent_sensitivity_blocks(model, -torch.ones(2, 4), method="input_space")


@pytest.mark.parametrize(("positions", "width"), [(1, 3), (2, 30), (30, 2)])
@pytest.mark.parametrize("groups", [1, 2])
def test_norms_of_sums_of_outer_products(positions, width, groups):
    shape = (2, groups, positions)
    terms = [Outer(torch.randn(*shape, width).double(), torch.randn(*shape, width + 1).double()) for _ in range(2)]
    written = sum(torch.einsum("...to,...ti->...oi", t.delta, t.features).flatten(1) for t in terms)
    assert_equal(squared_norm(terms), written.square().sum(1))
    direct = Direct(torch.randn_like(written))
    assert_equal(squared_norm([*terms, direct]), (written + direct.gradient).square().sum(1))


def test_norms_of_lookups():
    rows, delta = torch.tensor([[0, 1, 0], [2, 2, 2]]), torch.randn(2, 3, 4)
    table = torch.zeros(2, 3, 4)
    for n in range(2):
        table[n].index_add_(0, rows[n], delta[n])
    assert_equal(squared_norm([Scatter(delta, rows)]), table.square().sum((1, 2)), rtol=1e-5)
    with pytest.raises(TypeError, match="a table that is used both for looking up and otherwise has no rule"):
        squared_norm([Scatter(delta, rows), Direct(torch.zeros(2, 12))])


def entries(axis, shape):
    """Which entries of a tensor belong to each of three samples."""
    owners = torch.arange(3).reshape(3, *[1] * 8)
    supports = []
    for n in range(3):
        mark = torch.zeros(shape, dtype=torch.bool)
        axis.split(mark, 3)[(owners == n).flatten()] = True
        supports.append(mark)
    return supports


@pytest.mark.parametrize(
    ("axis", "shape"),
    [
        (BatchAxis(0), (3, 3, 3)),
        (BatchAxis(1), (3, 3, 2)),
        (BatchAxis(2), (3, 3, 3)),
        (BatchAxis(0, "major"), (6, 3)),
        (BatchAxis(0, "minor"), (9, 2)),
    ],
)
def test_layouts_are_found(axis, shape):
    assert find_batch_axis(entries(axis, shape)) == axis
    assert find_batch_axis([torch.ones(shape) > 0] * 3) is None
    assert find_batch_axis([torch.ones(4, 5) > 0] * 3) is None
