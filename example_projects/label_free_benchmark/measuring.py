"""Measures one network on the reference and on every shifted set, by the monitor in ``Trainer.test``."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import lightning.pytorch as pl
import torch
from images import Images
from results import TRAIN, Set
from runs import Run
from shifts import Plain
from torch.utils.data import DataLoader, Dataset

from lightning_tansens import Display, Options, TangentSensitivityMonitor
from lightning_tansens.estimators import Calibrated, default_estimators
from lightning_tansens.metrics import (
    ActiveNodeSensitivity,
    EmpiricalSensitivity,
    FisherRaoSensitivity,
    InputOutputSensitivity,
    LayerwiseNormSensitivity,
    RegionSensitivity,
    SpectralNormSensitivity,
)
from lightning_tansens.record import Record, SetRecord

#: What is measured of a set besides estimates: what a fit on other sets can use.
FEATURES = ("average_confidence", "nuclear_norm", "mano", "dispersion", "active_nodes_mean")

COLUMNS = ("family", "severity", "estimator", "quantity", "estimate", "actual", "stderr", "trusted")


def measure(module: pl.LightningModule, data: Images, sets: Mapping[Set, Dataset], run: Run, path: Path) -> float:
    """Measures a network on the shifted sets and on training images, writes rows, and returns the seconds that it took.

    Eqs. 6 and 11 look at the weights alone and compare them with themselves here, so that they are the trivial estimate.

    Args:
        module: The network with its weights.
        data: The images.
        sets: The shifted sets.
        run: How many samples are measured, and how.
        path: Where to write.

    """
    sets = {**sets, (TRAIN, 0): Plain(data.train.take(torch.arange(run.samples)))}
    names = {f"{family}-{severity}": (family, severity) for family, severity in sets}
    monitor = TangentSensitivityMonitor(
        test_dataloaders=dict(zip(names, sets.values(), strict=True)),
        reference=Plain(data.reference),
        measures=[
            EmpiricalSensitivity(),
            LayerwiseNormSensitivity(),
            ActiveNodeSensitivity(),
            RegionSensitivity(),
            FisherRaoSensitivity(),
            SpectralNormSensitivity(),
            *([InputOutputSensitivity()] if run.jacobian else []),
        ],
        estimators=[*default_estimators(), Calibrated()],
        num_samples=run.sensitivity_samples,
        compare_with_labels=True,
        verbose=False,
        options=Options(num_loss_samples=run.samples, on_failure="raise"),
        display=Display(layout=False, texts=False, histograms=False, figure_time=0),
    )
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = pl.Trainer(
        accelerator="auto",
        devices=1,
        callbacks=[monitor],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    start = time.perf_counter()
    trainer.test(module, DataLoader(Plain(data.test.take(torch.arange(2)))), verbose=False)
    seconds = time.perf_counter() - start
    (record,) = monitor.records
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name, (family, severity) in names.items():
            writer.writerows([family, severity, *cells] for cells in _cells(record, name))
        writer.writerow(["none", 0, "seconds", "cost", f"{seconds:.1f}", "", "", ""])
        seconds_of_copies = record.seconds["copies"]
        writer.writerow(["none", 0, "calibration_seconds", "cost", f"{seconds_of_copies:.1f}", "", "", ""])
    unfinished.rename(path)
    return seconds


def _cells(record: Record, name: str) -> Iterator[list[object]]:
    target = record.targets[name]
    for quantity, estimates in target.estimates.items():
        actual = target.labelled(quantity)
        for estimator, one in estimates.items():
            yield [estimator, quantity, *map(_rounded, (one.value, actual, one.stderr, float(not one.doubts)))]
    for feature in FEATURES:
        values = [_feature(one, feature) for one in (target, record.reference)]
        if None not in values:  # the dispersion of a single predicted class is -inf, which is not recorded
            yield [feature, "feature", *map(_rounded, values), "", ""]


def _feature(one: SetRecord, name: str) -> float | None:
    values = {key: value for measure in one.measures.values() for key, value in measure.values.items()}
    return {**values, **one.scores}.get(name)


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
