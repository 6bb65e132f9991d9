"""The headline of a regression and of dense outputs: fitted on copies, against definitions and on simulated sets."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_tansens.estimators import Headline, Outputs, SetSummary, Trajectory
from lightning_tansens.estimators.headline import Shift
from lightning_tansens.estimators.headline.dense_fit import DenseFit
from lightning_tansens.estimators.headline.dense_samples import DenseSamples
from lightning_tansens.estimators.headline.without_classes import sample_losses, squared_error
from lightning_tansens.estimators.pseudo_label_loss import PseudoLabelLoss
from lightning_tansens.metrics.uncertainty import Influence
from tests.estimators.simulated import COPIES, CORRUPTIONS, INPUTS, SNAPSHOTS, changed

#: A network of random ReLU features, whose last layer learns from few samples by stochastic gradient descent.
UNITS, TRAINED, STEPS = 60, 200, 300


def true(inputs):
    return np.sin(2 * inputs[:, 0]) + inputs[:, 1] * inputs[:, 2] / 2


def learned():
    """The last layer at each snapshot, shape (S, U), and the first one."""
    generator = np.random.default_rng(5)
    first = generator.normal(size=(INPUTS + 1, UNITS)) / 2
    inputs, noise = generator.normal(size=(TRAINED, INPUTS)), 0.2 * generator.normal(size=TRAINED)
    targets, last, found = true(inputs) + noise, np.zeros(UNITS), []
    for step in range(STEPS * SNAPSHOTS):
        chosen = generator.choice(TRAINED, 16)
        features = hidden(inputs[chosen], first)
        last = last - 0.02 * features.T @ (features @ last - targets[chosen]) / 16
        if (step + 1) % STEPS == 0:
            found.append(last)
    return first, found


def hidden(inputs, first):
    return np.maximum(np.column_stack([inputs, np.ones(len(inputs))]) @ first, 0)


FIRST, NETWORKS = learned()

PSEUDO = PseudoLabelLoss(squared_error).losses


def drawn(samples, seed, scale=1.0):
    """Inputs and targets."""
    generator = np.random.default_rng(seed)
    inputs = scale * generator.normal(size=(samples, INPUTS))
    return inputs, true(inputs) + 0.2 * generator.normal(size=samples)


def said(inputs, network=NETWORKS[-1]):
    """What a snapshot of the network says."""
    return hidden(inputs, FIRST) @ network


def outputs(inputs, snapshots=SNAPSHOTS):
    earlier = Trajectory()
    for network in NETWORKS[SNAPSHOTS - snapshots : -1]:
        earlier = earlier.updated(Outputs.of(said(inputs, network)))
    return Outputs.of(said(inputs), earlier=earlier)


def labelled(name, inputs, targets, power=2, order=None):
    """A summary as the monitor makes it, whose losses are known as influences, in any order."""
    found = outputs(inputs)
    losses = np.abs(found.outputs - targets) ** power
    order = np.arange(len(losses)) if order is None else order
    influence = Influence(torch.from_numpy(losses[order] / losses.mean() - 1), torch.from_numpy(order))
    return SetSummary(name, len(losses), found, loss=float(losses.mean()), loss_influence=influence)


def reference(samples=600, seed=1, power=2, copies=COPIES):
    inputs, targets = drawn(samples, seed)
    made = tuple(
        labelled(f"copy {number}", changed(copy, inputs, number), targets, power) for number, copy in enumerate(copies)
    )
    return replace(labelled("val", inputs, targets, power), copies=made)


def target(inputs):
    return SetSummary("test", len(inputs), outputs(inputs))


REFERENCE = reference()


@pytest.mark.parametrize("power", [1, 2])
def test_changed_inputs_are_estimated_better_than_trivially(power):
    known = reference(power=power)
    errors, trivial, covered = [], [], []
    for seed in range(3):
        for number, corruption in enumerate(CORRUPTIONS):
            inputs, targets = drawn(500, 10 + seed)
            inputs = changed(corruption, inputs, 50 + 10 * seed + number)
            found = Headline().estimate(target(inputs), known)["loss"]
            truth = float((np.abs(said(inputs) - targets) ** power).mean())
            errors.append(abs(math.log(found.value / truth)))
            trivial.append(abs(math.log(known.loss / truth)))
            covered.append(found.low <= truth <= found.high)
            assert found.verdict != "better"
    # so small a network under-estimates large changes; the benchmark has real ones
    assert np.mean(errors) < 0.85 * np.mean(trivial)
    assert np.mean(covered) >= 0.6


def test_another_population_is_estimated_as_one():
    errors = {"free": [], "same": [], "trivial": []}
    for seed in range(4):
        inputs, targets = drawn(1500, 30 + seed)
        far = np.abs(inputs[:, 0]) > np.quantile(np.abs(inputs[:, 0]), 0.5)  # where the noise is larger
        truth = float(np.square(said(inputs[far]) - targets[far]).mean())
        for shares in ("free", "same"):
            found = Headline(class_shares=shares).estimate(target(inputs[far]), REFERENCE)["loss"]
            errors[shares].append(abs(found.value - truth))
        errors["trivial"].append(abs(REFERENCE.loss - truth))
    assert np.mean(errors["free"]) < np.mean(errors["trivial"])


def test_a_set_like_the_reference_is_said_to_be_like_it():
    found = [Headline().estimate(target(drawn(500, 60 + seed)[0]), REFERENCE)["loss"] for seed in range(5)]
    assert {one.verdict for one in found} <= {"like the reference", "unsure"}
    assert sum(one.verdict == "like the reference" and one.reliable for one in found) >= 3
    assert np.mean([abs(one.value / REFERENCE.loss - 1) for one in found]) < 0.1


def test_copies_without_known_losses_are_not_fitted_on():
    unknown = replace(REFERENCE, copies=tuple(replace(copy, loss_influence=None) for copy in REFERENCE.copies))
    found = Headline().estimate(target(drawn(200, 70)[0]), unknown)["loss"]
    assert found.doubts == ("outputs that are no classes: its interval holds sampling alone",)


def test_the_losses_of_samples_come_from_their_influences_whatever_the_order():
    inputs, targets = drawn(40, 80)
    order = np.random.default_rng(0).permutation(40)
    expected = np.square(said(inputs) - targets)
    assert sample_losses(labelled("val", inputs, targets, order=order)) == pytest.approx(expected)
    assert sample_losses(target(inputs)) is None
    broken = inputs.copy()
    broken[3] = np.nan
    summary = labelled("val", inputs, targets)
    found = replace(summary, outputs=Outputs.of(np.where(np.arange(40) == 3, np.nan, summary.outputs.outputs)))
    assert sample_losses(found) == pytest.approx(np.delete(expected, 3))


def test_samples_by_their_definition():
    inputs, _ = drawn(30, 90)
    found = DenseSamples.of(outputs(inputs), PSEUDO)
    snapshots = np.stack([np.float32(said(inputs, network)) for network in NETWORKS[:-1]]).astype(float)
    kept = snapshots[math.ceil(0.1 * len(snapshots)) :]
    now = said(inputs)
    assert found.columns[:, 0] == pytest.approx(now)
    assert found.earlier[:, :, 0] == pytest.approx(kept)
    assert found.pseudo_loss == pytest.approx(np.square(kept - now).mean(0), rel=1e-4)
    assert found.bias == pytest.approx(np.square(kept.mean(0) - now))
    columns = [found.pseudo_loss, found.bias, np.sqrt(found.pseudo_loss), now, now**2]
    assert found.features == pytest.approx(np.stack(columns, 1))


def test_large_outputs_are_described_by_their_mean_and_deviation():
    values = np.random.default_rng(0).normal(size=(2, 20, 3, 4, 4))
    found = DenseSamples.of(Outputs.of(values[1], earlier=Trajectory().updated(Outputs.of(values[0]))), PSEUDO)
    rows = values[1].reshape(20, -1)
    assert found.columns == pytest.approx(np.stack([rows.mean(1), rows.std(1)], 1))
    assert found.earlier.shape == (1, 20, 2)
    assert found.bias == pytest.approx(np.square(values[1] - np.float32(values[0])).reshape(20, -1).mean(1))


def test_the_estimate_is_in_the_units_of_the_loss_and_of_no_outputs_unit():
    inputs, targets = drawn(300, 95)
    other, _ = drawn(300, 96, scale=1.4)
    estimates = []
    for unit in (1.0, 1000.0):

        def samples(of, unit=unit):
            earlier = Trajectory()
            for network in NETWORKS[:-1]:
                earlier = earlier.updated(Outputs.of(unit * said(of, network)))
            return DenseSamples.of(Outputs.of(unit * said(of), earlier=earlier), PSEUDO)

        copies = []
        for number, copy in enumerate(COPIES):
            moved = changed(copy, inputs, number)
            copies.append((samples(moved), unit**2 * np.square(said(moved) - targets)))
        fit = DenseFit(samples(inputs), unit**2 * np.square(said(inputs) - targets), copies)
        answer = fit.estimate(samples(other))
        estimates.append((answer.ratio, answer.low, answer.high))
    assert estimates[0] == pytest.approx(estimates[1], rel=0.02)


def test_images_are_not_translated_where_targets_may_lie_at_pixels():
    images = torch.rand(2, 3, 16, 16)
    assert any(isinstance(copy, Shift) for copy in Headline().copies_for(images))
    assert not any(isinstance(copy, Shift) for copy in Headline().copies_for(images, class_scores=False))


def test_a_loss_that_may_be_negative_is_marked():
    inputs, targets = drawn(200, 97)
    own = labelled("val", inputs, targets)
    known = replace(REFERENCE, loss=-0.3)
    found = Headline().estimate(target(inputs), known)["loss"]
    assert not found.reliable
    assert found.verdict == "unsure"
    below = replace(
        own, copies=REFERENCE.copies, loss_influence=replace(own.loss_influence, values=-4 * own.loss_influence.values)
    )
    assert (
        "outputs that are no classes: its interval holds sampling alone"
        in Headline().estimate(target(inputs), below)["loss"].doubts
    )
