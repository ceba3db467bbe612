"""What history.json holds: written by a run, read again by --resume and by the report."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from files import replacing
from options import Option, completed
from settings import DATA_SETS, SETTINGS, SYNTHETIC, DataSpec

FORMAT = 2
"""Goes up when an older program would misread it."""

HISTORY = "history.json"

ALL_CLASSES = "all classes"


@dataclass(frozen=True)
class History:
    """A run as it is recorded.

    Attributes:
        options: every option of the run, and the version of the program.
        data_set: `title`, `scored_on` (`test` or `validation`), and the names of all its `tasks`.
        sittings: a dictionary per start or resumption: the `epoch` and the `step` that it went on from, its
            `environment`, and the fingerprint of its `code`. None are known of files of format 1.
        tasks: the names of what is recorded.
        constant_accuracy: what always giving the commonest answer scores in each of `tasks`.
        num_answers: number of different answers that each of them has.
        parameters: number of parameters of the `encoder` and of the `heads`; empty in files of format 1.
        loss_parameters: what the method that forms the losses was given beside their number, by name; empty
            where it takes nothing, or what TorchJD has by default.
        epochs: the records of the epochs done.
        finished: whether the run has come to its end.
        own_statistics: `accuracy` and `balanced_accuracy` at the end with each task's own normalisation
            statistics, a number per name in `tasks`; None where a run has no such scores, or not yet.
    """

    options: dict
    data_set: dict
    sittings: list[dict]
    tasks: list[str]
    constant_accuracy: list[float]
    num_answers: list[int]
    parameters: dict[str, int]
    loss_parameters: dict[str, float] = field(default_factory=dict)
    epochs: list[dict] = field(default_factory=list)
    finished: bool = False
    own_statistics: dict[str, list[float]] | None = None

    @property
    def code(self) -> str:
        """What decided its result: the fingerprints of all its sittings, or the version of an old program."""
        codes = dict.fromkeys(sitting["code"] for sitting in self.sittings)
        return " ".join(codes) or version_code(self.options.get("version"))


def version_code(version: object) -> str:
    """What stands for the code of a program that recorded no fingerprint."""
    return f"version {version}"


def describe(spec: DataSpec) -> dict:
    """The entry of a data set in a history."""
    return {"title": spec.title, "scored_on": spec.scored_on, "tasks": list(spec.tasks)}


def write_history(path: Path, history: History) -> None:
    """Write history.json.

    Raises:
        UserError: it cannot be written.
    """
    with replacing(path) as file:
        file.write(json.dumps({"format": FORMAT} | asdict(history), indent=1).encode() + b"\n")


def read_history(path: Path, table: Sequence[Option]) -> History:
    """Read history.json.

    Raises:
        ValueError: it is none; the text says so.
    """
    try:
        content = json.loads(path.read_bytes())
        if type(content) is dict and type(content.get("format")) is int and content["format"] > FORMAT:
            raise _NewerError
        history = (
            _from_format_1(content, table) if "format" not in content else _from_format_2(content, table)
        )
        fits = _fits(history)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    except _NewerError:
        raise ValueError("was written by a newer version: update the program") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        fits = False
    if not fits:
        raise ValueError("is not a history of this program")
    return history


class _NewerError(Exception):
    """The file has a higher format."""


def _from_format_2(content: dict, table: Sequence[Option]) -> History:
    content = {name: value for name, value in content.items() if name in History.__dataclass_fields__}
    return History(**content | {"options": completed(content["options"], table)})


def _from_format_1(content: dict, table: Sequence[Option]) -> History:
    """What format 1 did not say follows from the data sets that there were."""
    options = completed(content["options"], table)
    spec = (SYNTHETIC if options["synthetic"] else DATA_SETS)[options["data"]]
    rows = [[number for number in spec.tasks[name] if number >= 0] for name in spec.tasks]
    if options["setting"] == 0:
        rows = [range(spec.num_classes)]
    elif options["setting"] == 2:
        rows = [rows[options["task"]]]
    return History(
        options=options,
        data_set=describe(spec),
        sittings=[],
        tasks=content["tasks"],
        constant_accuracy=[max(map(row.count, row)) / len(row) for row in rows],  # classes are equally large
        num_answers=[max(row) + 1 for row in rows],
        parameters={},
        epochs=content["epochs"],
        finished=len(content["epochs"]) == options["epochs"],
    )


def _fits(history: History) -> bool:
    """Whether a history holds what a run writes; what is missing or of another type may raise, too."""
    options = history.options
    setting, weights, task = (options[name] for name in ("setting", "weights", "task"))
    if not all(is_count(number) for number in (setting, options["epochs"], options["seed"], task or 0)):
        return False
    if not (is_count(options["data"]) or type(options["data"]) is str) or setting >= len(SETTINGS):
        return False
    if is_count(options["data"]) and options["data"] >= len(DATA_SETS):
        return False
    names = history.data_set["tasks"]
    title, scored_on = history.data_set["title"], history.data_set["scored_on"]
    if not (
        type(title) is str and scored_on in ("test", "validation") and all(type(n) is str for n in names)
    ):
        return False
    if SETTINGS[setting].weighted and not (
        len(weights) == len(names) and all(map(is_number, weights)) and sum(weights) > 0
    ):
        return False
    return (
        options["epochs"] > 0
        and (
            SETTINGS[setting].kind == "standard"
            if history.tasks == [ALL_CLASSES]
            else setting != 0 and set(history.tasks) <= set(names)
        )
        and len(set(history.tasks)) == len(history.constant_accuracy) == len(history.num_answers)
        and all(is_number(share) and 0 < share <= 1 for share in history.constant_accuracy)
        and all(is_count(count) and count > 0 for count in history.num_answers)
        and all(type(sitting["code"]) is str for sitting in history.sittings)
        and (not history.parameters or history.parameters.keys() >= {"encoder", "heads"})
        and all(is_count(count) for count in history.parameters.values())
        and all(is_number(value) for value in history.loss_parameters.values())
        and type(history.finished) is bool
        and (history.own_statistics is None or _are_scores(history.own_statistics, len(history.tasks)))
        and are_records(history.epochs, len(history.tasks))
        and len(history.epochs) <= options["epochs"]
        and (not history.finished or len(history.epochs) == options["epochs"])
    )


def are_records(epochs: object, num_tasks: int) -> bool:
    """Whether something read from a file is a list of records of epochs 1, 2, ... with a score per task."""

    def is_record(number: int, record: object) -> bool:
        return (
            isinstance(record, dict)
            and record.get("epoch") == number
            and is_number(record.get("loss"))
            and _are_scores(record, num_tasks)
        )

    return isinstance(epochs, list) and all(is_record(i, record) for i, record in enumerate(epochs, 1))


def _are_scores(content: dict, num_tasks: int) -> bool:
    """Whether a part of a file has both kinds of accuracy, each with a share per task."""
    return all(
        isinstance(scores := content.get(key), list)
        and len(scores) == num_tasks
        and all(is_number(score) and 0 <= score <= 1 for score in scores)
        for key in ("accuracy", "balanced_accuracy")
    )


def is_number(value: object) -> bool:
    """Whether something read from a file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: object) -> bool:
    """Whether something read from a file is a whole number from 0."""
    return type(value) is int and value >= 0
