"""Draws the test loss and its estimates over the epochs, from a CSV file that an example has written.

python example_projects/plot_history.py history.csv picture.png [--title TITLE] [--max LOSS]
"""

import argparse
import csv

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LOSS = "tansens/test_loss/"
LABELS = {
    "actual": "actual test loss",
    "empirical": "empirical (Eq. 8)",
    "active_nodes": "active nodes (Eq. 7)",
    "layer_norm": "layer-wise norm (Eq. 6, log)",
    "trivial": "trivial: the reference's loss",
}
STYLES = {
    "actual": {"color": "black", "linewidth": 2.4},
    "empirical": {"color": "tab:blue"},
    "active_nodes": {"color": "tab:orange"},
    "layer_norm": {"color": "tab:green", "linewidth": 1.0},
    "trivial": {"color": "tab:red", "linestyle": "--", "linewidth": 1.8},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv")
    parser.add_argument("png")
    parser.add_argument("--title", default="")
    parser.add_argument("--max", type=float, default=None, help="upper end of the loss axis")
    args = parser.parse_args()

    with open(args.csv, newline="") as file:
        rows = list(csv.DictReader(file))
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 7), sharex=True, height_ratios=(2, 1), layout="constrained")
    for name, style in STYLES.items():
        points = [(int(row["epoch"]) + 1, float(row[LOSS + name])) for row in rows if row.get(LOSS + name)]
        top.plot(*zip(*points), label=LABELS[name], **style)
    top.set_ylabel("cross-entropy (nats)")
    top.set_ylim(top=args.max)
    top.set_title(args.title)
    top.legend()
    for key in rows[0]:
        if key.startswith("tansens/empirical/") and not key.endswith("_stderr"):
            name = key.rsplit("/", 1)[1]
            bottom.plot(
                [int(row["epoch"]) + 1 for row in rows],
                [float(row[key]) for row in rows],
                label=f"{name} set",
                color="black" if name == "test" else "tab:red",
                linestyle="-" if name == "test" else "--",
            )
    bottom.set_ylabel("mean ‖S‖²")
    bottom.set_ylim(bottom=0)
    bottom.set_xlabel("epoch")
    bottom.legend()
    for axis in (top, bottom):
        axis.grid(alpha=0.3)
        axis.set_xlim(1, max(2, int(rows[-1]["epoch"]) + 1))
    figure.savefig(args.png, dpi=110)


if __name__ == "__main__":
    main()
