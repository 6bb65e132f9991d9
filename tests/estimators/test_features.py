"""The input of the last weight layer, kept in the forward pass that gives the outputs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tansens.tangent.features import outputs_and_features

MLP = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
CNN = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3))
POOLED = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 3, 1), nn.Flatten())


class Keyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return F.linear(input=x, weight=self.head.weight)


CASES = {
    "mlp": (MLP, torch.randn(5, 4), lambda x: MLP[:2](x)),
    "cnn": (CNN, torch.randn(5, 1, 5, 5), lambda x: CNN[:3](x)),
    "1x1 convolution": (POOLED, torch.randn(5, 1, 5, 5), lambda x: POOLED[:3](x).flatten(1)),
    "by keyword": (Keyword(), torch.randn(5, 4), lambda x: x),
}


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_the_same_and_features_those_of_the_last_layer(name):
    network, inputs, head_input = CASES[name]
    with torch.no_grad():
        outputs, features = outputs_and_features(network, inputs)
        assert torch.equal(outputs, network(inputs))
        assert torch.equal(features, head_input(inputs))


def test_features_carry_no_graph():
    assert not outputs_and_features(MLP, torch.randn(2, 4))[1].requires_grad


def test_without_a_weight_layer_there_are_none():
    assert outputs_and_features(nn.Softmax(1), torch.randn(5, 4))[1] is None


def test_a_layer_that_flattens_samples_into_rows_has_no_features():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(x.flatten(0, 1)).unflatten(0, x.shape[:2]).mean(1)

    assert outputs_and_features(Tokens(), torch.randn(5, 7, 4))[1] is None


class Shallow(nn.Module):
    """Leaves its middle layer out for some inputs, and overwrites what its head has read."""

    def __init__(self):
        super().__init__()
        self.first, self.middle, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = self.first(x)
        h = self.middle(h) if x.sum() > 0 else h
        scores = self.head(h)
        h.zero_()
        return scores


def test_features_are_not_what_the_network_writes_over_them_whatever_layers_it_calls():
    network = Shallow()
    with torch.no_grad():
        for sign in (1, 1, -1, 1, -1):
            x = sign * torch.ones(2, 4)
            first = network.first(x)
            expected = network.middle(first) if sign > 0 else first
            assert torch.equal(outputs_and_features(network, x)[1], expected)


def test_the_input_of_the_last_layer_alone_is_copied(monkeypatch):
    network, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), torch.randn(5, 4)
    outputs_and_features(network, x)
    copied, clone = [], torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, "clone", lambda tensor: copied.append(tensor.shape[1]) or clone(tensor))
    outputs_and_features(network, x)
    assert copied == [6]
