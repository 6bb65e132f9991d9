"""Active nodes against counts by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional import active_nodes, log_max_weights, preactivations, weight_layers
from tests.cases import Lambda, elementwise, mlp

ACTIVATIONS = {
    "module": lambda: nn.ReLU(),
    "module in place": lambda: nn.ReLU(inplace=True),
    "function": lambda: F.relu,
    "function in place": lambda: F.relu_,
    "torch": lambda: torch.relu,
    "method": lambda: torch.Tensor.relu,
    "method in place": lambda: torch.Tensor.relu_,
    "keyword": lambda: lambda h: F.relu(input=h),
    "ReLU6": lambda: nn.ReLU6(),
    "Hardtanh": lambda: nn.Hardtanh(),
    "LeakyReLU": lambda: nn.LeakyReLU(),
    "PReLU": lambda: nn.PReLU(),
    "RReLU": lambda: nn.RReLU(),
    "ELU": lambda: nn.ELU(),
    "SELU": lambda: nn.SELU(),
    "CELU": lambda: nn.CELU(),
    "GELU": lambda: nn.GELU(),
    "SiLU": lambda: nn.SiLU(),
    "Mish": lambda: nn.Mish(),
    "Softplus": lambda: nn.Softplus(),
    "Hardswish": lambda: nn.Hardswish(),
    "Tanh": lambda: nn.Tanh(),
    "tanh method": lambda: torch.Tensor.tanh,
    "Sigmoid": lambda: nn.Sigmoid(),
    "Hardsigmoid": lambda: nn.Hardsigmoid(),
    "Threshold": lambda: nn.Threshold(0.0, 0.0),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_way_of_calling_an_activation(name):
    activation = ACTIVATIONS[name]()
    model = Lambda(lambda m, x: m.second(m.act(m.first(x))), first=nn.Linear(4, 6), second=nn.Linear(6, 2), act=activation)
    inputs = torch.randn(5, 4)
    hidden = model.first(inputs)
    assert active_nodes(model, inputs).tolist() == (hidden > 0).sum(1, keepdim=True).tolist()
    (recorded,) = preactivations(model, inputs)
    torch.testing.assert_close(recorded, hidden.detach(), rtol=0, atol=0)


def test_layers_come_in_the_order_of_the_forward_pass():
    second, first = nn.Linear(3, 2), nn.Linear(1, 3)
    model = Lambda(lambda m, x: F.relu(m.second(F.relu(m.first(x)))), second=second, first=first)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0], [1.0], [-1.0]]))
        second.weight.copy_(torch.tensor([[1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]))
        first.bias.zero_(), second.bias.zero_()
    # at zero no unit is active
    assert active_nodes(model, torch.tensor([[1.0], [-1.0], [0.0]])).tolist() == [[2, 1], [1, 1], [0, 0]]


def test_dropout_and_batch_norm_are_in_eval_mode():
    model = mlp(4, 50, 50, 2, between=lambda n: [nn.BatchNorm1d(n), nn.Dropout(0.5)])
    model[1].running_mean.uniform_(-1, 1)
    inputs = torch.randn(6, 4)
    model.eval()
    hidden = model[1](model[0](inputs))
    counts = torch.stack([(hidden > 0).sum(1), (model[5](model[4](hidden.relu())) > 0).sum(1)], 1)
    model.train()
    assert torch.equal(active_nodes(model, inputs), counts)
    assert torch.equal(active_nodes(model, inputs[:0]), counts[:0])


def test_convolutions():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 2, 2), nn.ReLU(), nn.Flatten())
    inputs = torch.randn(4, 1, 8, 8)
    first, second = preactivations(model, inputs)
    assert (first.shape, second.shape) == ((4, 3, 6, 6), (4, 2, 2, 2))
    counts = [[int((first[n] > 0).sum()), int((second[n] > 0).sum())] for n in range(4)]
    assert active_nodes(model, inputs).tolist() == counts


def test_transformer_does_not_take_the_fused_path():
    model = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True).eval()
    inputs = torch.randn(3, 5, 8)
    hidden = model.linear1(model.norm1(inputs + model.self_attn(inputs, inputs, inputs)[0]))
    with torch.no_grad():
        counts = active_nodes(model, inputs)
    assert counts.tolist() == (hidden > 0).flatten(1).sum(1, keepdim=True).tolist()


def test_what_does_not_belong_to_samples_is_left_out():
    model = elementwise(lambda h: F.relu(h) * torch.sigmoid(torch.ones(6)))
    assert active_nodes(model, torch.randn(3, 4)).shape == (3, 1)


def test_inputs_are_not_changed():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2))
    inputs = torch.randn(3, 4)
    before = inputs.clone()
    assert torch.equal(active_nodes(model, inputs)[:, 0], (before > 0).sum(1))
    assert torch.equal(inputs, before)


def test_integer_inputs():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 5), nn.ReLU())
    inputs = torch.randint(9, (3, 2))
    assert torch.equal(active_nodes(model, inputs)[:, 0], (model[:3](inputs) > 0).sum(1))


@pytest.mark.parametrize("function", [active_nodes, preactivations])
def test_a_network_without_activations_is_refused(function):
    with pytest.raises(UnsupportedNetworkError, match=r"calls none that is known .* leave the measures of active units out"):
        function(nn.Linear(4, 2), torch.zeros(3, 4))


class Bilinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(3, 4))
        self.vector = nn.Parameter(torch.ones(3))


LAYERS = {
    "Linear": (lambda: nn.Linear(2, 3), ["weight"]),
    "chain": (lambda: mlp(2, 3, 4, 1, between=lambda n: [nn.BatchNorm1d(n)]), ["0.weight", "3.weight", "6.weight"]),
    "frozen": (lambda: mlp(2, 3, 1).requires_grad_(False), ["0.weight", "2.weight"]),
    "convolutions": (
        lambda: nn.Sequential(nn.Conv1d(1, 2, 3), nn.Conv2d(1, 2, 3), nn.ConvTranspose3d(1, 2, 3)),
        ["0.weight", "1.weight", "2.weight"],
    ),
    "attention": (lambda: nn.MultiheadAttention(4, 2), ["in_proj_weight", "out_proj.weight"]),
    "attention of other sizes": (
        lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5),
        ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"],
    ),
    "LSTM": (lambda: nn.LSTM(2, 3, num_layers=2), ["weight_ih_l0", "weight_hh_l0", "weight_ih_l1", "weight_hh_l1"]),
    "embedding": (lambda: nn.Sequential(nn.Embedding(9, 4), nn.EmbeddingBag(9, 4), nn.Linear(4, 2)), ["2.weight"]),
    "own parameters": (Bilinear, ["matrix"]),
    "weight norm": (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))), ["0.weight"]),
    "nested": (lambda: nn.ModuleDict({"a": nn.ModuleList([nn.Linear(1, 1)]), "b": Bilinear()}), ["a.0.weight", "b.matrix"]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_weight_layers(name):
    build, expected = LAYERS[name]
    model = build()
    layers = weight_layers(model)
    assert sorted(layers) == sorted(expected)
    assert not any(weight.requires_grad for weight in layers.values())
    maxima = torch.stack([weight.abs().max() for weight in layers.values()]).double()
    torch.testing.assert_close(log_max_weights(model), maxima.log())


def test_weight_layers_keep_their_order():
    assert list(weight_layers(mlp(2, 3, 4, 1))) == ["0.weight", "2.weight", "4.weight"]
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))
    torch.testing.assert_close(weight_layers(layer)["weight"], layer.weight.detach())


def test_log_max_weights_of_zero_and_of_half_precision():
    model = mlp(2, 3, 1)
    nn.init.zeros_(model[0].weight)
    nn.init.constant_(model[2].weight, -2.0)
    expected = torch.tensor([-torch.inf, 2.0], dtype=torch.float64)
    expected[1] = expected[1].log()
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        torch.testing.assert_close(log_max_weights(model.to(dtype)), expected)


@pytest.mark.parametrize("function", [weight_layers, log_max_weights])
def test_a_network_without_weights_is_refused(function):
    with pytest.raises(
        UnsupportedNetworkError, match="expected a network with Linear or convolutional layers, but ReLU has no"
    ):
        function(nn.ReLU())
