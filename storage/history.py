"""The file history.json: written, read, checked.

A run writes it; --resume and the report read it.
"""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from options import Option, in_short, is_number, read_options
from settings import SETTINGS
from storage.files import replacing
from tasks import DataSpec

FORMAT = 3
"""File format, raised when an older program would misread it."""

OLDEST_FORMAT = 2

ALL_CLASSES = "all classes"

EXACT = ("accuracy", "balanced_accuracy")
"""What is written of an epoch in full: results, which a report compares and averages."""


@dataclass(frozen=True)
class History:
    """The record of a run.

    Attributes:
        options: every option of the run, and the version of the program.
        data_set: its `title`, `scored_on` (`test` or `validation`), the names of all its `tasks`, and whether
            they have `shared_images`, which older histories lack.
        sessions: a dictionary per start of the run: the `epoch` and `step` at which it started, its
            `environment`, and its `code`: `results N`, or a fingerprint if the code is not released.
        tasks: the names of the scored tasks.
        constant_accuracy: for each scored task, the accuracy of always giving its commonest answer.
        num_answers: number of answers of each scored task.
        parameters: number of parameters of the `encoder` and of the `heads`.
        loss_parameters: hyperparameters of the loss combiner, by name.
        epochs: the records of the finished epochs.
        finished: whether the run has ended.
        right: for each scored task, which of its images are answered correctly after the last epoch: base64
            of `numpy.packbits`; None if the run has not ended.
        as_trained: `accuracy`, `balanced_accuracy` and `right` with batch-norm statistics of batches like
            those of training; None if the network has none, or the run has not ended.
        kept_epoch: with --keep best, the number of the epoch whose network the model file has so far; else
            None.
    """

    options: dict[str, Any]
    data_set: dict[str, Any]
    sessions: list[dict[str, Any]]
    tasks: list[str]
    constant_accuracy: list[float]
    num_answers: list[int]
    parameters: dict[str, int]
    loss_parameters: dict[str, float] = field(default_factory=dict)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False
    right: list[str] | None = None
    as_trained: dict[str, Any] | None = None
    kept_epoch: int | None = None


def describe(spec: DataSpec) -> dict:
    """The entry of a data set in a history."""
    return {
        "title": spec.title,
        "scored_on": spec.scored_on,
        "tasks": list(spec.tasks),
        "shared_images": spec.shared_inputs,
    }


def write_history(path: Path, history: History) -> None:
    """Write history.json: a line for each field, session and epoch.

    In the records of epochs, all but what EXACT names has six digits.

    Raises:
        UserError: it cannot be written.
    """
    fields = {"format": FORMAT} | vars(history)
    fields["epochs"] = [
        {name: value if name in EXACT else _in_six_digits(value) for name, value in epoch.items()}
        for epoch in history.epochs
    ]
    lines = []
    for name, value in fields.items():
        if name in ("sessions", "epochs") and value:
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        else:
            text = json.dumps(value)
        lines.append(f" {json.dumps(name)}: {text}")
    with replacing(path) as file:
        file.write(("{\n" + ",\n".join(lines) + "\n}\n").encode())


def _in_six_digits(value: Any) -> Any:
    """The value with its fractions, at any depth, rounded to six significant digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _in_six_digits(each) for name, each in value.items()}
    return [_in_six_digits(each) for each in value] if isinstance(value, list) else value


def read_history(path: Path, table: Sequence[Option]) -> History:
    """Read and check history.json.

    Raises:
        ValueError: it cannot be read, or is no history; the text says why.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError):
        raise ValueError("is not a history of this program") from None
    if not isinstance(content, dict) or not content.keys() & {"format", "options"}:
        raise ValueError("is not a history of this program")
    version = content.get("format", 1)
    if type(version) is int and version > FORMAT:
        raise ValueError("was written by a newer version: update the program")
    if type(version) is int and version < OLDEST_FORMAT:
        raise ValueError("was written by version 1.1 or before, whose files are not read any more")
    try:
        return _history(content, version, table)
    except ValueError as error:
        raise ValueError(f"is not a history of this program: {error}") from error


def _history(content: dict[str, Any], version: object, table: Sequence[Option]) -> History:
    """The history in the content of a file, each field checked.

    Raises:
        ValueError: a field is missing or wrong; the text names it.
    """
    if type(version) is not int:
        raise ValueError(f"format is {in_short(version)}")
    sessions = "sittings" if version == 2 else "sessions"
    required = {"options", "data_set", sessions, "tasks", "constant_accuracy", "num_answers", "parameters"}
    missing = sorted((required | {"epochs", "finished"}) - content.keys())
    if missing:
        raise ValueError(f"lacks {missing[0]}")
    options = read_options(content["options"], table)
    names = _names_of_tasks(content["data_set"])
    tasks = content["tasks"]
    _check_tasks(tasks, options, names)
    check_sessions(sessions, content[sessions])
    _check_list("constant_accuracy", content["constant_accuracy"], len(tasks), _is_share, "a share")
    _check_list("num_answers", content["num_answers"], len(tasks), _is_positive_count, "a count")
    _check_dictionary("parameters", content["parameters"], is_count, "a count")
    if not content["parameters"].keys() >= {"encoder", "heads"}:
        raise ValueError("parameters lacks encoder or heads")
    _check_dictionary("loss_parameters", content.get("loss_parameters", {}), is_number, "a number")
    check_records(content["epochs"], len(tasks))
    done, asked = len(content["epochs"]), options["epochs"]
    finished, as_trained = content["finished"], content.get("as_trained")
    if not isinstance(finished, bool) or done > asked or (finished and done < asked):
        raise ValueError(f"finished is {in_short(finished)} after {done} of {asked} epochs")
    kept = content.get("kept_epoch")
    if kept is not None and not (_is_positive_count(kept) and kept <= done):
        raise ValueError(f"kept_epoch is {in_short(kept)} after {done} epochs")
    if content.get("right") is not None:
        _check_list("right", content["right"], len(tasks), _is_base64, "base64 text")
    if as_trained is not None:
        _check_scores("as_trained", as_trained, len(tasks))
        _check_list("as_trained.right", as_trained.get("right"), len(tasks), _is_base64, "base64 text")
    known = {name: content[name] for name in History.__dataclass_fields__ if name in content}
    return History(**known | {"options": options, "sessions": content[sessions]})


def _names_of_tasks(entry: Any) -> list[str]:
    """Names of the tasks in a data set's entry, checked."""
    if not isinstance(entry, dict) or not isinstance(entry.get("title"), str):
        raise ValueError("data_set.title is not a text")
    if entry.get("scored_on") not in ("test", "validation"):
        raise ValueError(f"data_set.scored_on is {in_short(entry.get('scored_on'))}")
    if not isinstance(entry.get("shared_images", False), bool):
        raise ValueError(f"data_set.shared_images is {in_short(entry['shared_images'])}")
    names: Any = entry.get("tasks")
    if not _are_names(names):
        raise ValueError("data_set.tasks is not a list of different names")
    return names


def _check_tasks(tasks: Any, options: dict[str, Any], names: list[str]) -> None:
    """Check the scored tasks against the tasks of the data set.

    Options with a number per task are checked, too.
    """
    setting = options["setting"]
    if not _are_names(tasks):
        raise ValueError("tasks is not a list of different names")
    valid = tasks == [ALL_CLASSES] if setting == 0 else set(tasks) <= set(names)
    if not valid:
        raise ValueError(f"tasks is {in_short(tasks)}, which setting {setting} does not record")
    if SETTINGS[setting].kind == "single-task" and [options["task"]] != [names.index(each) for each in tasks]:
        raise ValueError(f"options.task is {in_short(options['task'])}, and tasks is {in_short(tasks)}")
    if options["weights"] is not None and len(options["weights"]) != len(names):
        raise ValueError(f"options.weights has {len(options['weights'])} numbers for {len(names)} tasks")


def check_sessions(where: str, sessions: object) -> None:
    """Check the sessions of a history or a checkpoint.

    Args:
        where: name of the field.
        sessions: value of the field.

    Raises:
        ValueError: it is not a list of sessions.
    """
    if not isinstance(sessions, list) or not sessions:
        raise ValueError(f"{where} is not a list of sessions")
    for i, session in enumerate(sessions):
        if not isinstance(session, dict):
            raise ValueError(f"{where}[{i}] is not a dictionary")
        for name, valid in (("epoch", is_count), ("step", is_count), ("code", _is_name)):
            if not valid(session.get(name)):
                raise ValueError(f"{where}[{i}].{name} is {in_short(session.get(name))}")
        if not isinstance(session.get("environment"), dict):
            raise ValueError(f"{where}[{i}].environment is not a dictionary")


def check_records(epochs: object, num_tasks: int) -> None:
    """Check the records of epochs in a history or checkpoint.

    They must be those of epochs 1, 2, ... in order.

    Args:
        epochs: the records.
        num_tasks: number of scored tasks.

    Raises:
        ValueError: one is wrong; the text names the field.
    """
    if not isinstance(epochs, list):
        raise ValueError("epochs is not a list")
    for i, record in enumerate(epochs):
        if not isinstance(record, dict) or record.get("epoch") != i + 1:
            raise ValueError(f"epochs[{i}] is not the record of epoch {i + 1}")
        _check_scores(f"epochs[{i}]", record, num_tasks)
        if not _is_loss(record.get("loss")):
            raise ValueError(f"epochs[{i}].loss is {in_short(record.get('loss'))}")
        losses = record.get("task_loss", [])
        if not isinstance(losses, list) or not all(loss is None or _is_loss(loss) for loss in losses):
            raise ValueError(f"epochs[{i}].task_loss is not a list of losses")
        _check_more(f"epochs[{i}]", record, num_tasks)
        for name in ("steps", "images"):
            if not _is_positive_count(record.get(name, 1)):
                raise ValueError(f"epochs[{i}].{name} is {in_short(record[name])}")
        for name in ("seconds", "evaluation_seconds", "images_per_second"):
            if not is_number(seconds := record.get(name, 0)) or seconds < 0:
                raise ValueError(f"epochs[{i}].{name} is {in_short(seconds)}")


def _check_more(where: str, record: dict[str, Any], num_tasks: int) -> None:
    """Check what version 2.1 did not record."""
    if "test_loss" in record:
        _check_list(f"{where}.test_loss", record["test_loss"], num_tasks, _is_loss_or_none, "a loss")
    shares = record.get("train_accuracy", [])
    if not isinstance(shares, list) or not all(share is None or _is_share_or_0(share) for share in shares):
        raise ValueError(f"{where}.train_accuracy is not a list of shares")
    if "gradients" in record:
        check_gradients(record["gradients"], f"{where}.gradients")
    numbers = record.get("combiner", {})
    if not isinstance(numbers, dict) or not all(map(_are_numbers, numbers.values())):
        raise ValueError(f"{where}.combiner does not hold numbers by name")


def check_gradients(gradients: Any, where: str) -> None:
    """Check what --gradients records of a step or an epoch.

    Raises:
        ValueError: it is something else; the text names the field.
    """
    if not isinstance(gradients, dict) or not isinstance(gradients.get("norms"), list):
        raise ValueError(f"{where}.norms is not a list")
    count = len(gradients["norms"])
    _check_list(f"{where}.norms", gradients["norms"], count, _is_loss, "a length")
    for name in ("mean_cosines", "weights"):
        if gradients.get(name) is not None:
            _check_list(f"{where}.{name}", gradients[name], count, is_number, "a number")
    if "cosines" in gradients:
        _check_list(f"{where}.cosines", gradients["cosines"], count, _are_numbers, "numbers")


def _check_scores(where: str, content: object, num_tasks: int) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{where} is not a dictionary")
    for name in ("accuracy", "balanced_accuracy"):
        _check_list(f"{where}.{name}", content.get(name), num_tasks, _is_share_or_0, "a share")


def _check_list(where: str, values: object, count: int, valid: Callable[[object], bool], what: str) -> None:
    if not isinstance(values, list) or len(values) != count or not all(map(valid, values)):
        raise ValueError(f"{where} is not a list of {what} for each of {count} tasks")


def _check_dictionary(where: str, values: object, valid: Callable[[object], bool], what: str) -> None:
    if not isinstance(values, dict) or not all(map(valid, values.values())):
        raise ValueError(f"{where} does not hold {what} by name")


def is_count(value: Any) -> bool:
    """Whether a value is an integer from 0 that fits 64 bits."""
    return type(value) is int and 0 <= value < 2**63


def _is_positive_count(value: Any) -> bool:
    return is_count(value) and value > 0


def _is_loss(value: Any) -> bool:
    return is_number(value) and value >= 0


def _is_loss_or_none(value: Any) -> bool:
    return value is None or _is_loss(value)


def _are_numbers(values: Any) -> bool:
    return is_number(values) or (isinstance(values, list) and all(map(is_number, values)))


def _is_base64(value: Any) -> bool:
    try:
        return isinstance(value, str) and base64.b64decode(value, validate=True) is not None
    except ValueError:
        return False


def _is_share_or_0(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def _is_share(value: Any) -> bool:
    return _is_share_or_0(value) and value > 0


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _are_names(values: object) -> bool:
    return isinstance(values, list) and all(map(_is_name, values)) and 0 < len(values) == len(set(values))
