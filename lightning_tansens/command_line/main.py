"""The arguments of the command, and its exit code."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

from lightning_tansens.command_line.checkpoints import find_checkpoints
from lightning_tansens.command_line.configuration import configure
from lightning_tansens.command_line.errors import MeasurementError, UsageError
from lightning_tansens.command_line.measuring import measure_checkpoints
from lightning_tansens.command_line.output import table, write_csv, write_events
from lightning_tansens.show.console import slow_progress
from lightning_tansens.show.keys import Keys

EVALUATE = """Measures saved checkpoints as the monitor of a LightningCLI run does, and prints a row for each. Further
arguments are LightningCLI's own and change the configuration, for example --trainer.accelerator=cpu."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: What follows the command's name; None for those of the process.

    Returns:
        0, or 1 if a checkpoint could not be measured.

    Raises:
        SystemExit: With code 2 if an argument, the configuration or a checkpoint cannot be used.

    """
    parser = argparse.ArgumentParser("lightning-tansens", description="Label-free estimates of the test loss.")
    commands = parser.add_subparsers(dest="command", required=True)
    # abbreviations would take arguments that are LightningCLI's
    evaluate = commands.add_parser("evaluate", help="measure checkpoints", description=EVALUATE, allow_abbrev=False)
    evaluate.add_argument("--config", type=Path, required=True, help="the YAML file of the run, or the one that it saved")
    evaluate.add_argument("--ckpt", type=Path, required=True, help="a checkpoint, or a folder of them")
    evaluate.add_argument("--csv", type=Path, help="where to write every value, one row a checkpoint")
    evaluate.add_argument("--log_dir", type=Path, help="where to write an event file of TensorBoard")
    evaluate.add_argument("--model", metavar="MODULE.CLASS", help="the LightningModule, if the file names none")
    evaluate.add_argument("--data", metavar="MODULE.CLASS", help="the datamodule, if the file names none")
    evaluate.add_argument("--cli", metavar="MODULE.CLASS", help="the run's subclass of LightningCLI, if it has one")
    options, overrides = parser.parse_known_args(arguments)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as for "python -m"; the modules that the file names are imported from there
    try:
        return _evaluate(options, overrides)
    except UsageError as error:
        evaluate.error(str(error))


def _evaluate(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    checkpoints = find_checkpoints(options.ckpt)
    configured = configure(options.config, options.model, options.data, options.cli, overrides)
    rows: list[dict[str, float]] = []
    failed = False
    with warnings.catch_warnings(), slow_progress(len(checkpoints), "checkpoints") as progress:
        warnings.filterwarnings("ignore", ".*does not have many workers")  # one batch is loaded
        try:
            for row in measure_checkpoints(configured, checkpoints):
                rows.append(row)
                progress.update()
        except MeasurementError as error:  # those before it are kept
            failed = True
            traceback.print_exception(error)
    for monitor in configured.monitors if rows else ():
        print(table(rows, Keys(monitor.prefix)))
    if options.csv and rows:
        write_csv(options.csv, [str(checkpoint.path) for checkpoint in checkpoints[: len(rows)]], rows)
    if options.log_dir and rows:
        write_events(options.log_dir, rows)
    return int(failed)
