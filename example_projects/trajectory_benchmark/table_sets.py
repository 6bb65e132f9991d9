"""The sets of two tables: employment in later years and sub-populations, districts of California in other places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from sets import Data, chosen
from torch import Tensor

#: What is predicted. Of persons: whether they are employed, their marital status, whether they have a degree, their
#: relationship to the householder. Of districts: whether their value is above the median, their houses old, the income.
#: The ages of persons and the incomes of districts in numbers are regressions.
TableName = Literal[
    "employment", "marital", "degree", "relationship", "age", "value", "age_of_houses", "income", "income_in_numbers"
]

Columns = Mapping[str, NDArray[np.float64]]
Array = NDArray[np.float64]

#: Codes that are no quantities, each of which becomes a column.
CODES = ("MAR", "RELP", "ESP", "CIT", "RAC1P")

#: Standardised entries are cut off here.
FARTHEST = 6.0

#: Families of corruptions, each at two strengths.
FAMILIES = ("scaled", "rounded", "swapped")


@dataclass(frozen=True)
class Table:
    """A table with labels, who is trained on, and who is a target.

    Args:
        columns: The inputs, before they are standardised.
        labels: Class indices, or the numbers of a regression.
        own: Rows to train, refer and draw from.
        targets: Rows of each real target.
        sizes: Samples to train on, of the reference, and of a target.

    """

    columns: list[Array]
    labels: NDArray[np.int64] | Array
    own: NDArray[np.int64]
    targets: dict[str, NDArray[np.int64]]
    sizes: tuple[int, int, int]


def table_data(
    name: TableName, employment: Path | None, california: Path | None, split: int, train_samples: int,
    families: Sequence[str] | None,
) -> Data:  # fmt: skip
    """Returns the sets of a table.

    Args:
        name: The task.
        employment: The file of persons, see the README.
        california: The file of districts.
        split: Seed of who is trained on and who is the reference.
        train_samples: The most rows to train on.
        families: The families of corruptions; None for all.

    Raises:
        ValueError: If the file is not named.

    """
    of_persons = get_args(TableName)[:5]
    file = employment if name in of_persons else california
    if file is None:
        option = "--employment" if name in of_persons else "--california"
        raise ValueError(f"{name}: expected the file of its table, but got none; name it with {option}")
    with np.load(file) as found:
        columns = dict(zip(map(str, found["names"]), found["features"].T.astype(np.float64), strict=True))
        others = {key: found[key].astype(np.int64) for key in found.files if key not in ("names", "features")}
    table = _persons(name, columns, **others) if name in of_persons else _districts(name, columns, **others)
    generator = np.random.default_rng(11 + 100 * split)
    most, of_reference, size = table.sizes
    train, reference, rest = np.split(generator.permutation(table.own), [most, most + of_reference])
    train = train[:train_samples]
    whole = np.column_stack(table.columns)
    whole = np.clip((whole - whole[train].mean(0)) / (whole[train].std(0) + 1e-9), -FARTHEST, FARTHEST)
    inputs = torch.tensor(whole, dtype=torch.float32)
    if table.labels.dtype == np.int64:
        labels, classes = torch.tensor(table.labels), int(table.labels.max()) + 1
    else:
        numbers = (table.labels - table.labels[train].mean()) / table.labels[train].std()
        labels, classes = torch.tensor(numbers, dtype=torch.float32), 1
    data = Data((inputs[train], labels[train]), classes)
    data.add_reference(inputs[reference], labels[reference])
    pool = rest[:4000]
    data.add_pool("pool", inputs[pool], labels[pool])
    part = min(500, len(pool) // 2)
    data.add_populations("pool", part, seed=7)
    data.add_parts("pool", "none", part, 6)
    for population, rows in table.targets.items():
        drawn = generator.permutation(rows)[:size]
        data.add_family("real", population, _same, inputs[drawn], labels[drawn])
    for family in chosen(FAMILIES, families):
        for strength in (1, 2):
            drawn = generator.permutation(rest)[:size]
            corrupt = partial(_corrupted, family=family, strength=strength, generator=generator)
            data.add_family(family, strength, corrupt, inputs[drawn], labels[drawn])
    return data


def _persons(name: TableName, columns: Columns, employed: NDArray[np.int64], year: NDArray[np.int64]) -> Table:
    relationship = np.select([columns["RELP"] <= 1, columns["RELP"] <= 4], [columns["RELP"], 2], 3)
    labels, left_out, kept = {
        "employment": (employed, (), None),
        "marital": (columns["MAR"] - 1, ("MAR", "RELP"), columns["AGEP"] >= 16),
        "degree": (columns["SCHL"] >= 21, ("SCHL",), columns["AGEP"] >= 25),
        "relationship": (relationship, ("RELP",), None),
        "age": (columns["AGEP"], ("AGEP",), None),
    }[name]
    kept = np.ones(len(year), bool) if kept is None else kept
    inputs = [column for key, column in columns.items() if key not in (*CODES, *left_out)]
    for code in CODES:
        if code not in left_out:
            inputs += [(columns[code] == value) * 2.0 - 1 for value in np.unique(columns[code])]
    if name != "employment":
        inputs.append(employed * 2.0 - 1)
    latest = (year == 2018) & kept
    age = columns["AGEP"]
    groups = {
        "young": age < 25, "old": age > 60, "middle_aged": (age > 30) & (age < 50), "men": columns["SEX"] == 1,
        "women": columns["SEX"] == 2, "disabled": columns["DIS"] == 1, "married": columns["MAR"] == 1,
        "never_married": columns["MAR"] == 5, "divorced": columns["MAR"] == 3, "nonwhite": columns["RAC1P"] != 1,
        "foreign": columns["NATIVITY"] == 2, "low_school": columns["SCHL"] < 16, "college": columns["SCHL"] >= 21,
        "employed": employed == 1, "not_employed": employed == 0,
    }  # fmt: skip
    by_label = {
        "employment": ("employed", "not_employed"),
        "marital": ("married", "never_married", "divorced"),
        "degree": ("low_school", "college", "young"),
        "relationship": ("young",),
        "age": ("young", "old", "middle_aged"),
    }[name]
    targets = {f"year_{later}": np.flatnonzero((year == later) & kept) for later in (2016, 2017, 2018)}
    targets |= {group: np.flatnonzero(latest & of) for group, of in groups.items() if group not in by_label}
    labels = labels if name == "age" else labels.astype(np.int64)
    return Table(inputs, labels, np.flatnonzero((year == 2015) & kept), targets, (10_000, 1000, 1000))


def _districts(name: TableName, columns: Columns, target: NDArray[np.int64], later: NDArray[np.int64]) -> Table:
    own, others = np.flatnonzero(later == 0), np.flatnonzero(later == 1)
    income, age, latitude = columns["MedInc"], columns["HouseAge"], columns["Latitude"]
    terciles = np.searchsorted(np.quantile(income[own], (1 / 3, 2 / 3)), income)
    labels = {"value": target, "age_of_houses": age > 29, "income": terciles, "income_in_numbers": income}[name]
    labels = labels if name == "income_in_numbers" else labels.astype(np.int64)
    of_income = name.startswith("income")
    ratios = ("MedInc", "AveRooms", "AveBedrms", "Population", "AveOccup")
    inputs = [np.log(np.maximum(columns[key], 1e-3)) for key in ratios if not (of_income and key == "MedInc")]
    inputs += [columns[key] for key in ("HouseAge", "Latitude", "Longitude") if (name, key) != ("age_of_houses", "HouseAge")]
    if name in ("age_of_houses", "income_in_numbers"):
        inputs.append(target * 2.0 - 1)
    edges = np.quantile(latitude[others], np.linspace(0, 1, 7))
    groups = {f"latitude_{k}": (latitude >= edges[k]) & (latitude <= edges[k + 1]) for k in range(6)}
    groups |= {"crowded": columns["AveOccup"] > 3.5}
    groups |= {} if name == "age_of_houses" else {"new": age < 15, "old": age > 45}
    groups |= {} if of_income else {"poor": income < 2.5, "rich": income > 5.5}
    targets = {"north": others} | {group: others[of[others]] for group, of in groups.items()}
    return Table(inputs, labels, own, targets, (3800, 800, 800))


def _corrupted(inputs: Tensor, family: str, strength: int, generator: np.random.Generator) -> Tensor:
    columns = torch.from_numpy(generator.choice(inputs.shape[1], max(2, inputs.shape[1] // 3), replace=False))
    if family == "rounded":
        return (inputs / strength).round() * strength
    corrupted = inputs.clone()
    if family == "scaled":
        corrupted[:, columns] *= 1.7 if strength == 1 else 3.0
        return corrupted
    corrupted[:, columns] = inputs[:, columns.roll(1)]
    rows = torch.from_numpy(generator.random((len(inputs), 1)) < 0.5) if strength == 1 else torch.tensor(True)
    return torch.where(rows, corrupted, inputs)


def _same(inputs: Tensor) -> Tensor:
    return inputs
