"""Which way is taken, and why."""

import gc
import weakref

import pytest
import torch
from torch import nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional import chosen_method, tangent_sensitivity
from lightning_tansens.tangent import methods
from lightning_tansens.tangent.closed_form.chain import trace_chain
from lightning_tansens.tangent.methods import AFFORDABLE, Choice, choose, closed_form_cost
from lightning_tansens.tangent.network import Network
from tests.cases import Lambda, mlp
from tests.modules import normal
from tests.networks import COVERED, UNCOVERED

RULES = "every parameter has a layer rule (1 to 2 training steps)"
METHODS = ["auto", "exact", "stochastic", "input_space", "parameter_space"]


def expensive():
    return mlp(600, 600, 600, 2)


def test_a_chain_has_its_closed_form():
    for method in ("auto", "exact"):
        choice = chosen_method(mlp(4, 5, 2), torch.randn(3, 4), method)
        assert choice == Choice("closed_form", "a piecewise-linear chain; it costs about 4 training steps")
    assert str(choice) == "closed_form (a piecewise-linear chain; it costs about 4 training steps)"
    assert chosen_method(mlp(4, 5, 2), torch.randn(3, 4), "stochastic").way == "input_space"


def test_a_chain_that_is_too_wide_is_left_to_probes():
    model, inputs = expensive(), torch.randn(2, 600)
    cost = closed_form_cost(trace_chain(model, inputs))
    assert cost == pytest.approx(2 * 300 * 300 * 600 / (3 * (2 * 600**2 + 1200)))  # half of the units, at twice the time
    assert cost > AFFORDABLE
    choice = chosen_method(model, inputs)
    assert choice.way == "input_space"
    assert choice.reason == f"the closed form would cost about 54 training steps; {RULES}"
    assert chosen_method(model, inputs, "exact").way == "closed_form"
    assert "costs about 54 training steps" in chosen_method(model, inputs, "exact").reason


@pytest.mark.parametrize(
    ("model", "multiplied"),
    [
        (mlp(128, 128, 128, 128, 128, 128, 2), 2 * 4 * 64**3),  # four maps repay a factor with 64 columns
        (mlp(128, 128, 128, 2, activation=nn.LeakyReLU), 128**3),  # nothing is switched off
        (mlp(50, 50, 50, 2), 50**3),  # too narrow
        (mlp(50, 128, 2), 0),  # nothing goes through a second layer
    ],
    ids=["deep", "leaky", "narrow", "one hidden layer"],
)
def test_only_active_units_of_wide_layers_cost(model, multiplied):
    weights = [p for p in model.parameters() if p.dim() == 2]
    chain = trace_chain(model, torch.randn(3, weights[0].shape[1]))
    assert closed_form_cost(chain) == pytest.approx(multiplied / (3 * sum(p.numel() for p in weights)))


def test_a_network_without_weights_costs_nothing():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()).eval()
    assert closed_form_cost(trace_chain(model, torch.randn(2, 4))) == 0
    assert chosen_method(model, torch.randn(2, 4)).way == "closed_form"


@pytest.mark.parametrize(
    ("name", "function", "module"),
    [
        ("MLP with GELU", "gelu", r"module '1' \(GELU\)"),
        ("residual", "conv2d", r"module '0' \(Conv2d\)"),
        ("1d", "conv1d", r"module '0' \(Conv1d\)"),
    ],
)
def test_other_networks_take_input_space_where_every_parameter_has_a_rule(name, function, module):
    model, inputs = COVERED[name].make()
    choice = chosen_method(model, inputs)
    assert choice.way == "input_space"
    assert choice.reason.startswith("no closed form for ")
    assert choice.reason.endswith(f"; {RULES}")
    assert f"{function} called in " in choice.reason
    assert module.replace("\\", "") in choice.reason
    assert len(choice.reason) < 160
    assert chosen_method(model, inputs, "exact").way == "forward_mode"
    assert chosen_method(model, inputs, "stochastic").reason == RULES
    assert chosen_method(model, inputs, "parameter_space") == Choice(
        "parameter_space", "as asked for (3 to 8 training steps)"
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("LSTM", "parameter 'layer.weight_ih_l0' in torch.lstm called in module 'layer' (LSTM)"),
        ("GRU", "parameter 'layer.weight_ih_l0' in torch.gru called in module 'layer' (GRU)"),
        ("power", "parameter 'power' in torch.Tensor.__pow__ called in module 'Lambda' (Lambda)"),
        (
            "weight norm",
            "parameter '0.parametrizations.weight.original0' in _weight_norm called in module '0.parametrizations.weight.0'",
        ),
    ],
)
def test_parameters_without_a_rule_are_named(name, reason):
    model, inputs = UNCOVERED[name].make()
    for method in ("auto", "stochastic"):
        choice = chosen_method(model, inputs, method)
        assert choice.way == "parameter_space"
        assert reason in choice.reason
        assert "\n" not in choice.reason
    with pytest.raises(
        UnsupportedNetworkError, match=r"method='input_space': .*; use method='parameter_space', which needs no"
    ):
        chosen_method(model, inputs, "input_space")
    assert list(tangent_sensitivity(model, inputs, method="exact")) > [0, 0]


class Doubled(torch.autograd.Function):
    """Twice the input, without a forward mode."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


def test_functions_without_a_forward_mode_are_left_to_parameter_space():
    model = Lambda(lambda m, x: torch.tanh(Doubled.apply(m.net(x))), net=nn.Linear(4, 2))
    same = Lambda(lambda m, x: torch.tanh(2 * m.net(x)), net=model.net)
    inputs = torch.randn(3, 4)
    choice = chosen_method(model, inputs, "stochastic")
    assert choice.way == "parameter_space"
    assert choice.reason.startswith("forward-mode differentiation: You must implement the jvp function for custom autograd")
    for method in ("exact", "parameter_space"):
        torch.testing.assert_close(
            tangent_sensitivity(model, inputs, method=method), tangent_sensitivity(same, inputs, method=method)
        )


def test_frozen_parameters_need_no_rule():
    model, inputs = UNCOVERED["power"].make()
    model.power.requires_grad_(False)
    assert chosen_method(model, inputs).way == "input_space"


def count(monkeypatch, name):
    calls = []
    function = getattr(methods, name)
    monkeypatch.setattr(methods, name, lambda *args: calls.append(args) or function(*args))
    return calls


def test_a_network_is_examined_once(monkeypatch):
    calls = count(monkeypatch, "_examine")
    model, inputs = COVERED["MLP with tanh"].make()
    for _ in range(3):
        tangent_sensitivity(model, inputs)
        tangent_sensitivity(model, inputs[:1])
    assert len(calls) == 1
    tangent_sensitivity(model, inputs, method="stochastic")
    model[0].weight.requires_grad_(False)
    tangent_sensitivity(model, inputs)
    tangent_sensitivity(model.float(), inputs.float())
    assert len(calls) == 4


def test_the_choice_knows_x_and_the_outputs():
    """Another input of the same shape, or another head, is another function."""

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 2), nn.Linear(4, 2)
            self.power = nn.Parameter(torch.ones(2))

        def forward(self, x, y):
            return {"a": torch.tanh(self.a(x)), "b": torch.tanh(self.b(y)) ** self.power + self.a(x)}

    model, inputs = Heads(), {"x": torch.randn(2, 4), "y": torch.randn(2, 4)}
    for _ in range(2):
        assert chosen_method(model, inputs, wrt="x", output=lambda out: out["a"]).way == "input_space"
        assert chosen_method(model, inputs, wrt="y", output=lambda out: out["b"]).way == "parameter_space"
    picker = lambda out: out["a"]  # noqa: E731
    assert tangent_sensitivity(model, inputs, wrt="x", output=picker).all()
    assert not tangent_sensitivity(model, inputs, wrt="y", output=picker).any()


def test_choices_are_forgotten(monkeypatch):
    monkeypatch.setattr(methods, "REMEMBERED", 3)
    model, inputs = COVERED["MLP with tanh"].make()
    for _ in range(10):
        chosen_method(model, inputs, output=lambda out: out)
        assert len(methods._choices[model]) <= 3
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


MIXING = {
    "mean of the batch": lambda: Lambda(lambda m, x: m.net(torch.tanh(x - x.mean(0))), net=nn.Linear(4, 2)),
    "linear mixing": lambda: Lambda(lambda m, x: m.net(x - x.mean(0)), net=mlp(4, 5, 2)),
    "attention over the batch": lambda: Lambda(
        lambda m, x: m.attention(x, x, x)[0].softmax(-1), attention=nn.MultiheadAttention(4, 2)
    ),
    "batch statistics, functional": lambda: Lambda(
        lambda m, x: nn.functional.batch_norm(m.net(x), None, None, training=True), net=nn.Linear(4, 2)
    ),
    "mixing without forward mode": lambda: Lambda(
        lambda m, x: m.net(x - x.mean(0)), net=nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))
    ),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MIXING)
def test_mixed_samples_are_refused(name, method):
    torch.manual_seed(0)
    model = MIXING[name]()
    message = "expected the samples of a batch to be independent in eval mode, but Lambda mixes them; use layers that do not"
    for samples in (1, 2, 5):
        with pytest.raises(UnsupportedNetworkError, match=message):
            tangent_sensitivity(model, torch.randn(samples, 4), method=method)


@pytest.mark.parametrize("method", METHODS)
def test_batch_norm_without_statistics_is_refused(method):
    model = mlp(4, 5, 2, between=lambda n: [nn.BatchNorm1d(n, track_running_stats=False)])
    message = (
        r"module '1' \(BatchNorm1d\) normalises by the batch, because it has track_running_stats=False, which mixes them"
    )
    with pytest.raises(UnsupportedNetworkError, match=message):
        tangent_sensitivity(model, torch.randn(3, 4), method=method)


@pytest.mark.parametrize("method", METHODS)
def test_constant_and_untrained_networks(method):
    frozen = mlp(4, 3, 2).requires_grad_(False)
    assert not tangent_sensitivity(frozen, torch.randn(3, 4), method=method).any()
    constant = Lambda(lambda m, x: m.value.expand(len(x), 2) + 0 * x[:, :2].detach(), value=nn.Parameter(torch.ones(2)))
    if method != "input_space":
        assert not tangent_sensitivity(constant, torch.randn(3, 4), method=method).any()


@pytest.mark.parametrize("method", ["all", None, 1, "Exact"])
def test_unknown_methods(method):
    with pytest.raises(ValueError, match=r"method: expected one of \['auto', 'exact', 'stochastic', .*but got"):
        tangent_sensitivity(mlp(4, 2), torch.randn(2, 4), method=method)


def test_choose_takes_a_network():
    model, inputs = COVERED["MLP with tanh"].make()
    assert choose(Network(model.eval(), inputs)).way == "input_space"
    assert choose(Network(model, normal(4)(1))).axes.signature == (
        ("0.weight", "0.bias"), ("2.weight", "2.bias"), ("4.weight", "4.bias"),
    )  # fmt: skip
