"""Entropy and mutual information of discrete series, from their frequencies."""

from typing import Literal, get_args

import numpy as np
from scipy import stats
from torch import Tensor

from lightning_tansens.checks import check_choice, check_tensor

#: The plug-in estimate as it is, or with the first term of its bias taken off.
Correction = Literal["none", "miller_madow"]


def entropy(series: Tensor, correction: Correction = "none") -> float:
    r"""Estimates the entropy of a discrete variable from a sample.

    .. math:: \hat H(X) = -\sum_i \hat p_i \log \hat p_i, \qquad \hat H_{MM}(X) = \hat H(X) + \frac{m_X - 1}{2N}

    with the frequencies p̂ and the number m_X of values that occur. The plug-in estimate is biased low, by (K − 1)/(2N) to
    first order for a variable with K values; the second form adds that for the values that were seen (Miller 1955).

    Args:
        series: x_n, shape (N,) with N ≥ 1: integers or booleans; only which of them are equal matters.
        correction: "none" or "miller_madow".

    Returns:
        The entropy in nats, not below zero.

    Raises:
        TypeError: If the series is no tensor.
        ValueError: If the correction is neither, or the series is no vector of at least one number.

    Example:
        >>> import torch
        >>> round(entropy(torch.tensor([0, 0, 7, 7])), 9)  # log 2
        0.693147181
    """
    check_choice("correction", correction, get_args(Correction))
    return _entropy(_codes("series", series), correction)


def mutual_information(first: Tensor, second: Tensor, correction: Correction = "none") -> float:
    r"""Estimates the mutual information of two discrete variables from a sample of pairs.

    .. math:: \hat I(X; Y) = \sum_{ij} \hat p_{ij} \log \frac{\hat p_{ij}}{\hat p_i \, \hat p_j}
        = \hat H(X) + \hat H(Y) - \hat H(X, Y), \qquad
        \hat I_{MM} = \hat I + \frac{m_X + m_Y - m_{XY} - 1}{2N}

    with the frequencies p̂ of the contingency table and the numbers m of its rows, columns and cells that occur. The plug-in
    estimate is biased high: of independent variables with K and L values it is (K − 1)(L − 1)/(2N) in the mean, to first
    order. The Miller–Madow form corrects each entropy by :func:`entropy`'s term. If every x_n is distinct, both return the
    entropy of the second series (with the same correction), however the variables are related: compare with that ceiling,
    and with the number of distinct values.

    Args:
        first: x_n, shape (N,) with N ≥ 1: integers or booleans; only which of them are equal matters.
        second: y_n, shape (N,), of the same kinds.
        correction: "none" or "miller_madow".

    Returns:
        The mutual information in nats. The plug-in estimate is between zero and the smaller entropy; the corrected one may
        be below zero, where it is not cut off, so that a mean over several of them is not biased by that.

    Raises:
        TypeError: If a series is no tensor.
        ValueError: If the correction is neither, or the series are no vectors of one length, at least 1.

    Example:
        >>> import torch
        >>> first = torch.tensor([0, 0, 1, 1])
        >>> round(mutual_information(first, 5 * first), 9), mutual_information(first, torch.tensor([0, 1, 0, 1]))
        (0.693147181, 0.0)
    """
    check_choice("correction", correction, get_args(Correction))
    rows, columns = _codes("first", first), _codes("second", second)
    if len(rows) != len(columns):
        raise ValueError(
            f"first, second: expected series of one length, but got {len(rows)} and {len(columns)} numbers; pass both "
            "variables of each sample"
        )
    # the cells of the contingency table that occur; the whole table may be as large as N²
    cells = rows * (int(columns.max()) + 1) + columns
    ours, theirs, both = (_entropy(codes, correction) for codes in (rows, columns, cells))
    information = ours + theirs - both
    return max(0.0, information) if correction == "none" else information  # rounding may leave -1e-16


def _codes(name: str, series: Tensor) -> np.ndarray:
    """The series with its distinct values numbered from zero."""
    check_tensor(name, series)
    if series.dim() != 1 or not len(series):
        raise ValueError(
            f"{name}: expected a series of shape (N,) with at least one number, but got shape {tuple(series.shape)}; pass "
            "one number a sample, for vectors their hashes"
        )
    return np.unique(series.detach().cpu().numpy(), return_inverse=True)[1]


def _entropy(codes: np.ndarray, correction: Correction) -> float:
    counts = np.unique(codes, return_counts=True)[1]
    bias = (len(counts) - 1) / (2 * counts.sum()) if correction == "miller_madow" else 0.0
    return float(stats.entropy(counts)) + float(bias)
