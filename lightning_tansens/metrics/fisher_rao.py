"""The mean Fisher–Rao norm of a set, without labels."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lightning_tansens.checks import check_callable
from lightning_tansens.functional.fisher_rao import fisher_rao_norms
from lightning_tansens.metrics.base import TangentOptions
from lightning_tansens.metrics.criteria import Criterion
from lightning_tansens.metrics.samples import MeanSensitivity
from lightning_tansens.tangent.batches import OutputPicker


class FisherRaoSensitivity(MeanSensitivity):
    r"""The Fisher–Rao norm of a classifier over a set without labels, and the loss estimate built on it.

    .. math:: FR(X) = \sum_j E_{x \in X} \Big\langle \frac{\partial \ell(f(x), j)}{\partial f}, f(x) \Big\rangle^2, \qquad
        \hat l(X_{te}) = \frac{FR(X_{te})}{FR(X_{ref})} \, l(X_{ref})

    (Eq. 10 of Daróczy 2022, after Liang et al. 2019), with a term for every class j that the label might be.

    Args:
        criterion: ℓ, a callable on (outputs, targets) that returns a loss for each sample, or their mean; None for
            cross-entropy.
        output: Picks the tensor of outputs, where the model returns a tuple, a dict or the like.
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> measure = FisherRaoSensitivity()
        >>> measure.update(torch.nn.Identity(), torch.tensor([[0.0, 0.0], [9.0, -9.0]]))
        >>> round(float(measure.compute()), 3)
        162.0
    """

    key = "fisher_rao"
    quantity = "means of fisher_rao"

    def __init__(self, criterion: Criterion | None = None, output: OutputPicker | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_callable("criterion", criterion)
        # a module is kept in a tuple, so that it does not become a part of the metric's own module tree
        self._criterion = (criterion,)
        self.tangent = TangentOptions(output=output)

    def of_samples(self, model: nn.Module, inputs: Any, positions: Sequence[int]) -> Tensor:
        """Returns Σ_j ⟨∂ℓ(f(x_n), j)/∂f, f(x_n)⟩², shape (N,)."""
        return fisher_rao_norms(model, inputs, criterion=self._criterion[0], output=self.tangent.output)
