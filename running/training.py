"""Entry point of --train: skips finished runs before importing torch."""

from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from errors import UserError
from options import Run
from running.directory import check_directory, earlier_history, is_done
from running.printing import accuracy_line, print_if_synthetic, print_scores
from running.stopping import StopSignals
from running.streams import print_message, print_result
from settings import LOSSES, TORCHJD, split_loss
from storage.files import HISTORY
from storage.history import History
from storage.locks import reserved


def train(
    run: Run, signals: StopSignals, network: Callable[..., Any] | None = None, save_interval: float = 60.0
) -> None:
    """Train and save, or print the result of a finished run.

    Args:
        run: options of the run.
        signals: stops the run when a signal comes.
        network: makes the model, as for an agent; default: that of --encoder and --head.
        save_interval: seconds between two checkpoints during training.

    Raises:
        UserError: there is something in the way.
        Stopped: a signal stopped the run, which is saved as --save_model and --save_history say.
    """
    history = earlier_history(run) if run.resume else None
    if history and is_done(run, history):
        print_finished(run, history)
        return
    check_installed(run)
    saves = run.save_model or run.resume or run.save_history or run.tensorboard
    with reserved(run.save_path) if saves else nullcontext():
        if saves:
            check_directory(run)
        from running.session import Session  # imports torch, which takes seconds

        Session(run, signals, network, save_interval, history is not None).train()


def check_installed(run: Run) -> None:
    """Check that the packages which --loss and --tensorboard need are installed.

    Raises:
        UserError: one is not, or has another version.
    """
    if run.tensorboard and find_spec("tensorboard") is None:
        raise UserError(
            "--tensorboard needs the package tensorboard, which cannot be found here: pip install "
            "tensorboard, or leave --tensorboard out"
        )
    packages = LOSSES[split_loss(run.loss)[0]].packages if run.loss else ()
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        problem = f"{' and '.join(missing)}, which cannot be found here"
    elif packages and not version("torchjd").startswith(f"{TORCHJD}."):
        problem = f"torchjd {TORCHJD}, and here is {version('torchjd')}"
    else:
        return
    raise UserError(f'--loss {run.loss} needs {problem}: pip install "torchjd[full]=={TORCHJD}.*"')


def print_finished(run: Run, history: History) -> None:
    """Print the result of a finished run again."""
    print_message(
        f"{run.save_path / HISTORY} is of a finished run of the same options: nothing is left to do"
    )
    print_if_synthetic(history.data_set["title"], run.synthetic)
    accuracy, as_trained = history.epochs[-1]["accuracy"], history.as_trained or {}
    scored_on = history.data_set["scored_on"]
    print_scores(history.tasks, accuracy, history.constant_accuracy, as_trained.get("accuracy"), scored_on)
    print_result(accuracy_line(run.setting, accuracy))
