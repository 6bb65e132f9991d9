"""What is kept of earlier measurements: bounded, spread over the run, the same through a checkpoint."""

import numpy as np
import pytest
import torch

from lightning_tansens.estimators import Outputs, Trajectory
from lightning_tansens.estimators.trajectory import MAX_NUMBERS, MAX_OUTPUTS, MAX_SNAPSHOTS

RNG = np.random.default_rng(0)


def walk(snapshots):
    found = Trajectory()
    for snapshot in snapshots:
        found = found.updated(Outputs.of(snapshot))
    return found


def test_predictions_stay_spread_over_the_run_and_bounded():
    """The snapshot s predicts the class s, so that the kept ones are seen."""
    eye = np.eye(500)
    found = walk([eye[[s, s]] for s in range(500)])
    kept = found.predictions[:, 0].tolist()
    assert len(kept) <= MAX_SNAPSHOTS
    assert found.stride == 8
    assert kept == list(range(0, 500, 8))
    assert (found.count, found.seen.tolist()) == (500, [500, 500])


def test_a_long_run_is_not_larger_than_a_short_one():
    def size(trajectory):
        return sum(value.nbytes for value in vars(trajectory).values() if isinstance(value, np.ndarray))

    outputs = RNG.normal(size=(1024, 1000))
    trajectory = walk([outputs])
    for _ in range(MAX_SNAPSHOTS - 1):
        trajectory = trajectory.updated(Outputs.of(outputs))
    assert size(trajectory) < 4.3e6  # as the docstring says
    assert size(trajectory.updated(Outputs.of(outputs))) < size(trajectory)


def test_other_outputs_are_bounded_too():
    few = walk([np.full((3, 1), float(s)) for s in range(20)])
    assert few.outputs[:, 0, 0].tolist() == list(range(0, 20, few.stride))
    assert len(few.outputs) <= MAX_OUTPUTS
    large = np.zeros((2, MAX_NUMBERS // 4))  # two snapshots are as many numbers as may be kept
    assert len(walk([large[:, :, None]] * 5).outputs) <= 2


def test_samples_that_were_unusable_once_have_a_mean_of_the_others():
    first, second = RNG.normal(size=(2, 3, 4))
    broken = second.copy()
    broken[1, 2] = np.nan
    found = walk([first, broken])
    assert found.seen.tolist() == [2, 1, 2]
    assert found.predictions[1].tolist() == [second[0].argmax(), -1, second[2].argmax()]
    assert found.mean_probabilities[1] == pytest.approx(walk([first]).mean_probabilities[1])
    assert found.mean_probabilities[[0, 2]] == pytest.approx(walk([first, second]).mean_probabilities[[0, 2]])
    assert np.isnan(walk([first[:, :, None], broken[:, :, None]]).outputs[1, 1]).all()


def test_a_trajectory_is_not_changed_by_the_next():
    before = walk([RNG.normal(size=(3, 4))])
    mean = before.mean_probabilities.copy()
    before.updated(Outputs.of(RNG.normal(size=(3, 4))))
    assert (before.count, len(before.predictions)) == (1, 1)
    assert (before.mean_probabilities == mean).all()


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 2), (0, 4)])
def test_a_checkpoint_continues_the_run_bitwise(shape, tmp_path):
    snapshots = RNG.normal(size=(5, *shape))
    torch.save(walk(snapshots[:3]).state(), tmp_path / "state.pt")
    resumed = Trajectory.from_state(torch.load(tmp_path / "state.pt", weights_only=True))
    for snapshot in snapshots[3:]:
        resumed = resumed.updated(Outputs.of(snapshot))
    whole = walk(snapshots)
    for name in Trajectory.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))
    assert Trajectory.from_state(Trajectory().state()).count == 0


def test_another_set_or_network_is_refused():
    found = walk([RNG.normal(size=(3, 4))])
    for other in ((2, 4), (3, 5)):
        with pytest.raises(ValueError, match=r"now: expected 3 samples with outputs of shape \(4,\), as at the earlier"):
            found.updated(Outputs.of(np.zeros(other)))
