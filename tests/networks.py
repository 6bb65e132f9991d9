"""Networks of all kinds × inputs, tiny and in double precision, that random probes are compared on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.cases import Lambda, frozen, mlp


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
        places = torch.arange(tokens.shape[1]).expand_as(tokens)
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


#: Networks whose every parameter has a layer rule.
COVERED = {
    "MLP with tanh": vector(lambda: mlp(4, 5, 3, 2, activation=nn.Tanh)),
    "MLP with GELU": vector(lambda: mlp(4, 5, 2, activation=nn.GELU)),
    "frozen parameters": vector(lambda: frozen(mlp(4, 5, 3, 2, activation=nn.Tanh), "0.weight", "2.bias")),
    "single sample": vector(lambda: mlp(4, 5, 2, activation=nn.SiLU), samples=1),
    "PReLU": vector(lambda: mlp(4, 5, 3, activation=nn.PReLU)),
    "PReLU per channel": image(lambda: nn.Conv2d(2, 3, 2), lambda: nn.PReLU(3), lambda: nn.Conv2d(3, 1, 2)),
    "tied layers": vector(tied),
    "trainable scale and shift": vector(
        lambda: Lambda(
            lambda m, x: m.net(m.scale * x + m.shift) * m.gain,
            net=mlp(4, 3, 2, activation=nn.Tanh),
            scale=nn.Parameter(torch.randn(4)),
            shift=nn.Parameter(torch.randn(4)),
            gain=nn.Parameter(torch.randn(1)),
        )
    ),
    "parameter matrix": vector(
        lambda: Lambda(lambda m, x: torch.tanh(x @ m.a) @ m.b, a=nn.Parameter(torch.randn(4, 3)),
                       b=nn.Parameter(torch.randn(3, 2)))
    ),
    "hardswish and hardsigmoid": vector(lambda: nn.Sequential(*mlp(4, 5, 4, activation=nn.Hardswish), nn.Hardsigmoid())),
    "SiLU and Mish": vector(lambda: nn.Sequential(*mlp(4, 5, 4, activation=nn.SiLU), nn.Mish(inplace=True))),
    "softmax": vector(lambda: nn.Sequential(*mlp(4, 5, 3), nn.Softmax(-1)), outputs=torch.tensor([1.0, 2.0, -1.0])),
    "begins in place": vector(lambda: Lambda(lambda m, x: m.net(x.mul_(2).tanh_()), net=mlp(4, 3, 2, activation=nn.Tanh))),
    "in-place sum with a parameter": vector(
        lambda: Lambda(in_place_sum, net=mlp(4, 4, 2, activation=nn.Tanh), shift=nn.Parameter(torch.randn(4)))
    ),
    "GLU": vector(lambda: nn.Sequential(nn.Linear(4, 6), nn.GLU(), nn.Linear(3, 2))),
    "residual": Example(residual_net, normal(1, 4, 4)),
    "residual in place": Example(lambda: residual_net(inplace=True), normal(1, 4, 4)),
    "residual with group norm": Example(lambda: residual_net(lambda c: nn.GroupNorm(2, c)), normal(1, 4, 4)),
    "preactivation in place": vector(
        lambda: Lambda(lambda m, x: preactivation(m, m.input(x)), act=nn.ReLU(True), input=nn.Linear(4, 4),
                       body=mlp(4, 3, 4, activation=nn.Tanh), head=nn.Linear(4, 2))
    ),
    "dense outputs": image(lambda: nn.Conv2d(2, 2, 2), nn.Tanh, lambda: nn.Conv2d(2, 2, 1)),
    "grouped": convolution(lambda: nn.Conv2d(4, 6, 2, groups=2), 3, 4),
    "depthwise": convolution(lambda: nn.Conv2d(4, 4, (3, 2), groups=4, padding=1), 3, 4),
    "strided": convolution(lambda: nn.Conv2d(4, 2, 3, stride=(2, 3), padding=(1, 2)), 4, 5),
    "strided pointwise": convolution(lambda: nn.Conv2d(4, 3, 1, stride=2), 4, 5),
    "dilated": convolution(lambda: nn.Conv2d(4, 2, 2, dilation=(2, 1), groups=2), 4, 4),
    "padding same": convolution(lambda: nn.Conv2d(4, 2, (3, 5), padding="same"), 3, 4),
    "padding same, dilated": convolution(lambda: nn.Conv2d(4, 2, 3, padding="same", dilation=2), 3, 4),
    "padding same, even": convolution(lambda: nn.Conv2d(4, 2, (2, 4), padding="same"), 3, 4),
    "padding valid": convolution(lambda: nn.Conv2d(4, 2, 2, padding="valid"), 3, 3),
    "padding reflect": convolution(lambda: nn.Conv2d(4, 2, 2, padding=1, padding_mode="reflect"), 3, 3),
    "padding circular": convolution(lambda: nn.Conv2d(4, 2, 2, padding=1, padding_mode="circular"), 3, 3),
    "1d": Example(lambda: nn.Sequential(nn.Conv1d(1, 2, 2), nn.Tanh(), nn.Conv1d(2, 2, 3, 2, 1, 2)), normal(1, 6)),
    "1d pointwise": Example(lambda: nn.Sequential(nn.Conv1d(2, 2, 1, 2), nn.Tanh(), nn.Conv1d(2, 1, 1)), normal(2, 5)),
    "3d": Example(
        lambda: nn.Sequential(nn.Conv3d(1, 2, 2), nn.Tanh(), nn.Conv3d(2, 2, 2, 2, 1, groups=2)), normal(1, 3, 3, 3)
    ),
    "3d padding same": Example(
        lambda: nn.Sequential(nn.Conv3d(1, 1, (2, 1, 3), padding="valid"), nn.Tanh()), normal(1, 3, 2, 3)
    ),
    "transposed": convolution(lambda: nn.ConvTranspose2d(4, 2, 3, 2, 1, output_padding=1), 2, 3),
    "transposed, grouped": convolution(lambda: nn.ConvTranspose2d(4, 2, 2, (1, 2), groups=2, dilation=(2, 1)), 2, 3),
    "transposed 1d": Example(lambda: nn.Sequential(nn.ConvTranspose1d(1, 2, 3, 2), nn.Tanh()), normal(1, 3)),
    "transposed 3d": Example(lambda: nn.Sequential(nn.ConvTranspose3d(1, 1, 2, 2, 1), nn.Tanh()), normal(1, 2, 2, 2)),
    "batch norm 2d": normed(lambda: nn.BatchNorm2d(2), 2, 2, 2),
    "batch norm 1d": normed(lambda: nn.BatchNorm1d(4), 4),
    "layer norm": normed(lambda: nn.LayerNorm(4), 4),
    "layer norm of tokens": normed(lambda: nn.LayerNorm((2, 3)), 2, 2, 3),
    "layer norm without bias": normed(lambda: nn.LayerNorm(3, bias=False), 2, 3),
    "instance norm": normed(lambda: nn.InstanceNorm2d(2, affine=True), 2, 2, 2),
    "instance norm with statistics": normed(
        lambda: nn.InstanceNorm1d(2, affine=True, track_running_stats=True), 2, 3
    ),
    "RMS norm": normed(lambda: nn.RMSNorm(3), 2, 3),
    "group norm": normed(lambda: nn.GroupNorm(2, 4), 4, 2, 2),
    "group norm of vectors": normed(lambda: nn.GroupNorm(1, 4), 4),
    "group norm without affine": Example(
        lambda: nn.Sequential(nn.Linear(4, 4), nn.GroupNorm(1, 4, affine=False), nn.Linear(4, 2)), normal(4)
    ),
    "ViT, batch first": Example(lambda: VisionTransformer(True), normal(1, 2, 4)),
    "ViT, tokens first": Example(lambda: VisionTransformer(False), normal(1, 2, 4)),
    "ViT, as many samples as tokens": Example(lambda: VisionTransformer(False), normal(1, 2, 4), samples=3),
    "attention": sequence(
        attention, input=lambda: nn.Linear(4, 4), attention=lambda: nn.MultiheadAttention(4, 2), head=lambda: nn.Linear(4, 2)
    ),
    "attention, as many samples as tokens": sequence(
        attention, samples=3, input=lambda: nn.Linear(4, 4), attention=lambda: nn.MultiheadAttention(4, 2),
        head=lambda: nn.Linear(4, 2),
    ),
    "scaled dot-product attention": sequence(plain_attention, qkv=lambda: nn.Linear(4, 12), head=lambda: nn.Linear(4, 2)),
    "recurrent loop": sequence(
        recurrent, input=lambda: nn.Linear(4, 3), state=lambda: nn.Linear(3, 3, bias=False), head=lambda: nn.Linear(3, 2)
    ),
    "recurrent loop, as many samples as steps": sequence(
        recurrent, samples=3, input=lambda: nn.Linear(4, 3), state=lambda: nn.Linear(3, 3), head=lambda: nn.Linear(3, 2)
    ),
    "as many samples as channels": image(lambda: nn.Conv2d(3, 3, 2), lambda: nn.GroupNorm(3, 3), nn.Tanh,
                                         lambda: nn.Conv2d(3, 3, 2), shape=(3, 3, 3), samples=3),
    "embedding": Example(Language, draw_tokens, wrt="tokens"),
    "embedding, tied to the output": Example(lambda: Language(tied=True), draw_tokens, wrt="tokens"),
    "dict": masked(wrt="x"),
    "dict, second input": masked(wrt="mask"),
    "tuple": masked(wrt=0, draw=lambda samples: tuple(two_inputs(samples).values())),
    "inner module": Example(
        lambda: mlp(4, 5, 3, 2, activation=nn.Tanh), normal(4), wrt="0"
    ),
    "tuple of outputs": vector(
        lambda: Lambda(lambda m, x: (m.net(x), x), net=mlp(4, 5, 2, activation=nn.Tanh)), output=lambda out: out[0]
    ),
}  # fmt: skip

#: Networks with parameters that have no layer rule.
UNCOVERED = {
    "LSTM": recurrent_layer(lambda: nn.LSTM(4, 3, batch_first=True)),
    "GRU": recurrent_layer(lambda: nn.GRU(4, 3, batch_first=True)),
    "weight norm": vector(lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.Tanh())),
    "power": vector(
        lambda: Lambda(lambda m, x: m.net(x).exp() ** m.power, net=nn.Linear(4, 2), power=nn.Parameter(torch.randn(2)))
    ),
}
