"""A run of --train: done again, or said to be done already, before anything is loaded."""

from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from importlib.util import find_spec

from files import reserved
from history import HISTORY, History
from options import Run
from running.directory import check_directory, earlier_history, is_done
from running.printing import accuracy_line, give_title, summary, summary_of_own_statistics
from running.stopping import StopSignals
from running.streams import give, say
from settings import AGGREGATIONS, SCALARIZATIONS, SOLVERS, TORCHJD, UserError


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
    check_installed(run)
    saves = run.save_model or run.resume or run.save_history
    with reserved(run.save_path) if saves else nullcontext():
        if saves:
            check_directory(run)
        from running.sitting import Sitting  # brings torch, which takes seconds

        Sitting(run, history, network, save_interval).train(signals)


def check_installed(run: Run) -> None:
    """Make sure that the packages are there which the losses are formed with.

    Raises:
        UserError: one is not, or is of another version.
    """
    if run.loss not in (*SCALARIZATIONS, *AGGREGATIONS):
        return
    missing = [name for name in ("torchjd", *SOLVERS.get(run.loss, ())) if find_spec(name) is None]
    if missing:
        problem = f"{' and '.join(missing)}, which cannot be found here"
    elif not version("torchjd").startswith(f"{TORCHJD}."):
        problem = f"torchjd {TORCHJD}, and here is {version('torchjd')}"
    else:
        return
    raise UserError(f'--loss {run.loss} needs {problem}: pip install "torchjd[full]=={TORCHJD}.*"')


def repeat(run: Run, history: History) -> None:
    """Print the result of a finished run again."""
    say(f"{run.save_path / HISTORY} is of a finished run of the same options: nothing is left to do")
    give_title(history.data_set["title"], run.synthetic)
    accuracy = history.epochs[-1]["accuracy"]
    scored_on = history.data_set["scored_on"]
    say(summary(history.tasks, accuracy, history.constant_accuracy, scored_on))
    if history.own_statistics:
        say(summary_of_own_statistics(history.own_statistics["accuracy"], accuracy, scored_on))
    give(accuracy_line(run.setting, accuracy))
