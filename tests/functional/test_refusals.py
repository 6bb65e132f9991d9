"""What the closed form does not cover is refused, with the reason and the module's name."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional import tangent_sensitivity, tangent_sensitivity_blocks
from lightning_tansens.tangent.closed_form import exact
from lightning_tansens.tangent.closed_form.exact import exact_blocks
from lightning_tansens.tangent.isolation import evaluation
from lightning_tansens.tangent.network import Network
from tests.cases import Lambda, mlp


class Reverse(torch.autograd.Function):
    """The identity, whose gradient is another."""

    @staticmethod
    def forward(ctx, x):
        return x * 1.0

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Unseen(torch.autograd.Function):
    """A half, computed out of the trace's sight."""

    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(x.detach().numpy() / 2)

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 2


def around(function, **members):
    """Two linear layers with something between them."""
    return Lambda(
        lambda m, x: m.second(function(m, m.first(x))),
        first=nn.Linear(4, 4),
        second=nn.Linear(4, 2),
        act=nn.ReLU(),
        **members,
    )


def without_grad(m, h):
    with torch.no_grad():
        return m.act(h)


def all_without_grad(m, x):
    with torch.no_grad():
        return m.net(x)


def reused_alias(m, h):
    view = h.view(-1, 4)
    F.relu_(view)
    return h


def reused_after_write(m, h):
    h[:, 0] = 0
    return h


def tied():
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), layer)


NO_CLOSED_FORM = r"called in module '.*' \(.*\) cannot be measured exactly: it has no closed form"

REFUSED = {
    "convolution": (
        lambda: nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 2), nn.Flatten()),
        r"conv1d.*'1' \(Conv1d\)",
    ),
    "GELU": (lambda: mlp(4, 4, 2, activation=nn.GELU), r"gelu called in module '1' \(GELU\).*no closed form"),
    "sigmoid": (lambda: around(lambda m, h: torch.sigmoid(h)), NO_CLOSED_FORM),
    "softmax output": (lambda: nn.Sequential(nn.Linear(4, 2), nn.Softmax(-1)), r"softmax.*'1' \(Softmax\)"),
    "layer norm": (lambda: mlp(4, 4, 2, between=lambda n: [nn.LayerNorm(n)]), r"layer_norm.*'1' \(LayerNorm\)"),
    "residual sum": (lambda: around(lambda m, h: h + m.act(h)), "it joins two branches, so the network is no chain"),
    "product of branches": (lambda: around(lambda m, h: h * m.act(h)), "joins two branches"),
    "concatenation": (lambda: around(lambda m, h: torch.cat([h[:, :2], m.act(h)[:, 2:]], 1)), "cannot be measured exactly"),
    "tied weights": (tied, "parameter '0.weight' is used by several layers, whose blocks add before the norm"),
    "transposed weight": (lambda: around(lambda m, h: F.linear(h, m.first.weight.T)), "its weight is computed from other"),
    "matrix product": (lambda: around(lambda m, h: h @ m.first.weight), r"matmul.*no closed form"),
    "positions": (
        lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Linear(2, 3)),
        r"shape \(2, 2, 2\), so its weight is shared by",
    ),
    "batch statistics": (
        lambda: mlp(4, 4, 2, between=lambda n: [nn.BatchNorm1d(n, track_running_stats=False)]),
        "normalises by the batch in eval mode too, which mixes the samples; use track_running_stats=True",
    ),
    "batch norm left in training": (
        lambda: around(lambda m, h: F.batch_norm(h, m.mean, m.var, training=True), mean=torch.zeros(4), var=torch.ones(4)),
        "normalises by the batch",
    ),
    "batch norm on channels": (
        lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), nn.BatchNorm1d(2), nn.Flatten(), nn.Linear(4, 2)),
        r"its input has shape \(2, 2, 2\); expected \(samples, features\)",
    ),
    "batch norm with a computed scale": (
        lambda: around(
            lambda m, h: F.batch_norm(h, m.mean, m.var, m.first.weight[0]), mean=torch.zeros(4), var=torch.ones(4)
        ),
        "its parameter is computed from other tensors",
    ),
    "PReLU with a computed slope": (
        lambda: around(lambda m, h: F.prelu(h, m.first.weight[0, :1])),
        "its parameter is computed from other tensors",
    ),
    "PReLU on channels": (
        lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), nn.PReLU(2), nn.Flatten(), nn.Linear(4, 2)),
        "its slopes are shared by channels; expected one for all units or one each",
    ),
    "dropout left in training": (
        lambda: around(lambda m, h: F.dropout(h)),
        "it is random in eval mode too; pass training=self.training",
    ),
    "RReLU left in training": (lambda: around(lambda m, h: F.rrelu(h, training=True)), "it is random in eval mode too"),
    "RReLU in place left in training": (
        lambda: around(lambda m, h: F.rrelu_(h, 0.1, 0.3, True)),
        "it is random in eval mode",
    ),
    "weight norm": (
        lambda: nn.Sequential(weight_norm(nn.Linear(4, 2))),
        r"linear.*its weight is computed from other tensors",
    ),
    "spectral norm": (lambda: nn.Sequential(spectral_norm(nn.Linear(4, 2))), "its weight is computed from other tensors"),
    "division by a norm of weights": (
        lambda: around(lambda m, h: h / m.first.weight.norm()),
        "it multiplies by a parameter outside of a layer that has a closed form",
    ),
    "trainable temperature": (
        lambda: around(lambda m, h: h * m.scale, scale=nn.Parameter(torch.ones(1))),
        "it multiplies by a parameter outside of a layer",
    ),
    "hidden scale": (
        lambda: around(lambda m, h: h + (m.scale * torch.ones(4)), scale=nn.Parameter(torch.ones(1))),
        "trainable parameter 'scale' reaches the output outside of the layers that were traced",
    ),
    "no_grad around the backbone": (lambda: around(without_grad), "has another gradient with respect to the input"),
    "no_grad around everything": (
        lambda: Lambda(all_without_grad, net=mlp(4, 4, 2)),
        "has another gradient with respect to",
    ),
    "custom gradient": (lambda: around(lambda m, h: Reverse.apply(h)), "has another gradient with respect to the input"),
    "custom gradient in a sum": (lambda: around(lambda m, h: m.act(h) + Reverse.apply(h)), "joins two branches"),
    "custom function": (lambda: around(lambda m, h: Unseen.apply(h)), "could not be followed back to the input"),
    "custom function in a sum": (
        lambda: around(lambda m, h: h + Unseen.apply(h)),
        "has another gradient with respect to the inp",
    ),
    "detach": (lambda: around(lambda m, h: h.detach()), r"detach.*no closed form"),
    "data": (lambda: around(lambda m, h: h.data), NO_CLOSED_FORM),
    "constant over input": (lambda: around(lambda m, h: 1 / h), "cannot be measured exactly"),
    "tensor over input": (lambda: around(lambda m, h: torch.ones(4) / h), "its input is expected as the first argument"),
    "permuted units": (
        lambda: around(lambda m, h: h.view(-1, 2, 2).permute(0, 2, 1).flatten(1)),
        r"permute.*no closed form",
    ),
    "transposed samples": (lambda: Lambda(lambda m, x: m.net(x).T, net=mlp(4, 4, 2)), NO_CLOSED_FORM),
    "flattened batch": (
        lambda: around(lambda m, h: h.reshape(-1, 1).view(-1, 4)),
        "it does not keep the units of each sample",
    ),
    "rounded": (lambda: around(lambda m, h: h.to(torch.int32).float()), "does not keep the units"),
    "broadcast": (
        lambda: around(lambda m, h: m.act(h.unsqueeze(1) + torch.ones(3, 4))),
        "it does not act on each unit by itself",
    ),
    "change of an alias": (lambda: around(reused_alias), r"a tensor was changed in place in module .* and used again"),
    "write to an item": (lambda: around(reused_after_write), r"__setitem__.*no closed form"),
    "chunks": (lambda: around(lambda m, h: h.chunk(2, 1)[0].repeat(1, 2)), r"chunk.*no closed form"),
    "mean of the batch": (
        lambda: Lambda(lambda m, x: m.net(x).mean(0, keepdim=True), net=mlp(4, 4, 2)),
        r"expected outputs of shape \(N, ...\) with N = 2 samples, but got \(1, 2\)",
    ),
    "tuple": (
        lambda: Lambda(lambda m, x: (m.net(x), x), net=mlp(4, 4, 2)),
        "expected Lambda to return one floating-point tensor, but got tuple; pass output=callable",
    ),
    "dict": (
        lambda: Lambda(lambda m, x: {"a": m.net(x), "b": x}, net=mlp(4, 4, 2)),
        "expected Lambda to return one floating-point tensor, but got dict; pass output=callable",
    ),
    "constant": (
        lambda: Lambda(lambda m, x: torch.ones(len(x), 2), net=mlp(4, 4, 2)),
        "got Tensor that could not be followed",
    ),
}


def closed_form(model, inputs):
    with evaluation(model):
        return exact_blocks(Network(model, inputs), "sum")


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    build, message = REFUSED[name]
    torch.manual_seed(0)
    model = build()
    with pytest.raises(UnsupportedNetworkError, match=message):
        closed_form(model, torch.randn(2, 4))
    assert model.training


def test_a_squeezed_batch_of_one():
    model, inputs = Lambda(lambda m, x: m.net(x).squeeze(), net=mlp(4, 4, 1)), torch.randn(3, 4)
    blocks = closed_form(model, inputs)
    assert blocks["net.0.weight"].shape == (3, 1)
    for name, block in closed_form(model, inputs[:1]).items():
        torch.testing.assert_close(block, blocks[name][:1])


def test_a_misfit_is_noticed_after_a_chain_was_verified():
    model = around(lambda m, h: Unseen.apply(h) if m.hide else m.act(h))
    model.hide = False
    closed_form(model, torch.randn(2, 4))
    model.hide = True
    with pytest.raises(UnsupportedNetworkError, match="could not be followed back"):
        closed_form(model, torch.randn(2, 4))


def test_a_verified_chain_is_not_verified_again(monkeypatch):
    model = mlp(4, 4, 2)
    calls = []
    monkeypatch.setattr(
        exact, "_pull_back", lambda *args, f=exact._pull_back, **kwargs: calls.append(kwargs) or f(*args, **kwargs)
    )
    for _ in range(3):
        closed_form(model, torch.randn(2, 4))
    assert [call["first"] for call in calls].count(0) == 1
    model[0].weight.requires_grad_(False)
    closed_form(model, torch.randn(2, 4))
    assert [call["first"] for call in calls].count(0) == 2


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (
            torch.zeros(2, 4, dtype=torch.long),
            TypeError,
            r"expected a floating-point tensor.*a tensor of torch.int64.*/ 255",
        ),
        (torch.zeros(2, 4, dtype=torch.uint8), TypeError, r"a tensor of torch.uint8"),
        ([[0.0] * 4], TypeError, "expected a floating-point tensor.*but got list"),
        ({"x": torch.zeros(2, 4)}, TypeError, "but got dict"),
        (None, TypeError, "but got NoneType"),
        (torch.zeros(4), ValueError, r"expected a batch of shape \(N, ...\), but got shape \(4,\); add the batch dimension"),
        (torch.tensor(0.0), ValueError, r"but got shape \(\)"),
    ],
)
def test_inputs(inputs, error, message):
    with pytest.raises(error, match=message):
        tangent_sensitivity(mlp(4, 4, 2), inputs)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"outputs": "all"}, ValueError, r"outputs: expected 'sum', 'each' or a weighting of shape \(C,\), but got 'all'"),
        ({"outputs": None}, ValueError, "outputs: expected 'sum', 'each'.*got None"),
        ({"outputs": 1}, ValueError, "outputs: expected 'sum', 'each'.*got 1"),
        ({"outputs": torch.ones(1, 2)}, ValueError, r"a weighting of shape \(C,\), but got shape \(1, 2\)"),
        ({"outputs": torch.tensor(1.0)}, ValueError, r"a weighting of shape \(C,\), but got shape \(\)"),
        ({"outputs": torch.ones(3)}, ValueError, r"a weighting of shape \(2,\), one for each output.*got shape \(3,\)"),
        ({"method": "fast"}, ValueError, "method: expected .*but got 'fast'"),
        ({"num_probes": 0}, ValueError, "num_probes: expected a positive integer, but got 0"),
        ({"num_probes": 1.5}, ValueError, "num_probes: expected a positive integer, but got 1.5"),
        ({"generator": 0}, TypeError, "generator: expected a torch.Generator or None, but got int"),
    ],
)
@pytest.mark.parametrize("function", [tangent_sensitivity, tangent_sensitivity_blocks])
def test_arguments(function, arguments, error, message):
    with pytest.raises(error, match=message):
        function(mlp(4, 4, 2), torch.zeros(2, 4), **arguments)
