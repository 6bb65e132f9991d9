"""What the networks of :mod:`tests.networks` are built of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.cases import Lambda


@dataclass(frozen=True)
class Example:
    """A network with what it is called on.

    Attributes:
        build: Makes the network.
        draw: Makes a batch of N samples.
        wrt: Which tensor is x.
        output: Picks the tensor of outputs.
        outputs: u.
        samples: N.

    """

    build: Callable[[], nn.Module]
    draw: Callable[[int], Any]
    wrt: str | int | None = None
    output: Callable[[Any], torch.Tensor] | None = None
    samples: int = 2
    outputs: str | torch.Tensor = "sum"

    def make(self, seed=0, samples=None):
        """The network, with non-trivial statistics and scales, and a batch."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self.build().double()
            for module in model.modules():
                if getattr(module, "running_mean", None) is not None:
                    module.running_mean.normal_(0, 0.3)
                    module.running_var.uniform_(0.3, 3.0)
                if "Norm" in type(module).__name__:
                    for parameter in module.parameters(recurse=False):
                        nn.init.normal_(parameter, 0.5, 1.0)
            return model, self.draw(self.samples if samples is None else samples)

    @property
    def options(self):
        """The options that the functions take."""
        return {"wrt": self.wrt, "output": self.output, "outputs": self.outputs}


def normal(*shape):
    return lambda samples: torch.randn(samples, *shape, dtype=torch.float64)


def vector(build, width=4, **options):
    return Example(build, normal(width), **options)


def image(*layers, shape=(2, 5, 5), **options):
    return Example(lambda: nn.Sequential(*[layer() for layer in layers], nn.Tanh(), nn.Flatten()), normal(*shape), **options)


def in_place_sum(m, x):
    h = m.net[0](x)
    h += m.shift
    return m.net[2](torch.tanh(h).mul(2).add_(m.shift))


def sequence(forward, width=4, length=3, samples=2, **members):
    return Example(
        lambda: Lambda(forward, **{name: member() for name, member in members.items()}),
        normal(length, width),
        samples=samples,
    )


class Residual(nn.Module):
    """A residual block, with or without changes in place."""

    def __init__(self, channels, norm=nn.BatchNorm2d, inplace=False):
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(norm(channels) for _ in range(2))
        self.act = nn.ReLU(inplace)
        self.inplace = inplace

    def forward(self, x):
        h = self.norms[1](self.second(self.act(self.norms[0](self.first(x)))))
        if self.inplace:
            h += x
        else:
            h = h + x
        return self.act(h)


def residual_net(norm=nn.BatchNorm2d, inplace=False):
    stem = [nn.Conv2d(1, 2, 2), norm(2), nn.ReLU(inplace)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2), nn.Tanh()]
    return nn.Sequential(*stem, Residual(2, norm, inplace), nn.MaxPool2d(2), *head)


def preactivation(m, x):
    m.act(x)  # in place, so that the shortcut is activated too
    return m.head(x + m.body(x))


class VisionTransformer(nn.Module):
    """Patches, class token by expand, positions added, LayerScale multiplied, a layer of torch's encoder."""

    def __init__(self, batch_first, width=4):
        super().__init__()
        self.batch_first = batch_first
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 3, width))
        self.scale = nn.Parameter(torch.randn(width))
        self.encoder = nn.TransformerEncoderLayer(
            width, 2, 3, activation="gelu", batch_first=batch_first, norm_first=batch_first
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 2)

    def forward(self, x):
        h = self.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.token.expand(len(x), -1, -1), h], 1) + self.positions
        h = h if self.batch_first else h.transpose(0, 1)
        h = h + self.scale * torch.tanh(self.encoder(h))
        return self.head(self.norm(h[:, 0] if self.batch_first else h[0]))


def attention(m, x):
    """Self-attention in the layout (T, N, d), on a transposed view of the batch."""
    h = m.input(x).transpose(0, 1)
    h = h + m.attention(h, h, h, need_weights=False)[0]
    return m.head(h.mean(0))


def plain_attention(m, x):
    q, k, v = m.qkv(x).reshape(*x.shape[:2], 3, 2, 2).permute(2, 0, 3, 1, 4)
    h = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return m.head(h.transpose(1, 2).flatten(2))[:, -1]


def recurrent(m, x):
    """A loop over time with one cell, whose weights are used again and again."""
    h = x.new_zeros(len(x), 3)
    for step in x.unbind(1):
        h = torch.tanh(m.input(step) + m.state(h))
    return m.head(h)


def recurrent_layer(layer, length=3):
    return sequence(lambda m, x: m.head(m.layer(x)[0][:, -1]), length=length, layer=layer, head=lambda: nn.Linear(3, 2))


class Language(nn.Module):
    """Token and position embeddings, a layer with tanh, the table's own matrix at the output."""

    def __init__(self, tied=False):
        super().__init__()
        self.tokens, self.places = nn.Embedding(5, 3, padding_idx=0), nn.Embedding(4, 3, padding_idx=1)
        self.body, self.head = nn.Linear(3, 3), nn.Linear(3, 5, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, tokens):
        places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        return self.head(torch.tanh(self.body(self.tokens(tokens) * self.places(places)))).mean(1)


def draw_tokens(samples):
    return torch.randint(0, 5, (samples, 3), generator=torch.Generator().manual_seed(samples))


def two_inputs(samples):
    return {"x": normal(3)(samples), "mask": torch.rand(samples, 4, dtype=torch.float64), "scale": torch.tensor(2.0)}


def masked(**options):
    return Example(
        lambda: Lambda2(lambda m, x, mask, scale: {"logits": m.b(torch.tanh(m.a(x)) * mask) * scale, "loss": None}),
        options.pop("draw", two_inputs),
        output=lambda out: out["logits"],
        **options,
    )


class Lambda2(Lambda):
    """A network of several inputs."""

    def __init__(self, forward):
        super().__init__(forward, a=nn.Linear(3, 4), b=nn.Linear(4, 2))

    def forward(self, x, mask, scale):
        return self._forward(self, x, mask, scale)


def tied():
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(4, 2))


def normed(norm, *shape):
    return Example(
        lambda: nn.Sequential(norm(), nn.Tanh(), nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 2)), normal(*shape)
    )


def convolution(layer, *shape):
    return Example(lambda: nn.Sequential(nn.Conv2d(1, 4, 1), layer(), nn.Sigmoid(), nn.Flatten()), normal(1, *shape))
