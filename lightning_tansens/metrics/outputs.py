"""A network's outputs on a set, gathered over batches and processes."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_tansens.checks import positions_from
from lightning_tansens.metrics.criteria import look_like_class_scores
from lightning_tansens.metrics.states import StatefulMetric

#: The most numbers that are kept of a sample's outputs where they are no class scores.
MAX_NUMBERS = 4096


class SetOutputs(StatefulMetric):
    """Gathers outputs, labels, features and entries of the inputs of a set, in the order of the samples' positions.

    Class scores (N, C) are kept whole. Of other outputs at most 4,096 numbers a sample are kept: of (N, C, ...) the same
    randomly drawn places of the trailing dimensions for every sample, set and process, of (N, D) the same entries.

    As input to ``update``: outputs, labels, features, positions and entries. As output of ``compute``: what
    :meth:`arrays` returns, as tensors.

    Args:
        class_scores: Whether outputs are class scores: logits (N, C) of two or more classes, or the single logit, (N,) or
            (N, 1), of the second of two; None to find out from the first batch: outputs (N, C) with labels that are missing
            or integers of shape (N,).
        labels: Whether to keep the labels, which is for the reference alone.
        features: Whether to keep the features.
        entries: Whether to keep the entries of the inputs.
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> gathered = SetOutputs()
        >>> gathered.update(torch.tensor([[0.0, 1.0]]), torch.tensor([1]), positions=[1])
        >>> gathered.update(torch.tensor([[2.0, 3.0]]), torch.tensor([0]), positions=[0])
        >>> gathered.arrays()["outputs"].tolist(), gathered.arrays()["labels"].tolist()
        ([[2.0, 3.0], [0.0, 1.0]], [0, 1])
    """

    positions: list[Tensor]

    def __init__(
        self,
        class_scores: bool | None = None,
        labels: bool = True,
        features: bool = False,
        entries: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.class_scores = class_scores
        wanted = {"labels": labels, "features": features, "entries": entries}
        self._names = ["positions", "outputs", *(name for name, is_wanted in wanted.items() if is_wanted)]
        self._shapes: dict[str, torch.Size] = {}
        self._places: Tensor | None = None
        for name in self._names:
            self._sample_state(name)  # its type is learnt from a batch

    def prepare(self, outputs: Any, targets: Any = None, features: Any = None, entries: Tensor | None = None) -> None:
        """Learns the types and shapes of what is gathered; every process calls it before the first update.

        It takes a batch of at least one sample, whose values do not matter, and raises as :meth:`update` does.
        """
        self._learn(self._rows(outputs, targets, features, entries))

    def _learn(self, rows: dict[str, Tensor]) -> None:
        shapes = {name: row.shape[1:] for name, row in rows.items()}
        if self._shapes and shapes != self._shapes:
            raise ValueError(
                f"outputs: expected shapes as before, {_written(self._shapes)}, but got {_written(shapes)}; take a new "
                "SetOutputs for another network"
            )
        if not self._shapes:
            self._shapes = shapes
            for name, row in rows.items():
                self._sample_state(name, row.dtype)

    def update(
        self,
        outputs: Any,
        targets: Any = None,
        features: Any = None,
        positions: Sequence[int] | None = None,
        entries: Tensor | None = None,
    ) -> None:
        """Adds a batch.

        Args:
            outputs: Shape (N, ...), see :class:`SetOutputs`.
            targets: Class indices, shape (N,); None where labels are not used. Not looked at without class scores.
            features: The input of the network's last layer, shape (N, F); None where it is not known.
            positions: The samples' positions in their set; None continues where the last batch ended.
            entries: Some entries of the inputs, shape (N, E); None where they are not known. A batch with more or fewer
                entries than the first counts as not known, NaN.

        Raises:
            ValueError: If outputs, labels or features have not the shapes that are expected.
        """
        rows = self._rows(outputs, targets, features, entries)
        self._learn(rows)
        own = positions_from("positions", positions, len(outputs), start=sum(map(len, self.positions)))
        rows["positions"] = torch.tensor(own, dtype=torch.int64, device=self.device)
        for name, row in rows.items():
            self._append(name, row)

    def compute(self) -> dict[str, Any]:
        """Returns outputs, labels, features and entries, over the samples of all processes, in the order of positions."""
        if not self._shapes:
            return {"outputs": torch.zeros(0, device=self.device), "is_classifier": bool(self.class_scores)}
        positions = self._joined("positions")
        # one process reads in order, where a copy would take longer than all else here
        order = None if (positions.diff() > 0).all() else positions.argsort(stable=True)
        given = {name: shape for name, shape in self._shapes.items() if name != "positions" and shape != (0,)}
        rows = {name: self._joined(name).reshape(len(positions), *shape) for name, shape in given.items()}
        found = rows if order is None else {name: held[order] for name, held in rows.items()}
        return {**found, "is_classifier": bool(self.class_scores)}

    def arrays(self) -> dict[str, Any]:
        """Returns the arguments of ``Outputs.of`` and the entries, the same on every process. Needs synced states."""
        compute = type(self).compute  # the metric's own compute() would sync once more
        return {name: value.cpu().numpy() if isinstance(value, Tensor) else value for name, value in compute(self).items()}

    def _rows(self, outputs: Any, targets: Any, features: Any, entries: Tensor | None) -> dict[str, Tensor]:
        if not isinstance(outputs, Tensor) or not outputs.is_floating_point() or not outputs.dim():
            raise ValueError(
                f"outputs: expected one tensor of floating-point numbers, shape (N, ...), but got {_what(outputs)}"
            )
        samples = len(outputs)
        if self.class_scores is None:
            self.class_scores = look_like_class_scores(outputs, targets)
        kept = outputs.detach().to(self.device, torch.float64 if outputs.dtype == torch.float64 else torch.float32)
        rows = {"positions": torch.zeros(samples, dtype=torch.int64, device=self.device)}
        rows["outputs"] = kept if self.class_scores else self._thinned(kept)
        if self.class_scores and (outputs.dim() > 2 or (outputs.dim() == 2 and not outputs.shape[1])):
            raise ValueError(f"outputs: expected class scores of shape (N, C), (N, 1) or (N,), but got {_what(outputs)}")
        none = torch.zeros(samples, 0, device=self.device)  # for what is not given
        if "labels" in self._names:
            rows["labels"] = self._labels(outputs, targets) if self.class_scores and targets is not None else none.long()
        if "features" in self._names:
            if features is not None and (
                not isinstance(features, Tensor) or features.dim() != 2 or len(features) != samples
            ):
                raise ValueError(
                    f"features: expected shape ({samples}, F), one row for each sample, but got {_what(features)}"
                )
            rows["features"] = none if features is None else features.detach().to(self.device, kept.dtype)
        if "entries" in self._names:
            rows["entries"] = none.float() if entries is None else entries.to(self.device, torch.float32)
            known = self._shapes.get("entries", rows["entries"].shape[1:])
            if rows["entries"].shape[1:] != known:
                rows["entries"] = torch.full((samples, *known), torch.nan, dtype=torch.float32, device=self.device)
        return rows

    def _labels(self, outputs: Tensor, targets: Any) -> Tensor:
        single = outputs.dim() == 1 or outputs.shape[1] == 1
        samples, classes = len(outputs), 2 if single else outputs.shape[1]
        fits = isinstance(targets, Tensor) and not targets.is_complex() and (single or not targets.is_floating_point())
        if not fits or tuple(targets.shape) not in ([(samples,), (samples, 1)] if single else [(samples,)]):
            raise ValueError(f"targets: expected class indices of shape ({samples},), but got {_what(targets)}")
        labels = targets.detach().reshape(-1).to(self.device)
        if samples and (labels.min() < 0 or labels.max() >= classes or (labels != labels.long()).any()):
            raise ValueError(
                f"targets: expected classes from 0 to {classes - 1}, as many as outputs, but got {labels.min().item()} to "
                f"{labels.max().item()}"
            )
        classified: Tensor = labels.long()
        return classified

    def _thinned(self, outputs: Tensor) -> Tensor:
        """The same few places of every sample's outputs."""
        if outputs.dim() < 2 or math.prod(outputs.shape[1:]) <= MAX_NUMBERS:
            return outputs
        flat = outputs.flatten(2) if outputs.dim() > 2 else outputs[:, None]
        count = max(1, MAX_NUMBERS // flat.shape[1])
        if self._places is None:
            generator = torch.Generator().manual_seed(0)
            self._places = torch.randperm(flat.shape[2], generator=generator)[:count].sort().values
        thinned: Tensor = flat[:, :, self._places.to(flat.device)]
        return thinned if outputs.dim() > 2 else thinned[:, 0]


def _written(shapes: dict[str, torch.Size]) -> str:
    return ", ".join(f"{name} (N{''.join(f', {size}' for size in shape)})" for name, shape in shapes.items())


def _what(value: Any) -> str:
    return f"shape {tuple(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
