"""The terms of the second paper's generalisation bound, from numbers gathered along a run."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from lightning_tansens.checks import check_choice, check_counts, check_numbers, check_share

#: A loss of which the bound knows the Lipschitz constant.
Loss = Literal["logistic", "cross_entropy", "squared", "half_squared"]


def lipschitz_constant(loss: Loss, largest_residual: float | None = None) -> float:
    """Gives K_L, the Lipschitz constant of a loss in the output (Rácz et al. 2023, Theorem 5).

    Args:
        loss: "logistic" (1), "cross_entropy" (√2), "squared" (2 max|f − y|) or "half_squared" (max|f − y|).
        largest_residual: max|f − y|, in units of the output; only the squared losses need it.

    Returns:
        K_L, in units of loss / output.

    Raises:
        ValueError: If the loss is unknown, or a squared loss comes without its residual.

    Example:
        >>> lipschitz_constant("squared", 1.5)
        3.0
    """
    check_choice("loss", loss, get_args(Loss))
    if loss == "logistic":
        return 1.0
    if loss == "cross_entropy":
        return math.sqrt(2)
    if largest_residual is None:
        raise ValueError(f"largest_residual: expected a number for the loss {loss!r}, but got None; pass max|f - y|")
    return largest_residual * (2 if loss == "squared" else 1)


@dataclass(frozen=True)
class Theorem5Bound:
    """The known terms of the bound, in units of the loss; the term K_L H(θ) is left out, it cannot be known."""

    complexity: float  #: C_1 / √N with C_1 = 2 K_L K_∇0 r, r = K_x C_TS C_GD or the tighter max_s ‖θ_s − θ_0‖.
    confidence: float  #: B sqrt(2 log(4/δ) / N).
    initial: float  #: K_L K_θ0, which can be dropped: f(θ_0, ·) alone has a Rademacher complexity of zero.


def theorem5_bound(
    *,
    k_loss: float,
    k_gradient: float,
    k_initial: float,
    radius: float,
    loss_bound: float,
    num_samples: int,
    confidence: float,
) -> Theorem5Bound:
    """Computes the terms of 2 K_L K_∇0 r / √N + B sqrt(2 log(4/δ) / N) + K_L K_θ0 (Rácz et al. 2023, Theorem 5).

    It holds for a scalar output, a ReLU chain without biases and plain gradient descent; Adam and SGD lie outside. The
    constants are suprema over the domain: measured on a sample they are estimates. The N samples must be independent of
    the training set.

    Args:
        k_loss: K_L, see :func:`lipschitz_constant`.
        k_gradient: K_∇0, the maximum of :func:`gradient_norms` at θ_0.
        k_initial: K_θ0 = max|f(θ_0, x)|.
        radius: r = K_x C_TS C_GD, or the tighter max_s ‖θ_s − θ_0‖, in units of the parameters.
        loss_bound: B, the largest value of the loss.
        num_samples: N, the number of samples on which the bound speaks.
        confidence: 1 − δ, between 0 and 1.

    Returns:
        The terms by name.

    Raises:
        ValueError: If N is below 1, the confidence lies outside (0, 1) or a constant is negative.

    Example:
        >>> theorem5_bound(
        ...     k_loss=1, k_gradient=3, k_initial=0.5, radius=2, loss_bound=0, num_samples=4, confidence=0.9
        ... )
        Theorem5Bound(complexity=6.0, confidence=0.0, initial=0.5)
    """
    check_counts(num_samples=num_samples)
    check_share("confidence", confidence)
    constants = {"k_loss": k_loss, "k_gradient": k_gradient, "k_initial": k_initial}
    check_numbers(at_least=0, infinite=True, **constants, radius=radius, loss_bound=loss_bound)
    return Theorem5Bound(
        complexity=2 * k_loss * k_gradient * radius / math.sqrt(num_samples),
        confidence=loss_bound * math.sqrt(2 * math.log(4 / (1 - confidence)) / num_samples),
        initial=k_loss * k_initial,
    )
