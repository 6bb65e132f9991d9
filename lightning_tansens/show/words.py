"""Puts estimates into words, the same on the console, in figures, tables and notebooks."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lightning_tansens.record import HEADLINE, TRIVIAL, Estimate, Quantity, Record, SetRecord, Verdict

#: The order for a reader: the accuracy is what most people look for.
SHOWN: tuple[Quantity, ...] = ("accuracy", "loss")

#: Which single estimator is shown without the headline, the best of the benchmark first.
_BEST_KNOWN: dict[Quantity, tuple[str, ...]] = {
    "loss": ("entropy_ratio", "entropy_difference", "calibrated"),
    "accuracy": ("atc_confidence", "cot", "atc_entropy", "cbpe", "calibrated"),
}


@dataclass(frozen=True)
class SetAnswer:
    """What stands for a set, in words."""

    name: str  #: The set's name.
    #: For each quantity that is estimated, the estimator's name and the estimate.
    estimates: Mapping[Quantity, tuple[str, Estimate]]
    reference: str  #: The reference's name.

    @property
    def kind(self) -> Verdict | None:
        """The verdict: that of the accuracy where there is one."""
        return next((one.verdict for _, one in self.estimates.values() if one.verdict is not None), None)

    @property
    def verdict(self) -> str:
        """How the set compares with the reference, in a word or two; empty where no estimate says."""
        return f"like {self.reference}" if self.kind == "like the reference" else self.kind or ""

    @property
    def mark(self) -> str:
        """The verdict, with a question mark where something speaks against the estimates."""
        return self.verdict + "?" * (bool(self.doubts) and self.kind not in ("unsure", None))

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why the estimates may not be relied on, each reason once, also where it is said of error rate and loss."""
        of_what: dict[str, list[str]] = {}
        for doubt in dict.fromkeys(doubt for _, one in self.estimates.values() for doubt in one.doubts):
            what, may, reason = doubt.rpartition(" may ")
            of_what.setdefault(may + reason, []).append(what)
        both = {reason: " and ".join(what.removeprefix("the ") for what in whats) for reason, whats in of_what.items()}
        return tuple((both[reason] if len(whats) > 1 else whats[0]) + reason for reason, whats in of_what.items())

    def value(self, quantity: Quantity) -> str:
        """Returns an estimate with its interval, and the estimator's name unless it is the headline; empty without one."""
        if quantity not in self.estimates:
            return ""
        name, estimate = self.estimates[quantity]
        value = said(quantity, estimate.value)
        if estimate.low is not None and estimate.high is not None:
            value += f" [{said(quantity, estimate.low)}, {said(quantity, estimate.high)}]"
        return value + ("" if name == HEADLINE else f" ({name})")


def answer(record: Record, name: str) -> SetAnswer:
    """Returns what a measurement says of a target.

    Example:
        >>> loss = {"estimate": Estimate(3.61, low=2.98, high=4.34, verdict="like the reference")}
        >>> test = SetRecord("test", estimates={"loss": loss})
        >>> found = answer(Record(9, 90, SetRecord("val"), {"test": test}), "test")
        >>> found.value("loss"), found.verdict
        ('3.61 [2.98, 4.34]', 'like val')
    """
    one = record.targets[name]
    found = {quantity: estimate for quantity in SHOWN if (estimate := headline(one, quantity)) is not None}
    return SetAnswer(name, found, record.reference.name)


def headline(one: SetRecord, quantity: Quantity) -> tuple[str, Estimate] | None:
    """Returns the name and the estimate that stand for a set's loss or accuracy; None where nothing does.

    Where the headline was asked for and is missing, a measure's estimate does not take its place.
    """
    found = one.estimates.get(quantity, {})
    others = [] if HEADLINE in one.missing else [*(name for name in found if name != TRIVIAL), TRIVIAL]
    name = next((name for name in (HEADLINE, *_BEST_KNOWN[quantity], *others) if name in found), None)
    return None if name is None else (name, found[name])


def shortened(names: Iterable[str], width: int) -> dict[str, str]:
    """Returns names that fit into a width and still differ: long ones lose the same part, or get a number if none will do.

    Example:
        >>> shortened(["scans_of_the_north", "scans_of_the_south", "ours"], 10)
        {'scans_of_the_north': 'scans…orth', 'scans_of_the_south': 'scans…outh', 'ours': 'ours'}
    """
    every = list(names)
    long = [name for name in every if len(name) > width]
    middle_first = sorted(range(width), key=lambda head: abs(head - width // 2))
    for head in (width - 1, *middle_first):
        cut = {name: f"{name[:head]}…{name[len(name) - width + head + 1 :]}" for name in long}
        if len({cut.get(name, name) for name in every}) == len(every):
            break
    else:
        numbers = {name: str(number) for number, name in enumerate(every, 1)}
        cut = {name: f"{name[: width - 1 - len(numbers[name])]}…{numbers[name]}" for name in long}
    return {name: cut.get(name, name) for name in every}


def said(quantity: Quantity, value: float) -> str:
    """Returns a loss or an accuracy with the digits that matter.

    Example:
        >>> said("accuracy", 0.3612), said("loss", 12.345)
        ('0.36', '12.3')
    """
    return f"{value:.2f}" if quantity == "accuracy" else f"{value:#.3g}".rstrip(".")


def answer_rows(record: Record) -> list[dict[str, str]]:
    """Returns what a measurement says of all sets, a row each with the same headings; the reference is the first.

    Example:
        >>> loss = {"estimate": Estimate(3.61, low=2.98, high=4.34, verdict="worse", doubts=("too few samples",))}
        >>> test = SetRecord("test", loss=3.7, estimates={"loss": loss})
        >>> answer_rows(Record(9, 90, SetRecord("val", loss=2.9), {"test": test}))[1]
        {'set': 'test', 'loss': '3.61 [2.98, 4.34], true 3.70', 'verdict': 'worse?', 'remarks': 'too few samples'}
    """
    known = [(of, value) for of in SHOWN if (value := record.reference.labelled(of)) is not None]
    rows: list[dict[str, str]] = [{"set": f"{record.reference.name} (labelled)"}]
    rows[0].update((of, said(of, value)) for of, value in known)
    for name, target in record.targets.items():
        found = answer(record, name)
        row: dict[str, str] = {"set": name}
        for of in SHOWN:
            truth = target.labelled(of)
            row[of] = ", ".join(filter(None, [found.value(of), "" if truth is None else f"true {said(of, truth)}"]))
        basis = dict.fromkeys(f"assumes that {one.basis}" for _, one in found.estimates.values() if one.basis)
        rows.append(row | {"verdict": found.mark, "remarks": "; ".join([*found.doubts, *basis])})
    headings = [heading for heading in rows[-1] if any(row.get(heading) for row in rows)]
    return [{heading: row.get(heading, "") for heading in headings} for row in rows]


def describe(explained: object) -> str:
    """Returns a measure's or an estimator's name in the log and its docstring's first sentence, as Markdown.

    Example:
        >>> from lightning_tansens.metrics import InputOutputSensitivity
        >>> describe(InputOutputSensitivity())
        "**input_output**: The mean norm of the network's Jacobian over a set, and the loss estimate built on it."
    """
    sentence = (inspect.getdoc(type(explained)) or "").partition("\n")[0]
    return f"**{getattr(explained, 'key', type(explained).__name__)}**: {sentence}"
