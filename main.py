"""Train and evaluate image classifiers: as one task, task by task, or many tasks sharing an encoder."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from options import OPTIONS, CommandError, Option, Run, make_run
from running.stopping import Stopped, StopSignals
from settings import AGGREGATIONS, DATA_SETS, LOSSES, SETTINGS, UserError

MODES = {
    "train": "train a model and evaluate it after every epoch",
    "eval": "evaluate the model saved in --save_path",
    "report": "compare the runs saved at any depth in --save_path",
}


class Parser(argparse.ArgumentParser):
    """Answers a wrong command line with one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        sys.exit(fail(f"{message} (--help explains the options)", 2))


def fail(message: str, code: int) -> int:
    """Print a message in one line to standard error; gives back the exit code."""
    label = "error: " if code <= 2 else ""
    with suppress(OSError):
        print(f"main.py: {label}{' '.join(message.split())}", file=sys.stderr)
    return code


def _reader(option: Option) -> Callable[[str], object]:
    """How argparse reads the value of an option."""

    def read(text: str) -> object:
        try:
            return option.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _help(option: Option) -> str:
    """What an option is, with its default."""
    words = option.words or ("" if option.default is None else str(option.default))
    goes = " and ".join(map(str, option.settings))
    only = (
        f"setting{'s' * (len(option.settings) > 1)} {goes}: " if len(option.settings) < len(SETTINGS) else ""
    )
    return only + option.help + (f" ({words})" if words else "")


def build_parser(table: Sequence[Option]) -> argparse.ArgumentParser:
    """The command line with its help."""
    data_sets = [
        f"{spec.name}: {spec.num_classes} classes; {len(spec.tasks)} tasks, {spec.question}"
        for spec in DATA_SETS
    ]
    parser = Parser(
        prog="main.py",
        description=__doc__,
        usage="main.py --train | --eval | --report [OPTION ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
        epilog="\n".join(
            [
                "settings:",
                *(f"  {number}  {setting.name}: {setting.words}" for number, setting in enumerate(SETTINGS)),
                "\ndata sets:",
                *(f"  {number}  {words}" for number, words in enumerate(data_sets)),
                "  FILE.npz  arrays train_images, train_labels, test_images, test_labels, maybe tasks",
                "\nlosses, for setting 5:",
                *(f"  {name:14}  {LOSSES[name]}" for name in LOSSES if name not in AGGREGATIONS),
                "\nlosses that combine the tasks' gradients, of a backward pass for each:",
                *(f"  {name:14}  {words}" for name, words in AGGREGATIONS.items()),
                "\na first run, which downloads nothing:",
                "  python main.py --train --setting 3 --synthetic --verbose",
            ]
        ),
    )
    what = parser.add_argument_group("what to do, one of")
    modes = what.add_mutually_exclusive_group(required=True)
    for mode, words in MODES.items():
        modes.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode, help=words)
    modes.add_argument("-h", "--help", action="help", help="print this and end")
    groups = {name: parser.add_argument_group(name) for name in dict.fromkeys(o.group for o in table)}
    for option in table:
        how = {"action": "store_true"} if option.read is None else {"type": _reader(option)}
        if option.metavar:
            how["metavar"] = option.metavar
        if option.many:
            how["nargs"] = "+"
        groups[option.group].add_argument(f"--{option.name}", default=None, help=_help(option), **how)
    return parser


def parse(argv: Sequence[str] | None, table: Sequence[Option]) -> Run:
    """Read and check the command line. Ends the program where it means nothing.

    Raises:
        UserError: the user's own data set cannot be read.
    """
    parser = build_parser(table)
    given = vars(parser.parse_args(argv))
    mode = given.pop("mode")
    if mode == "report":  # which takes what there is, whatever the other options say
        given = {name: given[name] for name in ("save_path", "verbose")}
    try:
        return make_run(mode, given, table)
    except CommandError as error:
        parser.error(str(error))


def main(
    argv: Sequence[str] | None = None,
    table: Sequence[Option] = OPTIONS,
    network: Callable | None = None,
    save_interval: float = 60.0,
) -> int:
    """Run the program.

    Args:
        argv: the command line; default: that of the process.
        table: the options that there are.
        network: makes the model, of a number of channels and the number of classes of each head; default:
            models.Model.
        save_interval: seconds between two writings of the model in the course of a training.

    Returns:
        its exit code.
    """
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - None if the user has closed it
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that lack a letter
    try:
        with StopSignals() as signals:
            run = parse(argv, table)
            if run.mode == "report":
                from reporting.report import report

                report(run.save_path, run.verbose, table)
            elif run.mode == "train":
                from running.run import train

                train(run, signals, network, save_interval)
            else:
                from running.sitting import evaluate  # brings torch, which takes seconds

                evaluate(run, network)
    except UserError as error:
        return fail(str(error), 1)
    except Stopped as stopped:
        return fail(str(stopped), 128 + stopped.number)
    except OSError as error:
        if error.filename is not None:
            return fail(f"cannot use {error.filename}: {error.strerror}; give another path", 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the end of Python does not try once more
        return fail(f"standard output cannot be written to: {error.strerror or error}", 1)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search("(out of|allocate) memory", str(error)):
            raise
        return fail("there is not enough memory: use a smaller --batch_size or --image_size", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
