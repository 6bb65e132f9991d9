"""Outputs of two sets, and summaries of them."""

import numpy as np
import torch

from lightning_tansens.estimators import Outputs, SetSummary, Trajectory, default_estimators

GENERATOR = torch.Generator().manual_seed(0)
CLASSES, FEATURES = 4, 6


def outputs_of(samples, scale):
    return (scale * torch.randn(samples, CLASSES, generator=GENERATOR, dtype=torch.float64)).numpy()


#: The reference is larger than the target, and labelled; a third of its labels are not those that are predicted.
REFERENCE, TARGET = outputs_of(60, 2.0), outputs_of(40, 1.0)
LABELS = np.where(np.arange(60) % 3 > 0, REFERENCE.argmax(1), torch.randint(CLASSES, (60,), generator=GENERATOR).numpy())
FEATURES_OF = {
    id(outputs): torch.randn(len(outputs), FEATURES, generator=GENERATOR).double().numpy() for outputs in (REFERENCE, TARGET)
}

#: What was said at five earlier measurements, each time a little less like today's.
EARLIER = {
    id(outputs): [
        s / 5 * outputs + torch.randn(len(outputs), CLASSES, generator=GENERATOR, dtype=torch.float64).numpy()
        for s in range(5)
    ]
    for outputs in (REFERENCE, TARGET)
}


def by_key(key):
    return {estimator.key: estimator for estimator in default_estimators()}[key]


def trajectory(snapshots):
    found = Trajectory()
    for snapshot in snapshots:
        found = found.updated(Outputs.of(snapshot))
    return found


def summary(outputs, labels=None, name="target"):
    earlier = trajectory(EARLIER[id(outputs)]) if id(outputs) in EARLIER else None
    features = FEATURES_OF.get(id(outputs), np.zeros((len(outputs), FEATURES)))
    made = Outputs.of(outputs, labels, features, earlier)
    return SetSummary(name, len(outputs), made)


def estimated(key, target=TARGET, reference=REFERENCE, labels=LABELS):
    return by_key(key).estimate(summary(target), summary(reference, labels, "reference"))


def score(key, outputs):
    return by_key(key).scores(summary(outputs))[key]
