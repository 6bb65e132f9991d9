"""The headline where outputs are not class scores: fitted on copies, or by pseudo-labels alone where there are none."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lightning_tansens.estimators.headline.dense_fit import DenseFit
from lightning_tansens.estimators.headline.dense_samples import DenseSamples
from lightning_tansens.estimators.headline.gated_heads import FEWEST_COPIES, NOISE
from lightning_tansens.estimators.headline.interval import QUANTILE
from lightning_tansens.estimators.outputs import Array, Outputs
from lightning_tansens.estimators.pseudo_label_loss import PseudoLabelLoss
from lightning_tansens.estimators.summary import SetSummary
from lightning_tansens.record import Estimate

UNTESTED = "outputs that are no classes: its interval holds sampling alone"


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Returns each sample's mean squared error, shape (N,)."""
    return torch.square(outputs - targets).flatten(1).mean(1) if outputs.dim() > 1 else torch.square(outputs - targets)


def sample_losses(summary: SetSummary) -> Array | None:
    """Returns the losses of a labelled set's usable samples, shape (N,); None where they are not known one by one."""
    influence, loss, outputs = summary.loss_influence, summary.loss, summary.outputs
    if influence is None or loss is None or outputs is None:
        return None
    found, positions = np.full(len(outputs.kept), np.nan), influence.positions.cpu().numpy()
    inside = positions < len(found)
    found[positions[inside]] = loss * (influence.values.double().cpu().numpy()[inside] + 1)
    found = found[outputs.kept]
    return found if np.isfinite(found).all() else None


def fit_of(
    reference: SetSummary,
    copies: Sequence[SetSummary],
    pseudo_losses: Callable[[Outputs], Array],
    seed: int,
    strong: Sequence[SetSummary] = (),
) -> DenseFit | None:
    """Returns the fit of the loss on a labelled reference and its copies; None where there are too few to fit on.

    Args:
        reference: What was found on the reference.
        copies: What was found on its perturbed copies.
        pseudo_losses: Returns each sample's loss on earlier outputs, shape (N,).
        seed: Seed of the re-weightings.
        strong: The same of strong copies, see :class:`Strong`.
    """
    mild, further = ([(copy.usable, sample_losses(copy)) for copy in some] for some in (copies, strong))
    found = [(outputs, losses) for outputs, losses in (*mild, *further) if losses is not None]
    fitted = sum(losses is not None for _, losses in mild)
    own = sample_losses(reference)
    if own is None or not own.mean() > 0 or own.min() < 0 or fitted < FEWEST_COPIES:
        return None
    known = [(DenseSamples.of(outputs, pseudo_losses), losses) for outputs, losses in found]
    outputs = [reference.usable, *(one for one, _ in found)]
    return DenseFit(DenseSamples.of(outputs[0], pseudo_losses), own, known, seed, len(known) - fitted, outputs)


def drawn_pseudo_label_loss(target: SetSummary, reference: SetSummary, by_labels: PseudoLabelLoss) -> Estimate:
    r"""Returns the estimate of :class:`PseudoLabelLoss`, drawn to the reference's loss where noise may explain it.

    .. math:: \hat l = l_{ref} \, e^a, \qquad a = \frac{d^3}{d^2 + (2 s)^2}

    with the log ratio d and its standard error s, which gives the interval too.

    Args:
        target: What was found on the target.
        reference: What was found on the reference, with a positive loss.
        by_labels: The estimator, with its criterion.

    Raises:
        TooEarlyError: If there was no earlier measurement.
        UndefinedEstimateError: If the reference has no loss.
    """
    found, loss = by_labels.estimate(target, reference)["loss"], reference.loss
    if loss is None or not loss > 0 or not found.value > 0 or found.stderr is None:
        return replace(found, doubts=(*found.doubts, UNTESTED))
    error, ratio = found.stderr / found.value, math.log(found.value / loss)
    value = loss * math.exp(ratio**3 / (ratio**2 + (NOISE * error) ** 2)) if ratio else loss
    half = QUANTILE * error
    return Estimate(value, low=value * math.exp(-half), high=value * math.exp(half), doubts=(UNTESTED,))
