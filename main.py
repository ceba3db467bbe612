"""Train and evaluate image classifiers: as one task, task by task, or many tasks sharing an encoder."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from settings import (
    DATA_PATH,
    DATA_SETS,
    PRECISIONS,
    SAVE_PATH,
    SETTINGS,
    SYNTHETIC,
    DataSpec,
    TrainingOptions,
    UserError,
)
from stopping import Stopped, StopSignals


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


def _number(kind: type, wanted: str, accepts: Callable[[float], bool]) -> Callable[[str], float]:
    """An argument type: a number that `accepts` takes; `wanted` says in an error what that is."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not accepts(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return value

    return parse


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:(0|[1-9][0-9]{0,2}))?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is none of auto, cpu, cuda, cuda:0, cuda:1 ...")
    return text


def _list(specs: Sequence[DataSpec], field: str) -> str:
    return ", ".join(f"{spec.name} {getattr(spec, field)}" for spec in specs)


def build_parser() -> argparse.ArgumentParser:
    """The command line with its help."""
    data_sets = [
        f"{spec.name}: {spec.num_classes} classes; {len(spec.tasks)} tasks, {spec.question}"
        for spec in DATA_SETS
    ]
    parser = Parser(
        prog="main.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="\n".join(
            [
                "settings:",
                *(f"  {number}  {setting.name}: {setting.words}" for number, setting in enumerate(SETTINGS)),
                "\ndata sets:",
                *(f"  {number}  {words}" for number, words in enumerate(data_sets)),
                "\na first run, which downloads nothing:",
                "  python main.py --train --setting 3 --synthetic --verbose",
            ]
        ),
    )
    defaults = TrainingOptions()
    count = _number(int, "a whole number from 1 to 1000000", lambda number: 1 <= number <= 10**6)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--train", action="store_true", help="train a model and evaluate it after every epoch")
    mode.add_argument("--eval", action="store_true", help="evaluate the model saved in --save_path")
    mode.add_argument(
        "--report", action="store_true", help="compare the runs saved at any depth in --save_path"
    )

    add = parser.add_argument
    add("--setting", type=int, default=0, choices=range(len(SETTINGS)), help="way of training, see below (0)")
    add("--data", type=int, default=1, choices=range(len(DATA_SETS)), help="data set, see below (1)")
    add("--task", type=int, metavar="T", help="the task that setting 2 trains, numbered from 0")
    add(
        "--save_path",
        type=Path,
        default=Path(SAVE_PATH),
        metavar="DIR",
        help=f"directory of the model and the history, made if missing ({SAVE_PATH})",
    )
    add("--save_model", action="store_true", help="save the trained model as model.pt")
    add(
        "--resume",
        action="store_true",
        help="go on from the model in --save_path, if any; implies --save_model",
    )
    add("--save_history", action="store_true", help="save the results of every epoch as history.json")
    add(
        "--verbose",
        action="store_true",
        help="print the accuracies after each epoch; with --report, every task",
    )
    add("--epochs", type=count, metavar="N", help=f"epochs to train ({_list(DATA_SETS, 'epochs')})")
    add(
        "--batch_size",
        type=count,
        default=defaults.batch_size,
        metavar="N",
        help=f"images per training step ({defaults.batch_size})",
    )
    add(
        "--lr",
        type=_number(float, "a positive, finite number", lambda rate: 0 < rate < math.inf),
        default=defaults.lr,
        metavar="RATE",
        help=f"learning rate of SGD ({defaults.lr})",
    )
    add(
        "--weights",
        type=_number(float, "a finite number of at least 0", lambda weight: 0 <= weight < math.inf),
        nargs="+",
        metavar="W",
        help="settings 4 and 6: what each task weighs, scaled to sum to 1 (task 0 weighs 1, task 1 2, ...)",
    )
    add(
        "--seed",
        type=_number(int, "a whole number from 0 to 2^63 - 1", lambda seed: 0 <= seed < 2**63),
        default=defaults.seed,
        metavar="N",
        help=f"of everything random: the same seed gives the same result ({defaults.seed})",
    )
    add(
        "--image_size",
        type=_number(int, "a whole number from 1 to 1024", lambda side: 1 <= side <= 1024),
        metavar="N",
        help=f"side in pixels that images are resized to ({_list(DATA_SETS, 'default_image_size')}; "
        "with --eval what the model was trained on)",
    )
    add(
        "--data_path",
        type=Path,
        default=Path(DATA_PATH),
        metavar="DIR",
        help=f"directory of the data sets, downloaded on first use ({DATA_PATH})",
    )
    add(
        "--synthetic",
        action="store_true",
        help="use small generated images in the data set's place: no download",
    )
    add(
        "--precision",
        choices=PRECISIONS,
        default=defaults.precision,
        help=f"numbers that the network computes in: bf16 is less exact, and faster on hardware made for it "
        f"({defaults.precision})",
    )
    add(
        "--compile",
        action="store_true",
        help="compile the encoder first, to speed up long trainings; takes a C++ compiler and half a minute",
    )
    add(
        "--device",
        type=_device,
        default="auto",
        metavar="NAME",
        help="cpu, cuda, cuda:1, ... or auto: CUDA if there is any, else the CPU (auto)",
    )
    return parser


def check(args: argparse.Namespace, spec: DataSpec) -> str | None:
    """What is wrong with a combination of options, or None. Reads no data."""
    setting, num_tasks = SETTINGS[args.setting], len(spec.tasks)
    if args.setting == 2 and args.task is None:
        return f"--setting 2 trains a single task: say which with --task, 0 to {num_tasks - 1}"
    if args.setting != 2 and args.task is not None:
        return f"--task goes with --setting 2 only: leave it out, or use --setting 2 --task {args.task}"
    if args.task is not None and not 0 <= args.task < num_tasks:
        return f"--task {args.task} is out of range: {spec.name} has tasks 0 to {num_tasks - 1}"
    if setting.shared_inputs and not spec.shared_inputs:
        return (
            f"--setting {args.setting} needs every task to have every image, but each of {spec.name}'s "
            f"tasks has its own: use --data 0 (CIFAR-10), or --setting {args.setting - 2}"
        )
    if args.weights is not None:
        if not setting.weighted:
            return f"--setting {args.setting} has no weights: leave --weights out, or use --setting 4 or 6"
        if len(args.weights) != num_tasks:
            given = len(args.weights)
            return f"--weights needs a number for each of {spec.name}'s {num_tasks} tasks, not {given}"
        if not 0 < sum(args.weights) < math.inf:
            return "--weights must have a positive, finite sum: make at least one of them positive"
    if args.train:
        return _check_batch_size(args, spec)
    return None


def _check_batch_size(args: argparse.Namespace, spec: DataSpec) -> str | None:
    """What is wrong with the batch size for the images that it is used on, or None."""
    if args.batch_size == 1:
        return "--batch_size 1 cannot train: batch normalisation needs at least 2 images to a batch"
    names = list(spec.tasks)
    if args.setting == 2:
        used = {f"task {args.task} ({names[args.task]})": spec.num_training_images(names[args.task])}
    elif SETTINGS[args.setting].kind == "multi-task" and not SETTINGS[args.setting].shared_inputs:
        used = {
            f"task {task} ({name})": spec.num_training_images(name)
            for task, name in enumerate(names)
            if not args.weights or args.weights[task] > 0
        }
    else:
        used = {"the training set": spec.train_per_class * spec.num_classes}
    smallest = min(used, key=used.get)
    if args.batch_size <= used[smallest]:
        return None
    return (
        f"--batch_size {args.batch_size} is larger than {smallest} of the {spec.title}, which has "
        f"{used[smallest]} images, so that no batch would be full: use at most {used[smallest]}"
    )


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, DataSpec]:
    """Read and check the command line.

    Returns:
        the options, with what follows from the data set filled in, and the data set that they choose.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    spec = (SYNTHETIC if args.synthetic else DATA_SETS)[args.data]
    problem = None if args.report else check(args, spec)
    if problem:
        parser.error(problem)
    args.epochs = args.epochs or spec.epochs
    args.save_model = args.save_model or args.resume
    if args.train:
        args.image_size = args.image_size or spec.default_image_size
    if SETTINGS[args.setting].weighted and args.weights is None:
        args.weights = [task + 1.0 for task in range(len(spec.tasks))]
    return args, spec


def make_report(directory: Path, verbose: bool) -> None:
    """Compare the runs under a directory, in print and, if matplotlib is there, in a figure."""
    import report

    comparisons = report.report(directory, verbose)
    try:
        import figure
    except ImportError:
        saved = f"saved {directory / report.ROWS}; the figure needs matplotlib: pip install matplotlib"
    else:
        figure.draw(comparisons, directory / "report.png")
        saved = f"saved {directory / report.ROWS} and {directory / 'report.png'}"
    with suppress(OSError):
        print(saved, file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; gives back its exit code."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - None if the user has closed it
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that lack a letter
    args, spec = parse(argv)
    try:
        with StopSignals() as signals:
            if args.report:
                make_report(args.save_path, args.verbose)
                return 0
            import runs  # brings torch, which takes seconds: what was refused above need not wait for it

            if args.train:
                runs.train(args, spec, signals)
            else:
                runs.evaluate(args, spec)
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
