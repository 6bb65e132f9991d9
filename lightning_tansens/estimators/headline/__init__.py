"""The headline: one estimate of loss and accuracy with an interval, fitted at each measurement on the reference."""

from lightning_tansens.estimators.headline.copies import Blur, Shift, Strong, copies_for
from lightning_tansens.estimators.headline.estimator import Headline
from lightning_tansens.estimators.headline.fit import Fit
from lightning_tansens.estimators.headline.gated_heads import ClassShares

__all__ = ["Blur", "ClassShares", "Fit", "Headline", "Shift", "Strong", "copies_for"]
