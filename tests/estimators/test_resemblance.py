"""What the headline sees of the inputs: which labelled copies a set resembles."""

from dataclasses import replace

import numpy as np
import pytest

from lightning_tansens.estimators import Inputs, Outputs, SetSummary
from lightning_tansens.estimators.headline import Fit
from lightning_tansens.estimators.headline.resemblance import Resemblance, Views
from lightning_tansens.estimators.headline.samples import Samples
from tests.estimators.simulated import drawn, outputs

GENERATOR = np.random.default_rng(0)
ROWS = GENERATOR.normal(size=(60, 6)) * np.array([9.0, 4, 2, 1, 0.5, 0.1])


def seen(rows, is_table=True):
    return Inputs(np.asarray(rows, np.float32), is_table)


def with_inputs(rows, labels=None):
    return replace(outputs(rows, labels), inputs=seen(rows))


@pytest.mark.parametrize("is_table", [True, False])
def test_the_numbers_of_a_sample_are_as_defined(is_table):
    views, other = Views(seen(ROWS, is_table)), GENERATOR.normal(size=(5, 6)) * 3
    basis, own = ROWS[30:].astype(np.float32).astype(float), ROWS[:30].astype(np.float32).astype(float)
    scale = ROWS.astype(np.float32).astype(float).std(0 if is_table else None)

    def standard(rows):
        return np.clip((rows - basis.mean(0)) / scale, -4, 4)

    components = np.linalg.svd(standard(basis))[2]

    def energies(rows):
        squares = (standard(rows) @ components.T) ** 2
        return np.stack([squares[:, :4].sum(1), squares[:, 4:].sum(1)], 1)

    def distances(rows):
        return np.linalg.norm(standard(rows)[:, None] - standard(basis), axis=2).min(1)

    least, nearest = 0.005 * energies(own).mean(0).sum(), 1e-3 * distances(own).mean()

    def numbers(rows):
        return np.column_stack([np.log(energies(rows) + least), 2 * np.log(distances(rows) + nearest)])

    expected = numbers(other.astype(np.float32).astype(float)) - numbers(own).mean(0)
    assert np.allclose(views.of(seen(other, is_table)), expected, atol=1e-5)


def test_inputs_that_were_seen_cost_nothing(monkeypatch):
    views, inputs = Views(seen(ROWS)), seen(ROWS[:5])
    first = views.of(inputs)
    monkeypatch.setattr(views, "_energies", None)
    assert views.of(inputs) is first
    of_reference = replace(Outputs.of(np.zeros((60, 2))), inputs=seen(ROWS))
    assert Views.of_reference(of_reference) is Views.of_reference(of_reference)
    assert Views.of_reference(replace(Outputs.of(np.zeros((30, 2))), inputs=seen(ROWS[:30]))) is None


def test_missing_and_constant_entries_count_as_the_mean():
    rows = ROWS.copy()
    rows[::7, 2], rows[:, 5] = np.nan, 1.0
    assert np.isfinite(Views(seen(rows)).of(seen(rows))).all()


def test_a_set_is_corrected_by_the_copy_that_it_resembles():
    moved = 0.05 * np.random.default_rng(0).normal(size=(20, 3))
    copies, wrong = np.array([[3.0, 0, 0], [0, 2, 2]]), np.array([[0.5, 0.8], [-0.3, 4.0]])
    found = Resemblance(moved, copies)
    assert np.allclose(found.correction(copies, np.clip(wrong, -1, 1)), np.clip(wrong, -1, 1) / 1.3, rtol=0.01)
    assert np.allclose(found.correction(copies, wrong)[1], [-0.3 / 1.3, 1 / 1.3], rtol=0.01)  # at most a factor of e
    halfway = found.correction(np.array([[1.5, 0, 0]]), wrong)
    assert np.allclose(halfway, [[0.25 / 1.3, 0.4 / 1.3]], rtol=0.03)
    assert np.allclose(found.correction(np.array([[6.0, 0, 0]]), wrong), 0, atol=0.05)  # much further than any copy
    assert np.allclose(found.correction(moved, wrong), 0, atol=0.01)  # re-weightings explain it
    assert np.allclose(found.correction(copies, wrong, without_own_kind=True), 0, atol=1e-6)


def noisy(rows, scale, seed):
    return rows + scale * np.random.default_rng(seed).normal(size=rows.shape)


def test_strong_noise_that_outputs_hide_is_seen_in_the_inputs():
    inputs, labels = drawn(600, 1)
    known, unseen = with_inputs(inputs, labels), drawn(600, 2)
    mild = [with_inputs(noisy(inputs, 0.5, 3), labels), with_inputs(0.7 * inputs, labels)]
    strong = [with_inputs(noisy(inputs, 3.0, 4), labels)]
    target = with_inputs(noisy(unseen[0], 3.0, 5), unseen[1])
    truth = 1 - target.correct.mean()

    def error_of(*copies):
        fit = Fit(known, mild, 0, *copies)
        answer, _ = fit.estimate(replace(target, labels=None))
        assert answer.low <= answer.ratio <= answer.high
        return abs(answer.ratio * fit.calibration.level[0] - truth)

    assert error_of(strong) < 0.5 * error_of()
    same = with_inputs(drawn(600, 6)[0])
    with_strong, without = (Fit(known, mild, 0, *copies).estimate(same)[0].ratio for copies in ((strong,), ()))
    assert with_strong == pytest.approx(without, rel=0.02)  # nothing is fitted to it


@pytest.mark.parametrize("is_table", [True, False])
def test_strong_copies_are_fitted_to_images_alone(is_table):
    inputs, labels = drawn(600, 1)

    def known(rows):
        return replace(outputs(rows, labels), inputs=seen(rows, is_table))

    mild = [known(noisy(inputs, 0.5, 3)), known(0.7 * inputs)]
    with_strong, without = (Fit(known(inputs), mild, 0, of).model for of in ([known(noisy(inputs, 3.0, 4))], []))
    assert np.allclose(with_strong.same.error, without.same.error) == is_table
    assert np.allclose(with_strong.same.loss, without.same.loss)
    assert np.allclose(with_strong.gate[:-1], without.gate[:-1], atol=0.2)  # its last number is of all copies' inputs


def test_inputs_of_another_shape_are_not_compared():
    inputs, labels = drawn(600, 1)
    known = with_inputs(inputs, labels)
    copies = [with_inputs(noisy(inputs, scale, 3), labels) for scale in (0.5, 3.0)]
    fit, blind = Fit(known, copies), Fit(outputs(inputs, labels), [replace(copy, inputs=None) for copy in copies])
    rows = noisy(drawn(600, 2)[0], 3.0, 5)
    target, without = with_inputs(rows), outputs(rows)
    other = replace(target, inputs=Inputs(target.inputs.rows, True, shape=(2, 3)))
    wider = replace(target, inputs=seen(np.repeat(rows, 2, 1)))
    estimates = [fit.estimate(one)[0].ratio for one in (target, other, wider, without)]
    assert estimates[1] == estimates[2] == estimates[3] == pytest.approx(blind.estimate(target)[0].ratio, rel=1e-3)
    assert estimates[0] != estimates[1]
    odd = Fit(known, [copies[0], replace(copies[1], inputs=seen(np.repeat(inputs, 2, 1)))])
    assert odd.estimate(target)[0].ratio == pytest.approx(blind.estimate(target)[0].ratio, rel=1e-3)


def test_large_sets_are_described_in_parts():
    views, rows = Views(seen(ROWS)), np.random.default_rng(1).normal(size=(2500, 6))
    whole = views.of(seen(rows))
    parts = [views.of(seen(part)) for part in (rows[:900], rows[900:2000], rows[2000:])]
    assert np.allclose(whole, np.concatenate(parts))


def test_weights_may_leave_nothing_of_the_half_that_counts():
    views, of_rows = Views(seen(ROWS)), replace(Outputs.of(np.zeros((60, 2))), inputs=seen(ROWS))
    found = views.means(of_rows, np.repeat([[0.0, 1 / 30]], 30, 1).reshape(1, 60), own=True)
    assert np.allclose(found, 0, atol=1e-12)  # as without weights


def test_columns_without_any_number_say_nothing(recwarn):
    rows = ROWS.copy()
    rows[:, 1], rows[3, 0] = np.nan, np.inf
    assert np.isfinite(Views(seen(rows)).of(seen(rows))).all()
    assert not recwarn


def test_inputs_need_a_row_for_each_sample():
    with pytest.raises(ValueError, match="inputs: expected a row for each of the 3 samples, but got 60"):
        Outputs.of(np.zeros((3, 2)), inputs=seen(ROWS))


def test_scores_are_those_of_the_usable_samples():
    views, scores = Views(seen(ROWS)), GENERATOR.normal(size=(60, 3))
    scores[5] = np.nan
    usable = SetSummary("val", outputs=replace(Outputs.of(scores), inputs=seen(ROWS))).usable
    found = Samples.of(usable, 1.0, views).scores
    components = np.linalg.svd(views._standardised(seen(ROWS))[30:])[2]
    expected = np.delete(views._standardised(seen(ROWS)) @ components.T, 5, 0)
    assert len(usable) == 59
    assert np.abs(found) == pytest.approx(np.abs(expected))
    assert Samples.of(usable, 1.0).scores is None


def test_the_gate_sees_how_far_images_are_from_re_weightings():
    moved = 0.2 * np.random.default_rng(0).normal(size=(20, 3))
    inverse = np.linalg.inv(moved.T @ moved / 20 + 0.05**2 * np.eye(3))
    sets = np.array([[3.0, 0, 0], [0.1, 0, 0]])
    expected = [one @ inverse @ one / 3 for one in sets]
    assert Resemblance(moved, np.eye(3)).unlike(sets) == pytest.approx(expected)

    inputs, labels = drawn(600, 1)
    copies = [noisy(inputs, scale, 3) for scale in (0.5, 3.0)]
    rows = noisy(drawn(600, 2)[0], 3.0, 5)

    def fit(is_table):
        known = replace(outputs(inputs, labels), inputs=seen(inputs, is_table))
        return Fit(known, [replace(outputs(copy, labels), inputs=seen(copy, is_table)) for copy in copies])

    image, table = fit(False), fit(True)
    number = image._points.signatures[:, -1]
    assert number[image._copies].max() > number[image._bases < 0].max() + 0.5
    assert not table._points.signatures[:, -1].any()  # populations of rows differ in their entries

    unlike = [of.estimate(replace(outputs(rows), inputs=seen(rows, of is table)))[0].population for of in (image, table)]
    assert unlike[0] < unlike[1]
    without = image._unlike(None)
    assert without == pytest.approx([number.mean()])


COLOURED = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [0.2, -0.4, 0.2]])  # brightness, a strong and a weak colour


def painted(colours, seed):
    """Images with 8 entries of each of three channels, and little but these mixtures of colours in them."""
    generator = np.random.default_rng(seed)
    means = generator.normal(size=(200, 3)) @ colours
    return Inputs(np.repeat(means, 8, 1) + 0.1 * generator.normal(size=(200, 24)), False, channels=np.repeat([0, 1, 2], 8))


def test_the_numbers_of_colours_are_as_defined():
    known, other = painted(COLOURED, 0), painted(COLOURED[:, ::-1], 1)
    views, without = Views(known), Views(replace(known, channels=None))
    basis = known.rows[100:].mean(0), known.rows.std()

    def means(inputs):
        return ((inputs.rows - basis[0]) / basis[1]).clip(-4, 4).reshape(-1, 3, 8).mean(2)

    components = np.linalg.svd(means(known)[100:])[2]
    energies, own = np.square(means(other) @ components.T), np.square(means(known)[:100] @ components.T)
    least = 0.005 * own.mean(0).sum()
    found = views.of(other)
    assert found[:, -4:-1] == pytest.approx(np.log(energies + least) - np.log(own + least).mean(0))
    assert np.allclose(np.delete(found, [-4, -3, -2], 1), without.of(other))
    one = Views(replace(known, channels=np.zeros(24, int)))
    assert np.allclose(one.of(other), without.of(other))  # images of one channel have no colours


def test_images_that_are_normalised_one_by_one_get_no_colours_from_rounding():
    images = np.random.default_rng(0).normal(size=(400, 3, 8))
    rows = (images - images.mean(2, keepdims=True)).reshape(400, 24)

    def known(rows):
        return Inputs(rows, False, channels=np.repeat([0, 1, 2], 8))

    views, more = Views(known(rows[:200])), rows[200:]
    own = views.of(known(more))
    assert np.allclose(views.of(known(more.astype(np.float16))), own, atol=0.01)
    tinted = views.of(known(more + np.repeat([0.5, 0, -0.5], 8)))
    assert (tinted - own)[:, -4:-1].mean(0).max() > 2


def test_features_of_many_channels_are_described_in_little_memory():
    rows = np.random.default_rng(0).normal(size=(60, 6))
    few, many = (Views(Inputs(rows, False, channels=channels)) for channels in (np.arange(6), np.arange(6) * 10**9))
    assert np.array_equal(few.of(Inputs(rows, False)), many.of(Inputs(rows, False)))


def test_a_turned_hue_is_no_population():
    known, more = painted(COLOURED, 0), painted(COLOURED, 1)
    turned = replace(more, rows=more.rows[:, np.r_[8:16, 16:24, 0:8]])  # each channel takes another one's place

    def unlike(channels):
        views, *sets = Views(replace(known, channels=channels)), *(replace(one, channels=channels) for one in (more, turned))
        moved = np.random.default_rng(2).dirichlet(np.ones(100), 20) @ views.of(replace(known, rows=known.rows[:100]))
        found = Resemblance(moved, np.eye(moved.shape[1]))
        return found.unlike(np.stack([views.of(one).mean(0) for one in sets]))

    assert unlike(known.channels)[1] > 20 > 5 > unlike(known.channels)[0]
    assert unlike(None)[1] < 0.5 * unlike(known.channels)[1]


def test_each_head_is_corrected_by_its_own_errors():
    inputs, labels = drawn(600, 1)
    copies = [with_inputs(noisy(inputs, scale, 3), labels) for scale in (0.5, 3.0)]
    fit, rows = Fit(with_inputs(inputs, labels), copies), noisy(drawn(600, 2)[0], 3.0, 5)
    target, equal = with_inputs(rows), np.full((1, 600), 1 / 600)
    here, points = fit._views.means(target, equal), fit._points.of(fit._copies)
    wrong = fit._truth[fit._copies] - fit._heads(fit.model, points)
    samples = Samples.of(target, fit.temperature, fit._views)
    heads = fit._heads(fit.model, fit.calibration.points(samples, equal))
    for stated, head in (("same", 0), ("free", 1)):
        added = fit._resemblance.correction(here, wrong[head])[0]
        assert np.abs(added).max() > 0.1
        found = np.log([answer.ratio for answer in fit.estimate(target, stated)])
        assert found == pytest.approx(np.minimum(heads[head, 0] + added, fit.calibration.most))


def test_the_novelty_of_a_set():
    moved, copies = 0.05 * np.random.default_rng(0).normal(size=(20, 3)), np.array([[3.0, 0, 0], [0, 2, 2]])
    found = Resemblance(moved, copies)
    assert [found.novelty(one) for one in (copies[:1], 0.5 * copies[1:])] == pytest.approx([0, 0], abs=1e-9)
    further, beyond = np.array([[4.0, 0, 0]]), np.array([[1.0, 0, 0]])  # a copy explains no more than itself
    left = found.unlike(beyond)[0]
    assert found.novelty(further) == pytest.approx(left / (left + 20))
    assert found.novelty(np.array([[0, 5.0, -5.0]])) > 0.9


def test_intervals_of_novel_sets_are_wider(monkeypatch):
    inputs, labels = drawn(600, 1)
    copies = [with_inputs(noisy(inputs, scale, 3), labels) for scale in (0.5, 3.0)]
    fit, target = Fit(with_inputs(inputs, labels), copies), with_inputs(noisy(drawn(600, 2)[0], 1.0, 5))

    def answers(novelty):
        monkeypatch.setattr(Resemblance, "novelty", lambda self, seen: novelty)
        return fit.estimate(target)

    for known, new in zip(answers(0.0), answers(0.9), strict=True):
        assert new.ratio == known.ratio
        assert new.low < known.low < known.high < new.high
