"""The tangent sample sensitivity of a network, per sample."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_tansens.functional.evaluation import evaluation, ordinary
from lightning_tansens.functional.exact import exact_blocks
from lightning_tansens.functional.outputs import Outputs, check_outputs

Method = Literal["auto", "exact"]


def tangent_sensitivity(
    model: nn.Module,
    inputs: Tensor,
    *,
    outputs: Outputs = "sum",
    method: Method = "auto",
    num_probes: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Computes the squared Frobenius norm of the tangent sample sensitivity of each sample.

    .. math:: \|S_u(x)\|_F^2 = \Big\|\frac{\partial^2 (u \cdot f)}{\partial\theta\,\partial x}\Big\|_F^2
        = \sum_i \|\delta_i(x)\|^2 \, \|J_{i-1}(x)\|_F^2

    (Definition 1 in Daróczy 2022 and in Rácz et al. 2023; the right-hand side is the exact form for piecewise-linear
    chains, with δ_i the gradient of u·f with respect to layer i and J_{i-1} the Jacobian of that layer's input). The
    model is evaluated in eval mode and left as it was. Only parameters with ``requires_grad`` count.

    Args:
        model: The network f; it maps a batch of shape (N, ...) to outputs of shape (N, C).
        inputs: A batch x of floating-point inputs, shape (N, ...).
        outputs: "sum" for the paths to any output (u = (1, …, 1)), a weighting u of shape (C,), or "each" for one
            output at a time (u = e_c). The sum over c of "each" is not "sum".
        method: "exact" for the closed form, which exists for chains of Linear, ReLU and its piecewise-linear relatives,
            Flatten, Dropout, Identity and BatchNorm1d, as modules or functional calls; "auto" for the best method.
        num_probes: Number of random probes a sample; the closed form needs none.
        generator: Source of the probes; the closed form needs none.

    Returns:
        ‖S_u(x)‖_F² for each sample, shape (N,), or (N, C) for "each", in units of (output / (parameter · input))².

    Raises:
        TypeError: If the inputs are no floating-point tensor.
        ValueError: If an argument has a value that is not allowed.
        UnsupportedNetworkError: If the closed form does not cover the model; the message names the module.

    Example:
        >>> import torch
        >>> linear = torch.nn.Linear(5, 1)
        >>> tangent_sensitivity(linear, torch.randn(2, 5))  # f = w·x + b has S = I, so ‖S‖² = D
        tensor([5., 5.])

    """
    blocks = tangent_sensitivity_blocks(
        model, inputs, outputs=outputs, method=method, num_probes=num_probes, generator=generator
    )
    return sum_blocks(blocks, inputs)


def sum_blocks(blocks: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """Adds up the blocks of all weights; a network without a trainable weight has S = 0."""
    return torch.stack(list(blocks.values())).sum(0) if blocks else inputs.new_zeros(len(inputs))


def tangent_sensitivity_blocks(
    model: nn.Module,
    inputs: Tensor,
    *,
    outputs: Outputs = "sum",
    method: Method = "auto",
    num_probes: int = 1,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    r"""Computes the share of each weight in the squared norm, ‖S_{W_i}(x)‖_F² = ‖δ_i‖²·‖J_{i-1}‖_F².

    The arguments are those of :func:`tangent_sensitivity`, whose value is the sum of these shares.

    Returns:
        For each trainable weight, by its parameter's name, a tensor of shape (N,), or (N, C) for "each".

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        >>> list(tangent_sensitivity_blocks(net, torch.randn(5, 3)))
        ['0.weight', '2.weight']

    """
    _check(inputs, method, num_probes, generator)
    check_outputs(outputs)
    with evaluation(model):
        blocks = exact_blocks(model, ordinary(inputs), outputs)
    return (
        blocks if isinstance(outputs, str) and outputs == "each" else {name: block[:, 0] for name, block in blocks.items()}
    )


def _check(inputs: object, method: str, num_probes: object, generator: object) -> None:
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        came = f"a tensor of {inputs.dtype}" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise TypeError(
            f"inputs: expected a floating-point tensor, because the derivative with respect to it is taken, but got {came};"
            " convert it (images: .float() / 255), or name what to differentiate with respect to"
        )
    if inputs.dim() < 2:
        raise ValueError(
            f"inputs: expected a batch of shape (N, ...), but got shape {tuple(inputs.shape)}; add the batch dimension"
        )
    if method not in ("auto", "exact"):
        raise ValueError(f"method: expected 'auto' or 'exact', but got {method!r}")
    if not isinstance(num_probes, int) or num_probes < 1:
        raise ValueError(f"num_probes: expected a positive integer, but got {num_probes!r}")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: expected a torch.Generator or None, but got {type(generator).__name__}")
