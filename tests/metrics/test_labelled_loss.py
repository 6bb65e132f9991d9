"""The loss of a set is what the criterion gives on all of it, however it is cut into batches."""

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tansens.metrics import LabelledLoss
from lightning_tansens.metrics.criteria import TorchLoss, are_class_scores
from lightning_tansens.metrics.whole_set import WholeSet

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(60, 4, generator=GENERATOR)
LABELS = torch.randint(4, (60,), generator=GENERATOR)
IGNORED = torch.where(torch.arange(60) % 3 == 0, LABELS, -100)
WEIGHTS = torch.tensor([9.0, 1.0, 1.0, 0.1])
PIXELS = torch.randn(60, 4, 3, 2, generator=GENERATOR)
VOID = torch.randint(4, (60, 3, 2), generator=GENERATOR).where(torch.rand(60, 3, 2, generator=GENERATOR) > 0.4, 255)
VALUES = torch.randn(60, 4, generator=GENERATOR)


def soft_dice(outputs, targets):
    p = outputs.softmax(1)[torch.arange(len(targets)), targets]
    return 1 - 2 * p.sum() / (outputs.softmax(1).square().sum() + len(targets))


CASES = {
    "plain": (F.cross_entropy, LOGITS, LABELS),
    "class weights": (nn.CrossEntropyLoss(WEIGHTS), LOGITS, LABELS),
    "weights in a partial": (functools.partial(F.cross_entropy, weight=WEIGHTS), LOGITS, LABELS),
    "weights and smoothing": (nn.CrossEntropyLoss(WEIGHTS, label_smoothing=0.2), LOGITS, LABELS),
    "ignored": (nn.CrossEntropyLoss(), LOGITS, IGNORED),
    "ignored with weights": (nn.CrossEntropyLoss(WEIGHTS, ignore_index=2), LOGITS, LABELS),
    "void pixels": (nn.CrossEntropyLoss(WEIGHTS, ignore_index=255), PIXELS, VOID),
    "sum": (nn.CrossEntropyLoss(WEIGHTS, reduction="sum"), LOGITS, IGNORED),
    "none": (nn.CrossEntropyLoss(reduction="none"), LOGITS, LABELS),
    "soft labels": (nn.CrossEntropyLoss(WEIGHTS), LOGITS, VALUES.softmax(1)),
    "nll": (nn.NLLLoss(WEIGHTS), LOGITS.log_softmax(1), LABELS),
    "mse": (nn.MSELoss(), LOGITS, VALUES),
    "sum of squares": (functools.partial(F.mse_loss, reduction="sum"), LOGITS, VALUES),
    "multi-label": (nn.BCEWithLogitsLoss(pos_weight=WEIGHTS), LOGITS, (VALUES > 0).float()),
    "batch mean": (nn.KLDivLoss(reduction="batchmean"), LOGITS.log_softmax(1), VALUES.softmax(1)),
    "a weighted callable": (lambda y, t: F.cross_entropy(y, t, WEIGHTS), LOGITS, LABELS),
    "an ignoring callable": (lambda y, t: F.cross_entropy(y, t), LOGITS, IGNORED),
    "one number for all": (soft_dice, LOGITS, LABELS),
    "several outputs": (lambda y, t: F.mse_loss(y[0] + y[1], t), None, VALUES),
}


def filled(criterion, outputs, targets, size, **options):
    loss = LabelledLoss(criterion, **options)
    for start in range(0, len(targets), size):
        part = slice(start, start + size)
        batch = (LOGITS[part], VALUES[part]) if outputs is None else outputs[part]
        loss.update(batch, targets[part], range(start, min(start + size, len(targets))))
    return loss


@pytest.mark.parametrize("size", [1, 7, 60])
@pytest.mark.parametrize("case", CASES)
def test_the_value_does_not_depend_on_batches(case, size):
    criterion, outputs, targets = CASES[case]
    by_hand = float(criterion((LOGITS, VALUES) if outputs is None else outputs, targets).mean())
    loss = filled(criterion, outputs, targets, size)
    assert loss.value() == pytest.approx(by_hand, rel=1e-5)
    assert float(loss.compute()) == loss.value()
    assert not list(loss.parameters())


ERRORS = ["class weights", "ignored", "void pixels", "a weighted callable", "one number for all", "sum"]


@pytest.mark.parametrize("case", ERRORS)
def test_standard_errors_are_those_of_the_estimator(case):
    """Against the bootstrap."""
    criterion, outputs, targets = CASES[case]
    loss = filled(criterion, outputs, targets, 7)
    generator = torch.Generator().manual_seed(1)
    draws = [torch.randint(60, (60,), generator=generator) for _ in range(1500)]
    bootstrap = torch.stack([criterion(outputs[draw], targets[draw]).detach() for draw in draws]).std()
    assert loss.standard_error() == pytest.approx(float(bootstrap), rel=0.12)


@pytest.mark.parametrize("targets", [torch.full((5,), -100), torch.tensor([1, -100, -100, -100, -100])])
def test_where_too_few_targets_count_there_is_no_error_and_no_nan(targets):
    loss = filled(None, LOGITS[:5], targets, 2)
    assert loss.standard_error() is None
    assert loss.influence() is None
    assert (loss.value() is None) == (targets.max() < 0)
    assert (loss.accuracy() is None) == (targets.max() < 0)


def test_ignored_targets_count_in_no_accuracy():
    loss = filled(nn.CrossEntropyLoss(ignore_index=2), LOGITS, LABELS, 7, by_class=True)
    counted = LABELS != 2
    expected = (LOGITS.argmax(1) == LABELS)[counted].double().mean()
    assert float(loss.accuracy()) == pytest.approx(float(expected))
    assert loss.wrong() == int((LOGITS.argmax(1) != LABELS)[counted].sum())
    assert loss.class_losses().keys() == {0, 1, 3}


def test_losses_of_classes_are_unweighted():
    loss = filled(nn.CrossEntropyLoss(WEIGHTS), LOGITS, LABELS, 7, by_class=True)
    each = F.cross_entropy(LOGITS, LABELS, reduction="none")
    assert loss.class_losses() == pytest.approx({c: float(each[c == LABELS].mean()) for c in range(4)}, rel=1e-5)


@pytest.mark.parametrize("shape", [(60,), (60, 1)])
@pytest.mark.parametrize("dtype", [torch.long, torch.float])
def test_a_single_logit_has_an_accuracy_by_its_sign(shape, dtype):
    labels = (VALUES[:, 0] > 0).to(dtype).reshape(shape)
    criterion = lambda y, t: F.binary_cross_entropy_with_logits(y, t.to(y))  # noqa: E731
    loss = filled(criterion, LOGITS[:, 0].reshape(shape), labels, 7, class_scores=True)
    assert float(loss.accuracy()) == pytest.approx(float(((LOGITS[:, 0] > 0) == (VALUES[:, 0] > 0)).double().mean()))
    assert filled(criterion, LOGITS[:, 0].reshape(shape), labels, 7).accuracy() is None
    assert filled(None, LOGITS, LABELS, 7, class_scores=False).accuracy() is None


@pytest.mark.parametrize("case", ["one number for all", "a weighted callable"])
@pytest.mark.parametrize("first", [0, 13, 60])
def test_processes_agree_also_one_without_samples(case, first):
    criterion, outputs, targets = CASES[case]
    parts = [LabelledLoss(criterion), LabelledLoss(criterion)]
    for loss, rows in zip(parts, (slice(0, first), slice(first, 60))):
        loss.prepare(outputs[:1], targets[:1])
        if len(targets[rows]):
            loss.update(outputs[rows], targets[rows], range(60)[rows])
    states = [{name: getattr(loss, name) for name in loss._defaults} for loss in parts]
    for own, other in zip(states[0].values(), states[1].values()):
        if isinstance(own, list):
            assert own[0].dtype == other[0].dtype
    for name, own in states[0].items():
        other = states[1][name]
        setattr(parts[0], name, [*own, *other] if isinstance(own, list) else own + other)
    whole = filled(criterion, outputs, targets, 60)
    assert parts[0].value() == pytest.approx(whole.value(), rel=1e-6)
    assert parts[0].standard_error() == pytest.approx(whole.standard_error(), rel=1e-4)


def test_beyond_the_bound_the_means_of_batches_are_averaged_and_it_says_so(monkeypatch):
    monkeypatch.setattr(WholeSet, "NUMBERS", 100)
    loss = filled(soft_dice, LOGITS, LABELS, 15)
    parts = [float(soft_dice(LOGITS[n : n + 15], LABELS[n : n + 15])) for n in range(0, 60, 15)]
    assert loss.value() == pytest.approx(sum(parts) / 4)
    assert "means of batches" in loss.note()
    assert loss.standard_error() is None
    assert "grow with their sets" in LabelledLoss(nn.MSELoss(reduction="sum")).note()
    assert LabelledLoss().note() is None


@pytest.mark.parametrize(
    ("criterion", "outputs", "targets", "message"),
    [
        (None, torch.zeros(5, 1), torch.zeros(5, 1), "cross_entropy of one output is 0 whatever it is"),
        (None, torch.zeros(5, 1), torch.zeros(5).long(), "cross_entropy of one output is 0 whatever it is"),
        (nn.MSELoss(), torch.zeros(5, 1), torch.zeros(5), "outputs and targets of one shape, because MSELoss"),
        (
            None,
            torch.zeros(5),
            torch.zeros(5).long(),
            r"outputs of shape \(N, C\) for cross_entropy, but got outputs \(5,\)",
        ),
        (None, torch.zeros(5, 3), torch.full((5,), 255), "classes from 0 to 2 .* got 255 to 255; pass a criterion"),
        (None, (torch.zeros(5, 3),), torch.zeros(5).long(), "expected tensors of outputs and targets for cross_entropy"),
        (None, torch.zeros(5, 3), torch.zeros(5, dtype=torch.cfloat), "targets: expected class indices or real numbers for"),
        (None, torch.zeros(5, 3), torch.tensor(1), "expected one for each sample, but got a scalar"),
        (lambda y, t: torch.zeros(2), torch.zeros(5, 3), torch.zeros(5), "expected one loss for each of the 5 samples"),
    ],
)
def test_what_does_not_fit_is_refused(criterion, outputs, targets, message):
    with pytest.raises(ValueError, match=message):
        LabelledLoss(criterion).update(outputs, targets)


def test_a_criterion_without_a_tensor_is_refused():
    with pytest.raises(TypeError, match="expected a tensor of losses, but got float"):
        LabelledLoss(lambda y, t: 1.0).update(LOGITS, LABELS)


def test_unknown_forms_are_no_losses_of_torch():
    class Own(nn.CrossEntropyLoss):
        def forward(self, outputs, targets):
            return super().forward(outputs, targets) + 1

    for criterion in (Own(), F.gaussian_nll_loss, nn.TripletMarginLoss(), functools.partial(F.mse_loss, LOGITS), len):
        assert TorchLoss.of(criterion) is None
    assert filled(Own(), LOGITS, LABELS, 7).value() == pytest.approx(float(F.cross_entropy(LOGITS, LABELS)) + 1)


SINGLE, BINARY = LOGITS[:, :1], (VALUES[:, :1] > 0).float()


@pytest.mark.parametrize(
    ("expected", "criterion", "outputs", "targets"),
    [
        (True, nn.CrossEntropyLoss(WEIGHTS, ignore_index=2, label_smoothing=0.1), LOGITS, LABELS),
        (True, F.cross_entropy, LOGITS, IGNORED),
        (True, F.nll_loss, LOGITS, LABELS),
        (True, F.multi_margin_loss, LOGITS, LABELS),
        (True, lambda y, t: (1 - y.softmax(1)[torch.arange(len(t)), t]).square().mean(), LOGITS, LABELS),
        (True, F.binary_cross_entropy_with_logits, SINGLE, BINARY),
        (False, F.binary_cross_entropy, SINGLE.sigmoid(), BINARY),
        (False, F.mse_loss, SINGLE, BINARY),
        (False, F.mse_loss, SINGLE, SINGLE),
        (False, F.binary_cross_entropy_with_logits, LOGITS, (VALUES > 0).float()),
        (False, lambda y, t: (0.5 * ((-y[:, 1]).exp() * (t - y[:, 0]) ** 2 + y[:, 1])).mean(), LOGITS[:, :2], LABELS % 2),
        (False, lambda y, t: (torch.cdist(y, y) * (t[:, None] == t)).mean(), LOGITS, LABELS),
        (False, F.cross_entropy, PIXELS, VOID % 4),
    ],
)
def test_class_scores_are_what_the_criterion_takes_them_for(expected, criterion, outputs, targets):
    assert are_class_scores(criterion, outputs, targets) is expected


def test_a_loss_that_is_not_finite_has_no_standard_error():
    loss = filled(lambda y, t: y.sum() * math.nan, LOGITS, LABELS, 7)
    assert math.isnan(loss.value())
    assert loss.standard_error() is None


def test_samples_without_a_target_are_counted_and_left_out():
    loss = LabelledLoss(F.mse_loss)
    loss.update_finite(torch.zeros(3), torch.tensor([1.0, float("nan"), 3.0]), [0, 1, 2])
    assert loss.value() == pytest.approx(5.0)
    assert int(loss.unusable) == 1
