"""A run from its checked options to its result: load, build, train or evaluate, report, save.

Results go to standard output, messages to standard error.
"""

import argparse
import ctypes
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from statistics import fmean

import torch
from tqdm import tqdm

from agents import AGENTS, Agent
from checkpoint import DATA_OPTIONS, MODEL, TRAINING_OPTIONS, read_model, save_model
from data import load
from files import HISTORY, are_records, check_room, reserved, save_history
from settings import SETTINGS, VERSION, DataSpec, TrainingOptions, UserError
from stopping import Stopped, StopSignals

SAVE_INTERVAL = 60
"""Seconds between two writings of the model in the course of a training."""


def say(message: str) -> None:
    """Print a message to standard error, above a progress bar where there is one."""
    with suppress(OSError):  # a training does not end because nobody hears of it
        tqdm.write(message, file=sys.stderr)


def give(result: str) -> None:
    """Print a result to standard output at once, above a progress bar where there is one."""
    tqdm.write(result, file=sys.stdout)
    sys.stdout.flush()


def accuracy_line(args: argparse.Namespace, accuracy: list[float]) -> str:
    """Accuracies as they are printed: a number for settings 0 and 2, else a list of one per task."""
    return f"Accuracy: {accuracy[0] if args.setting in (0, 2) else accuracy}"


def summary(agent: Agent, accuracy: list[float]) -> str:
    """What accuracies mean, in a line: their mean, that of a constant answer, and the extremes."""
    ranked = sorted(zip(accuracy, agent.names, strict=True))
    what = f"over {len(ranked)} tasks" if len(ranked) > 1 else f"({agent.names[0]})"
    line = (
        f"mean accuracy {what} {fmean(accuracy):.4f}"
        if len(ranked) > 1
        else f"accuracy {what} {accuracy[0]:.4f}"
    )
    line += f"; always giving the commonest answer scores {fmean(agent.constant_accuracy):.4f}"
    if len(ranked) > 1:
        (worst, worst_name), (best, best_name) = ranked[0], ranked[-1]
        line += f"; best task {best_name} {best:.4f}, worst {worst_name} {worst:.4f}"
    return line


def pick_device(name: str) -> torch.device:
    """The device that --device asks for.

    Raises:
        UserError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise UserError(f"there is no device {name} here; use --device cpu")
    torch.backends.cudnn.deterministic = True
    if kind == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as convolutions on a GPU have it by default
    return torch.device(name)


def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next step, where it is one that can (glibc).

    It would give large blocks back to the system, which then has to clear the same pages for every step.
    """
    max_mappings, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of mallopt
    with suppress(OSError, TypeError, AttributeError):
        c_library = ctypes.CDLL(None)
        c_library.mallopt(max_mappings, 0)
        c_library.mallopt(trim_threshold, 2**31 - 1)


def make_agent(args: argparse.Namespace, spec: DataSpec) -> Agent:
    """Load the data and build the agent that the options ask for."""
    data = load(spec, args.data_path, args.image_size, pick_device(args.device))
    keep_freed_memory()
    setting = SETTINGS[args.setting]
    weights = None if args.weights is None else tuple(args.weights)
    options = TrainingOptions(
        batch_size=args.batch_size,
        lr=args.lr,
        seed=args.seed,
        task=args.task,
        weights=weights,
        precision=args.precision,
        compile=args.compile,
    )
    if spec.synthetic:
        give(f"Synthetic data: a generated stand-in for {spec.name}, not its images")
    say(
        f"{spec.title}, {len(data.train)} training and {len(data.test)} test images of "
        f"{args.image_size} x {args.image_size} pixels, on {data.device} in {args.precision}; "
        f"{setting.name}: {setting.words}"
    )
    return AGENTS[args.setting](data, options)


def options_of(args: argparse.Namespace, agent: Agent) -> dict:
    """The options of a run as its files record them: plain values, and the version of the program."""
    options = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    return {**options, "device": str(agent.data.device), "version": VERSION}


def train(args: argparse.Namespace, spec: DataSpec, signals: StopSignals) -> None:
    """Train, report after every epoch, and save what --save_model and --save_history ask for."""
    with reserved(args.save_path) if args.save_model or args.save_history else nullcontext():
        for name, wanted in ((MODEL, args.save_model), (HISTORY, args.save_history)):
            if wanted and (path := args.save_path / name).exists() and not path.is_file():
                raise UserError(
                    f"{path} is in the way and is not a file: move it, or give another --save_path"
                )
        saved = resumable(args) if args.resume else None
        agent = make_agent(args, spec)
        if saved:
            restore(agent, args, saved)
        if args.save_model:
            check_room(args.save_path, model_size(agent))
        if args.compile:
            say("compiling the encoder: the first step takes up to half a minute longer")
        with signals.deferred():
            _train(args, agent, signals)


def _train(args: argparse.Namespace, agent: Agent, signals: StopSignals) -> None:
    """Train an agent from where it stands, saving as it goes."""
    options = options_of(args, agent)

    def save(model: bool) -> str:
        """Write the files that are asked for; gives back which."""
        files = []
        if model and args.save_model:
            path = args.save_path / MODEL
            save_model(path, options, agent.model.state_dict(), agent.training_state())
            files.append(f"the model in {path}")
        if args.save_history:
            path = args.save_path / HISTORY
            save_history(path, {"options": options, "tasks": agent.names, "epochs": agent.epochs})
            files.append(f"the history in {path}")
        return " and ".join(files)

    last_saved = time.monotonic()
    try:
        for record in agent.train(args.epochs, pause=signals.check):
            due = time.monotonic() - last_saved >= SAVE_INTERVAL and record["epoch"] < args.epochs
            save(model=due)
            if due:
                last_saved = time.monotonic()
            if args.verbose:
                give(f"[Epoch {record['epoch']}] {accuracy_line(args, record['accuracy'])}")
    except Stopped as stopped:
        agent.check_losses()
        files = save(model=True)
        where = f" after {agent.step} of {agent.steps_per_epoch} steps of epoch {len(agent.epochs) + 1}"
        if args.save_model:
            details = f"saved {files}; the same command with --resume goes on from there"
        else:
            details = f"saved {files or 'nothing'}; it takes --save_model to go on from there"
        raise Stopped(stopped.number, f"{where}: {details}") from None
    except OSError:  # of printing; saving raises UserError
        save(model=True)
        raise
    files = save(model=True)
    accuracy = agent.epochs[-1]["accuracy"]
    say(summary(agent, accuracy))
    say(f"saved {files}" if files else "saved nothing: --save_model and --save_history save")
    give(accuracy_line(args, accuracy))


def model_size(agent: Agent) -> int:
    """About how many bytes model.pt takes."""
    return sum(tensor.nbytes for tensor in agent.model.state_dict().values()) + 1_000_000


def resumable(args: argparse.Namespace) -> dict | None:
    """The content of the model file to go on from, or None where there is none yet.

    Raises:
        UserError: the file cannot be read, or was made with other options.
    """
    path = args.save_path / MODEL
    if not path.exists():
        say(f"there is no {path} to resume from: starting anew")
        return None
    saved = read_model(path)
    trained = saved["options"]
    others = [name for name in TRAINING_OPTIONS if getattr(args, name) != trained[name]]
    if others:
        raise UserError(
            f"{path} was made with other options ("
            + ", ".join(f"{as_given(n, trained[n])}, not {as_given(n, getattr(args, n))}" for n in others)
            + "): give the same ones, another --save_path, or leave --resume out to start anew"
        )
    done = len(saved["training"]["epochs"]) + (saved["training"]["step"] > 0)
    if done > args.epochs:
        raise UserError(f"{path} has come to epoch {done} already: give --epochs {done} or more")
    version = trained.get("version")
    if version != VERSION:
        say(f"{path} was made by version {version}, this is {VERSION}: the result may be neither's")
    return saved


def as_given(option: str, value: object) -> str:
    """An option as it would stand on the command line."""
    if option == "synthetic":
        return f"with{'' if value else 'out'} --synthetic"
    if value is None:
        return f"without --{option}"
    return f"--{option} {' '.join(map(str, value)) if isinstance(value, list) else value}"


def restore(agent: Agent, args: argparse.Namespace, saved: dict) -> None:
    """Bring an agent to where a model file was written; the options are those of the file."""
    training = saved["training"]
    try:
        if not are_records(training["epochs"], len(agent.names)) or training["step"] > agent.steps_per_epoch:
            raise ValueError("the training is of another kind")
        agent.resume(saved["model"], training)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{args.save_path / MODEL} does not hold this program's network; train it again"
        ) from error
    say(f"going on after epoch {len(agent.epochs)} and {agent.step} steps of {agent.steps_per_epoch}")


def evaluate(args: argparse.Namespace, spec: DataSpec) -> None:
    """Evaluate the model saved in --save_path."""
    path = args.save_path / MODEL
    saved = read_model(path)
    check_fits(args, path, saved["options"])
    args.image_size = saved["options"]["image_size"]
    agent = make_agent(args, spec)
    try:
        agent.model.load_state_dict(saved["model"])
    except RuntimeError as error:
        raise UserError(f"{path} does not hold this program's network; train it again") from error
    accuracy = agent.evaluate(progress=True).accuracy
    say(summary(agent, accuracy))
    give(accuracy_line(args, accuracy))


def check_fits(args: argparse.Namespace, path: Path, trained: dict) -> None:
    """Make sure that a model can be evaluated as the options ask.

    Args:
        path: of the model.
        trained: the options that it was trained with.

    Raises:
        UserError: it is another kind of model, or was trained on other images.
    """
    setting = trained["setting"]
    kind, wanted = SETTINGS[setting].kind, SETTINGS[args.setting].kind
    if kind != wanted:
        raise UserError(
            f"{path} is a {kind} model, trained with --setting {setting}, and --setting {args.setting} "
            f"evaluates {wanted} models: change --setting or --save_path"
        )
    for option in DATA_OPTIONS:
        asked, was = getattr(args, option), trained[option]
        if asked != was and not (option == "image_size" and asked is None):
            raise UserError(
                f"{path} was trained {as_given(option, was)}: evaluate it like that, or change --save_path"
            )
