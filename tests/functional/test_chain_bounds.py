"""The bounds of chains: their formulas by hand, and that they hold against the exact tangent sensitivity."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp
from torch import nn

from lightning_tansens.bounds.active_nodes import log_active_node_bound, log_mean_exp
from lightning_tansens.bounds.chain_bounds import (
    log_active_node_bound_of,
    log_norm_bound,
    log_region_bounds,
    log_sample_norm_bounds,
)
from lightning_tansens.functional import active_nodes, log_max_weights, tangent_sensitivity
from lightning_tansens.functional.regions import log_max_active_weights
from lightning_tansens.tangent.closed_form.relu_chain import relu_chain
from tests.cases import Case, frozen, mlp

OUTPUTS = ["sum", "each"]
BOUNDS = [log_norm_bound, log_sample_norm_bounds, log_active_node_bound_of, log_region_bounds]


def linear_layers(model):
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear)]


def chain_of(widths, seed, scales, samples=4, bias=False):
    """A chain with layers of very different sizes, and a batch."""
    model, inputs = Case(lambda: mlp(*widths, bias=bias), widths[:1]).make(seed, samples)
    with torch.no_grad():
        for layer, scale in zip(linear_layers(model), scales):
            layer.weight *= 10.0**scale
    return model, inputs


def log_exact(model, inputs, outputs):
    """log ‖S(x)‖_F², shape (N,); for "each" the largest of the outputs."""
    squares = tangent_sensitivity(model, inputs, outputs=outputs, method="exact")
    return (squares if outputs == "sum" else squares.amax(1)).log()


chains = {
    "widths": st.lists(st.integers(1, 6), min_size=2, max_size=6),
    "seed": st.integers(0, 2**20),
    "scales": st.lists(st.floats(-3, 3), min_size=5, max_size=5),
    "outputs": st.sampled_from(OUTPUTS),
    "bias": st.booleans(),
}
small = settings(max_examples=40, deadline=None, derandomize=True)
ROUNDING = 1e-9


@small
@given(**chains)
def test_theorem_1_and_equation_4_hold_for_each_sample(widths, seed, scales, outputs, bias):
    model, inputs = chain_of(widths, seed, scales, bias=bias)
    chain = relu_chain(model, inputs)
    exact = log_exact(model, inputs, outputs)
    tight = log_sample_norm_bounds(chain, outputs=outputs)
    layers, network = (log_norm_bound(chain, form=form, outputs=outputs) for form in ("layers", "network"))
    regions = log_region_bounds(chain, outputs=outputs)
    assert (exact <= tight + ROUNDING).all()
    assert (tight <= layers + ROUNDING).all()
    assert layers <= network + ROUNDING
    assert (exact <= regions + ROUNDING).all()
    assert (regions <= network + ROUNDING).all()
    mean = log_mean_exp(exact)
    assert mean <= log_mean_exp(regions) + ROUNDING


@small
@given(**chains)
def test_theorem_2_holds_where_no_normal_law_is_needed(widths, seed, scales, outputs, bias):
    """For one sample at any depth, and for the mean over samples at k ≤ 2."""
    model, inputs = chain_of(widths, seed, scales, bias=bias)
    for part in (inputs[:1], inputs) if len(widths) <= 3 else (inputs[:1],):
        chain = relu_chain(model, part)
        mean = log_mean_exp(log_exact(model, part, outputs))
        assert mean <= log_active_node_bound_of(chain, outputs=outputs) + ROUNDING
    one = relu_chain(model, inputs[:1])
    bound = log_region_bounds(one, moments=one.active_node_moments(), outputs=outputs)
    assert (log_exact(model, inputs[:1], outputs) <= bound + ROUNDING).all()


def constant_chain(widths):
    """Constant positive layers; with positive inputs all units are active."""
    model, inputs = Case(lambda: mlp(*widths, bias=False), widths[:1]).make()
    for i, layer in enumerate(linear_layers(model)):
        nn.init.constant_(layer.weight, 0.3 + 0.7 * i)
    return model, inputs.abs()


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("widths", [(3, 1), (3, 4), (3, 5, 1), (3, 5, 2), (2, 3, 4, 5), (1, 1, 1, 1, 1), (4, 3, 2, 5, 6, 2)])
def test_the_tighter_form_is_attained(widths, outputs):
    model, inputs = constant_chain(widths)
    bounds = log_sample_norm_bounds(relu_chain(model, inputs), outputs=outputs)
    exact = tangent_sensitivity(model, inputs, outputs=outputs, method="exact").log()
    expected = exact if outputs == "sum" else exact[:, 0]
    torch.testing.assert_close(bounds, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("widths", [(5, 3), (3, 5, 4), (4, 6, 5, 4, 2), (3, 2, 6)])
def test_formulas_by_hand(widths, outputs):
    model, inputs = chain_of(widths, 3, (0.1, -0.2, 0.3, 0.2), samples=8, bias=True)
    chain = relu_chain(model, inputs)
    maxima = [float(layer.weight.detach().abs().max()) for layer in linear_layers(model)]
    k, c, d = len(maxima), widths[-1], widths[0]
    parameters = sum(p.numel() for p in model.parameters())
    widest = max([*widths[1:-1], c if outputs == "sum" else 1])
    by_layers = parameters * d * (widest ** (k - 1) * math.prod(maxima) / min(maxima)) ** 2
    by_network = parameters * d * (widest * max(maxima)) ** (2 * (k - 1))
    assert math.exp(log_norm_bound(chain, outputs=outputs)) == pytest.approx(by_layers, rel=1e-12)
    assert math.exp(log_norm_bound(chain, form="network", outputs=outputs)) == pytest.approx(by_network, rel=1e-12)

    n = active_nodes(model, inputs).tolist() if k > 1 else [[]] * 8
    tight = []
    for row in n:
        total = 0.0
        for l in range(1, k + 1):  # noqa: E741
            touched = [m for m in (l - 1, l) if 1 <= m <= k - 1]
            c_l = math.prod(row[m - 1] if m in touched else row[m - 1] ** 2 for m in range(1, k))
            if outputs == "sum":
                c_l *= c if l == k else c**2
            total += c_l * math.prod(w**2 for i, w in enumerate(maxima, 1) if i != l)
        tight.append(d * total)
    assert k == 1 or len(set(tight)) > 1
    assert log_sample_norm_bounds(chain, outputs=outputs).exp().tolist() == pytest.approx(tight, rel=1e-12)

    own = log_max_active_weights(model, inputs).exp().tolist()
    powers = [w ** (2 * (k - 1)) for w in own]
    equation_4 = sum(parameters * d * widest ** (2 * (k - 1)) * power for power in powers) / 8
    assert math.exp(log_mean_exp(log_region_bounds(chain, outputs=outputs))) == pytest.approx(equation_4, rel=1e-12)

    totals = [sum(row) for row in n]
    mean = sum(totals) / 8
    std = math.sqrt(sum((total - mean) ** 2 for total in totals) / 8)
    for form in ("consistent", "printed"):
        count = c if outputs == "sum" else 1
        number = [parameters, d, k, mean, std]
        expected = log_active_node_bound(*number, max(maxima), form=form, num_outputs=count)
        assert log_active_node_bound_of(chain, form=form, outputs=outputs) == pytest.approx(expected, abs=1e-12)
        regions = log_region_bounds(chain, moments=(mean, std), form=form, outputs=outputs)
        parts = [math.exp(log_active_node_bound(*number, w, form=form, num_outputs=count)) for w in own]
        assert regions.exp().tolist() == pytest.approx(parts, rel=1e-11)


def test_the_counter_example_to_the_printed_theorem_2():
    model = mlp(1, 1, 1, bias=False).double()
    for layer in linear_layers(model):
        nn.init.ones_(layer.weight)
    inputs = torch.ones(3, 1, dtype=torch.float64)
    chain = relu_chain(model, inputs)
    assert tangent_sensitivity(model, inputs, method="exact").tolist() == [2, 2, 2]
    assert math.exp(log_active_node_bound_of(chain, form="printed")) == pytest.approx(0.125, rel=1e-12)
    assert math.exp(log_active_node_bound_of(chain)) == pytest.approx(2, rel=1e-12)
    regions = log_region_bounds(chain, moments=chain.active_node_moments(), form="printed")
    assert regions.exp().tolist() == pytest.approx([0.125] * 3, rel=1e-12)


def test_depth_without_overflow():
    """A thousand layers of two units with weights of 1e6: everything is around e^30000."""
    widths = (2,) * 1001
    model = mlp(*widths, bias=False).double()
    for layer in linear_layers(model):
        nn.init.constant_(layer.weight, 1e6)
    # preactivations overflow for inputs of any other size
    chain = relu_chain(model, torch.full((1, 2), 1e-300, dtype=torch.float64))
    assert chain.depth == 1000
    active = chain.active_nodes[0]
    assert (active == 2).all()
    log_w = mp.log(mp.mpf(10) ** 6)
    with mp.workdps(40):
        common = mp.log(4000 * 2) + 2 * 999 * (mp.log(2) + log_w)
        # 998 layers touch two hidden layers of two units, the outer two touch one; k terms with C = 2 as in math
        inner = mp.mpf(2) ** (2 * 997 + 2) * 4
        first, last = mp.mpf(2) ** (2 * 998 + 1) * 4, mp.mpf(2) ** (2 * 998 + 1) * 2
        tight = mp.log(2 * (998 * inner + first + last)) + 2 * 999 * log_w
    for form in ("layers", "network"):
        assert log_norm_bound(chain, form=form) == pytest.approx(float(common), rel=1e-13)
    assert float(log_sample_norm_bounds(chain)) == pytest.approx(float(tight), rel=1e-13)
    assert float(log_region_bounds(chain)) == pytest.approx(float(common), rel=1e-13)
    with mp.workdps(40):  # T = 1998 for 999 hidden layers, so (T / (k − 1))^{2(k−1)} = 2^{2(k−1)}; and C² = 4
        nodes = common + mp.log(4)
    assert log_active_node_bound_of(chain) == pytest.approx(float(nodes), rel=1e-12)


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_layers_of_zeros(outputs):
    model, inputs = constant_chain((3, 4, 5, 2))
    nn.init.zeros_(model[4].weight)
    chain = relu_chain(model, inputs)
    exact = log_exact(model, inputs, outputs)  # the block of the last layer is left
    assert exact.isfinite().all()
    assert (exact <= log_sample_norm_bounds(chain, outputs=outputs) + 1e-12).all()
    assert exact.max() <= log_norm_bound(chain, outputs=outputs)
    nn.init.zeros_(model[0].weight)
    nn.init.constant_(model[2].weight, 1e3)
    chain = relu_chain(model, inputs)
    assert tangent_sensitivity(model, inputs).tolist() == [0, 0, 0]
    assert log_norm_bound(chain, outputs=outputs) == -math.inf
    assert log_sample_norm_bounds(chain, outputs=outputs).tolist() == [-math.inf] * 3


def test_samples_without_an_active_path():
    model, inputs = constant_chain((3, 4, 5, 2))
    inputs[1] *= -1
    chain = relu_chain(model, inputs)
    exact = log_exact(model, inputs, "sum")
    for bounds in (log_sample_norm_bounds(chain), log_region_bounds(chain), log_region_bounds(chain, moments=(9.0, 0.0))):
        assert bounds[1] == exact[1] == -math.inf
        assert bounds[[0, 2]].isfinite().all()


@pytest.mark.parametrize("layer", [0, 2, 4])
def test_frozen_layers_have_no_block_but_count_on_the_paths(layer):
    model, inputs = constant_chain((3, 4, 5, 2))
    whole = log_norm_bound(relu_chain(model, inputs))
    frozen(model, f"{layer}.weight")
    chain = relu_chain(model, inputs)
    torch.testing.assert_close(log_sample_norm_bounds(chain), log_exact(model, inputs, "sum"), rtol=0, atol=1e-12)
    fraction = 1 - model[layer].weight.numel() / (3 * 4 + 4 * 5 + 5 * 2)
    assert log_norm_bound(chain) - whole == pytest.approx(math.log(fraction), abs=1e-12)


def test_nothing_trainable():
    model, inputs = constant_chain((3, 4, 2))
    chain = relu_chain(model.requires_grad_(False), inputs)
    assert log_norm_bound(chain) == log_active_node_bound_of(chain) == -math.inf
    assert log_sample_norm_bounds(chain).tolist() == log_region_bounds(chain).tolist() == [-math.inf] * 3


def test_one_layer_is_bounded_by_the_number_of_its_parameters():
    model, inputs = Case(lambda: nn.Linear(5, 3, bias=False), (5,)).make()
    nn.init.zeros_(model.weight)
    chain = relu_chain(model, inputs)
    for bound in (log_norm_bound(chain), log_active_node_bound_of(chain), log_active_node_bound_of(chain, form="printed")):
        assert bound == pytest.approx(math.log(5 * 3 * 5), rel=1e-14)
    for moments in (None, (0.0, 0.0)):
        assert log_region_bounds(chain, moments=moments).exp().tolist() == pytest.approx([75] * 3)
    assert log_sample_norm_bounds(chain).exp().tolist() == pytest.approx([15] * 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_precisions(dtype):
    model, inputs = Case(lambda: mlp(4, 6, 5, 3)).make()
    model, inputs = model.to(dtype), inputs.to(dtype)
    chain = relu_chain(model, inputs)
    same_weights = relu_chain(model.double(), inputs.double())
    assert log_sample_norm_bounds(chain).dtype == log_region_bounds(chain).dtype == torch.float64
    assert log_norm_bound(chain) == log_norm_bound(same_weights)
    torch.testing.assert_close(log_region_bounds(chain), log_region_bounds(same_weights), rtol=0, atol=0)
    torch.testing.assert_close(log_max_weights(model), chain.max_weights.log(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("function", BOUNDS)
def test_wrong_choices(function):
    chain = relu_chain(*Case(lambda: mlp(4, 6, 3)).make())
    with pytest.raises(ValueError, match=r"outputs: expected one of \['sum', 'each'\], but got 'all'"):
        function(chain, outputs="all")
    if function is not log_sample_norm_bounds:
        with pytest.raises(ValueError, match=r"form: expected one of \['.*'\], but got 'exact'"):
            function(chain, form="exact")


@pytest.mark.parametrize(("moments", "named"), [(("_", 1.0), "mean"), ((1.0, "_"), "std"), ((1.0, -1.0), "std")])
def test_wrong_moments_are_named(moments, named):
    chain = relu_chain(mlp(3, 4, 2), torch.randn(2, 3))
    with pytest.raises(ValueError, match=f"moments_{named}: expected a finite number"):
        log_region_bounds(chain, moments=moments)
