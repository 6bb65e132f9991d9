"""The mean change of the gradient under a perturbation: over batches, processes and in a fit."""

import copy
import math
import pickle
import random

import numpy as np
import pytest
import torch
from torch import nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional.gradient_difference import AdversarialSign, Gaussian
from lightning_tansens.metrics.gradient_difference import GradientDifference
from lightning_tansens.tangent.sensitivity import tangent_sensitivity
from tests.boring import fit, make_monitor, measured, untimed
from tests.cases import mlp
from tests.metrics.test_metrics import INPUTS, NET, SPLITS, gathered


def mirror(x):
    return x.flip(-1)


def jitter(x):
    """Draws from all three global generators."""
    return x + 0.1 * torch.randn(x.shape) + 0.1 * random.random() + 0.1 * float(np.random.rand())


class Masking(nn.Module):
    """An augmentation with parameters and a generator of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.generator = torch.Generator().manual_seed(5)

    def forward(self, x):
        return x * (torch.rand(x.shape, generator=self.generator) < 0.5) * self.scale


RANDOM = {"Gaussian": Gaussian(0.3, seed=2), "jitter": jitter, "module": Masking()}
PERTURBATIONS = {"adversarial": AdversarialSign(0.1), "mirror": mirror, **RANDOM}


def squares(moved, weighting=None):
    """‖∇_θ (u·f)(x_n) − ∇_θ (u·f)(φ(x_n))‖², one sample after another, from plain autograd."""
    found = []
    for rows in zip(INPUTS.split(1), moved.split(1)):
        gradients = []
        for x in rows:
            output = NET.eval()(x)[0]
            scalar = output.sum() if weighting is None else output @ weighting
            gradients.append(torch.autograd.grad(scalar, list(NET.parameters())))
        found.append(sum(float((a - b).square().sum()) for a, b in zip(*gradients)))
    return np.array(found)


def fed(perturbation, split=(12,), inputs=INPUTS, positions=None, **kwargs):
    measure = GradientDifference(perturbation, **kwargs)
    places = torch.arange(len(inputs)) if positions is None else torch.tensor(positions)
    for part, own in zip(inputs.split(list(split)), places.split(list(split)), strict=True):
        if len(part):
            measure.update(NET, part, *([] if positions is None else [own.tolist()]))
    return measure


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("outputs", ["sum", "each", torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)])
def test_against_plain_autograd(split, outputs):
    if isinstance(outputs, str):
        weightings = [None] if outputs == "sum" else torch.eye(3, dtype=torch.float64)
    else:
        weightings = [outputs]
    expected = sum(squares(mirror(INPUTS), weighting) for weighting in weightings)
    measure = fed(mirror, split, outputs=outputs)
    assert list(measure.values()) == ["gradient_difference"]
    assert float(measure.compute()) == pytest.approx(expected.mean(), rel=1e-12)
    assert measure.distributions()[""].tolist() == pytest.approx(expected, rel=1e-6)
    assert measure.standard_error() == pytest.approx(expected.std(ddof=1) / math.sqrt(12), rel=1e-6)
    assert measure.part_values() == {}


def test_adversarial():
    assert float(fed(AdversarialSign(0.1), [5, 7]).compute()) == pytest.approx(
        squares(AdversarialSign(0.1)(INPUTS, NET)).mean(), rel=1e-12
    )


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_numbers_belong_to_positions(name):
    perturbation = PERTURBATIONS[name]
    whole = fed(perturbation).distributions()[""]
    assert len(set(whole.tolist())) > 9  # samples of one activation region may agree
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    for split in ([1] * 12, [4, 8], [11, 1]):
        measure = fed(perturbation, split, INPUTS[order], order.tolist())
        torch.testing.assert_close(measure.distributions()[""], whole[order], rtol=1e-6, atol=0)
        torch.testing.assert_close(fed(perturbation, split).distributions()[""], whole, rtol=1e-6, atol=0)
    elsewhere = fed(perturbation, positions=[n + 12 for n in range(12)]).distributions()[""]
    assert torch.equal(elsewhere, whole) == (name not in RANDOM)


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("split", [[5, 7], [0, 12], [3, 0, 9]])
def test_processes(name, split):
    measures = []
    for places in torch.arange(12).split(split):
        measures.append(GradientDifference(PERTURBATIONS[name]))
        measures[-1].prepare(NET, INPUTS[:1])
        if len(places):
            measures[-1].update(NET, INPUTS[places], places.tolist())
    own = str(measures[0].values())
    whole = fed(PERTURBATIONS[name])
    with measures[0].sync_context(dist_sync_fn=gathered(*measures), distributed_available=lambda: True):
        assert float(measures[0].values()["gradient_difference"]) == pytest.approx(float(whole.compute()), rel=1e-12)
        assert measures[0].standard_error() == pytest.approx(whole.standard_error(), rel=1e-6)
        assert len(measures[0].distributions()[""]) == 12
    assert str(measures[0].values()) == own


@pytest.mark.parametrize("name", RANDOM)
def test_random_states_are_left_as_they_were(name):
    perturbation = RANDOM[name]
    if name == "module":
        torch.rand(3, generator=perturbation.generator)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    own = perturbation.generator.get_state() if name == "module" else None
    first = fed(perturbation).compute()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]
    assert own is None or torch.equal(perturbation.generator.get_state(), own)
    torch.rand(1), np.random.rand(), random.random()
    if name == "module":
        torch.rand(3, generator=perturbation.generator)
    assert torch.equal(fed(perturbation).compute(), first)


def test_seeds():
    assert fed(jitter, seed=1).compute() != fed(jitter).compute()
    assert fed(Gaussian(0.3, 1)).compute() != fed(Gaussian(0.3, 2)).compute()
    assert fed(Gaussian(0.3, 1), seed=5).compute() == fed(Gaussian(0.3, 1)).compute()
    assert len({float(fed(Gaussian(0.3, seed)).compute()) for seed in (-2, -1, 0, 1, 2**62)}) == 5


def noise(positions, size):
    """The squared norms of what a Gaussian φ of standard deviation ½ adds to samples."""
    # the gradient of a linear f is (x, 1), so the squared change is that of the noise
    measure = GradientDifference(Gaussian(0.5))
    measure.update(nn.Linear(size, 1).double(), torch.zeros(len(positions), size, dtype=torch.float64), positions)
    return measure.distributions()[""]


def test_the_noise_is_gaussian_and_independent():
    squared = noise(range(2000), 4) / 0.25  # χ² of 4 degrees of freedom: mean 4, variance 8, skewness √2
    assert float(squared.mean()) == pytest.approx(4, abs=4 * math.sqrt(8 / 2000))
    assert float(squared.var()) == pytest.approx(8, rel=0.2)
    assert float((squared - 4).pow(3).mean()) / 8**1.5 == pytest.approx(math.sqrt(2), rel=0.3)
    neighbours = torch.corrcoef(torch.stack([squared[:-1], squared[1:]]))[0, 1]
    assert abs(float(neighbours)) < 4 / math.sqrt(2000)


def test_small_gaussian_steps_have_the_tangent_sensitivity_as_their_mean():
    draws, scale = 3000, 1e-5
    measure = GradientDifference(Gaussian(scale))
    measure.update(NET, INPUTS[:1].expand(draws, -1))
    exact = float(tangent_sensitivity(NET, INPUTS[:1], method="exact"))
    error = measure.standard_error() / scale**2
    assert abs(float(measure.compute()) / scale**2 - exact) < 4 * error < 0.15 * exact


def test_lower_precisions():
    model = copy.deepcopy(NET).float()
    for perturbation in (mirror, Gaussian(0.3), jitter):
        measure = GradientDifference(perturbation)
        measure.update(model, INPUTS.float())
        assert measure.compute().dtype == torch.float64
        assert float(measure.compute()) == pytest.approx(float(fed(perturbation).compute()), rel=1e-3)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_reset_copies_and_forward():
    measure = fed(Gaussian(0.3), [5, 7])
    for other in (measure.clone(), pickle.loads(pickle.dumps(measure)), copy.deepcopy(measure), measure.to("cpu")):
        assert torch.equal(other.compute(), measure.compute())
        other.reset()
        other.update(NET, INPUTS)
        assert float(other.compute()) == pytest.approx(float(fed(Gaussian(0.3)).compute()), rel=1e-12)
    fresh = GradientDifference(Masking())
    assert not list(fresh.parameters())
    assert math.isnan(fresh.compute())
    assert fresh.distributions() == {}
    assert fresh.standard_error() is None
    assert float(fresh(NET, INPUTS[:5])) > 0
    fresh(NET, INPUTS[5:], range(5, 12))
    assert float(fresh.compute()) == pytest.approx(float(fed(Masking()).compute()), rel=1e-12)
    assert math.isnan(fed(mirror, [1], INPUTS[:1]).standard_error())


def test_perturbations_may_change_their_argument():
    inputs = INPUTS.clone()
    measure = fed(lambda x: x.add_(1), inputs=inputs)
    assert torch.equal(inputs, INPUTS)
    assert float(measure.compute()) == pytest.approx(squares(INPUTS + 1).mean(), rel=1e-12)


@pytest.mark.parametrize(
    ("perturbation", "message"),
    [
        (
            lambda x: x[:, :2],
            r"perturbation: expected a tensor of the sample's shape \(1, 4\), but got shape \(1, 2\); return",
        ),
        (lambda x: x.mean(), r"but got shape \(\)"),
        (lambda x: x.tolist(), "but got list; return the perturbed sample, with its first axis of length 1"),
    ],
)
def test_perturbations_that_are_refused(perturbation, message):
    with pytest.raises(ValueError, match=message):
        fed(perturbation)


def test_refusals():
    with pytest.raises(
        TypeError, match="perturbation: expected Gaussian, AdversarialSign or a callable on a batch, but got f"
    ):
        GradientDifference(0.1)
    with pytest.raises(ValueError, match="outputs: expected 'sum', 'each'"):
        GradientDifference(mirror, outputs="all")
    with pytest.raises(UnsupportedNetworkError, match="AdversarialSign: expected a classifier with at least 2 outputs"):
        GradientDifference(AdversarialSign(0.1)).update(mlp(4, 3, 1), torch.randn(2, 4))


@pytest.mark.parametrize("name", ["adversarial", "Gaussian", "jitter"])
def test_in_the_monitor(name):
    def history(batch_size):
        monitor = make_monitor(measures=[GradientDifference(PERTURBATIONS[name])], batch_size=batch_size)
        keys = {key for key in measured(fit(monitor)) if "gradient" in key}
        assert keys == {f"gradient_difference/{s}{e}" for s in ("train", "test") for e in ("", "_stderr")}
        return untimed(monitor.history)

    for row, other in zip(history(3), history(7)):
        assert row == pytest.approx(other, rel=1e-4)
        assert row["tansens/gradient_difference/test"] > 0


@pytest.mark.parametrize(
    ("perturbation", "expected"),
    [
        ({"class_path": "lightning_tansens.functional.Gaussian", "init_args": {"scale": 0.1}}, Gaussian(0.1)),
        ({"class_path": "lightning_tansens.functional.AdversarialSign", "init_args": {"scale": 0.1}}, AdversarialSign(0.1)),
        ("tests.metrics.test_gradient_difference.mirror", mirror),
    ],
)
def test_from_a_command_line(perturbation, expected):
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--measure", type=GradientDifference)
    path = f"{GradientDifference.__module__}.{GradientDifference.__name__}"
    config = parser.parse_object({"measure": {"class_path": path, "init_args": {"perturbation": perturbation}}})
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # its name before 4.49
    measure = instantiate(config).measure
    assert float(fed(measure._perturbation[0]).compute()) == float(fed(expected).compute())
