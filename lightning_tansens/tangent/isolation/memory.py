"""The bytes behind tensors: saved, compared and put back, whoever has written to them."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

#: Up to this size in all, the tensors of modules are copied; for the rest a fingerprint tells whether they changed.
COPIED_BYTES = 2 * 2**30

_WIDTH = 1024


class Memory:
    """The storages of some tensors, which have names for messages; views and ties are counted once.

    Comparing bytes finds what version counters do not: writes through ``.data`` and by fused kernels. NaN equals NaN, and −0
    differs from 0. It also reads all weights, so between the batches of a measurement it is done for the first, second,
    fourth, eighth, … of them, and the counters speak for the others, unless bytes have once changed behind their back.
    """

    def __init__(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        found: dict[int, _Storage] = {}
        for name, tensor in tensors:
            for part in plain_parts(tensor):
                storage = part.untyped_storage()
                if storage.nbytes():
                    found.setdefault(storage._cdata, _Storage(name, storage)).note(part, counted=part is tensor)
        self._storages = sorted(found.values(), key=lambda storage: storage.size)
        self._restored = 0
        self._uncounted = False
        copied = 0
        for saved in self._storages:
            copied += saved.size
            saved.save(copied <= COPIED_BYTES)

    @torch.no_grad()
    def restore(self, last: bool) -> list[str]:
        """Puts back what has changed, and returns the names for which there is no copy; the ``last`` time compares bytes."""
        self._restored += 1
        thorough = last or self._uncounted or self._restored.bit_count() == 1
        written = {storage: storage.counts_a_write() for storage in self._storages}
        changed = _changed([storage for storage, counted in written.items() if thorough or counted])
        self._uncounted |= not all(written[storage] for storage in changed)
        return [storage.name for storage in changed if not storage.restore()]


class _Storage:
    __slots__ = ("_flat", "_storage", "_tensors", "_versions", "copy", "fingerprint", "name", "size")

    def __init__(self, name: str, storage: torch.UntypedStorage) -> None:
        self.name = name
        self.size = storage.nbytes()
        self._storage = storage
        whole = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)  # type: ignore[call-overload]
        #: All bytes, as integers; a write to them is not counted by the tensors' versions.
        self._flat: Tensor = whole if self.size % 8 else whole.view(torch.int64)
        self.copy: Tensor | None = None
        self.fingerprint: Tensor | None = None
        self._tensors: list[Tensor] = []
        self._versions: list[int] | None = []

    def note(self, tensor: Tensor, counted: bool) -> None:
        """Notes a tensor that lies here; of inference tensors, and within distributed ones, writes are not counted."""
        self._tensors.append(tensor.detach())  # keeps the storage alive, and counts together with the tensor
        if self._versions is not None and counted and not tensor.is_inference():
            self._versions.append(tensor._version)
        else:
            self._versions = None

    def counts_a_write(self) -> bool:
        """Whether something may have written to it, by the tensors' version counters; notes where they stand now."""
        if self._versions is None:
            return True
        before, self._versions = self._versions, [tensor._version for tensor in self._tensors]
        return self._versions != before or self._storage.nbytes() != self.size

    @torch.no_grad()
    def save(self, copying: bool) -> None:
        try:
            self.copy = self._flat.clone() if copying else None
        except torch.OutOfMemoryError:
            self.copy = None
        if self.copy is None:
            self.fingerprint = _fingerprint(self._flat)

    def differs(self) -> Tensor | bool:
        """Whether something has written to it; on an accelerator a tensor, so that the device is waited for once."""
        if self._storage.nbytes() != self.size:
            return True
        flat = self._flat
        now, before = (flat, self.copy) if self.copy is not None else (_fingerprint(flat), self.fingerprint)
        assert before is not None
        return not torch.equal(now, before) if flat.device.type == "cpu" else (now != before).any()

    def restore(self) -> bool:
        if self.copy is None:
            return False
        if self._storage.nbytes() != self.size:
            self._storage.resize_(self.size)
        self._flat.copy_(self.copy)
        return True


def _changed(storages: list[_Storage]) -> list[_Storage]:
    answers = [storage.differs() for storage in storages]
    waiting: dict[torch.device, list[int]] = {}
    for i, answer in enumerate(answers):
        if isinstance(answer, Tensor):
            waiting.setdefault(answer.device, []).append(i)
    for positions in waiting.values():
        for i, answer in zip(positions, torch.stack([answers[i] for i in positions]).tolist()):  # type: ignore[misc]
            answers[i] = answer
    return [storage for storage, answer in zip(storages, answers) if answer]


def _fingerprint(flat: Tensor) -> Tensor:
    """Sums of rows and columns of the bits: a thousandth of the size, and changed by any change that is not contrived."""
    whole = flat.numel() // _WIDTH * _WIDTH
    table = flat[:whole].view(-1, _WIDTH)
    return torch.cat([table.sum(0, dtype=torch.int64), table.sum(1, dtype=torch.int64), flat[whole:].to(torch.int64)])


def plain_parts(tensor: Tensor) -> Iterator[Tensor]:
    """Yields the tensors with memory of their own that a tensor consists of (the local part of a distributed one)."""
    if is_traceable_wrapper_subclass(tensor):
        for name in tensor.__tensor_flatten__()[0]:
            part = getattr(tensor, name)
            yield from plain_parts(part) if isinstance(part, Tensor) else ()
    elif tensor.layout == torch.sparse_coo:
        yield from (tensor.detach()._indices(), tensor.detach()._values())
    elif tensor.layout == torch.strided and tensor.device.type != "meta":
        yield tensor
