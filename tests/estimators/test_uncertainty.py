"""Standard errors against replications and the jackknife."""

import math

import pytest
import torch

from lightning_tansens.metrics.uncertainty import Influence, relative_standard_error


def influence(values, positions=None, block=1):
    positions = torch.arange(len(values)) if positions is None else positions
    return Influence(values / values.mean() - 1, positions, block)


def gamma(*shape, seed=0):
    return torch.distributions.Gamma(4.0, 1.0).sample(shape).double() if seed is None else _seeded(shape, seed)


def _seeded(shape, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.distributions.Gamma(4.0, 1.0).sample(shape).double()


def jackknife(estimate, units):
    """The standard error of log(estimate) from leaving out one unit at a time."""
    every = [n for unit in units for n in unit]
    left_out = torch.stack([estimate([n for n in every if n not in unit]).log() for unit in units])
    return float(((len(units) - 1) / len(units) * (left_out - left_out.mean()).square().sum()).sqrt())


def test_of_a_mean_it_is_the_textbook_formula():
    values = gamma(50)
    expected = values.std() / math.sqrt(50) / values.mean()
    assert relative_standard_error([influence(values)]) == pytest.approx(float(expected))
    shuffled = torch.randperm(50)
    assert relative_standard_error([influence(values, shuffled)]) == pytest.approx(float(expected))


@pytest.mark.parametrize("correlation", [0.0, 0.9, -0.9])
def test_terms_on_the_same_samples_bring_their_covariance(correlation):
    """l / S on the same samples, against the jackknife and replications."""

    def draw(count):
        common, *own = gamma(3, *count)
        shared = common if correlation >= 0 else 8 - common.clamp(max=8)
        weight = abs(correlation)
        return weight * common + (1 - weight) * own[0] + 0.1, weight * shared + (1 - weight) * own[1] + 0.1

    losses, sensitivities = draw((2000, 80))
    ratios = (losses.mean(1) / sensitivities.mean(1)).log()
    errors = [
        relative_standard_error([influence(loss), influence(s)], [1, -1])
        for loss, s in zip(losses[:200], sensitivities[:200])
    ]
    assert sum(errors) / len(errors) == pytest.approx(float(ratios.std()), rel=0.08)
    loss, s = losses[0], sensitivities[0]
    left_out = jackknife(lambda keep: loss[keep].mean() / s[keep].mean(), [[n] for n in range(80)])
    assert errors[0] == pytest.approx(left_out, rel=0.02)
    independent = math.hypot(relative_standard_error([influence(loss)]), relative_standard_error([influence(s)]))
    if correlation:
        assert (errors[0] < 0.8 * independent) == (correlation > 0)


def test_terms_of_sets_of_different_sizes():
    test, reference = gamma(60, seed=1), gamma(40, seed=2)
    both = relative_standard_error([influence(test), influence(reference)], [1, -1])
    separate = relative_standard_error([influence(test), influence(reference, torch.arange(1000, 1040))], [1, -1])
    expected = math.hypot(relative_standard_error([influence(test)]), relative_standard_error([influence(reference)]))
    assert separate == pytest.approx(expected, rel=0.02)
    assert both == pytest.approx(expected, rel=0.3)  # positions in common: nothing is known to be independent


def test_a_ratio_to_itself_has_no_error():
    term = influence(gamma(20))
    assert relative_standard_error([term, term], [1, -1]) == 0
    assert relative_standard_error([term, term]) == pytest.approx(2 * relative_standard_error([term]))
    assert relative_standard_error([term], [2.0]) == pytest.approx(2 * relative_standard_error([term]))


@pytest.mark.parametrize("block", [4, 32])
def test_blocks_share_their_randomness(block):
    """Samples with a probe in common: only the blocks are independent."""
    blocks = 30
    noise = gamma(1500, blocks, 1, seed=3)
    values = (noise * gamma(1500, blocks, block, seed=4)).reshape(1500, -1)
    spread = float(values.mean(1).log().std())
    errors = [relative_standard_error([influence(row, block=block)]) for row in values[:150]]
    assert sum(errors) / len(errors) == pytest.approx(spread, rel=0.08)
    assert relative_standard_error([influence(values[0])]) < 0.8 * errors[0]
    units = [list(range(start, start + block)) for start in range(0, len(values[0]), block)]
    assert errors[0] == pytest.approx(jackknife(lambda keep: values[0][keep].mean(), units), rel=0.03)


def test_the_largest_block_counts():
    values = gamma(64)
    coarse = relative_standard_error([influence(values), influence(values, block=32)])
    assert coarse == pytest.approx(relative_standard_error([influence(values, block=32)] * 2))


def test_positions_name_the_units():
    values, positions = gamma(6), torch.tensor([0, 31, 32, 33, 640, 641])
    pairs = torch.tensor([0, 0, 1, 1, 2, 2])
    sparse = relative_standard_error([influence(values, positions, block=32)])
    assert sparse == pytest.approx(relative_standard_error([influence(values, 32 * pairs, block=32)]))
    means = values.reshape(3, 2).mean(1)
    assert sparse == pytest.approx(float(means.std() / math.sqrt(3) / means.mean()))


@pytest.mark.parametrize(
    ("values", "positions", "block"),
    [([], [], 1), ([1.0], [0], 1), ([1.0, 2.0], [3, 3], 1), ([1.0, 2.0, 3.0], [0, 1, 31], 32)],
)
def test_fewer_than_two_units_have_no_error(values, positions, block):
    term = Influence(torch.tensor(values), torch.tensor(positions, dtype=torch.int64), block)
    assert math.isnan(relative_standard_error([term]))
    assert math.isnan(relative_standard_error([term, term], [1, -1]))


def test_an_empty_set_beside_another():
    empty = Influence(torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    term = influence(gamma(10))
    assert relative_standard_error([term, empty]) == relative_standard_error([term])
