"""Parameter-space probes: ‖Sᵀ w‖² of each sample by one double backward, without any layer rule."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_tansens.tangent.network import Network
from lightning_tansens.tangent.outputs import Outputs, output_weightings


def parameter_space_norms(network: Network, probes: dict[str, Tensor], outputs: Outputs) -> Tensor:
    r"""Computes ‖Sᵀ w‖² of each sample, with one probe w that the samples share, shape (N, U).

    .. math:: S^T w = \nabla_x \langle w, \nabla_\theta (u \cdot f)(x) \rangle, \qquad
        E\|S^T w\|^2 = \|S\|_F^2 \;\text{ for } E w w^T = I

    It needs samples that are independent in eval mode and nothing else. As the samples share the probe, its error does not
    average out over them.
    """
    products = parameter_space_products(network, probes, outputs)
    return torch.stack([product.reshape(len(product), -1).square().sum(1) for product in products], 1)


def parameter_space_products(network: Network, probes: dict[str, Tensor], outputs: Outputs) -> list[Tensor]:
    """Computes Sᵀ w of each sample, in the shape of x, for one weighting of the outputs after another."""
    x = network.x.clone().requires_grad_()
    with torch.enable_grad():
        output = network(x.clone())  # the network may begin with an in-place call
        weightings = output_weightings(outputs, output)
        return [product_with(probes, network, x, (output * weighting).sum()) for weighting in weightings]


def product_with(w: dict[str, Tensor], network: Network, x: Tensor, scalar: Tensor, create_graph: bool = False) -> Tensor:
    """Returns Sᵀ w of each sample for a scalar of the outputs, in at least single precision and in the shape of x."""
    zero = torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32), requires_grad=False)
    parameters = network.trainable
    if not scalar.requires_grad or not parameters:
        return zero
    gradients = torch.autograd.grad(scalar, list(parameters.values()), create_graph=True, allow_unused=True)
    total = inner_products(w, dict(zip(parameters, gradients))).sum()
    if not total.requires_grad:  # the gradient is constant
        return zero
    (derivative,) = torch.autograd.grad(total, x, retain_graph=True, create_graph=create_graph, allow_unused=True)
    return zero if derivative is None else derivative.to(zero.dtype)


def inner_products(probes: Mapping[str, Tensor], gradients: Mapping[str, Tensor | None]) -> Tensor:
    """Returns ⟨w, g⟩ of each parameter, over real and imaginary parts, shape (number of parameters,)."""
    zero = next(iter(probes.values())).new_zeros(()).real
    return torch.stack([zero if g is None else _inner_product(probes[name], g) for name, g in gradients.items()])


def _inner_product(w: Tensor, g: Tensor) -> Tensor:
    return (torch.view_as_real(w) * torch.view_as_real(g.resolve_conj())).sum() if w.is_complex() else (w * g).sum()
