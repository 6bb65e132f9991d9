"""The headline on simulated shifts: what it recovers, what it must not see, and sets from which little can be learnt."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators import Headline, Limits, Outputs, PseudoLabelLoss, SetSummary, Trajectory, estimate_set
from lightning_tansens.estimators.headline import estimator as headline_file
from lightning_tansens.estimators.headline.fit import Answer
from lightning_tansens.estimators.headline.without_classes import squared_error
from lightning_tansens.record import Estimate
from tests.estimators.simulated import (
    CLASSES,
    COPIES,
    CORRUPTIONS,
    MEANS,
    SNAPSHOTS,
    changed,
    drawn,
    outputs,
    reference,
    target,
    truth,
)

REFERENCE = reference()
OWN = {"loss": REFERENCE.outputs.losses.mean(), "accuracy": REFERENCE.outputs.correct.mean()}

#: Class shares that make the task harder and easier.
SHARES = ([0.45, 0.3, 0.15, 0.1], [0.1, 0.15, 0.3, 0.45], [0.1, 0.5, 0.3, 0.1], [0.1, 0.1, 0.4, 0.4])


def errors(sets, class_shares):
    """Mean absolute errors over the trivial estimate's, by quantity, and the share of truths within the interval."""
    found = {"loss": [], "accuracy": []}
    for inputs, labels in sets:
        estimates = Headline(class_shares).estimate(target(inputs), REFERENCE)
        for quantity, true in truth(inputs, labels).items():
            one = estimates[quantity]
            found[quantity].append([abs(one.value - true), abs(OWN[quantity] - true), one.low <= true <= one.high])
    means = {quantity: np.array(rows, float).mean(0) for quantity, rows in found.items()}
    return {quantity: mean[0] / mean[1] for quantity, mean in means.items()}, min(mean[2] for mean in means.values())


def corrupted():
    for seed in range(3):
        inputs, labels = drawn(400, 100 + seed)
        yield from ((changed(corruption, inputs, seed), labels) for corruption in CORRUPTIONS)


@pytest.mark.parametrize("class_shares", ["same", "auto"])
def test_corruption_is_recovered(class_shares):
    ratios, covered = errors(corrupted(), class_shares)
    assert max(ratios.values()) < 0.6
    assert covered >= 0.85


@pytest.mark.parametrize("class_shares", ["free", "auto"])
def test_label_shift_is_recovered(class_shares):
    sets = [drawn(400, 200 + seed, shares) for seed in range(2) for shares in SHARES]
    assert max(errors(sets, class_shares)[0].values()) < 0.7


def test_a_stated_assumption_that_is_wrong_shows():
    sets = [drawn(400, 200 + seed, shares) for seed in range(2) for shares in SHARES]
    same, free = (errors(sets, class_shares)[0] for class_shares in ("same", "free"))
    assert all(same[quantity] > 1.3 * free[quantity] for quantity in same)


def test_a_set_like_the_reference_is_as_good_as_trivial():
    sets = [drawn(400, 300 + seed) for seed in range(20)]
    ratios, covered = errors(sets, "auto")
    assert max(ratios.values()) < 1.05
    assert covered >= 0.9
    verdicts = [Headline().estimate(target(inputs), REFERENCE)["loss"].verdict for inputs, _ in sets]
    assert set(verdicts) <= {"like the reference", "unsure"}
    assert verdicts.count("like the reference") >= 14


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.1, 1.9, "worse"),
        (0.5, 0.9, "better"),
        (0.9, 1.5, "like the reference"),
        (0.9, 2.5, "unsure"),
        (0.4, 1.1, "unsure"),
    ],
)
def test_verdicts_compare_the_interval_with_the_reference(low, high, verdict):
    assert headline_file._verdict(Estimate(1.0, low=low, high=high), 1.0) == verdict
    assert headline_file._verdict(Estimate(1.0, low=low, high=high), None) == "unsure"


def test_an_easier_population_is_better():
    better = Headline("free").estimate(target(MEANS[np.full(400, 3)]), REFERENCE)
    assert {one.verdict for one in better.values()} == {"better"}
    assert better["accuracy"].low > OWN["accuracy"]
    assert better["loss"].high < OWN["loss"]


def test_the_target_s_labels_and_order_change_nothing():
    inputs, labels = drawn(300, 8)
    found = Headline().estimate(target(inputs), REFERENCE)
    labelled = replace(target(inputs), outputs=outputs(inputs, labels), loss=9.0, accuracy=0.0, wrong=300.0)
    assert Headline().estimate(labelled, REFERENCE) == found
    order = np.random.default_rng(0).permutation(300)
    for quantity, estimate in Headline().estimate(target(inputs[order]), REFERENCE).items():
        for end in ("value", "low", "high"):
            assert getattr(estimate, end) == pytest.approx(getattr(found[quantity], end), rel=1e-9)


def relabelled(known, order):
    past = known.earlier
    earlier = replace(
        past,
        mean_probabilities=past.mean_probabilities[:, order],
        predictions=np.argsort(order)[past.predictions].astype(np.int16),
    )
    labels = None if known.labels is None else np.argsort(order)[known.labels]
    return replace(known, outputs=known.outputs[:, order], labels=labels, earlier=earlier)


def test_names_of_classes_matter_less_than_a_tenth_of_the_interval():
    order = np.array([2, 0, 3, 1])  # re-weightings are drawn in the order of the classes
    inputs, _ = drawn(300, 9)
    copies = tuple(replace(copy, outputs=relabelled(copy.outputs, order)) for copy in REFERENCE.copies)
    renamed = replace(REFERENCE, outputs=relabelled(REFERENCE.outputs, order), copies=copies)
    found = Headline().estimate(target(inputs), REFERENCE)
    other = Headline().estimate(replace(target(inputs), outputs=relabelled(target(inputs).outputs, order)), renamed)
    for quantity, estimate in found.items():
        assert abs(other[quantity].value - estimate.value) < 0.1 * (estimate.high - estimate.low)


def test_the_seed_decides_and_one_fit_serves_all_targets(monkeypatch):
    known, fits = reference(), []

    class Counted(headline_file.Fit):
        def __init__(self, *arguments):
            fits.append(arguments[2])
            super().__init__(*arguments)

    monkeypatch.setattr(headline_file, "Fit", Counted)
    inputs, _ = drawn(300, 10)
    first, again, other = (Headline(seed=seed).estimate(target(inputs), known) for seed in (0, 0, 1))
    assert first == again != other
    Headline().estimate(target(inputs[:100]), known)
    assert fits == [0, 1]


def test_the_user_s_loss_is_scaled():
    inputs, _ = drawn(300, 11)
    found = Headline().estimate(target(inputs), REFERENCE)
    tripled = Headline().estimate(target(inputs), replace(REFERENCE, loss=3 * float(OWN["loss"])))
    assert tripled["loss"].value == pytest.approx(3 * found["loss"].value)
    assert tripled["loss"].low == pytest.approx(3 * found["loss"].low)
    assert tripled["accuracy"] == found["accuracy"]
    assert set(Headline().estimate(target(inputs), replace(REFERENCE, loss=-1.0))) == {"accuracy"}


def test_it_says_what_it_rests_on():
    inputs, _ = drawn(400, 12)
    moved = drawn(400, 12, [0.05, 0.05, 0.3, 0.6])[0]
    basis = {
        name: Headline(shares).estimate(target(one), REFERENCE)["loss"].basis
        for name, one, shares in (
            ("corrupted", 0.3 * inputs, "auto"),
            ("moved", moved, "auto"),
            ("same", moved, "same"),
            ("free", inputs, "free"),
        )
    }
    assert basis["corrupted"] == basis["same"] == "the class shares are the reference's"
    assert basis["moved"] == basis["free"] == "the population may differ from the reference's"


def test_doubts_are_about_reliability_alone():
    inputs, _ = drawn(400, 13)
    (loss,) = (estimate_set([Headline()], target(one), REFERENCE)[0]["loss"]["estimate"] for one in [inputs])
    assert loss.reliable
    assert loss.verdict == "like the reference"
    few = estimate_set([Headline()], target(inputs[:20]), REFERENCE, Limits(samples=30))[0]["loss"]["estimate"]
    assert "too few samples" in few.doubts
    wide = Headline().estimate(target(inputs[:6]), reference(30))["loss"]
    assert "the loss may be off by more than a factor of 1.6" in wide.doubts
    assert wide.verdict == "unsure"


def test_a_narrow_interval_of_a_small_error_rate_is_reliable():
    for ratio, doubted in ((0.01, False), (0.2, True)):
        answer = Answer(ratio, low=ratio / 2, high=2 * ratio, population=0.0, distance=0.0)
        found = Headline()._stated("error rate", answer, 0.5, (), sure=True)
        assert bool(found.doubts) == doubted
        assert Headline()._stated("loss", answer, 0.5, (), sure=True).doubts


def test_a_set_unlike_all_copies_is_doubted(monkeypatch):
    inputs, _ = drawn(400, 13)
    monkeypatch.setattr(headline_file, "FARTHEST", 0.0)
    assert "unlike any copy of the reference" in Headline().estimate(target(inputs), REFERENCE)["loss"].doubts


@pytest.mark.parametrize("snapshots", [1, 3, 4])
def test_few_snapshots_are_told(snapshots):
    inputs, labels = drawn(400, 14)
    noisy = changed(CORRUPTIONS[2], inputs)
    found = Headline().estimate(target(noisy, snapshots), reference(snapshots=snapshots))
    assert ("fewer than 3 earlier measurements" in found["loss"].doubts) == (snapshots < 4)
    if snapshots == 1:
        assert {one.verdict for one in found.values()} == {"unsure"}
    for quantity, true in truth(noisy, labels).items():
        assert abs(found[quantity].value - true) < abs(OWN[quantity] - true)


@pytest.mark.parametrize(("of_target", "of_reference"), [(2, SNAPSHOTS), (SNAPSHOTS, 2)])
def test_few_snapshots_of_one_set_are_enough_to_tell(of_target, of_reference):
    inputs, _ = drawn(400, 14)
    found = Headline().estimate(target(inputs, of_target), reference(snapshots=of_reference))
    assert all("fewer than 3 earlier measurements" in one.doubts for one in found.values())


def test_without_copies_the_gate_is_a_fixed_one():
    inputs, _ = drawn(400, 15)
    bare = replace(REFERENCE, copies=())
    found = Headline().estimate(target(inputs), bare)["loss"]
    assert "too few corrupted copies of the reference to be fitted on" in found.doubts
    assert found.low <= OWN["loss"] <= found.high
    foreign = tuple(replace(copy, made_for=("calibrated",)) for copy in REFERENCE.copies)
    assert Headline().estimate(target(inputs), replace(REFERENCE, copies=foreign))["loss"] == found
    own = tuple(replace(copy, made_for=("calibrated", "estimate")) for copy in REFERENCE.copies)
    assert Headline().estimate(target(inputs), replace(REFERENCE, copies=own)) == Headline().estimate(
        target(inputs), REFERENCE
    )


def test_a_copy_with_unusable_outputs_is_left_out():
    inputs, _ = drawn(400, 16)
    first, *others = REFERENCE.copies
    scores = first.outputs.outputs.copy()
    scores[3] = math.nan
    broken = replace(first, outputs=Outputs.of(scores, first.outputs.labels, earlier=first.outputs.earlier))
    found = Headline().estimate(target(inputs), replace(REFERENCE, copies=(broken, *others)))
    assert found == Headline().estimate(target(inputs), replace(REFERENCE, copies=tuple(others)))


@pytest.mark.parametrize("kind", ["one class", "all right", "all wrong", "five samples", "one sample", "constant"])
def test_degenerate_references_have_finite_estimates_or_a_reason(kind):
    inputs, labels = drawn({"five samples": 5, "one sample": 1}.get(kind, 60), 17)
    if kind == "constant":
        inputs = np.zeros_like(inputs)
    predicted = outputs(inputs).predictions
    labels = {
        "one class": np.zeros_like(labels),
        "all right": predicted,
        "all wrong": (predicted + 1) % CLASSES,
    }.get(kind, labels)
    copies = tuple(SetSummary("copy", len(labels), outputs(changed(copy, inputs), labels)) for copy in COPIES)
    known = SetSummary("val", len(labels), outputs(inputs, labels), copies=copies)
    for other in (inputs, drawn(40, 18)[0], 0.1 * drawn(5, 19)[0]):
        for found in Headline().estimate(target(other), known).values():
            assert all(map(math.isfinite, (found.value, found.low, found.high)))
            assert found.low <= found.value <= found.high


def test_other_numbers_of_classes_are_refused():
    other = SetSummary("test", 9, Outputs.of(np.zeros((9, CLASSES + 1))))
    with pytest.raises(UndefinedEstimateError, match="expected 4 classes, as in the reference, but got 5"):
        Headline().estimate(other, REFERENCE)


def regression(name, outputs, snapshots, **labels):
    earlier = Trajectory()
    for snapshot in snapshots:
        earlier = earlier.updated(Outputs.of(snapshot))
    return SetSummary(name, len(outputs), Outputs.of(outputs, earlier=earlier), **labels)


def test_outputs_that_are_no_classes_have_the_pseudo_label_loss():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(2, 300))
    noise = generator.normal(size=(2, 4, 300))
    known = regression("val", values[0], values[0] + 0.2 * noise[0], loss=0.5)
    worse = Headline().estimate(regression("test", values[1], values[1] + 0.5 * noise[1]), known)
    assert set(worse) == {"loss"}
    assert worse["loss"].value == pytest.approx(0.5 * (0.5 / 0.2) ** 2, rel=0.15)
    assert worse["loss"].verdict == "unsure"
    assert worse["loss"].doubts == ("outputs that are no classes: its interval holds sampling alone",)
    alike = regression("test", values[1], values[1] + 0.2 * noise[1])
    found, ratio = Headline().estimate(alike, known)["loss"], PseudoLabelLoss(squared_error).estimate(alike, known)["loss"]
    assert 0 < abs(found.value - 0.5) < 0.5 * abs(ratio.value - 0.5)
    assert found.low < 0.5 < found.high
    assert math.log(found.high / found.low) == pytest.approx(2 * 1.96 * ratio.stderr / ratio.value)
    absolute = Headline(criterion=lambda outputs, targets: (outputs - targets).abs())
    found = absolute.estimate(regression("test", values[1], values[1] + 0.5 * noise[1]), known)["loss"]
    assert found.value == pytest.approx(0.5 * 0.5 / 0.2, rel=0.1)
    with pytest.raises(UndefinedEstimateError, match="expected earlier measurements of the same samples"):
        Headline().estimate(SetSummary("test", 300, Outputs.of(values[1])), known)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"class_shares": "other"}, ValueError, "class_shares: expected one of"),
        ({"copies": "noise"}, TypeError, "copies: expected a list of callables on a sample or None, but got 'noise'"),
        ({"copies": [3]}, TypeError, "copies: expected callables on a sample, but got 3"),
        ({"seed": -1.5}, ValueError, "seed: expected"),
        ({"criterion": 3}, TypeError, "criterion: expected a callable or None, but got 3"),
        ({"pseudo_labels": "other"}, ValueError, "pseudo_labels: expected one of"),
        (
            {"copied_samples": "all"},
            ValueError,
            r"copied_samples: expected one of \['auto'\] or a number or None, but got 'all'",
        ),
        ({"copied_samples": 0}, ValueError, "copied_samples: expected a positive integer, but got 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Headline(**arguments)


def test_a_table_has_more_samples_in_its_copies():
    row, long_row, image = torch.zeros(2, 1000), torch.zeros(2, 1001), torch.zeros(2, 1, 8, 8)
    assert [Headline().samples_of_copies(inputs) for inputs in (row, long_row, image, "text")] == [1024, 256, 256, 256]
    for stated in (50, None):
        assert Headline(copied_samples=stated).samples_of_copies(row) == stated


def test_copies_by_the_user():
    transform = abs
    assert Headline(copies=[transform]).copies_for(None) == (transform,)
    assert Headline().copies_for("text") == ()
    assert SNAPSHOTS > 3
