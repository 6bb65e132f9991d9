"""Input–output sensitivity: the norm of the network's Jacobian with respect to its input."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from lightning_tansens.tangent.batches import OutputPicker, Wrt
from lightning_tansens.tangent.isolation import evaluation
from lightning_tansens.tangent.memory import in_micro_batches
from lightning_tansens.tangent.methods import refuse_mixed_samples
from lightning_tansens.tangent.network import Network, Weightings, check_outputs, derivatives, output_weightings
from lightning_tansens.tangent.operators.substitutes import twice_differentiable


def input_output_norms(
    model: nn.Module, inputs: Any, *, outputs: Weightings = "each", wrt: Wrt = None, output: OutputPicker | None = None
) -> Tensor:
    r"""Computes the Frobenius norm of the Jacobian ∂f/∂x of each sample, exactly.

    .. math:: \Big\|\frac{\partial f(x)}{\partial x}\Big\|_F = \Big(\sum_c \|\nabla_x f_c(x)\|^2\Big)^{1/2}

    (Novak et al. 2018; its mean over a set is what Eq. 9 of Daróczy 2022 compares). It takes one reverse pass for each
    output, or one forward-mode pass for each input coordinate where that is cheaper.

    Args:
        model: The network f, evaluated in eval mode and left as it was.
        inputs: The batch, as :func:`~lightning_tansens.functional.tangent_sensitivity` takes it.
        wrt: Which tensor is x.
        output: Picks the tensor of outputs.
        outputs: "each" for the whole C × D Jacobian, "sum" for the gradient of the summed output, or a weighting u of
            shape (C,) for the gradient of u·f.

    Returns:
        The norm for each sample, shape (N,), in units of output / input.

    Example:
        >>> linear = torch.nn.Linear(3, 2, bias=False)
        >>> _ = torch.nn.init.ones_(linear.weight)
        >>> input_output_norms(linear, torch.randn(2, 3)).square()
        tensor([6.0000, 6.0000])
    """
    check_outputs(outputs)
    with evaluation(model):
        network = Network(model, inputs, wrt, output)
        if not len(network):
            return network.x.new_zeros(0, dtype=torch.promote_types(network.x.dtype, torch.float32))
        refuse_mixed_samples(network, slopes=True)
        return in_micro_batches(network, lambda part, _: _squares(part, outputs)).sqrt()


def _squares(network: Network, outputs: Weightings) -> Tensor:
    """‖∂(u·f)/∂x‖² of each sample, summed over the weightings u, shape (N,)."""
    x, result = network.differentiable()
    weightings = output_weightings(outputs, result)
    # a forward-mode pass repeats the forward pass and costs two to five reverse ones (measured); so many weightings are
    # the unit vectors
    if 3 * x[0].numel() < len(weightings):
        try:
            return _by_columns(network)
        except NotImplementedError:
            pass  # an operator without forward mode
    return _by_rows(x, result, weightings)


def _by_rows(x: Tensor, result: Tensor, weightings: Tensor) -> Tensor:
    squares = x.new_zeros(len(x), dtype=weightings.dtype)
    for weighting in weightings.to(result.dtype):
        (row,) = derivatives(result, [x], grad_outputs=weighting.expand_as(result), retain_graph=True)
        if row is not None:
            squares += row.to(squares.dtype).flatten(1).square().sum(1)
    return squares


def _by_columns(network: Network) -> Tensor:
    squares = network.x.new_zeros(len(network), dtype=torch.promote_types(network.x.dtype, torch.float32))
    with torch.no_grad(), twice_differentiable(network.model):
        for unit in torch.eye(network.x[0].numel(), dtype=network.x.dtype, device=network.x.device):
            with forward_ad.dual_level():
                direction = unit.reshape(network.x.shape[1:]).expand_as(network.x).contiguous()
                result = network(forward_ad.make_dual(network.x.clone(), direction))
                column = forward_ad.unpack_dual(result).tangent
                if column is not None:
                    squares += column.to(squares.dtype).square().sum(1)
    return squares
