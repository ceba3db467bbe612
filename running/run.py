"""A run of --train: done again, or said to be done already, before anything is loaded."""

from collections.abc import Callable
from contextlib import nullcontext

from files import reserved
from history import HISTORY, History
from options import Run
from running.directory import check_directory, earlier_history, is_done
from running.printing import accuracy_line, give, give_title, say, summary
from running.stopping import StopSignals


def train(
    run: Run, signals: StopSignals, network: Callable | None = None, save_interval: float = 60.0
) -> None:
    """Train, and save what is asked for; or say that it has been done already.

    Args:
        run: what to do.
        signals: that may stop it.
        network: makes the model, as for an agent; default: models.Model.
        save_interval: seconds between two writings of the model in the course of a training.

    Raises:
        UserError: there is something in the way.
        Stopped: a signal has stopped it; what is asked for was saved.
    """
    history = earlier_history(run) if run.resume else None
    if history and is_done(run, history):
        repeat(run, history)
        return
    saves = run.save_model or run.resume or run.save_history
    with reserved(run.save_path) if saves else nullcontext():
        if saves:
            check_directory(run)
        from running.sitting import Sitting  # brings torch, which takes seconds

        Sitting(run, history, network, save_interval).train(signals)


def repeat(run: Run, history: History) -> None:
    """Print the result of a finished run again."""
    say(f"{run.save_path / HISTORY} is of a finished run of the same options: nothing is left to do")
    give_title(history.data_set["title"], run.synthetic)
    accuracy = history.epochs[-1]["accuracy"]
    say(summary(history.tasks, accuracy, history.constant_accuracy, history.data_set["scored_on"]))
    give(accuracy_line(run.setting, accuracy))
