"""The directory of a run, and what an earlier session left."""

import os
from pathlib import Path
from typing import Any

from errors import UserError
from options import Option, Run, as_given, differing
from storage.files import FILES, HISTORY, MODEL, event_files
from storage.history import History, read_history


def check_directory(run: Run) -> None:
    """Check that a training run can save into its directory.

    Raises:
        UserError: there is another run in it, or something else is in the way.
    """
    there = [run.save_path / name for name in FILES if (run.save_path / name).exists()]
    events = event_files(run.save_path)
    for path in [*there, *events]:
        if not path.is_file():
            raise UserError(f"{path} is in the way and is not a file: move it, or give another --save_path")
    names = [path.name for path in there] + ["event files"] * bool(events)
    if names and not (run.resume or run.overwrite):
        raise UserError(
            f"there is a run in {run.save_path} already ({' and '.join(names)}): "
            "continue it with --resume, replace it with --overwrite, or give another --save_path"
        )


def check_predictions(run: Run) -> None:
    """Check that the file of --predictions may be written.

    Raises:
        UserError: it is there and may not be replaced, or something else is.
    """
    path = run.predictions
    if not os.path.lexists(path):
        return
    data = run.spec.path
    if path.exists() and (not path.is_file() or (data is not None and path.samefile(data))):
        what = "the data set" if path.is_file() else "in the way and not a file"
        raise UserError(f"{path} is {what}: give another path to --predictions")
    if not run.overwrite:
        raise UserError(f"there is a file {path} already: give another path, or replace it with --overwrite")


def earlier_history(run: Run) -> History | None:
    """History in the directory of a resumed run, or None.

    Raises:
        UserError: it cannot be read, is of other options, or cannot be continued.
    """
    path = run.save_path / HISTORY
    try:
        if not path.is_file():
            return None
        has_model = (run.save_path / MODEL).exists()
    except OSError as error:  # no permission to enter the directory
        raise UserError(f"{path} cannot be read: {error.strerror}; give another --save_path") from None
    try:
        history = read_history(path, run.table)
    except ValueError as error:
        raise UserError(f"{path} {error}: move it, or replace it with --overwrite") from None
    check_same(run, path, history.options)
    done = len(history.epochs)
    if history.finished and run.epochs < done:
        raise UserError(f"{path} has come to epoch {done} already: give --epochs {done} or more")
    if history.finished and run.epochs > done and not has_model:
        raise UserError(
            f"{path} is of a finished run of {done} epochs whose {MODEL} is missing: it cannot continue to "
            f"{run.epochs}; give --epochs {done}, another --save_path, or --overwrite to start again"
        )
    return history


def is_done(run: Run, history: History) -> bool:
    """Whether a history is of the finished run."""
    return history.finished and history.options["epochs"] == run.epochs


def fixed_options(run: Run) -> list[Option]:
    """Options that --resume must find unchanged."""
    return [o for o in run.table if (o.decides != "nothing" or o.fixed) and not o.may_grow(run.values)]


def check_same(run: Run, path: Path, recorded: dict[str, Any]) -> None:
    """Check that a file was made with the same options.

    Raises:
        UserError: it was not; the text names the options.
    """
    others = differing(fixed_options(run), run.values, recorded)
    if others:
        raise UserError(
            f"{path} was made with other options ("
            + ", ".join(
                f"{as_given(o.name, recorded[o.name])}, not {as_given(o.name, run.values[o.name])}"
                for o in others
            )
            + "): give the same ones, another --save_path, or --overwrite to start again"
        )
