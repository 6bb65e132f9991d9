"""Networks of all kinds × inputs, tiny and in double precision, that random probes are compared on."""

import torch
from torch import nn

from tests.cases import Lambda, frozen, mlp
from tests.modules import (
    Example,
    Language,
    VisionTransformer,
    attention,
    convolution,
    draw_tokens,
    image,
    in_place_sum,
    masked,
    normal,
    normed,
    plain_attention,
    preactivation,
    recurrent,
    recurrent_layer,
    residual_net,
    sequence,
    tied,
    two_inputs,
    vector,
)

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
    "3d dilated": Example(
        lambda: nn.Sequential(nn.Conv3d(1, 1, (2, 1, 2), dilation=(1, 1, 2), padding="valid"), nn.Tanh()), normal(1, 3, 2, 3)
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
