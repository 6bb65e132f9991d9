"""A few numbers per sample that represent its tangent sensitivity, so that two moments of a training can be compared."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.checks import check_seed, positions_from
from lightning_tansens.tangent.batches import OutputPicker, Wrt
from lightning_tansens.tangent.isolation import evaluation
from lightning_tansens.tangent.memory import bytes_per_sample
from lightning_tansens.tangent.methods import check_probes, choose
from lightning_tansens.tangent.network import Network, Weightings, check_outputs
from lightning_tansens.tangent.operators.substitutes import twice_differentiable
from lightning_tansens.tangent.probes.parameter_space import parameter_space_products, with_parameter_probes
from lightning_tansens.tangent.probes.vectors import input_probes

#: Input-space probes for each parameter-space probe: they cost a product each, and no further backward pass.
DIRECTIONS = 16


def tangent_sketches(
    model: nn.Module,
    inputs: Any,
    *,
    outputs: Weightings = "sum",
    num_probes: int = 1,
    seed: int = 0,
    positions: Sequence[int] | None = None,
    wrt: Wrt = None,
    output: OutputPicker | None = None,
) -> Tensor:
    r"""Computes random bilinear forms of each sample's tangent sensitivity.

    .. math:: z_{n,jk} = w_j^T S_u(x_n)\, v_{n,k}, \qquad E\, z_{n,jk}^2 = \|S_u(x_n)\|_F^2

    with random signs w over the parameters and v over the inputs (S as in Definition 1 of Daróczy 2022 and of Rácz et
    al. 2023). The signs depend on the seed and on the sample alone, so that sketches of the same samples at other weights
    can be subtracted: the mean square of a difference is an unbiased estimate of ‖S(θ, x_n) − S(θ', x_n)‖_F². It takes a
    double backward pass for each w.

    Args:
        model: The network f, evaluated in eval mode and left as it was.
        inputs: The batch, as :func:`~lightning_tansens.functional.tangent_sensitivity` takes it.
        wrt: Which tensor is x.
        output: Picks the tensor of outputs.
        outputs: "sum" for u = (1, …, 1) or a weighting u of shape (C,); "each" for all e_c, one after another.
        num_probes: Number of w; 16 v go with each.
        seed: Names the signs.
        positions: The samples' positions in their set; None counts from zero.

    Returns:
        Shape (N, M) with M = U · num_probes · 16 (U = 1, or C for "each"), in units of output / (parameter · input).

    Example:
        >>> linear, x = torch.nn.Linear(50, 1), torch.randn(3, 50)
        >>> z = tangent_sketches(linear, x)
        >>> torch.equal(z, tangent_sketches(linear, x))  # S of a linear map does not depend on x or θ
        True
    """
    check_outputs(outputs)
    check_probes("parameter_space", num_probes)
    check_seed(seed)
    with evaluation(model), twice_differentiable(model):
        network = Network(model, inputs, wrt, output)
        if not len(network):
            raise ValueError("inputs: expected at least one sample, but got an empty batch")
        choose(network, "parameter_space")  # refuses a network whose samples depend on one another, examined once
        positions = positions_from("positions", positions, len(network))

        def measure(part: Network, draws: Sequence[dict[str, Tensor]], own: Sequence[int]) -> Tensor:
            columns = [
                _contract(product, seed, own, probe)
                for probe, w in enumerate(draws)
                for product in parameter_space_products(part, w, outputs)
            ]
            return torch.cat(columns, 1)

        return with_parameter_probes(network, measure, num_probes, seed, positions, bytes_per_sample(network))


def _contract(product: Tensor, seed: int, positions: Sequence[int], probe: int) -> Tensor:
    """Sᵀw times each v, shape (N, 16)."""
    flat = product.flatten(1)
    directions = input_probes([DIRECTIONS, flat.shape[1]], seed, positions, probe, flat)
    return torch.einsum("nd,nkd->nk", flat, directions)
