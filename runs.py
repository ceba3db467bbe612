"""A run from its checked options to its result: load, build, train or evaluate, report, save.

Results go to standard output, messages to standard error.
"""

import argparse
import sys
from pathlib import Path
from statistics import fmean

import torch
from tqdm import tqdm

from agents import AGENTS, Agent
from data import load
from files import read_model, save_history, save_model
from settings import SETTINGS, VERSION, DataSpec, TrainingOptions, UserError


def say(message: str) -> None:
    """Print a message to standard error, above a progress bar where there is one."""
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
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"there is no device {name} here; use --device cpu")
    torch.backends.cudnn.deterministic = True
    return device


def make_agent(args: argparse.Namespace, spec: DataSpec) -> Agent:
    """Load the data and build the agent that the options ask for."""
    data = load(spec, args.data_path, args.image_size, pick_device(args.device))
    weights = None if args.weights is None else tuple(args.weights)
    options = TrainingOptions(args.batch_size, args.lr, args.seed, args.task, weights)
    if spec.synthetic:
        give(f"Synthetic data: a generated stand-in for {spec.name}, not its images")
    say(
        f"{spec.title}, {len(data.train)} training and {len(data.test)} test images of "
        f"{args.image_size} x {args.image_size} pixels, on {data.device}; {SETTINGS[args.setting].words}"
    )
    return AGENTS[args.setting](data, options)


def options_of(args: argparse.Namespace, agent: Agent) -> dict:
    """The options of a run as its files record them: plain values, and the version of the program."""
    options = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    return {**options, "device": str(agent.data.device), "version": VERSION}


def train(args: argparse.Namespace, spec: DataSpec) -> None:
    """Train, report after every epoch, and save what --save_model and --save_history ask for."""
    if args.save_model or args.save_history:
        try:
            args.save_path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the directory {args.save_path}: {error.strerror}") from error
    agent = make_agent(args, spec)
    options = options_of(args, agent)
    model_path, history_path = args.save_path / "model.pt", args.save_path / "history.json"
    epochs = []
    for record in agent.train(args.epochs):
        epochs.append(record)
        if args.save_history:
            save_history(history_path, {"options": options, "tasks": agent.names, "epochs": epochs})
        if args.verbose:
            give(f"[Epoch {record['epoch']}] {accuracy_line(args, record['accuracy'])}")
    if args.save_model:
        save_model(model_path, options, agent.model.state_dict())
    saved = [f"the model in {model_path}"] * args.save_model + [
        f"the history in {history_path}"
    ] * args.save_history
    say(summary(agent, epochs[-1]["accuracy"]))
    say(f"saved {' and '.join(saved)}" if saved else "saved nothing: --save_model and --save_history save")
    give(accuracy_line(args, epochs[-1]["accuracy"]))


def evaluate(args: argparse.Namespace, spec: DataSpec) -> None:
    """Evaluate the model saved in --save_path."""
    path = args.save_path / "model.pt"
    saved = read_model(path)
    check_fits(args, path, saved["options"])
    args.image_size = saved["options"]["image_size"]
    agent = make_agent(args, spec)
    try:
        agent.model.load_state_dict(saved["model"])
    except RuntimeError as error:
        raise UserError(f"the network in {path} is not this program's; train it again") from error
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
    for option in ("data", "task", "synthetic", "image_size"):
        asked, was = getattr(args, option), trained[option]
        if asked != was and not (option == "image_size" and asked is None):
            was = (
                f"with --{option} {was}"
                if option != "synthetic"
                else f"with{'' if was else 'out'} --synthetic"
            )
            raise UserError(f"{path} was trained {was}: evaluate it like that, or change --save_path")
