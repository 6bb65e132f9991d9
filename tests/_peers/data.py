"""Outputs of two sets, and how a peer is fed with them."""

import torch

from lightning_tansens._peers import default_peers

GENERATOR = torch.Generator().manual_seed(0)
CLASSES, FEATURES = 4, 6


def outputs_of(samples, scale):
    return scale * torch.randn(samples, CLASSES, generator=GENERATOR, dtype=torch.float64)


#: The reference is larger than the target, and labelled; a third of its labels are not those that are predicted.
REFERENCE, TARGET = outputs_of(60, 2.0), outputs_of(40, 1.0)
LABELS = torch.where(torch.arange(60) % 3 > 0, REFERENCE.argmax(1), torch.randint(CLASSES, (60,), generator=GENERATOR))
FEATURES_OF = {id(outputs): torch.randn(len(outputs), FEATURES, generator=GENERATOR) for outputs in (REFERENCE, TARGET)}


def by_key(key):
    return {peer.key: peer for peer in default_peers()}[key]


def fed(peer, outputs, labels=None, parts=None):
    """The peer, after batches of these positions; one batch of everything by default."""
    features = FEATURES_OF.get(id(outputs), torch.zeros(len(outputs), FEATURES))
    for part in parts or [list(range(len(outputs)))]:
        own = None if labels is None else labels[part]
        peer.update(outputs[part], own, features[part] if peer.needs_features else None, part)
    return peer


def estimated(key, target=TARGET, reference=REFERENCE, labels=LABELS):
    target, reference = fed(by_key(key), target), fed(by_key(key), reference, labels)
    return target.estimate(target.summary(), reference.summary())
