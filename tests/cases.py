"""Networks × inputs × seeds that the fast paths are compared on, all in double precision."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


class Lambda(nn.Module):
    """A network whose forward is a function of itself and the input."""

    def __init__(self, forward, **members):
        super().__init__()
        for name, member in members.items():
            if isinstance(member, torch.Tensor) and not isinstance(member, nn.Parameter):
                self.register_buffer(name, member)
            else:
                setattr(self, name, member)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


@dataclass(frozen=True)
class Case:
    """A network with the shape of a sample.

    Attributes:
        build: Makes the network.
        shape: The shape of one sample.
        outputs: C.

    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (4,)
    outputs: int = 2

    def make(self, seed=0, samples=3):
        """The network, in train mode and with non-trivial statistics, and a batch."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self.build().double()
            for module in model.modules():
                if isinstance(module, nn.BatchNorm1d):
                    module.running_mean.normal_(0, 0.3)
                    module.running_var.uniform_(0.3, 3.0)
                    if module.affine:
                        nn.init.normal_(module.weight, 0.5, 1.0)
                        nn.init.normal_(module.bias, 0, 0.3)
            return model, torch.randn(samples, *self.shape, dtype=torch.float64)


def mlp(*widths, activation=nn.ReLU, between=lambda width: [], bias=True):
    """Linear layers of these widths; ``between`` makes what stands before each activation."""
    layers = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after, bias=bias), *between(after), activation()]
    return nn.Sequential(*layers[: -1 - len(between(1))])


def frozen(model, *names):
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    return model


def image_net(flatten):
    return Lambda(lambda m, x: m.net(flatten(x)), net=mlp(12, 5, 4, 2))


def functional(activation):
    """A handwritten network with its own parameters."""

    def forward(m, x):
        h = activation(F.linear(x, m.first, m.bias))
        h = F.dropout(h, 0.5, training=m.training)
        return F.linear(activation(F.linear(input=h, weight=m.second)), m.last, m.bias[:2])

    return Lambda(
        forward,
        first=nn.Parameter(torch.randn(5, 4)),
        second=nn.Parameter(torch.randn(6, 5)),
        last=nn.Parameter(torch.randn(2, 6)),
        bias=nn.Parameter(torch.randn(5)),
    )


def elementwise(function):
    return Lambda(lambda m, x: m.second(function(m.first(x))), first=nn.Linear(4, 6), second=nn.Linear(6, 2))


def nested():
    inner = nn.Sequential(nn.Linear(5, 4), nn.Sequential(nn.ReLU(), nn.Dropout(0.2)))
    return Lambda(lambda m, x: m.head(m.body(x)), body=nn.Sequential(nn.Linear(4, 5), nn.ReLU(), inner), head=mlp(4, 3, 2))


def in_place():
    def forward(m, x):
        h = m.first(x.mul_(2).sub_(0.1))
        h *= 0.5
        return m.second(torch.relu_(h.add_(0.1)))

    return Lambda(forward, first=nn.Linear(4, 6), second=nn.Linear(6, 2))


def dead_branch():
    def forward(m, x):
        h = m.first(x)
        m.seen = (torch.softmax(h, -1) + F.gelu(m.unused(x)).mean()).detach()
        return m.second(h.relu())

    return Lambda(forward, first=nn.Linear(4, 6), unused=nn.Linear(4, 2), second=nn.Linear(6, 2))


def batch_norm_after(width):
    return nn.Sequential(
        nn.Linear(4, width),
        nn.ReLU(),
        nn.BatchNorm1d(width),
        nn.Linear(width, 5),
        nn.ReLU(),
        nn.BatchNorm1d(5),
        nn.Linear(5, 2),
    )


NORMALISED = {"mean": torch.randn(4), "std": torch.rand(4) + 0.5}

#: Everything that the closed form covers.
CHAINS = {
    "linear": Case(lambda: nn.Linear(5, 3), (5,), 3),
    "two linear": Case(lambda: nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2)), (5,)),
    "without biases": Case(lambda: mlp(4, 6, 5, 3, bias=False), outputs=3),
    "with biases": Case(lambda: mlp(4, 6, 5, 4, 3), outputs=3),
    "narrow first": Case(lambda: mlp(12, 4, 6, 2), (12,)),
    "nearly square first": Case(lambda: mlp(6, 4, 5, 2), (6,)),
    "single output (N, 1)": Case(lambda: mlp(4, 5, 4, 1), outputs=1),
    "single output (N,)": Case(lambda: Lambda(lambda m, x: m.net(x).squeeze(-1), net=mlp(4, 5, 4, 1)), outputs=1),
    "outputs (N, C, 1)": Case(lambda: Lambda(lambda m, x: m.net(x).unsqueeze(-1), net=mlp(4, 5, 2))),
    "batch norm before ReLU": Case(lambda: mlp(4, 6, 5, 2, between=lambda n: [nn.BatchNorm1d(n)])),
    "batch norm after ReLU": Case(lambda: batch_norm_after(6)),
    "batch norm, wide input": Case(lambda: mlp(13, 5, 4, 2, between=lambda n: [nn.BatchNorm1d(n)]), (13,)),
    "batch norm frozen": Case(
        lambda: frozen(mlp(4, 6, 5, 2, between=lambda n: [nn.BatchNorm1d(n)]), "1.weight", "1.bias", "4.weight")
    ),
    "batch norm without affine": Case(lambda: mlp(4, 6, 5, 2, between=lambda n: [nn.BatchNorm1d(n, affine=False)])),
    "batch norm on the input": Case(lambda: nn.Sequential(nn.BatchNorm1d(4), *mlp(4, 6, 2))),
    "batch norm on the output": Case(lambda: nn.Sequential(*mlp(4, 6, 2), nn.BatchNorm1d(2))),
    "two batch norms in a row": Case(lambda: mlp(4, 6, 2, between=lambda n: [nn.BatchNorm1d(n), nn.BatchNorm1d(n)])),
    "dropout modules": Case(lambda: mlp(4, 6, 5, 2, between=lambda n: [nn.Dropout(0.5), nn.AlphaDropout(0.3)])),
    "dropout functions": Case(
        lambda: elementwise(lambda h: F.feature_alpha_dropout(F.alpha_dropout(F.dropout(h.relu(), training=False))))
    ),
    "LeakyReLU": Case(lambda: mlp(4, 6, 5, 2, activation=lambda: nn.LeakyReLU(0.2))),
    "PReLU": Case(lambda: mlp(4, 6, 5, 2, activation=lambda: nn.PReLU(init=0.3))),
    "PReLU per unit": Case(
        lambda: nn.Sequential(nn.Linear(4, 6), nn.PReLU(6), nn.Linear(6, 5), nn.PReLU(5), nn.Linear(5, 2))
    ),
    "PReLU with slope zero": Case(lambda: mlp(4, 6, 5, 2, activation=lambda: nn.PReLU(init=0.0))),
    "Hardtanh in place": Case(lambda: elementwise(lambda h: F.hardtanh_(h, -0.4, 0.3))),
    "threshold in place": Case(lambda: elementwise(lambda h: F.threshold(h, 0.1, 5.0, inplace=True))),
    "clamp in place": Case(lambda: elementwise(lambda h: h.clamp_(-0.2, 0.4))),
    "PReLU frozen": Case(lambda: frozen(mlp(4, 6, 5, 2, activation=nn.PReLU), "1.weight")),
    "PReLU on the input": Case(lambda: nn.Sequential(nn.PReLU(), nn.PReLU(4), *mlp(4, 3, 2))),
    "PReLU and batch norm": Case(lambda: mlp(4, 6, 5, 2, activation=nn.PReLU, between=lambda n: [nn.BatchNorm1d(n)])),
    "PReLU on an image": Case(lambda: nn.Sequential(nn.PReLU(), nn.Flatten(), *mlp(12, 5, 2)), (3, 2, 2)),
    "RReLU": Case(lambda: mlp(4, 6, 5, 2, activation=nn.RReLU)),
    "ReLU6": Case(lambda: mlp(4, 6, 5, 2, activation=nn.ReLU6)),
    "Hardtanh": Case(lambda: mlp(4, 6, 5, 2, activation=lambda: nn.Hardtanh(-0.4, 0.3))),
    "Threshold": Case(lambda: mlp(4, 6, 5, 2, activation=lambda: nn.Threshold(0.1, -1.0))),
    "Softshrink": Case(lambda: mlp(4, 6, 2, activation=lambda: nn.Softshrink(0.1))),
    "Hardshrink": Case(lambda: mlp(4, 6, 2, activation=lambda: nn.Hardshrink(0.1))),
    "clamp": Case(lambda: elementwise(lambda h: h.clamp(-0.3, 0.3))),
    "abs": Case(lambda: elementwise(torch.abs)),
    "F.relu": Case(lambda: functional(F.relu)),
    "torch.relu": Case(lambda: functional(torch.relu)),
    "x.relu()": Case(lambda: functional(lambda h: h.relu())),
    "F.relu in place": Case(lambda: functional(lambda h: F.relu(h, inplace=True))),
    "F.leaky_relu_": Case(lambda: functional(F.leaky_relu_)),
    "x.clamp_min_()": Case(lambda: functional(lambda h: h.clamp_min_(0))),
    "x.relu_()": Case(lambda: functional(lambda h: h.relu_())),
    "ReLU in place": Case(lambda: mlp(4, 6, 5, 2, activation=lambda: nn.ReLU(inplace=True))),
    "changed in place": Case(in_place),
    "arithmetic": Case(lambda: elementwise(lambda h: (1 - 2 * torch.relu(-h / 3)).mul(0.7) + 0.2)),
    "trainable shift": Case(
        lambda: Lambda(lambda m, x: m.net(x + m.shift) - m.shift[:2], net=mlp(4, 5, 2), shift=nn.Parameter(torch.randn(4)))
    ),
    "normalised input": Case(lambda: Lambda(lambda m, x: m.net((x - m.mean) / m.std), net=mlp(4, 6, 5, 2), **NORMALISED)),
    "input over 255": Case(lambda: Lambda(lambda m, x: m.net(x / 255), net=mlp(4, 6, 2))),
    "nn.Flatten": Case(lambda: nn.Sequential(nn.Flatten(), *mlp(12, 5, 4, 2)), (3, 2, 2)),
    "flatten": Case(lambda: image_net(lambda x: torch.flatten(x, 1)), (3, 2, 2)),
    "view": Case(lambda: image_net(lambda x: x.view(x.size(0), -1)), (3, 2, 2)),
    "reshape": Case(lambda: image_net(lambda x: x.reshape(len(x), 12)), (3, 2, 2)),
    "normalised image": Case(
        lambda: Lambda(
            lambda m, x: m.net(((x / 255 - m.mean) / m.std).flatten(1)),
            net=mlp(12, 5, 2),
            mean=torch.randn(3, 1, 1),
            std=torch.rand(1, 3, 1, 1) + 0.5,
        ),
        (3, 2, 2),
    ),
    "nested modules": Case(nested),
    "frozen first": Case(lambda: frozen(mlp(4, 6, 5, 2), "0.weight")),
    "frozen middle": Case(lambda: frozen(mlp(4, 6, 5, 2), "2.weight", "2.bias")),
    "frozen last": Case(lambda: frozen(mlp(4, 6, 5, 2), "4.weight")),
    "dead branch": Case(dead_branch),
    "ends in ReLU": Case(lambda: nn.Sequential(*mlp(4, 6, 3), nn.ReLU()), outputs=3),
    "deep": Case(lambda: mlp(3, 5, 5, 5, 5, 5, 2), (3,)),
}
