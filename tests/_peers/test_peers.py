"""What all estimators have in common: batches, processes, labels, shapes, degenerate sets."""

import inspect
import math

import pytest
import torch

from lightning_tansens import _peers as peers
from lightning_tansens._peers import MaNo, Peer, default_peers
from lightning_tansens._peers.spread import standard_error, variance_of_mean
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.show.keys import TRIVIAL
from tests._peers.data import CLASSES, LABELS, REFERENCE, TARGET, by_key, fed

KEYS = [peer.key for peer in default_peers()]
ESTIMATING = [peer.key for peer in default_peers() if peer.estimates]


def estimate(key, target, reference):
    return by_key(key).estimate(target.summary(), reference.summary())


def test_no_peer_is_forgotten():
    public = {value for name, value in vars(peers).items() if inspect.isclass(value) and issubclass(value, Peer)}
    assert {type(peer) for peer in default_peers()} == public - {Peer}
    assert len(set(KEYS)) == len(KEYS)
    assert TRIVIAL not in KEYS


@pytest.mark.parametrize("key", KEYS)
def test_batches_do_not_matter(key):
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3)).tolist()
    parts = [order[:7], order[7:8], order[8:]]
    whole, split = fed(by_key(key), TARGET), fed(by_key(key), TARGET, parts=parts)
    for name, value in whole.summary().items():
        torch.testing.assert_close(split.summary()[name], value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(split.compute(), whole.compute(), rtol=1e-12, atol=0)


def merged(first, second):
    """What torchmetrics makes of two processes' states: sums are added, lists are joined."""
    for name, reduce in first._reductions.items():
        mine, other = getattr(first, name), getattr(second, name)
        setattr(first, name, mine + other if isinstance(mine, list) else reduce(torch.stack([mine, other])))
    return first


@pytest.mark.parametrize("empty", [False, True], ids=["uneven", "one without samples"])
@pytest.mark.parametrize("key", ESTIMATING)
def test_two_processes_estimate_what_one_does(key, empty):
    first = [] if empty else [n for n in range(40) if n % 3 == 0]
    shares = [first, [n for n in range(40) if n not in first]]
    of_processes = []
    for share in shares:
        peer = by_key(key)
        peer.prepare(TARGET[:1], TARGET[:1])
        of_processes.append(fed(peer, TARGET, parts=[share]) if share else peer)
    reference = fed(by_key(key), REFERENCE, LABELS)
    one = estimate(key, fed(by_key(key), TARGET), reference)
    for quantity, found in estimate(key, merged(*of_processes), reference).items():
        assert found.value == pytest.approx(one[quantity].value, rel=1e-12)
        assert (found.stderr is None) == (one[quantity].stderr is None)


@pytest.mark.parametrize("key", ESTIMATING)
def test_labels_of_a_target_change_nothing(key):
    reference = fed(by_key(key), REFERENCE, LABELS)
    without = estimate(key, fed(by_key(key), TARGET), reference)
    for labels in (torch.zeros(40, dtype=torch.long), TARGET.argmax(1)):
        assert estimate(key, fed(by_key(key), TARGET, labels), reference) == without


@pytest.mark.parametrize("key", [key for key in ESTIMATING if by_key(key).needs_labels])
def test_a_reference_without_labels_is_refused(key):
    with pytest.raises(UndefinedEstimateError, match="expected labels for the reference's 60 samples, but got 0"):
        estimate(key, fed(by_key(key), TARGET), fed(by_key(key), REFERENCE))


@pytest.mark.parametrize("key", ESTIMATING)
def test_an_empty_set_is_refused(key):
    with pytest.raises(UndefinedEstimateError, match="expected samples in the target set, but it is empty"):
        estimate(key, by_key(key), fed(by_key(key), REFERENCE, LABELS))


@pytest.mark.parametrize("key", ESTIMATING)
def test_outputs_that_are_not_finite_are_refused(key):
    outputs = TARGET.clone()
    outputs[3, 1] = math.nan
    with pytest.raises(UndefinedEstimateError, match="1 of the target set's 40 samples have none"):
        estimate(key, fed(by_key(key), outputs), fed(by_key(key), REFERENCE, LABELS))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "outputs", [torch.zeros(3, 1), torch.zeros(3), torch.zeros(3, 2, 2), torch.zeros(3, 2).long(), "logits"]
)
def test_outputs_that_are_no_logits_are_refused(key, outputs):
    with pytest.raises(ValueError, match=r"outputs: expected logits of shape \(N, C\)"):
        by_key(key).update(outputs)


@pytest.mark.parametrize("targets", [torch.zeros(3), torch.zeros(2).long(), [0, 1, 0]])
def test_targets_that_are_no_classes_are_refused(targets):
    with pytest.raises(ValueError, match=r"targets: expected class indices of shape \(3,\)"):
        by_key("cot").update(torch.zeros(3, 2), targets)


def test_a_class_without_output_is_refused():
    with pytest.raises(ValueError, match="targets: expected classes from 0 to 1, as many as outputs, but got 0 to 2"):
        by_key("cot").update(torch.zeros(2, 2), torch.tensor([0, 2]))


def test_features_of_another_batch_are_refused():
    with pytest.raises(ValueError, match=r"features: expected shape \(3, F\), one row for each sample"):
        by_key("dispersion").update(torch.zeros(3, 2), features=torch.zeros(2, 5))


def test_missing_features_are_refused():
    with pytest.raises(ValueError, match="features: expected the input of the network's last layer, but got None"):
        by_key("dispersion").update(torch.zeros(3, 2))


@pytest.mark.parametrize("key", ["cot", "nuclear_norm"])
def test_another_number_of_classes_is_refused(key):
    peer = fed(by_key(key), TARGET)
    with pytest.raises(ValueError, match="outputs: expected as many classes and features as before"):
        peer.update(torch.zeros(3, CLASSES + 1))


@pytest.mark.parametrize("key", KEYS)
def test_a_reset_forgets_samples_and_keeps_shapes(key):
    peer = fed(by_key(key), REFERENCE)
    peer.reset()
    torch.testing.assert_close(fed(peer, TARGET).compute(), fed(by_key(key), TARGET).compute())


@pytest.mark.parametrize("key", KEYS)
def test_a_score_without_samples_is_nan(key):
    assert by_key(key).score().isnan()


def test_one_predicted_class_has_no_dispersion():
    assert fed(by_key("dispersion"), torch.tensor([[1.0, 0.0]]).expand(5, 2)).compute() == -math.inf


def test_certain_references_have_no_ratio_of_entropies():
    certain = fed(by_key("entropy_ratio"), 1e6 * torch.eye(CLASSES), torch.arange(CLASSES))
    with pytest.raises(UndefinedEstimateError, match="all of its predictions are certain"):
        estimate("entropy_ratio", fed(by_key("entropy_ratio"), TARGET), certain)


def test_bins_without_a_common_sample_are_refused():
    reference = fed(by_key("importance_weighting"), torch.tensor([[9.0, 0.0]]), torch.tensor([0]))
    with pytest.raises(UndefinedEstimateError, match="expected a bin of confidences in which both sets have samples"):
        estimate("importance_weighting", fed(by_key("importance_weighting"), torch.zeros(1, 2)), reference)


@pytest.mark.parametrize("order", [0, 1.5])
def test_wrong_orders_are_refused(order):
    with pytest.raises(ValueError, match="order: expected a positive integer"):
        MaNo(order)


def test_wrong_thresholds_are_refused():
    with pytest.raises(ValueError, match="threshold: expected a finite number"):
        MaNo(threshold=math.nan)


def test_spreads():
    numbers = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    assert variance_of_mean(numbers.sum(), numbers.square().sum(), 3) == pytest.approx(float(numbers.var() / 3))
    assert math.isnan(variance_of_mean(1.0, 1.0, 1))
    assert standard_error(9.0, 16.0) == 5
    assert standard_error(9.0, math.nan) is None


@pytest.mark.parametrize("key", KEYS)
def test_plots(key):
    _, ax = fed(by_key(key), TARGET).plot()
    assert len(ax.lines) == 1
