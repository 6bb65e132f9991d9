"""Draws the estimates over the epochs, and the sensitivities below, from a CSV file that an example has written.

python example_projects/plot_history.py history.csv picture.png [--title TITLE] [--max LOSS] [--answer]

With --answer it draws the one estimate of each set instead, with its interval.
"""

import argparse

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from histories import read_records

from lightning_tansens.show.figures import plot_answer, plot_estimates, plot_sensitivities


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv")
    parser.add_argument("png")
    parser.add_argument("--title", default="")
    parser.add_argument("--max", type=float, default=None, help="upper end of the loss axis")
    parser.add_argument("--answer", action="store_true", help="the one estimate of each set instead")
    args = parser.parse_args()
    if args.answer:
        plot_answer(read_records(args.csv))[0].savefig(args.png, dpi=200)
        return

    figure, (top, bottom) = plt.subplots(2, 1, figsize=(10, 7), sharex=True, height_ratios=(2, 1), layout="constrained")
    history = read_records(args.csv)
    plot_estimates(history, ax=top)
    plot_sensitivities(history, ax=bottom)
    top.set(title=args.title, xlabel="")
    bottom.set_ylabel("mean ‖S‖²")  # the whole unit is higher than the axis
    if args.max is not None:
        top.set_ylim(top=args.max)
    figure.savefig(args.png, dpi=110)


if __name__ == "__main__":
    main()
