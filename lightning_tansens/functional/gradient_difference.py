"""The papers' starting quantity: how much a perturbation of the input changes the gradient of the parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_tansens.checks import check_numbers, check_seed, check_shape_of
from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.tangent.batches import OutputPicker, Wrt
from lightning_tansens.tangent.isolation import evaluation
from lightning_tansens.tangent.methods import refuse_mixed_samples
from lightning_tansens.tangent.network import Network, Weightings, check_outputs, output_weightings

#: Working memory for the per-sample gradients that exist at once.
CHUNK_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Gaussian:
    """φ(x) = x + δ with δ ~ N(0, s² I), drawn on the CPU; row n of every batch gets the same draw.

    Attributes:
        scale: The standard deviation s, in units of the input. (The papers write N(0, σI): their σ is the variance.)
        seed: Names the draw.
    """

    scale: float
    seed: int = 0

    def __post_init__(self) -> None:
        check_numbers(scale=self.scale)
        check_seed(self.seed)

    def __call__(self, x: Tensor) -> Tensor:
        """Returns φ(x), of the shape of x."""
        # NumPy draws in order, so that a row does not depend on the number of rows
        noise = np.random.default_rng(self.seed % 2**64).standard_normal(tuple(x.shape))
        return x + self.scale * torch.from_numpy(noise).to(x.dtype).to(x.device)


@dataclass(frozen=True)
class AdversarialSign:
    """φ(x) = x + s · sign ∇_x ℓ(f(x), ŷ), with the cross-entropy ℓ at the network's own predicted class ŷ.

    A step of the fast gradient sign method that needs no labels (Goodfellow et al. 2015).

    Attributes:
        scale: The step s for each coordinate, in units of the input.
    """

    scale: float

    def __post_init__(self) -> None:
        check_numbers(scale=self.scale)

    def __call__(self, x: Tensor, network: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns φ(x) for a network that maps x to logits of shape (N, C)."""
        leaf = x.detach().clone().requires_grad_()
        with torch.enable_grad():
            logits = network(leaf.clone())
            if logits.shape[1] < 2:
                raise UnsupportedNetworkError(
                    f"AdversarialSign: expected a classifier with at least 2 outputs, but got {logits.shape[1]}; pass "
                    "another perturbation, a callable on a batch"
                )
            loss = F.cross_entropy(logits, logits.argmax(1), reduction="sum")
            (slope,) = torch.autograd.grad(loss, leaf)
        return x + self.scale * slope.sign()


#: φ: a callable on a batch x, or AdversarialSign, which sees the network too.
Perturbation = Callable[[Tensor], Tensor] | AdversarialSign


def gradient_differences(
    model: nn.Module,
    inputs: Any,
    perturbation: Perturbation,
    *,
    outputs: Weightings = "sum",
    wrt: Wrt = None,
    output: OutputPicker | None = None,
) -> Tensor:
    r"""Computes the squared change of each sample's parameter gradient under a perturbation of the input.

    .. math:: \|\nabla_\theta (u \cdot f)(x) - \nabla_\theta (u \cdot f)(\varphi(x))\|^2

    (Daróczy 2022 and Rácz et al. 2023, from where tangent sensitivity starts: for φ(x) = x + δ, δ ~ N(0, s² I), the mean
    over δ tends to s² ‖S_u(x)‖_F² as s → 0.) Only parameters with ``requires_grad`` count.

    Args:
        model: The network f, evaluated in eval mode and left as it was.
        inputs: The batch, as :func:`~lightning_tansens.functional.tangent_sensitivity` takes it.
        wrt: Which tensor is x.
        output: Picks the tensor of outputs.
        perturbation: φ: :class:`Gaussian`, :class:`AdversarialSign` or any callable that maps x to a tensor of its shape,
            for example ``lambda x: x.flip(-1)``, which mirrors an image.
        outputs: "sum" for u = (1, …, 1), a weighting u of shape (C,), or "each" for one output at a time (u = e_c).

    Returns:
        Shape (N,), or (N, C) for "each", in units of (output / parameter)².

    Raises:
        ValueError: If an argument has a value that is not allowed, φ returns another shape, or there is no sample.

    Example:
        >>> linear = torch.nn.Linear(4, 1)  # the gradient is (x, 1)
        >>> gradient_differences(linear, torch.zeros(2, 4), lambda x: x + 3)
        tensor([36., 36.])
    """
    if not callable(perturbation):
        raise TypeError(f"perturbation: expected a callable on a batch, but got {perturbation!r}")
    return _squares(model, inputs, outputs, wrt, output, perturbation)


def gradient_norms(
    model: nn.Module, inputs: Any, *, outputs: Weightings = "sum", wrt: Wrt = None, output: OutputPicker | None = None
) -> Tensor:
    r"""Computes the norm of each sample's parameter gradient, ‖∇_θ (u·f)(x)‖.

    Its maximum over a set at the start of a training is K_∇0 of Theorem 5 in Rácz et al. 2023. The arguments and errors are
    those of :func:`gradient_differences`.

    Returns:
        Shape (N,), or (N, C) for "each", in units of output / parameter.

    Example:
        >>> gradient_norms(torch.nn.Linear(2, 1, bias=False), torch.tensor([[3.0, 4.0]]))
        tensor([5.])
    """
    return _squares(model, inputs, outputs, wrt, output, None).sqrt()


def _squares(
    model: nn.Module,
    inputs: Any,
    outputs: Weightings,
    wrt: Wrt,
    output: OutputPicker | None,
    perturbation: Perturbation | None,
) -> Tensor:
    """The squared norms of gradients, or of their changes under a perturbation."""
    check_outputs(outputs)
    with evaluation(model), sdpa_kernel(SDPBackend.MATH):  # vmap has no rule for fused attention
        network = Network(model, inputs, wrt, output)
        if not len(network):
            raise ValueError("inputs: expected a batch of at least one sample, but got none; leave empty batches out")
        refuse_mixed_samples(network)
        perturbed = None if perturbation is None else _perturbed(network, perturbation)
        with torch.no_grad():
            weightings = output_weightings(outputs, network(network.x.clone()))
        columns = [_squared_gradients(network, perturbed, weighting) for weighting in weightings]
    return torch.stack(columns, 1) if isinstance(outputs, str) and outputs == "each" else columns[0]


def _perturbed(network: Network, perturbation: Perturbation) -> Tensor:
    x = network.x.clone()  # the perturbation may change its argument in place
    perturbed = perturbation(x, network) if isinstance(perturbation, AdversarialSign) else perturbation(x)
    expected = "perturbation: expected a tensor of the inputs' shape"
    check_shape_of(expected, perturbed, network.x, "; return one perturbed sample for each sample")
    return perturbed.detach().to(network.x)


class _Bound(nn.Module):
    """Gives :func:`torch.func.functional_call` something to call while the model has other parameters."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[], Tensor]) -> Tensor:
        return function()


def _places(model: nn.Module, trainable: dict[str, nn.Parameter]) -> dict[str, str]:
    """Everywhere that a parameter is held, each place once, with the parameter's name.

    functional_call by itself swaps the parameters of a module that occurs twice once too often, and does not put them back.
    """
    names = {id(parameter): name for name, parameter in trainable.items()}
    return {
        f"{prefix}.{own}": names[id(parameter)]
        for prefix, module in model.named_modules()
        for own, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(parameter) in names
    }


def _squared_gradients(network: Network, perturbed: Tensor | None, weighting: Tensor) -> Tensor:
    parameters = {name: parameter.detach() for name, parameter in network.trainable.items()}
    if not parameters:
        return torch.zeros(len(network), dtype=weighting.dtype, device=weighting.device)
    bound = _Bound(network.model)
    places = _places(bound, network.trainable)

    def square(n: Tensor, x: Tensor, *moved: Tensor) -> Tensor:
        one = network.part(cast(Any, n.unsqueeze(0)))

        def change(parameters: dict[str, Tensor]) -> Tensor:
            # the gradient of the difference is the difference of the gradients
            def function() -> Tensor:
                result = one(x.unsqueeze(0).clone())
                for other in moved:
                    result = result - one(other.unsqueeze(0).clone())
                return (result * weighting).sum()

            swapped = {place: parameters[name] for place, name in places.items()}
            return cast(Tensor, torch.func.functional_call(bound, swapped, (function,), tie_weights=False))

        gradients = torch.func.grad(change)(parameters)
        return torch.stack([gradient.abs().to(weighting.dtype).square().sum() for gradient in gradients.values()]).sum()

    size = sum(parameter.numel() * parameter.element_size() for parameter in parameters.values())
    numbers = torch.arange(len(network), device=network.x.device)
    samples = (numbers, network.x) if perturbed is None else (numbers, network.x, perturbed)
    try:
        return torch.func.vmap(square, chunk_size=max(1, CHUNK_BYTES // size))(*samples)
    except RuntimeError:  # recurrent layers and what depends on values cannot be vectorised
        return torch.stack([square(*sample) for sample in zip(*samples)])
