"""A linear network that learns Gaussian classes: its outputs at several snapshots, on any set."""

import numpy as np

from lightning_tansens.estimators import Outputs, SetSummary, Trajectory

CLASSES, INPUTS, SNAPSHOTS = 4, 6, 9
_GENERATOR = np.random.default_rng(0)

#: The classes lie at unequal distances, so that some are easier than others.
MEANS = _GENERATOR.normal(size=(CLASSES, INPUTS)) * np.array([0.8, 1.1, 1.5, 2.0])[:, None]

#: The network at each snapshot: ever nearer to the one that suits the classes, and less noisy.
NETWORKS = [
    (0.5 + 0.08 * s) * MEANS.T + 0.6 / (1 + 0.3 * s) * _GENERATOR.normal(size=(INPUTS, CLASSES)) for s in range(SNAPSHOTS)
]


def drawn(samples, seed, shares=None):
    """Inputs and labels, with these shares of the classes."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(CLASSES, samples, p=shares)
    return MEANS[labels] + generator.normal(size=(samples, INPUTS)), labels


def outputs(inputs, labels=None, snapshots=SNAPSHOTS):
    """What the network says of inputs now, and at earlier snapshots."""
    earlier = Trajectory()
    for network in NETWORKS[SNAPSHOTS - snapshots : -1]:
        earlier = earlier.updated(Outputs.of(inputs @ network))
    return Outputs.of(inputs @ NETWORKS[-1], labels, earlier=earlier)


#: Corruptions of the copies, and others of the targets.
COPIES = (
    lambda x, g: x + 0.9 * g.normal(size=x.shape),
    lambda x, g: np.where(g.random(x.shape) < 0.35, 0, x),
    lambda x, g: 0.4 * x,
    lambda x, g: np.roll(x, 1, 0) * 0.3 + x * 0.7,
)
CORRUPTIONS = (
    lambda x, g: x + g.uniform(-2, 2, x.shape),
    lambda x, g: np.where(g.random(x.shape) < 0.3, g.normal(size=x.shape), x),
    lambda x, g: x + g.laplace(0, 0.9, x.shape),
    lambda x, g: np.roll(x, 1, 0) * 0.4 + x * 0.6,
)


def changed(change, inputs, seed=0):
    return change(inputs, np.random.default_rng(seed))


def reference(samples=500, seed=1, copies=COPIES, snapshots=SNAPSHOTS):
    """A labelled reference with its copies."""
    inputs, labels = drawn(samples, seed)
    made = tuple(
        SetSummary(f"copy {number}", samples, outputs(changed(copy, inputs, number), labels, snapshots))
        for number, copy in enumerate(copies)
    )
    return SetSummary("val", samples, outputs(inputs, labels, snapshots), copies=made)


def target(inputs, snapshots=SNAPSHOTS):
    return SetSummary("test", len(inputs), outputs(inputs, None, snapshots))


def truth(inputs, labels):
    """Loss and accuracy."""
    known = outputs(inputs, labels)
    return {"loss": known.losses.mean(), "accuracy": known.correct.mean()}
