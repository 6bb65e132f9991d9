"""The arguments of the command, and its exit code."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

from lightning_tansens.command_line.checkpoints import find_checkpoints
from lightning_tansens.command_line.configuration import configure
from lightning_tansens.command_line.errors import UsageError
from lightning_tansens.command_line.measuring import measure_checkpoints
from lightning_tansens.command_line.output import table, write_csv, write_events
from lightning_tansens.show.console import slow_progress
from lightning_tansens.show.keys import Keys, flat_row
from lightning_tansens.show.notices import Notices

EVALUATE = """Measures saved checkpoints as the monitor of a LightningCLI run does, and prints a row for each. Further
arguments are LightningCLI's own and change the configuration, for example --trainer.accelerator=cpu."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command with what follows its name (None: the process's arguments).

    Returns:
        0, or 1 if a checkpoint could not be measured.

    Raises:
        SystemExit: With code 2 if an argument, the configuration or every checkpoint cannot be used.
    """
    parser = argparse.ArgumentParser("lightning-tansens", description="Label-free estimates of loss and accuracy.")
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
    evaluate.add_argument("--stage", choices=("test", "validation"), help="the loop to run, if not the first with data")
    options, overrides = parser.parse_known_args(arguments)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as for "python -m"; the modules that the file names are imported from there
    try:
        return _evaluate(options, overrides)
    except UsageError as error:
        evaluate.exit(2, f"{evaluate.prog}: {error}\n")


def _evaluate(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    checkpoints, errors = find_checkpoints(options.ckpt)
    if len(errors) == 1 and not checkpoints:
        raise errors[0]
    complaints: list[Exception] = []
    with warnings.catch_warnings(), slow_progress(len(checkpoints), "checkpoints") as progress:
        warnings.filterwarnings("ignore", ".*does not have many workers")  # one batch is loaded

        def complain(error: Exception) -> None:
            complaints.append(error)
            progress.write(f"lightning-tansens: skipped {shorten(str(error), 500, placeholder=' …')}", file=sys.stderr)

        for error in errors:
            complain(error)
        if not checkpoints:
            raise UsageError(f"{options.ckpt}: expected a checkpoint of Lightning among its files, but there is none")
        configured = configure(options.config, options.model, options.data, options.cli, options.stage, overrides)
        measured = []
        for one in measure_checkpoints(configured, checkpoints, complain):
            measured.append(one)
            progress.update()
    if not measured:
        if all(isinstance(error, UsageError) for error in complaints):
            raise UsageError(f"{options.ckpt}: expected a checkpoint that fits the configuration, but there is none")
        return 1
    rows: list[dict[str, float]] = [{} for _ in measured]
    for number, monitor in enumerate(configured.monitors):
        records = [found[number] for _, found in measured]
        Notices().say(records[-1])
        print(table([monitor.brief(record) for record in records]))
        for row, record in zip(rows, records, strict=True):
            row |= flat_row(record, Keys(monitor.options.prefix))
    if options.csv:
        named = zip(measured, rows, strict=True)
        write_csv(options.csv, [{"checkpoint": str(checkpoint.path), **row} for (checkpoint, _), row in named])
    if options.log_dir:
        write_events(options.log_dir, rows)
    return int(bool(complaints))
