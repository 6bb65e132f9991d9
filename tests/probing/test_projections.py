"""Random combinations of a weight's rows in place of its gradient's norm."""

import pytest
import torch
from torch import nn

from lightning_tansens.functional import tangent_sensitivity, tangent_sensitivity_blocks
from lightning_tansens.tangent.operators.convolutions import ConvolutionRule, Correlation
from lightning_tansens.tangent.operators.layer_rules import PROJECT_FROM, Outer, squared_norm
from lightning_tansens.tangent.probes.batch_axis import BatchAxis
from lightning_tansens.tangent.probes.vectors import NUM_PROJECTIONS, Projection
from tests.helpers import assert_equal

SAMPLES = 3

#: kernel, stride, padding, dilation, groups, transposed
GEOMETRIES = {
    "1d": ((3,), (1,), ((1, 1),), (1,), 1, False),
    "2d": ((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1, False),
    "without padding": ((3, 2), (1, 1), ((0, 0), (0, 0)), (1, 1), 1, False),
    "more padding than reach": ((2, 2), (1, 1), ((2, 2), (2, 2)), (1, 1), 1, False),
    "dilated": ((3, 2), (1, 1), ((2, 2), (1, 1)), (2, 3), 1, False),
    "in steps": ((3, 3), (2, 1), ((1, 1), (1, 1)), (1, 1), 1, False),
    "in steps, with a rest": ((3, 3), (1, 2), ((1, 1), (1, 1)), (1, 1), 2, False),
    "pointwise": ((1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1, False),
    "grouped": ((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 2, False),
    "uneven padding": ((2, 2), (1, 1), ((0, 1), (0, 1)), (1, 1), 1, False),
    "3d": ((2, 2, 2), (1, 1, 1), ((1, 1),) * 3, (1, 1, 1), 1, False),
    "transposed": ((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1, True),
}


def signs_of(rows, count=5):
    return torch.randn(SAMPLES, count, rows, dtype=torch.float64)


@pytest.mark.parametrize("axis", [BatchAxis(), BatchAxis(0, "major"), BatchAxis(0, "minor")], ids=lambda axis: axis.order)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_projections_of_a_convolution(name, axis):
    rule = ConvolutionRule(*GEOMETRIES[name])
    images = SAMPLES * (1 if axis.order == "alone" else 2)
    large = torch.randn(images, 4, *(7, 6, 5)[: len(rule.kernel)], dtype=torch.float64)
    extents = zip(large.shape[2:], rule.kernel, rule.stride, rule.padding, rule.dilation)
    small_shape = [(n + b + a - d * (k - 1) - 1) // s + 1 for n, k, s, (b, a), d in extents]
    small = torch.randn(images, 6, *small_shape, dtype=torch.float64)
    contribution = Correlation(small, large, rule, axis, SAMPLES)
    signs = signs_of(6)
    written = contribution.written_out().reshape(SAMPLES, rule.groups, 6 // rule.groups, -1)
    expected = torch.einsum("nrgo,ngoi->ngri", signs.reshape(SAMPLES, 5, rule.groups, -1), written)
    assert_equal(contribution.projected(signs), expected)


def test_projections_of_a_sum_of_outer_products():
    terms = [Outer(*(torch.randn(SAMPLES, 2, 20, size, dtype=torch.float64) for size in (17, 3))) for _ in range(2)]
    signs = signs_of(34)
    written = sum(torch.einsum("ngto,ngti->ngoi", term.delta, term.features) for term in terms)
    expected = torch.einsum("nrgo,ngoi->ngri", signs.reshape(SAMPLES, 5, 2, 17), written).square().sum((1, 2, 3)) / 5
    assert_equal(squared_norm(terms, lambda rows: signs if rows == 34 else None), expected)


@pytest.mark.parametrize("positions", [PROJECT_FROM - 1, PROJECT_FROM])
def test_small_sums_are_taken_exactly(positions):
    term = Outer(*(torch.randn(1, 1, positions, PROJECT_FROM, dtype=torch.float64) for _ in range(2)))
    drawn = []

    def signs(rows):
        drawn.append(rows)
        return torch.ones(1, 1, rows, dtype=torch.float64)

    squared_norm([term], signs)
    assert len(drawn) == (positions >= PROJECT_FROM)


def test_draws_depend_on_sample_probe_and_parameter_alone():
    def draw(seed, positions, probe, name):
        return Projection(seed, positions, probe, ("a", "b")).signs(name, 40, torch.empty(0))

    whole = draw(0, range(9), 0, "a")
    assert whole.shape == (9, NUM_PROJECTIONS, 40)
    assert torch.equal(whole.abs(), torch.ones_like(whole))
    assert torch.equal(draw(0, [7, 2], 0, "a"), whole[[7, 2]])
    others = [draw(1, range(9), 0, "a"), draw(0, range(9), 1, "a"), draw(0, range(9), 0, "b"), whole.roll(1, 0), -whole]
    assert not any((other == whole).flatten(1).all(1).any() for other in others)


class Tokens(nn.Module):
    """A convolution of 16 channels, and a layer over 36 tokens of 16 features."""

    def __init__(self):
        super().__init__()
        self.image, self.token, self.head = nn.Conv2d(2, 16, 3, padding=1), nn.Linear(16, 20), nn.Linear(20, 3)

    def forward(self, x):
        tokens = torch.tanh(self.image(x)).flatten(2).mT
        return self.head(torch.tanh(self.token(tokens)).mean(1))


def make(seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Tokens().double()
    return net, torch.randn(4, 2, 6, 6, dtype=torch.float64, generator=generator)


def test_the_mean_over_probes_is_the_exact_value():
    net, x = make()
    exact = tangent_sensitivity_blocks(net, x, method="exact")
    draws = [
        tangent_sensitivity_blocks(net, x, method="input_space", generator=torch.Generator().manual_seed(seed))
        for seed in range(600)
    ]
    for name, value in exact.items():
        drawn = torch.stack([draw[name] for draw in draws])
        error = drawn.std(0) / len(draws) ** 0.5
        assert (abs(drawn.mean(0) - value) <= 4 * error).all()
        assert (error <= 0.07 * value).all(), name


def test_results_do_not_depend_on_the_batch():
    net, x = make()
    whole = tangent_sensitivity(net, x, method="input_space")
    apart = [tangent_sensitivity(net, x[n : n + 1], method="input_space", positions=[n]) for n in range(len(x))]
    assert_equal(torch.cat(apart), whole)
