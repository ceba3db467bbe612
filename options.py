"""Every option of the command line, in one table.

For each option, OPTIONS has what it accepts, which settings it goes with, and what it decides. The parser,
the help, the checks, what files record, what --resume insists on, what --eval compares and what the report
groups by follow from this. To add an option, add a line there and use `run.NAME`.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from errors import CommandError
from settings import (
    ENCODERS,
    HEADS,
    LOSSES,
    NORMALISATIONS,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    SETTINGS,
    VERSION,
    join_loss,
    split_loss,
)
from tasks import DATA_SETS, DataSpec


@dataclass(frozen=True)
class Reader:
    """Reads an option's value from a word, and checks recorded values.

    Attributes:
        read: returns the value of a word, or raises ValueError with what is wrong.
        holds: whether a value from a file is one that `read` could have returned.
    """

    read: Callable[[str], Any]
    holds: Callable[[Any], bool]

    def __call__(self, word: str) -> Any:
        """Read the value of a word."""
        return self.read(word)


@dataclass(frozen=True)
class Option:
    """One option of the command line.

    Attributes:
        name: name, without the dashes.
        group: heading of its group in the help.
        help: what it is, without the default.
        read: returns its value for a word of the command line, or raises ValueError with what is wrong; None
            for a flag. A Reader checks values in files, too; with any other function they are not checked.
        default: its value if it is not given, or a function of the data set and of the values of the options
            before it that returns it.
        words: the default in the help, if not the value itself.
        metavar: placeholder for its value in the help.
        many: whether it takes a list of words.
        settings: the settings that it goes with. With the others its value is None, and giving it is an
            error, except in an evaluation if it decides the training.
        excluded_by: name and value of an option that excludes it: then its value is None, too.
        required: whether it has to be given.
        decides: `data` (what is trained on and scored), `training` (how), or `nothing` that changes a result.
            It has no default, as --resume and the report rely on it.
        fixed: whether --resume insists on it although it decides nothing.
        repeats: whether a report averages runs that differ in it alone.
        may_grow: whether a run can be resumed with a higher value, given the other values.
        from_model: whether an evaluation takes it from the model, and refuses another value.
        check: returns what is wrong with its value in a run, or None.
        settle: returns what to record for a value, given the values of the options before it: one value if
            several mean the same.
        key: returns, for a value that is not None, what to compare it by.
    """

    name: str
    group: str
    help: str
    read: Callable[[str], Any] | None = None
    default: Any = None
    words: str | None = None
    metavar: str | None = None
    many: bool = False
    settings: Sequence[int] = range(len(SETTINGS))
    excluded_by: tuple[str, Any] | None = None
    required: bool = False
    decides: str = field(kw_only=True)
    fixed: bool = False
    repeats: bool = False
    may_grow: Callable[[Mapping[str, Any]], bool] = lambda _: False
    from_model: bool = False
    check: Callable[["Run"], str | None] = lambda _: None
    settle: Callable[[Any, Mapping[str, Any]], Any] = lambda value, _: value
    key: Callable[[Any], Any] = lambda value: value

    def default_for(self, spec: DataSpec | None, values: Mapping[str, Any]) -> Any:
        """Value for a data set if the option is not given.

        It is None where it depends on a data set that is not known. `values` has the options before it.
        """
        if self.read is None:
            return False
        if not callable(self.default):
            return self.default
        return None if spec is None else self.default(spec, values)

    def goes_with(self, values: Mapping[str, Any]) -> bool:
        """Whether it has a value beside those of other options, the setting among them."""
        excluded = self.excluded_by is not None and values.get(self.excluded_by[0]) == self.excluded_by[1]
        return values["setting"] in self.settings and not excluded

    def accepts(self, value: Any, values: Mapping[str, Any]) -> bool:
        """Whether a run can have a recorded value beside those of other options."""
        if not self.goes_with(values):
            return value is None
        if self.read is None:
            return isinstance(value, bool)
        if value is None:
            return self.default is None and not self.required
        if not isinstance(self.read, Reader):
            return True
        if self.many:
            return isinstance(value, list) and bool(value) and all(map(self.read.holds, value))
        return self.read.holds(value)

    def key_of(self, value: Any) -> Any:
        """What to compare a value by."""
        return None if value is None else self.key(value)

    def differs(self, one: Any, other: Any) -> bool:
        """Whether two values differ in meaning."""
        return self.key_of(one) != self.key_of(other)


@dataclass(frozen=True)
class Run:
    """The options of a run, each as an attribute.

    Attributes:
        mode: `train`, `eval` or `report`.
        spec: the data set.
        values: value of each option, by name.
        table: table of options.
        given: names of the options that were given.
    """

    mode: str
    spec: DataSpec
    values: Mapping[str, Any]
    table: Sequence[Option]
    given: Collection[str]

    def __getattr__(self, name: str) -> Any:
        if name in vars(self).get("values", {}):
            return self.values[name]
        raise AttributeError(f"there is no option {name}")

    @property
    def recorded(self) -> dict[str, Any]:
        """The options as files record them: plain values.

        The version of the program is among them.
        """
        return {name: _plain(value) for name, value in self.values.items()} | {"version": VERSION}

    def changed(self, **values: Any) -> "Run":
        """The same run with other values of some options.

        The data set stays the same.
        """
        values = {**self.values, **values}
        return replace(self, values=values, spec=replace(self.spec, validation=values["validation"] or 0.0))


def _plain(value: Any) -> Any:
    """The value of an option as files record it."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def make_run(
    mode: str, given: Mapping[str, Any], table: Sequence[Option] | None = None, spec: DataSpec | None = None
) -> Run:
    """Check the options that are given, and fill in the others.

    Args:
        mode: `train`, `eval` or `report`.
        given: values of options by name; None means not given.
        table: table of options; default: OPTIONS.
        spec: the data set; default: that of the options.

    Raises:
        CommandError: the options are invalid together.
        UserError: the user's own data set cannot be read.
    """
    table = OPTIONS if table is None else table
    given = {name: value for name, value in given.items() if value is not None}
    setting = given.get("setting", 0)
    if mode == "eval":  # the training's options may be given, and are ignored if of another setting
        beside = given | {"setting": setting}
        ignored = {o.name for o in table if o.decides == "training" and not o.goes_with(beside)}
        given = {name: value for name, value in given.items() if name not in ignored}
    _check_given(given, setting, table)
    data = given.get("data", DEFAULT_DATA)
    if isinstance(data, Path):
        if spec is None:
            from own_data import read_spec  # imports NumPy, which would slow down refusals

            spec = read_spec(data)
        given["data"] = f"{spec.name}#{spec.checksum}"
    elif spec is None:
        spec = DATA_SETS[data].stand_in if given.get("synthetic") else DATA_SETS[data]
    values: dict[str, Any] = {"setting": setting}
    for option in table:
        if option.name in given:
            values[option.name] = given[option.name]
        elif not option.goes_with(values) or (mode == "eval" and option.from_model):
            values[option.name] = None
        else:
            values[option.name] = option.default_for(spec, values)
        if mode != "eval":
            values[option.name] = option.settle(values[option.name], values)
    run = Run(mode, replace(spec, validation=values["validation"] or 0.0), values, table, tuple(given))
    for option in table:
        if option.goes_with(values) and (problem := option.check(run)):
            raise CommandError(problem)
    return run


def _check_given(given: Mapping[str, Any], setting: int, table: Sequence[Option]) -> None:
    """Check the given options against the setting.

    Raises:
        CommandError: an option does not go with the setting, or one that it needs is missing.
    """
    for option in table:
        applies = setting in option.settings
        if applies and option.name in given and not option.goes_with({**given, "setting": setting}):
            raise CommandError(
                f"--{option.name} does not go with {as_given(*option.excluded_by or ('', None))}: "
                "leave one of them out"
            )
        if option.name in given and not applies:
            which = " and ".join(map(str, option.settings))
            raise CommandError(
                f"--{option.name} goes with --setting {which} only: leave it out, or use "
                f"--setting {' or '.join(map(str, option.settings))}"
            )
        if option.required and applies and option.name not in given:
            raise CommandError(f"--setting {setting} needs --{option.name}: {option.help}")
    if isinstance(given.get("data"), Path) and given.get("synthetic"):
        raise CommandError("--synthetic stands for a published data set, not for a file: leave one out")


def read_options(recorded: object, table: Sequence[Option]) -> dict[str, Any]:
    """Check the options that a file records.

    Options newer than the file get their defaults.

    Raises:
        ValueError: they are not those of a run; the text names the option.
    """
    if not isinstance(recorded, dict):
        raise ValueError("options is not a dictionary")
    known = {option.name for option in table}
    unknown = [name for name in recorded if name not in known and name != "version"]
    if unknown:
        raise ValueError(f"options has {unknown[0]!r}, which this program does not know")
    setting = recorded.get("setting")
    if not isinstance(setting, int) or setting not in range(len(SETTINGS)):
        raise ValueError(f"options.setting is {in_short(setting)}")
    if not isinstance(version := recorded.get("version"), str):
        raise ValueError(f"options.version is {in_short(version)}")
    options: dict[str, Any] = {"version": version}
    for option in table:
        value = _recorded_value(option, recorded, options | {"setting": setting})
        try:
            valid = option.accepts(value, options | {"setting": setting})
            if valid:
                option.key_of(value)  # must not fail when values are compared later
        except (ArithmeticError, LookupError, TypeError, ValueError):
            valid = False
        if not valid:
            raise ValueError(f"options.{option.name} is {in_short(value)}")
        options[option.name] = value
    return options


def _recorded_value(option: Option, recorded: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """Value of an option in a file.

    If the option is newer than the file, or did not go with its setting then, this is its default.

    Args:
        option: the option.
        recorded: the options in the file.
        values: the values of the options before it.
    """
    newer = len(option.settings) < len(SETTINGS) and option.goes_with(values)  # maybe with this setting
    if option.name in recorded and not (newer and recorded[option.name] is None):
        return recorded[option.name]
    if not option.goes_with(values) and not option.repeats:
        return None
    if option.decides == "data" or option.repeats or callable(option.default):
        raise ValueError(f"lacks options.{option.name}")  # every version records these
    return False if option.read is None else _plain(option.default)


def in_short(value: object) -> str:
    """A value as text of at most 40 characters, for errors."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:37]}..."


def differing(
    options: Iterable[Option], asked: Mapping[str, Any], recorded: Mapping[str, Any]
) -> list[Option]:
    """Options whose values differ between two records."""
    return [option for option in options if option.differs(asked[option.name], recorded[option.name])]


def grouping(table: Iterable[Option], recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What repeated runs have in common, by option.

    It is the key of each deciding option that goes with the others.
    """
    return {
        option.name: option.key_of(recorded[option.name])
        for option in table
        if option.decides != "nothing" and not option.repeats and option.goes_with(recorded)
    }


def as_given(name: str, value: object) -> str:
    """An option as on the command line."""
    if isinstance(value, bool):
        return f"with{'' if value else 'out'} --{name}"
    if value is None:
        return f"without --{name}"
    words = [str(word) for word in (value if isinstance(value, list | tuple) else [value])]
    return f"--{name} {' '.join(word or repr(word) for word in words)}"


# What the options accept


def number(kind: type[int] | type[float], wanted: str, accepts: Callable[[float], bool]) -> Reader:
    """Make a reader of numbers.

    Args:
        kind: type of the numbers.
        wanted: describes a valid number, for errors.
        accepts: whether a number is valid.
    """

    def read(text: str) -> float:
        try:
            value = kind(text) if text.isascii() and "_" not in text else math.nan
        except ValueError:
            value = math.nan
        if not accepts(value):
            raise ValueError(f"{text!r} is not {wanted}")
        return value

    def holds(value: Any) -> bool:
        return is_number(value) and (kind is float or isinstance(value, int)) and accepts(value)

    return Reader(read, holds)


def is_number(value: object) -> bool:
    """Whether a value is a number that a float can hold."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def choice(names: Iterable[str]) -> Reader:
    """Make a reader that accepts one of some names."""
    names = list(names)

    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"{text!r} is none of {', '.join(names)}")
        return text

    return Reader(read, lambda value: isinstance(value, str) and value in names)


def _read_loss(text: str) -> str:
    return join_loss(*split_loss(text))


def _holds_loss(value: object) -> bool:
    return isinstance(value, str) and bool(_read_loss(value))  # or it raises ValueError


def loss_in_short(value: str) -> str:
    """A loss without the parameters that have their default, to compare and to show."""
    name, parameters = split_loss(value)
    defaults = LOSSES[name].parameters
    return join_loss(name, {each: v for each, v in parameters.items() if v != defaults[each]})


def _read_tasks_per_step(text: str) -> int | str:
    try:
        return ALL if text == ALL else COUNT(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither a whole number from 1 to 1000000 nor {ALL}") from None


def _read_path(text: str) -> Path:
    if not text.strip():
        raise ValueError("an empty path names no directory: give one, or . for the current one")
    if "\0" in text:
        raise ValueError("a path cannot hold a zero byte")
    try:
        return Path(text).expanduser()  # a shell leaves the ~ of --save_path=~/runs
    except RuntimeError:
        raise ValueError(f"{text!r} names the home directory of a user who is not known here") from None


def _read_npz_path(text: str) -> Path:
    if not text.endswith(".npz"):
        raise ValueError(f"{text!r} is no name of a file FILE.npz")
    return _read_path(text)


def _read_note(text: str) -> str:
    note = " ".join(text.split())
    if not note.isprintable():
        raise ValueError(f"{text!r} holds characters that cannot be printed")
    return note


COUNT = number(int, "a whole number from 1 to 1000000", lambda count: 1 <= count <= 10**6)
SHARE = number(float, "a number from 0 to below 1", lambda share: 0 <= share < 1)
POSITIVE = number(float, "a positive, finite number", lambda value: 0 < value < math.inf)
AT_LEAST_0 = number(float, "a finite number of at least 0", lambda value: 0 <= value < math.inf)
PATH = Reader(_read_path, lambda value: isinstance(value, str) and bool(value.strip()))
NPZ_PATH = Reader(_read_npz_path, lambda value: isinstance(value, str) and value.endswith(".npz"))
NOTE = Reader(_read_note, lambda value: isinstance(value, str) and value == " ".join(value.split()))


def _read_setting(text: str) -> int:
    names = [f"{i} ({setting.name})" for i, setting in enumerate(SETTINGS)]
    if text not in map(str, range(len(SETTINGS))):
        raise ValueError(f"{text!r} is none of {', '.join(names)}")
    return int(text)


def _read_data(text: str) -> int | Path:
    for number, spec in enumerate(DATA_SETS):
        if text == str(number) or _plain_name(text) == _plain_name(spec.name):
            return number
    path = _read_path(text)
    if path.suffix.lower() == ".npz" or path.is_file():
        return path
    names = [f"{i} ({spec.name})" for i, spec in enumerate(DATA_SETS)]
    raise ValueError(f"{text!r} is none of {', '.join(names)}, by number or name, or a file FILE.npz")


def _plain_name(name: str) -> str:
    """The name of a data set in any case, with or without hyphen."""
    return name.lower().replace("-", "")


def _holds_data(value: object) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r".+#[0-9a-f]{12}", value, re.DOTALL) is not None
    return type(value) is int and value in range(len(DATA_SETS))


def _is_device(text: object) -> bool:
    return isinstance(text, str) and bool(re.fullmatch(r"auto|cpu|cuda(:(0|[1-9][0-9]{0,2}))?", text))


def _read_device(text: str) -> str:
    if not _is_device(text):
        raise ValueError(f"{text!r} is none of auto, cpu, cuda, cuda:0, cuda:1 ...")
    return text


ALL = "all"
"""The value of --tasks_per_step by which a step takes every task."""

TASKS_PER_STEP = Reader(_read_tasks_per_step, lambda value: value == ALL or COUNT.holds(value))
LOSS = Reader(_read_loss, _holds_loss)
SETTING = Reader(_read_setting, lambda value: type(value) is int and value in range(len(SETTINGS)))
DATA_SET = Reader(_read_data, _holds_data)
DEVICE = Reader(_read_device, _is_device)


# What can be wrong with a value, given the others


def check_setting(run: Run) -> str | None:
    """Check that the data set has what the setting needs."""
    if SETTINGS[run.setting].kind == "standard" and not run.spec.has_classes:
        return (
            f"--setting {run.setting} needs classes of the whole data set, but {run.spec.name} has labels "
            f"for each task: use --setting 2, 3 or 4"
        )
    if not SETTINGS[run.setting].shared_inputs or run.spec.shared_inputs:
        return None
    if not run.spec.has_classes:
        return (
            f"--setting {run.setting} needs a label of every image for every task, but {run.spec.name} has "
            f"missing labels: use --setting 3 --tasks_per_step {ALL}, where each step has all tasks"
        )
    other = (
        "leave its table of tasks out"
        if run.spec.path
        else "take CIFAR-10 or a file whose tasks share images"
    )
    return (
        f"--setting {run.setting} needs every task to have every image, but each of {run.spec.name}'s tasks "
        f"has its own: use --setting 3 --tasks_per_step {ALL}, where each step has all tasks, or {other}"
    )


def check_task(run: Run) -> str | None:
    """Check that there is such a task."""
    last = len(run.spec.tasks) - 1
    if 0 <= run.task <= last:
        return None
    return f"--task {run.task} is out of range: {run.spec.name} has tasks 0 to {last}"


def check_validation(run: Run) -> str | None:
    """Check that every class, or every answer where there are no classes, can be split."""
    if not run.validation:
        return None
    spec = run.spec
    if spec.has_classes:
        if min(spec.train_counts) >= 2:
            return None
        return f"--validation needs 2 training images of each class, and {spec.name} has a class with 1"
    for task, row in spec.tasks.items():
        counts = list(zip(row, spec.train_counts, spec.held_out, strict=True))
        kept = {number for number, count, held_out in counts if held_out < count}
        scored = {number for number, _, held_out in counts if held_out}
        if lost := set(row) - {-1} - (kept & scored):
            verb = "holds out no image" if min(lost) in kept else "leaves no training image"
            return (
                f"--validation {run.validation} {verb} with answer {min(lost)} of {task} of {spec.name}: "
                f"give another share, or leave it out"
            )
    return None


def check_weights(run: Run) -> str | None:
    """Check that every task has a weight and one is positive."""
    num_tasks = len(run.spec.tasks)
    if len(run.weights) != num_tasks:
        given = len(run.weights)
        return f"--weights needs a number for each of {run.spec.name}'s {num_tasks} tasks, not {given}"
    if not 0 < sum(run.weights) < math.inf:
        return "--weights must have a positive, finite sum: make at least one of them positive"
    return None


def check_batch_size(run: Run) -> str | None:
    """Check that every training set fills a batch."""
    if run.mode != "train":
        return None
    if run.batch_size == 1:
        return "--batch_size 1 cannot train: batch normalisation needs at least 2 images to a batch"
    smallest, size = _smallest_training_set(run)
    if run.batch_size <= size:
        return None
    name = "the training set" if smallest is None else f"task {smallest} ({list(run.spec.tasks)[smallest]})"
    return (
        f"--batch_size {run.batch_size} is larger than {name} of {run.spec.title}, which has "
        f"{size} images, so that no batch would be full: use at most {size}"
    )


def _smallest_training_set(run: Run) -> tuple[int | None, int]:
    """Task and number of images of the smallest training set of a run; None is the set of all images."""
    sizes = run.spec.training_sets(run.setting, run.task)
    used = {
        task: size for task, size in sizes.items() if task is None or not run.weights or run.weights[task] > 0
    }
    return min(used.items(), key=lambda each: each[1])


def check_tasks_per_step(run: Run) -> str | None:
    """Check that a batch splits into equal slices.

    Each slice must have at least 2 images.
    """
    if run.mode != "train":
        return None
    size, count, num_tasks = run.batch_size, run.tasks_per_step, len(run.spec.tasks)
    if count != 1 and num_tasks == 1:
        return f"--tasks_per_step {count} changes nothing, as {run.spec.name} has one task: leave it out"
    if count == ALL:
        return _check_all_tasks(run, size, num_tasks)
    valid = [k for k in range(1, size // 2 + 1) if size % k == 0]
    if count in valid:
        return None
    return (
        f"--tasks_per_step {count} does not split a batch of {size} images into equal slices of at least 2: "
        f"use {' or '.join(filter(None, (', '.join(map(str, valid)), _batch_sizes(run, count))))}"
    )


def _batch_sizes(run: Run, count: int) -> str:
    """The batch sizes next to that of a run that split into slices for some tasks, as options.

    The result is empty if such a batch would be larger than a training set.
    """
    slices = run.batch_size // count
    sizes = sorted({max(2, each) * count for each in (slices, slices + 1)})
    fitting = [str(size) for size in sizes if size <= _smallest_training_set(run)[1]]
    return f"--batch_size {' or '.join(fitting)}" if fitting else ""


def _check_all_tasks(run: Run, size: int, num_tasks: int) -> str | None:
    """Check that each step can take every task."""
    if SETTINGS[run.setting].weighted:
        return (
            f"--tasks_per_step {ALL} takes every task equally often, and setting {run.setting} some more "
            "often than others: use --setting 3, or a number"
        )
    if size % num_tasks == 0 and size >= 2 * num_tasks:
        return None
    return (
        f"--tasks_per_step {ALL} splits a batch among the {num_tasks} tasks of {run.spec.name}, at least 2 "
        f"images for each, and {size} does not split like that: use "
        f"{_batch_sizes(run, num_tasks) or '--tasks_per_step with a number'}"
    )


def _samples_some(run: Run) -> bool:
    """Whether a step samples tasks, and need not have all of them."""
    return SETTINGS[run.setting].samples_tasks and run.tasks_per_step != ALL


def check_loss(run: Run) -> str | None:
    """Check that there are losses to combine."""
    if run.mode != "train" or run.loss == "mean":
        return None
    if len(run.spec.tasks) == 1:
        return f"--loss {run.loss} has nothing to combine, as {run.spec.name} has one task: leave it out"
    if _samples_some(run):
        return (
            f"--loss {run.loss} combines the losses of all tasks, and a step of setting {run.setting} "
            f"samples some: add --tasks_per_step {ALL}"
        )
    return None


def check_gradients(run: Run) -> str | None:
    """Check that a step has the gradients of all tasks."""
    if not run.gradients or run.mode != "train":
        return None
    if _samples_some(run):
        return (
            f"--gradients compares the gradients of all tasks, and a step of setting {run.setting} samples "
            f"some: add --tasks_per_step {ALL}"
        )
    if len(run.spec.tasks) == 1:
        return f"--gradients has nothing to compare, as {run.spec.name} has one task: leave it out"
    return None


def mixes_tasks(setting: int, tasks_per_step: int | str | None) -> bool:
    """Whether the batch of a step has images that were sampled for several tasks."""
    return SETTINGS[setting].samples_tasks and tasks_per_step not in (None, 1)


def _settle_normalisation(value: str, values: Mapping[str, Any]) -> str:
    """`apart` is `together` where a step has one set of images."""
    mixes = mixes_tasks(values["setting"], values["tasks_per_step"])
    return "together" if value == "apart" and not mixes else value


def check_keep(run: Run) -> str | None:
    """Check that there are held-out images to choose by, and a file to keep the network in."""
    if run.mode != "train" or run.keep != "best":
        return None
    if not run.validation:
        return "--keep best chooses an epoch by held-out images: add --validation F, or leave --keep out"
    if not (run.save_model or run.resume):
        return "--keep best decides which network model.pt has: add --save_model, or leave --keep out"
    return None


def check_predictions(run: Run) -> str | None:
    """Check that it is an evaluation that writes predictions."""
    if run.mode != "eval" and run.predictions:
        return "--predictions goes with --eval only: leave it out, or train first and evaluate then"
    return None


def check_overwrite(run: Run) -> str | None:
    """Check that it is clear what happens to an earlier run."""
    if run.overwrite and run.resume:
        return "--overwrite replaces a run and --resume continues it: give one of them"
    return None


def check_compile(run: Run) -> str | None:
    """Check that a step needs one pass of the encoder, and one backward pass only."""
    if run.mode != "train" or not run.compile:
        return None
    if run.normalisation == "apart":
        return "--compile does not go with --normalisation apart: leave one of them out"
    if run.loss is not None and LOSSES[split_loss(run.loss)[0]].aggregates:
        return (
            f"--compile does not go with --loss {run.loss}, which needs a backward pass of the encoder for "
            "each task: leave --compile out"
        )
    return None


def shares(weights: Sequence[float]) -> list[float]:
    """The share of each weight in their sum, to compare weights by."""
    return [round(weight / sum(weights), 12) for weight in weights]


DEFAULT_DATA = 1
SINGLE = [i for i, setting in enumerate(SETTINGS) if setting.kind == "single-task"]
WEIGHTED = [i for i, setting in enumerate(SETTINGS) if setting.weighted]
SAMPLED = [i for i, setting in enumerate(SETTINGS) if setting.samples_tasks]
ALL_TASKS = [
    i for i, each in enumerate(SETTINGS) if each.shared_inputs or (each.samples_tasks and not each.weighted)
]
WITH_LOSS = [i for i in ALL_TASKS if not SETTINGS[i].weighted]

MAIN, RECIPE, DATA, FILES, MACHINE = "what to run", "how to train", "the images", "files", "the machine"

OPTIONS = (
    Option(
        "setting", MAIN, "way of training, by number, see below", SETTING, 0,
        metavar="N", decides="training", check=check_setting,
    ),
    Option(
        "data", MAIN, "data set, by number or name, see below, or a file FILE.npz of your own",
        DATA_SET, DEFAULT_DATA, metavar="N", decides="data", key=lambda data: str(data).rpartition("#")[2],
    ),
    Option(
        "task", MAIN, "the one task that is trained, numbered from 0",
        number(int, "a whole number", math.isfinite), metavar="T", settings=SINGLE, required=True,
        decides="data", repeats=True, check=check_task,
    ),
    Option(
        "seed", MAIN, "of everything random: the same seed gives the same result",
        number(int, "a whole number from 0 to 2^63 - 1", lambda seed: 0 <= seed < 2**63), 0,
        metavar="N", decides="training", repeats=True,
    ),
    Option(
        "note", MAIN, "words of your own; runs with different words are compared, not averaged", NOTE, "",
        words="none", metavar="WORDS", decides="training",
    ),
    Option(
        "verbose", MAIN,
        "print accuracies, losses, learning rate and seconds after each epoch; with --report, every task",
        decides="nothing",
    ),
    Option(
        "weights", RECIPE, "what each task weighs, scaled to sum to 1", AT_LEAST_0,
        lambda spec, _: [task + 1.0 for task in range(len(spec.tasks))],
        words="task 0 weighs 1, task 1 2, ...", metavar="W", many=True,
        settings=WEIGHTED, decides="training", check=check_weights, key=shares,
    ),
    Option(
        "epochs", RECIPE, "how often to go through the training images", COUNT, lambda spec, _: spec.epochs,
        words=", ".join(f"{spec.name} {spec.epochs}" for spec in DATA_SETS) + ", a file 20",
        metavar="N", decides="training",
        may_grow=lambda values: not SCHEDULES[values["schedule"]].needs_total,
    ),
    Option(
        "batch_size", RECIPE, "images per training step, at least 2", COUNT, 128,
        metavar="N", decides="training", check=check_batch_size,
    ),
    Option(
        "tasks_per_step", RECIPE,
        f"tasks that a training step samples, each for an equal share of its images, or {ALL}",
        TASKS_PER_STEP, 1, metavar="K", settings=SAMPLED, decides="training",
        check=check_tasks_per_step,
    ),
    Option(
        "loss", RECIPE,
        f"how the losses of all tasks are combined (in setting 3 with --tasks_per_step {ALL}), "
        "by name, see below, maybe with parameters: NAME:PARAMETER=VALUE,...", LOSS, "mean", metavar="NAME",
        settings=WITH_LOSS, decides="training", check=check_loss, key=loss_in_short,
    ),
    Option(
        "normalisation", RECIPE,
        "normalisation in a training step: " + "; ".join(f"{n}: {w}" for n, w in NORMALISATIONS.items()),
        choice(NORMALISATIONS), "together", words="together, with --eval the model's", metavar="NAME",
        decides="training", from_model=True, settle=_settle_normalisation,
    ),
    Option(
        "optimizer", RECIPE, "; ".join(f"{name}: {o.words}" for name, o in OPTIMIZERS.items()),
        choice(OPTIMIZERS), "sgd", metavar="NAME", decides="training",
    ),
    Option(
        "lr", RECIPE, "learning rate", POSITIVE, lambda _, values: OPTIMIZERS[values["optimizer"]].lr,
        words=", ".join(f"{name} {each.lr}" for name, each in OPTIMIZERS.items()), metavar="RATE",
        decides="training",
    ),
    Option(
        "momentum", RECIPE, "momentum of SGD", SHARE, 0.0, metavar="M", excluded_by=("optimizer", "adamw"),
        decides="training",
    ),
    Option("weight_decay", RECIPE, "weight decay", AT_LEAST_0, 0.0, metavar="D", decides="training"),
    Option(
        "schedule", RECIPE,
        "learning rate schedule: " + "; ".join(f"{name}: {s.words}" for name, s in SCHEDULES.items()),
        choice(SCHEDULES), "constant", metavar="NAME", decides="training",
    ),
    Option(
        "augment", RECIPE, "shift each training image at random, and mirror half of them if they have colour",
        decides="training",
    ),
    Option(
        "encoder", RECIPE, "; ".join(f"{name}: {part.words}" for name, part in ENCODERS.items()),
        choice(ENCODERS), "cnn", words="cnn, with --eval the model's", metavar="NAME", decides="training",
        from_model=True,
    ),
    Option(
        "head", RECIPE, "; ".join(f"{name}: {part.words}" for name, part in HEADS.items()),
        choice(HEADS), "hidden", words="hidden, with --eval the model's", metavar="NAME", decides="training",
        from_model=True,
    ),
    Option(
        "precision", RECIPE, "number format that the network computes in: bf16 is less exact, and "
        "faster on hardware made for it", choice(PRECISIONS), "fp32", metavar="NAME", decides="training",
    ),
    Option(
        "data_path", DATA, "directory of the data sets, downloaded on first use", PATH, Path("./data"),
        words="./data", metavar="DIR", decides="nothing",
    ),
    Option(
        "synthetic", DATA, "use small generated images in place of the data set: no download", decides="data",
    ),
    Option(
        "image_size", DATA, "side in pixels that images are resized to",
        number(int, "a whole number from 1 to 1024", lambda side: 1 <= side <= 1024),
        lambda spec, _: spec.default_image_size, words="32, a file's own; with --eval the model's",
        metavar="N", decides="data", from_model=True,
    ),
    Option(
        "validation", DATA, "share of each class's training images to hold out of training and score in the "
        "test images' place", SHARE, 0.0, words="0, with --eval the model's",
        metavar="F", decides="data", from_model=True, check=check_validation,
    ),
    Option(
        "save_path", FILES, "directory of the model and the history, created if missing", PATH, Path("."),
        metavar="DIR", decides="nothing",
    ),
    Option("save_model", FILES, "save the trained model as model.pt", decides="nothing"),
    Option("save_history", FILES, "save the results of every epoch as history.json", decides="nothing"),
    Option(
        "keep", FILES, "epoch whose network model.pt has: the last, or the best, which is the first with the "
        "highest mean accuracy on the images of --validation", choice(("last", "best")), "last",
        metavar="NAME", decides="nothing", fixed=True, check=check_keep,
    ),
    Option(
        "predictions", FILES, "with --eval, save the logits and answers of every image in a file",
        NPZ_PATH, metavar="FILE.npz", decides="nothing", check=check_predictions,
    ),
    Option(
        "tensorboard", FILES, "save learning rate, losses and accuracies of every epoch for TensorBoard",
        decides="nothing",
    ),
    Option(
        "gradients", FILES, "record, once an epoch, how much the gradients of the tasks agree",
        settings=ALL_TASKS, decides="nothing", check=check_gradients,
    ),
    Option(
        "resume", FILES, "continue the run in --save_path, if there is one; implies --save_model",
        decides="nothing",
    ),
    Option(
        "overwrite", FILES, "replace the run in --save_path, or the file of --predictions, if there is one",
        decides="nothing", check=check_overwrite,
    ),
    Option(
        "device", MACHINE, "cpu, cuda, cuda:1, ... or auto: CUDA if there is any, else the CPU",
        DEVICE, "auto", metavar="NAME", decides="nothing",
    ),
    Option(
        "compile", MACHINE,
        "compile the encoder first, to speed up long training; takes a C++ compiler and half a minute",
        decides="nothing", check=check_compile,
    ),
)  # fmt: skip
"""The options, in the order of the help; a check may rely on those before it."""
