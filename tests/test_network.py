"""A network as a function of one tensor."""

import pytest
import torch
from torch import nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional import tangent_sensitivity
from lightning_tansens.tangent.batches import batch_length, call_model, map_tensors
from lightning_tansens.tangent.network import Network
from tests.cases import Lambda, mlp
from tests.helpers import assert_equal
from tests.modules import Language, draw_tokens, normal
from tests.networks import COVERED

METHODS = ["auto", "exact", "input_space", "parameter_space"]


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x, y, flag=True):
        return torch.tanh(self.a(x)) @ self.b.weight.T * y if flag else x


BATCH = {"x": torch.randn(2, 4), "y": torch.randn(2, 2), "flag": True}


def test_calls():
    model = Two()
    expected = model(**BATCH)
    assert torch.equal(call_model(model, BATCH), expected)
    assert torch.equal(call_model(model, tuple(BATCH.values())), expected)
    assert torch.equal(call_model(model, list(BATCH.values())), expected)
    assert batch_length(BATCH) == batch_length(list(BATCH.values())) == batch_length(BATCH["x"]) == 2
    nested = {"a": [torch.ones(1), (torch.ones(2), "text")], "b": None}
    assert map_tensors(len, nested) == {"a": [1, [2, "text"]], "b": None}


@pytest.mark.parametrize(("inputs", "wrt"), [(BATCH, "x"), (tuple(BATCH.values()), 0), (list(BATCH.values()), 0)])
def test_x_among_several_inputs(inputs, wrt):
    network = Network(Two(), inputs, wrt)
    assert torch.equal(network.x, BATCH["x"])
    assert len(network) == 2
    part = network.part([1, 0, 1])
    assert torch.equal(part.x, BATCH["x"][[1, 0, 1]])
    assert torch.equal(part(part.x), network(network.x)[[1, 0, 1]])
    other = torch.randn(2, 4)
    assert torch.equal(network(other), network.model(other, BATCH["y"]))


def test_x_is_the_output_of_a_module():
    model = Language()
    tokens = draw_tokens(3)
    network = Network(model.eval(), tokens, "tokens")
    assert torch.equal(network.x, model.tokens(tokens))
    assert not network.x.requires_grad
    assert torch.equal(network(network.x), model(tokens))
    assert not torch.equal(network(network.x + 1), model(tokens))
    assert not model.tokens._forward_hooks
    assert network.part(slice(1, 2)).x.shape == (1, 3, 3)


def test_the_output_of_a_module_is_taken_before_it_is_changed_in_place():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2)).eval()
    inputs = torch.randn(2, 4)
    assert torch.equal(Network(model, inputs, "0").x, model[0](inputs))


@pytest.mark.parametrize("method", METHODS)
def test_no_input_is_changed_in_place(method):
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp(4, 3, 2, activation=nn.Tanh)

        def forward(self, x, y):
            return self.net(x.mul_(2)) * y.mul_(2)

    class Plain(InPlace):
        def forward(self, x, y):
            return self.net(x * 2) * (y * 2)

    model, plain = InPlace().double(), Plain().double()
    plain.load_state_dict(model.state_dict())
    inputs = {"x": normal(4)(2), "y": normal(2)(2)}
    copies = {name: value.clone() for name, value in inputs.items()}
    values = tangent_sensitivity(model, inputs, wrt="x", method=method, num_probes=2)
    assert_equal(values, tangent_sensitivity(plain, inputs, wrt="x", method=method, num_probes=2))
    assert all(torch.equal(inputs[name], copies[name]) for name in inputs)
    frozen = InPlace().double().requires_grad_(False)
    tangent_sensitivity(frozen, inputs, wrt="x", outputs="each", method=method)
    assert all(torch.equal(inputs[name], copies[name]) for name in inputs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["dict", "tuple", "embedding"])
def test_tensors_of_inference_mode(name, method):
    example = COVERED[name]
    model, _ = example.make()
    with torch.inference_mode():
        inputs = example.draw(2)
        inside = tangent_sensitivity(model, inputs, method=method, **example.options)
    ordinary = map_tensors(lambda tensor: tensor.clone(), inputs)
    assert_equal(inside, tangent_sensitivity(model, ordinary, method=method, **example.options))


@pytest.mark.parametrize("outputs", ["sum", "each"])
@pytest.mark.parametrize("name", ["dict", "tuple", "embedding", "MLP with tanh"])
def test_empty_batches(name, outputs):
    example = COVERED[name]
    model, inputs = example.make(samples=2)
    empty = map_tensors(lambda tensor: tensor[:0] if tensor.dim() else tensor, inputs)
    options = {**example.options, "outputs": outputs}
    full, none = (tangent_sensitivity(model, batch, **options) for batch in (inputs, empty))
    assert none.shape == (0, *full.shape[1:])


WRONG = [
    (BATCH, "z", ValueError, r"wrt: expected the name of an input \['x', 'y', 'flag'\] or of a submodule, but got 'z'"),
    (torch.ones(2, 4), "z", ValueError, r"wrt: expected the name of an input \[\] or of a submodule, but got 'z'"),
    (torch.ones(2, 4), 0, ValueError, "wrt: expected the name or the position of an input or a submodule, but got 0"),
    (tuple(BATCH.values()), 3, ValueError, "wrt: expected the name or the position of an input or a submodule, but got 3"),
    (tuple(BATCH.values()), -1, ValueError, "wrt: expected the name or the position of an input.*but got -1"),
    (BATCH, 0, ValueError, "wrt: expected the name or the position of an input or a submodule, but got 0"),
    (BATCH, "flag", TypeError, "inputs: expected a floating-point tensor, .*but got bool; convert it"),
    (
        BATCH,
        None,
        TypeError,
        "but got dict; convert it .*or name x with wrt: an input's name or position, or the module whose",
    ),
    (tuple(BATCH.values()), None, TypeError, "but got list|but got tuple"),
    (torch.ones(2, 4, dtype=torch.int64), None, TypeError, "but got a tensor of torch.int64; convert it"),
    (torch.ones(4), None, ValueError, r"inputs: expected a batch of shape \(N, ...\), but got shape \(4,\); add the batch"),
]


@pytest.mark.parametrize(("inputs", "wrt", "error", "message"), WRONG)
def test_wrong_inputs(inputs, wrt, error, message):
    with pytest.raises(error, match=message):
        tangent_sensitivity(Two(), inputs, wrt=wrt)


@pytest.mark.parametrize("calls", [0, 2])
def test_a_module_that_is_not_called_once_cannot_give_x(calls):
    def forward(m, x):
        for _ in range(calls):
            x = m.layer(x)
        return torch.tanh(x)

    model = Lambda(forward, layer=nn.Linear(4, 4))
    message = (
        f"wrt: expected module 'layer' to be called once in a forward pass, .*but it is called {calls} times; name another"
    )
    with pytest.raises(UnsupportedNetworkError, match=message):
        tangent_sensitivity(model, torch.ones(2, 4), wrt="layer")


@pytest.mark.parametrize(
    ("forward", "output", "message"),
    [
        (
            lambda m, x: (m.net(x), x),
            None,
            "expected Lambda to return one floating-point tensor, but got tuple; pass output=",
        ),
        (lambda m, x: {"logits": m.net(x)}, lambda out: out, "but got dict; pass output=callable that picks it"),
        (lambda m, x: m.net(x), lambda out: out.argmax(1), "but got Tensor; pass output="),
        (
            lambda m, x: m.net(x),
            lambda out: out.sum(),
            r"expected outputs of shape \(N, ...\) with N = 3 samples, but got \(\)",
        ),
        (lambda m, x: m.net(x), lambda out: out[:, 0:1].T.expand(7, -1), r"with N = 3 samples, but got \(7, 3\)"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_wrong_outputs(forward, output, message, method):
    with pytest.raises(UnsupportedNetworkError, match=message):
        tangent_sensitivity(Lambda(forward, net=nn.Linear(4, 2)), torch.ones(1, 4), output=output, method=method)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"positions": [0]}, ValueError, "positions: expected one for each of the 2 samples, but got 1"),
        ({"positions": [0, 1, 2]}, ValueError, "positions: expected one for each of the 2 samples, but got 3"),
        ({"num_probes": 0}, ValueError, "num_probes: expected a positive integer, but got 0"),
        ({"num_probes": True}, ValueError, "num_probes: expected a positive integer, but got True"),
        ({"generator": 3}, TypeError, "generator: expected a torch.Generator or None, but got int"),
    ],
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        tangent_sensitivity(mlp(4, 2, activation=nn.GELU), torch.ones(2, 4), **options)
