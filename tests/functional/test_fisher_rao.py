"""The Fisher–Rao norm against derivatives along the outputs, label by label."""

import mpmath
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional.fisher_rao import fisher_rao_norms
from tests.cases import Lambda, mlp
from tests.helpers import mixed_modes, state_of
from tests.modules import Language, draw_tokens


def by_scaling(model, inputs, criterion=F.cross_entropy):
    """Σ_j (d/dt ℓ(t f, j) at t = 1)²: scaling the outputs moves along them."""
    rows = model.eval()(inputs).detach()
    squares = []
    for row in rows:
        total = 0.0
        for j in range(len(row)):
            t = torch.ones((), dtype=row.dtype, requires_grad=True)
            (slope,) = torch.autograd.grad(criterion(t * row.unsqueeze(0), torch.tensor([j])).sum(), t)
            total += float(slope) ** 2
        squares.append(total)
    return torch.tensor(squares, dtype=rows.dtype)


def squared_hinge(outputs, targets):
    margins = 1 - outputs.gather(1, targets[:, None]) + outputs
    return margins.clamp(min=0).square().sum(1)


CRITERIA = {
    "mean": F.cross_entropy,
    "each": lambda outputs, targets: F.cross_entropy(outputs, targets, reduction="none"),
    "column": lambda outputs, targets: F.cross_entropy(outputs, targets, reduction="none")[:, None],
    "module": nn.CrossEntropyLoss(),
}


@pytest.mark.parametrize("criterion", [None, *CRITERIA.values()], ids=["closed form", *CRITERIA])
@pytest.mark.parametrize("outputs", [2, 5])
def test_cross_entropy(criterion, outputs):
    torch.manual_seed(outputs)
    model, inputs = mlp(4, 6, outputs).double(), 3 * torch.randn(7, 4, dtype=torch.float64)
    expected = by_scaling(model, inputs)
    actual = fisher_rao_norms(model, inputs, criterion=criterion)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=0)
    assert not actual.requires_grad


@pytest.mark.parametrize(
    "criterion",
    [squared_hinge, F.multi_margin_loss, nn.CrossEntropyLoss(label_smoothing=0.2, reduction="none")],
    ids=["squared hinge", "margin", "label smoothing"],
)
def test_other_criteria(criterion):
    torch.manual_seed(0)
    model, inputs = mlp(4, 6, 3).double(), torch.randn(7, 4, dtype=torch.float64)
    expected = by_scaling(model, inputs, criterion)
    torch.testing.assert_close(fisher_rao_norms(model, inputs, criterion=criterion), expected, rtol=1e-10, atol=0)
    plain = fisher_rao_norms(model, inputs)
    assert ((plain - expected).abs() > 1e-3 * plain).any()


def test_liang_s_identity():
    # without biases ⟨θ, ∇_θ ℓ⟩ = k ⟨∂ℓ/∂f, f⟩, with k weight layers
    torch.manual_seed(1)
    model, inputs = mlp(4, 6, 5, 3, bias=False).double(), torch.randn(4, 4, dtype=torch.float64)
    parameters = list(model.parameters())
    expected = torch.zeros(4, dtype=torch.float64)
    for n in range(4):
        for j in range(3):
            loss = F.cross_entropy(model(inputs[n : n + 1]), torch.tensor([j]))
            product = sum((p * g).sum() for p, g in zip(parameters, torch.autograd.grad(loss, parameters)))
            expected[n] += (product.detach() / 3) ** 2
    torch.testing.assert_close(fisher_rao_norms(model, inputs), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("logits", [[0.3, -0.7, 1.9], [200.0, -150.0, 3.0], [1e-6, 2e-6, -1e-6], [30.0, 30.1, 29.9]])
def test_against_many_digits(logits):
    with mpmath.workdps(60):
        weights = [mpmath.exp(mpmath.mpf(f)) for f in logits]
        mean = sum(w * mpmath.mpf(f) for w, f in zip(weights, logits)) / sum(weights)
        expected = float(sum((mean - mpmath.mpf(f)) ** 2 for f in logits))
    row = torch.tensor([logits], dtype=torch.float64)
    assert fisher_rao_norms(nn.Identity(), row).tolist() == pytest.approx([expected], rel=1e-9)


def test_inputs_of_every_kind():
    torch.manual_seed(0)
    model = Language()
    tokens = draw_tokens(3)
    expected = by_scaling(model.double(), tokens)
    torch.testing.assert_close(fisher_rao_norms(model, tokens), expected)
    named = Lambda(lambda m, tokens: {"logits": m.net(tokens), "loss": None}, net=model)
    named.forward = lambda tokens, scale: {"logits": scale * model(tokens)}
    batch = {"tokens": tokens, "scale": torch.tensor(1.0)}
    torch.testing.assert_close(fisher_rao_norms(named, batch, output=lambda out: out["logits"]), expected)
    in_place = Lambda(lambda m, x: x.mul_(2))
    inputs = torch.randn(3, 2)
    before = inputs.clone()
    torch.testing.assert_close(fisher_rao_norms(in_place, inputs), fisher_rao_norms(nn.Identity(), 2 * before))
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single_precision(dtype):
    logits = torch.tensor([[300.0, -300.0], [1.0, 0.5]], dtype=dtype)
    actual = fisher_rao_norms(nn.Identity(), logits)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, fisher_rao_norms(nn.Identity(), logits.float()))
    by_criterion = fisher_rao_norms(nn.Identity(), logits, criterion=F.cross_entropy)
    torch.testing.assert_close(by_criterion, actual)


def test_no_samples():
    assert fisher_rao_norms(mlp(4, 3), torch.zeros(0, 4)).shape == (0,)


def test_dropout_is_off_and_nothing_is_left_behind():
    model = mixed_modes(mlp(4, 6, 3, between=lambda n: [nn.BatchNorm1d(n), nn.Dropout(0.5)]))
    inputs = torch.randn(5, 4)
    before = state_of(model)
    expected = fisher_rao_norms(model, inputs)
    assert state_of(model) == before
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert torch.equal(fisher_rao_norms(model, inputs), expected)
            torch.testing.assert_close(fisher_rao_norms(model, inputs, criterion=F.cross_entropy), expected)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda m, x: (x, x), "expected Lambda to return one floating-point tensor, but got tuple; pass output=callable"),
        (lambda m, x: x.long(), "expected Lambda to return one floating-point tensor, but got Tensor"),
        (lambda m, x: x[:, :1], r"with N = 3 samples and C ≥ 2 classes, but got \(3, 1\); the Fisher–Rao norm is a cla"),
        (lambda m, x: x[:, 0], r"C ≥ 2 classes, but got \(3,\)"),
        (lambda m, x: x[:1], r"N = 3 samples and C ≥ 2 classes, but got \(1, 4\)"),
        (lambda m, x: x[:, :, None], r"C ≥ 2 classes, but got \(3, 4, 1\)"),
    ],
)
def test_outputs_that_are_no_classifier_s(forward, message):
    with pytest.raises(UnsupportedNetworkError, match=message):
        fisher_rao_norms(Lambda(forward), torch.randn(3, 4))


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (lambda y, t: 1.0, "criterion: expected a tensor of losses, but got float; return a tensor"),
        (lambda y, t: y.sum(1)[:2], r"expected one loss for each of the 3 samples, or their mean, but got shape \(2,\)"),
        (lambda y, t: y.detach().sum(), "can be differentiated with respect to the outputs, but got one that is detached"),
        (lambda y, t: torch.ones((), requires_grad=True), "but got one that is detached from them; compute it from the out"),
    ],
)
def test_criteria_that_are_refused(criterion, message):
    with pytest.raises(ValueError, match=message):
        fisher_rao_norms(mlp(4, 2), torch.randn(3, 4), criterion=criterion)
