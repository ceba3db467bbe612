"""The command line: parse, check, dispatch.

Every error that a user can cause becomes one line.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - so this file keeps to what Python 3.6 can parse
    sys.exit(f"main.py: error: this is Python {sys.version.split()[0]}: the program needs 3.10 or newer")

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from signal import SIG_DFL, SIGINT, signal
from typing import Any, NoReturn

if __name__ == "__main__":
    signal(SIGINT, SIG_DFL)  # Ctrl-C ends the program silently until StopSignals takes over

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # python -P does not add it

from errors import CommandError, UserError, is_out_of_memory
from options import OPTIONS, Option, Run, make_run
from running.stopping import Stopped, StopSignals
from running.streams import flush_streams, in_one_line, open_streams, print_result
from settings import LOSSES, SETTINGS, TORCHJD, VERSION
from tasks import DATA_SETS

DESCRIPTION = (
    "Train and evaluate image classifiers: as one task, task by task, or many tasks sharing an encoder."
)

MODES = {
    "train": "train a model and evaluate it after every epoch",
    "eval": "evaluate the model saved in --save_path",
    "report": "compare the runs saved at any depth in --save_path",
}

REQUIRED = ("torch", "torchvision", "numpy", "tqdm", "filelock")
"""The packages that every training imports."""

OPTIONAL = ("torchjd", "tensorboard")
"""Those that only some losses and --tensorboard need."""


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors are one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Exit with the message in one line."""
        sys.exit(fail(f"{message} (--help explains the options)", 2))

    def _print_message(self, message: str, file: object = None) -> None:
        print_result(message.rstrip("\n"))  # argparse would ignore errors of writing


def fail(message: str, code: int) -> int:
    """Print a message in one line to standard error.

    Returns the exit code.
    """
    label = "error: " if code <= 2 else ""
    with suppress(OSError):
        print(f"main.py: {label}{in_one_line(' '.join(message.splitlines()))}", file=sys.stderr)
    return code


def _reader(read: Callable[[str], object]) -> Callable[[str], object]:
    """Argparse type of an option, from its reader."""

    def read_word(word: str) -> object:
        try:
            return read(word)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read_word


def _help(option: Option) -> str:
    """The help of an option, with its default."""
    words = option.words or ("" if option.default is None else str(option.default))
    goes = " and ".join(map(str, option.settings))
    only = (
        f"setting{'s' * (len(option.settings) > 1)} {goes}: " if len(option.settings) < len(SETTINGS) else ""
    )
    return only + option.help + (f" ({words})" if words else "")


def build_parser(table: Sequence[Option]) -> argparse.ArgumentParser:
    """The parser of the command line, with its help."""
    data_sets = [
        f"{spec.name}: {spec.num_classes} classes; {len(spec.tasks)} tasks, {spec.question}"
        for spec in DATA_SETS
    ]
    parser = Parser(
        prog="main.py",
        description=DESCRIPTION,
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
                "\nlosses, for settings 5 and 3:",
                *(f"  {name:14}  {loss.words}" for name, loss in LOSSES.items() if not loss.aggregates),
                "\nlosses that combine the tasks' gradients, with a backward pass for each task:",
                *(f"  {name:14}  {loss.words}" for name, loss in LOSSES.items() if loss.aggregates),
                "\na first run, which downloads nothing:",
                "  python main.py --train --setting 3 --synthetic --verbose",
            ]
        ),
    )
    what = parser.add_argument_group("what to do, one of")
    modes = what.add_mutually_exclusive_group(required=True)
    for mode, words in MODES.items():
        modes.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode, help=words)
    modes.add_argument("-h", "--help", action="help", help="print this and exit")
    modes.add_argument("--version", action="version", version=VERSION, help="print the version and exit")
    groups = {name: parser.add_argument_group(name) for name in dict.fromkeys(o.group for o in table)}
    for option in table:
        how: dict[str, Any] = {"action": "store_true"}
        if option.read is not None:
            how = {"type": _reader(option.read)}
        if option.metavar:
            how["metavar"] = option.metavar
        if option.many:
            how["nargs"] = "+"
        groups[option.group].add_argument(f"--{option.name}", default=None, help=_help(option), **how)
    return parser


def parse(argv: Sequence[str] | None, table: Sequence[Option]) -> Run:
    """Read and check the command line.

    Exits the program if it is invalid.

    Raises:
        UserError: the user's own data set cannot be read.
    """
    parser = build_parser(table)
    given = vars(parser.parse_args(argv))
    mode = given.pop("mode")
    if mode == "report":  # a report ignores the other options
        given = {name: given[name] for name in ("save_path", "verbose")}
    try:
        return make_run(mode, given, table)
    except CommandError as error:
        parser.error(str(error))


def check_packages(names: Iterable[str]) -> None:
    """Check that packages are installed.

    Raises:
        UserError: one is not.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise UserError(
            f"{sys.executable} lacks {', '.join(missing)}: activate the program's environment, or "
            "pip install -r requirements.txt"
        )


def outside_cause(error: Exception) -> str | None:
    """Message for an error that the machine or its set-up caused.

    None for a bug of the program.
    """
    text = (str(error).splitlines() or [""])[0]
    if is_out_of_memory(error):
        where = " on the GPU" if "CUDA" in str(error) else ""
        return f"there is not enough memory{where}: free some, or use a smaller --batch_size or --image_size"
    package = failed_import(error)
    if package:
        install = {"torchjd": f'"torchjd[full]=={TORCHJD}.*"', "tensorboard": "--upgrade tensorboard"}.get(
            package, "-r requirements.txt"
        )
        return f"{package} cannot be imported ({type(error).__name__}: {text}): pip install {install}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot use {os.fsdecode(error.filename)}: {error.strerror}; give another path"
    if isinstance(error, OSError) and error.errno is not None:
        return f"the system reports: {error.strerror}"
    return None


def failed_import(error: Exception) -> str | None:
    """The package whose import led to an error, or None."""
    import traceback  # importing it takes as long as the rest of a refusal

    names = [
        frame.f_globals.get("__name__", "")
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_name == "<module>"
    ]
    if isinstance(error, ImportError):
        names.append(error.name or "")
    if str(error) == "Numpy is not available":  # PyTorch was built for another version
        names.append("numpy")
    packages = (name.partition(".")[0] for name in reversed(names))  # one may have imported the next
    return next((package for package in packages if package in (*REQUIRED, *OPTIONAL)), None)


def main(
    argv: Sequence[str] | None = None,
    table: Sequence[Option] = OPTIONS,
    network: Callable | None = None,
    save_interval: float = 60.0,
) -> int:
    """Run the program.

    Args:
        argv: the command line; default: that of the process.
        table: table of options.
        network: makes the model, from models.Dimensions; default: that of --encoder and --head.
        save_interval: seconds between two checkpoints during training.

    Returns:
        the exit code.
    """
    open_streams()
    try:
        with StopSignals() as signals:
            run = parse(argv, table)
            check_packages(("numpy", "filelock") if run.mode == "report" else REQUIRED)
            if run.mode == "report":
                from reporting.report import report

                report(run.save_path, run.verbose, table)
            elif run.mode == "train":
                from running.training import train

                train(run, signals, network, save_interval)
            else:
                from running.evaluation import evaluate  # imports torch, which takes seconds

                evaluate(run, network)
    except UserError as error:
        return fail(str(error), 1)
    except Stopped as stopped:
        return fail(str(stopped), 128 + stopped.number)
    except Exception as error:
        cause = outside_cause(error)
        if cause is None:
            raise
        return fail(cause, 1)
    finally:
        flush_streams()
    return 0


if __name__ == "__main__":
    sys.exit(main())
