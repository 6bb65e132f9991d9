"""Measures every classification model of torchvision with at most 100 million parameters, with one probe.

Run: ``python tests/benchmarks/bench_torchvision.py [CSV]``. Models have random weights and are not changed; images are
random, one batch of two, 96 pixels wide (224 where a model takes no other).
"""

from __future__ import annotations

import csv
import sys
import time
from functools import lru_cache

import torch
import torchvision

from lightning_tansens.functional import chosen_method, tangent_sensitivity

LARGEST = 100_000_000


@lru_cache
def builders() -> tuple[str, ...]:
    """The names of the models, by torchvision's own list."""
    names = torchvision.models.list_models(module=torchvision.models)
    sizes = {name: next(iter(torchvision.models.get_model_weights(name))).meta["num_params"] for name in names}
    return tuple(name for name in names if sizes[name] <= LARGEST)


def measure(name: str) -> dict[str, object]:
    """One row of the table."""
    model = torchvision.models.get_model(name, weights=None)
    size = 224 if name.startswith(("vit", "maxvit")) else 96
    images = torch.randn(2, 3, size, size)
    choice = chosen_method(model, images)
    start = time.perf_counter()
    values = tangent_sensitivity(model, images)
    seconds = time.perf_counter() - start
    model.eval()
    start = time.perf_counter()
    model(images).sum().backward()
    step = time.perf_counter() - start
    return {
        "model": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "way": choice.way,
        "reason": choice.reason.split("; ")[-1],
        "sensitivity": float(values.mean()),
        "seconds": round(seconds, 3),
        "forward_backward_seconds": round(step, 3),
    }


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else "torchvision_models.csv"
    with open(path, "w", newline="") as file:
        writer: csv.DictWriter | None = None
        for name in builders():
            torch.manual_seed(0)
            row = measure(name)
            if writer is None:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            print(row, flush=True)


if __name__ == "__main__":
    main()
