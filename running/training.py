"""Entry point of --train: skips finished runs before importing torch."""

from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from errors import UserError
from options import Run
from running.directory import check_directory, earlier_history, is_done
from running.printing import accuracy_line, give_title, say_scores
from running.stopping import StopSignals
from running.streams import give, say
from settings import LOSSES, TORCHJD
from storage.history import HISTORY, History
from storage.locks import reserved


def train(
    run: Run, signals: StopSignals, network: Callable[..., Any] | None = None, save_interval: float = 60.0
) -> None:
    """Train and save what is asked for, or print the result of a finished run.

    Args:
        run: what to do.
        signals: that may stop it.
        network: makes the model, as for an agent; default: models.Model.
        save_interval: seconds between two checkpoints during training.

    Raises:
        UserError: there is something in the way.
        Stopped: a signal stopped it; what is asked for is saved.
    """
    history = earlier_history(run) if run.resume else None
    if history and is_done(run, history):
        repeat(run, history)
        return
    check_installed(run)
    saves = run.save_model or run.resume or run.save_history
    with reserved(run.save_path) if saves else nullcontext():
        if saves:
            check_directory(run)
        from running.session import Session  # imports torch, which takes seconds

        Session(run, signals, network, save_interval, history is not None).train()


def check_installed(run: Run) -> None:
    """Check that the packages which --loss needs are installed.

    Raises:
        UserError: one is not, or has another version.
    """
    packages = LOSSES[run.loss].packages if run.loss in LOSSES else ()
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        problem = f"{' and '.join(missing)}, which cannot be found here"
    elif packages and not version("torchjd").startswith(f"{TORCHJD}."):
        problem = f"torchjd {TORCHJD}, and here is {version('torchjd')}"
    else:
        return
    raise UserError(f'--loss {run.loss} needs {problem}: pip install "torchjd[full]=={TORCHJD}.*"')


def repeat(run: Run, history: History) -> None:
    """Print the result of a finished run again."""
    say(f"{run.save_path / HISTORY} is of a finished run of the same options: nothing is left to do")
    give_title(history.data_set["title"], run.synthetic)
    accuracy, own = history.epochs[-1]["accuracy"], history.own_statistics or {}
    scored_on = history.data_set["scored_on"]
    say_scores(history.tasks, accuracy, history.constant_accuracy, own.get("accuracy"), scored_on)
    give(accuracy_line(run.setting, accuracy))
