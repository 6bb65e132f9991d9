"""The Fisher–Rao norm without labels: how strongly the loss of every class pulls along the outputs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.checks import check_callable
from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.tangent.batches import OutputPicker, batch_length, pick_output
from lightning_tansens.tangent.isolation import evaluation
from lightning_tansens.tangent.network import call_on_copies, derivatives


def fisher_rao_norms(
    model: nn.Module, inputs: Any, *, criterion: Callable[[Any, Any], Any] | None = None, output: OutputPicker | None = None
) -> Tensor:
    r"""Computes the squared pull of the loss along the outputs, summed over every class that the label might be.

    .. math:: \sum_j \Big\langle \frac{\partial \ell(f(x), j)}{\partial f}, f(x) \Big\rangle^2

    (Liang et al. 2019 without labels; its mean over a set is what Eq. 10 of Daróczy 2022 compares. Their factor, the
    squared number of layers, cancels in that ratio.) For cross-entropy the gradient is p − e_j with p = softmax(f), so a
    term is (p·f − f_j)²; another criterion is differentiated. Only outputs are differentiated, so inputs of any type will
    do. The model is evaluated in eval mode and left as it was.

    Args:
        model: The network f; it maps a batch of shape (N, ...) to outputs of shape (N, C).
        inputs: A batch of shape (N, ...), or a tuple or dict of arguments.
        criterion: ℓ, a callable on (outputs, targets) of shapes (N, C) and (N,), int64, that returns a loss for each
            sample, or their mean; None for cross-entropy.
        output: Picks the tensor of outputs, where the model returns a tuple, a dict or the like.

    Returns:
        The sum over the classes for each sample, shape (N,), in units of the squared loss.

    Raises:
        UnsupportedNetworkError: If the outputs are not those of a classifier.
        ValueError: If the criterion returns something else.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0], [90.0, -90.0]])
        >>> fisher_rao_norms(torch.nn.Identity(), logits)  # (p·f − f_2)² = 180²
        tensor([    0., 32400.])
    """
    check_callable("output", output)
    check_callable("criterion", criterion)
    with evaluation(model):
        with torch.no_grad():
            result = call_on_copies(model, inputs)
        logits = _logits(model, pick_output(result, output), batch_length(inputs))
        if criterion is None:
            return ((logits.softmax(1) * logits).sum(1, keepdim=True) - logits).square().sum(1)
        pulls = [_pull(criterion, logits, j) for j in range(logits.shape[1])]
        return torch.stack(pulls).square().sum(0)


def _logits(model: nn.Module, result: Any, samples: int) -> Tensor:
    """The outputs, apart from any graph and in at least single precision."""
    if not isinstance(result, Tensor) or not result.is_floating_point():
        raise UnsupportedNetworkError(
            f"expected {type(model).__name__} to return one floating-point tensor, but got {type(result).__name__}; pass "
            "output=callable that picks it, for example lambda out: out['logits']"
        )
    if result.dim() != 2 or len(result) != samples or result.shape[1] < 2:
        raise UnsupportedNetworkError(
            f"expected outputs of shape (N, C) with N = {samples} samples and C ≥ 2 classes, but got "
            f"{tuple(result.shape)}; the Fisher–Rao norm is a classifier's, so leave it out for this network"
        )
    return result.detach().to(torch.promote_types(result.dtype, torch.float32))


def _pull(criterion: Callable[[Any, Any], Any], logits: Tensor, label: int) -> Tensor:
    """⟨∂ℓ(f, j)/∂f, f⟩ of each sample, shape (N,)."""
    samples = len(logits)
    leaf = logits.clone().requires_grad_()
    losses = criterion(leaf, torch.full((samples,), label, device=logits.device))
    if not isinstance(losses, Tensor):
        raise ValueError(f"criterion: expected a tensor of losses, but got {type(losses).__name__}; return a tensor")
    if losses.dim() > 0 and len(losses) != samples:
        raise ValueError(
            f"criterion: expected one loss for each of the {samples} samples, or their mean, but got shape "
            f"{tuple(losses.shape)}"
        )
    # a sample's loss depends on its own outputs alone, so the gradient of the sum holds the gradient of each
    (gradient,) = derivatives(losses.sum() * (samples / losses.numel()), [leaf])
    if gradient is None:
        raise ValueError(
            "criterion: expected a loss that can be differentiated with respect to the outputs, but got one that is "
            "detached from them; compute it from the outputs by torch's functions"
        )
    return (gradient * logits).sum(1)
