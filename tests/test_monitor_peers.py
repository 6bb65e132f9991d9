"""The field's estimators in the monitor: the values, the labels they get, what is refused."""

import pytest
import torch
import torch.nn.functional as F

from lightning_tansens._peers import AverageConfidence, DispersionScore, EntropyRatio, default_peers
from lightning_tansens.metrics import EmpiricalSensitivity
from lightning_tansens.monitor.subsets import Subset
from lightning_tansens.show.keys import Keys
from tests.boring import BoringModule, Points, fit, loader, make_monitor, mlp

KEYS = Keys()


def outputs_of(network, samples, monitor):
    subset = Subset(samples, monitor.num_loss_samples, monitor.batch_size, monitor.seed)
    inputs, labels = map(torch.stack, zip(*(samples[index] for index in subset.indices)))
    with torch.no_grad():
        return network(inputs), labels


def test_the_estimates_are_those_of_the_peers_on_the_samples_of_the_loss():
    monitor = make_monitor(peers=default_peers(), num_loss_samples=9)
    run = fit(monitor, max_epochs=1)
    (row,) = monitor.history
    network = run.lightning_module.network
    sets = {
        name: outputs_of(network, data, monitor) for name, data in {"train": Points(), "test": Points(10, seed=2)}.items()
    }
    for peer in [peer for peer in default_peers() if not peer.needs_features]:
        of_sets = {}
        for name, (outputs, labels) in sets.items():
            of_sets[name] = peer.clone()
            of_sets[name].update(outputs, labels if name == "train" else None)
            for score, value in of_sets[name].scores().items():
                assert row[KEYS.value(score, name)] == pytest.approx(float(value), rel=1e-6)
        found = peer.estimate(of_sets["test"].summary(), of_sets["train"].summary()) if peer.estimates else {}
        for quantity, estimate in found.items():
            key = KEYS.estimate("test", quantity, peer.key)
            assert row[key] == pytest.approx(estimate.value, rel=1e-6)
            assert row.get(KEYS.stderr(key)) == (estimate.stderr and pytest.approx(estimate.stderr, rel=1e-6))
    features = DispersionScore()
    inputs = torch.stack([Points(10, seed=2)[i][0] for i in Subset(Points(10, seed=2), 9, 3, monitor.seed).indices])
    with torch.no_grad():
        features.update(network(inputs), features=F.relu(network[0](inputs)))
    assert row["tansens/dispersion/test"] == pytest.approx(float(features.compute()), rel=1e-6)


def test_a_peer_without_estimate_is_told_once(recwarn):
    monitor = make_monitor(peers=[EntropyRatio()])
    certain = mlp()
    with torch.no_grad():
        certain[2].weight.zero_()
        certain[2].bias.copy_(torch.tensor([1e6, 0.0, 0.0]))
    fit(monitor, module=lambda: BoringModule(certain, lr=0.0), max_epochs=2)
    assert "tansens/test_loss/entropy_ratio" not in monitor.history[-1]
    said = [str(warning.message) for warning in recwarn if "entropy_ratio is left out of the log" in str(warning.message)]
    assert len(said) == 1


def test_a_regression_is_refused_before_the_first_step():
    monitor = make_monitor(test_dataloaders=Points(10), peers=[AverageConfidence()], criterion=F.mse_loss)
    with pytest.raises(ValueError, match=r"outputs: expected logits of shape \(N, C\) with two or more classes"):
        fit(monitor, module=lambda: BoringModule(mlp(1), loss="mse_loss"), data=loader(Points(labels="value")))


@pytest.mark.parametrize(
    ("peers", "error", "message"),
    [
        ("confidence", TypeError, "peers: expected a list of Peer objects or None, but got 'confidence'"),
        ([EmpiricalSensitivity()], TypeError, "peers: expected Peer objects, but got EmpiricalSensitivity"),
        ([AverageConfidence(), AverageConfidence()], ValueError, "peers: expected one estimator for each key"),
    ],
)
def test_what_is_no_peer_is_refused(peers, error, message):
    with pytest.raises(error, match=message):
        make_monitor(peers=peers)


def test_a_loss_of_ones_own_is_not_the_cross_entropy():
    with pytest.raises(ValueError, match="EntropyRatio estimates the cross-entropy; leave one of the two out"):
        make_monitor(peers=[EntropyRatio()], criterion=F.mse_loss)
