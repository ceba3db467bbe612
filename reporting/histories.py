"""Find histories, read them, and group runs that repeat each other."""

import base64
import math
import os
import stat
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from errors import UserError
from options import Option, grouping, is_number
from reporting.statistics import ROUNDING
from running.released import known_as
from running.streams import in_one_line
from settings import SETTINGS
from storage.files import HISTORY
from storage.history import ALL_CLASSES, History, read_history
from tasks import DATA_SETS

SINGLE_TASK = 2

BESIDE = ("model.pt", "log.txt")
"""Other files of a run: where they are without a history, it may have been lost."""

MEASURES = ("accuracy", "balanced_accuracy")

AMOUNTS = ("steps", "images", "parameters", "seconds")
"""What a run took: training steps, training images, parameters of its model, seconds of training."""

UNBALANCED = 0.05
"""Gap between a constant answer and an even guess above which tasks are compared by balanced accuracy."""


@dataclass(frozen=True)
class Recorded:
    """A finished run.

    Attributes:
        path: where its history was found.
        history: content of the history.
        shared: what runs that repeat each other have in common: the options but seed and task, and the code.
    """

    path: Path
    history: History
    shared: dict[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        """The options of the run."""
        return self.history.options

    @property
    def data_set(self) -> tuple[str, bool, float]:
        """Identity of the data set, to group runs by.

        The number or the checksum, whether it is synthetic, and the share of the training images that is
        scored in the test images' place.
        """
        return (str(self.shared["data"]), self.options["synthetic"], self.options["validation"])

    @property
    def by_task(self) -> bool:
        """Whether it is scored by task, not on all classes."""
        return self.options["setting"] != 0

    def amount(self, name: str) -> float | None:
        """One of AMOUNTS, or None where it was not recorded."""
        if name == "parameters":
            return sum(self.history.parameters.values()) or None
        values = [epoch[name] for epoch in self.history.epochs if is_number(epoch.get(name))]
        return sum(values) if len(values) == len(self.history.epochs) else None

    def right(self, as_trained: bool) -> list[np.ndarray] | None:
        """For each scored task, 1 where an image is answered rightly, else 0; None if not recorded.

        That is None, too, where it does not make the accuracies that are recorded.
        """
        record = self.history.as_trained if as_trained else vars(self.history) | self.history.epochs[-1]
        packed = (record or {}).get("right")
        if not record or packed is None:
            return None
        unpacked = [_unpacked(*each) for each in zip(packed, record["accuracy"], strict=True)]
        answers = [each for each in unpacked if each is not None]
        return answers if len(answers) == len(unpacked) else None

    @property
    def file(self) -> Path | None:
        """Where the user's own data was in its last session, if recorded."""
        file = self.history.sessions[-1].get("file")
        return Path(file) if isinstance(file, str) else None

    @property
    def processors(self) -> set[str]:
        """Names of the CPUs or GPUs it was trained on, if recorded."""
        names = [session["environment"].get("processor") for session in self.history.sessions]
        return {name for name in names if isinstance(name, str) and name}


def _unpacked(packed: str, accuracy: float) -> np.ndarray | None:
    """Which images of a task are answered rightly: 0 and 1, or None where these do not make the accuracy.

    Up to 7 zeros fill the last byte. How many is known from the accuracy.
    """
    bits = np.unpackbits(np.frombuffer(base64.b64decode(packed), np.uint8))
    count = int(bits.sum())
    for size in range(len(bits), max(0, len(bits) - 8), -1):
        if abs(count / size - accuracy) < ROUNDING and not bits[size:].any():
            return bits[:size]
    return None


def find_histories(directory: Path) -> tuple[list[Path], list[str]]:
    """Find every history at any depth under a directory.

    Links are followed, after everything else; each directory is searched once.

    Returns:
        The paths of the histories, and a line for everything that is left out.

    Raises:
        UserError: the directory cannot be read.
    """
    try:
        os.scandir(directory).close()
    except OSError as error:
        raise UserError(
            f"cannot look into {directory}: {error.strerror}; give another --save_path"
        ) from error
    histories: list[Path] = []
    left_out: list[str] = []
    seen: dict[tuple[int, int], Path] = {}
    paths, links = deque([directory]), deque[Path]()
    while paths or links:
        path = (paths or links).popleft()
        try:
            state = path.stat()
            if path.name == HISTORY and stat.S_ISREG(state.st_mode):
                histories.append(path)
            elif path.name == HISTORY:
                left_out.append(f"{path}: is not a file")
            elif stat.S_ISDIR(state.st_mode):
                same = seen.setdefault((state.st_dev, state.st_ino), path)
                if same is not path:
                    left_out.append(f"{path}: leads to {same}, which is searched already")
                    continue
                with os.scandir(path) as scanned:
                    entries = sorted(scanned, key=lambda entry: entry.name)
                links += [path / entry.name for entry in entries if entry.is_symlink()]
                paths += [
                    path / entry.name
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False)
                    or (entry.name == HISTORY and not entry.is_symlink())
                ]
                names = {entry.name for entry in entries}
                if HISTORY not in names and (others := [name for name in BESIDE if name in names]):
                    left_out.append(f"{path}: has {' and '.join(others)} and no {HISTORY}")
        except OSError as error:
            if path.name not in BESIDE:
                left_out.append(f"{path}: cannot be read: {error.strerror}")
    return sorted(histories), sorted(left_out)


def find_runs(directory: Path, table: Sequence[Option]) -> tuple[list[Recorded], list[str]]:
    """Find the finished runs at any depth under a directory.

    Returns:
        The runs, and a line for each that is left out, which says why.

    Raises:
        UserError: the directory cannot be read, or there is no history in it.
    """
    paths, left_out = find_histories(directory)
    if not paths and not left_out:
        raise UserError(
            f"there is no {HISTORY} under {directory}: train with --save_history, or give --save_path"
        )
    runs, unusable = _read_finished(paths, table)
    left_out += unusable
    if not all(run.options["synthetic"] for run in runs):
        generated = [run for run in runs if run.options["synthetic"]]
        left_out += [f"{run.path}: generated images, beside runs on real ones" for run in generated]
        runs = [run for run in runs if not run.options["synthetic"]]
    contradicting = outvoted(runs)
    left_out += [
        f"{run.path}: its tasks or answers are not those of other runs on its data" for run in contradicting
    ]
    runs = [run for run in runs if run not in contradicting]
    first: dict[tuple[object, ...], Recorded] = {}
    for run in runs:
        key = (run.data_set, str(run.shared), run.options["seed"], run.options["task"])
        same = first.setdefault(key, run)
        if same is not run:
            left_out.append(f"{run.path}: same options and seed as {same.path}")
    return list(first.values()), [in_one_line(each) for each in left_out]


def _read_finished(paths: Sequence[Path], table: Sequence[Option]) -> tuple[list[Recorded], list[str]]:
    """Read the finished runs of some histories.

    Returns:
        the runs, and a line for each history that is damaged or unfinished.
    """
    runs, left_out = [], []
    for path in paths:
        try:
            history = read_history(path, table)
        except ValueError as error:
            left_out.append(f"{path}: {error}")
            continue
        if history.finished:
            codes = dict.fromkeys(known_as(session["code"]) for session in history.sessions)
            shared = grouping(table, history.options) | {"code": " ".join(codes)}
            runs.append(Recorded(path, history, shared))
        else:
            done, asked = len(history.epochs), history.options["epochs"]
            left_out.append(f"{path}: unfinished: {done} of {asked} epochs")
    return runs, left_out


def outvoted(runs: Sequence[Recorded]) -> list[Recorded]:
    """Runs whose history describes the data set unlike most histories of it."""
    votes: dict[tuple[object, ...], Counter[tuple[object, ...]]] = {}
    for run in runs:
        for subject, claim in _claims(run):
            votes.setdefault((run.data_set, subject), Counter())[claim] += 1
    return [
        run
        for run in runs
        if any(votes[run.data_set, subject].most_common(1)[0][0] != claim for subject, claim in _claims(run))
    ]


def _claims(run: Recorded) -> list[tuple[tuple[object, ...], tuple[object, ...]]]:
    """What a history says about its data set.

    These are the names of the tasks, and facts about each.
    """
    history = run.history
    facts = zip(history.tasks, history.constant_accuracy, history.num_answers, strict=True)
    all_classes = history.options["setting"] == 0  # a task may have the same name
    return [
        ((), tuple(history.data_set["tasks"])),
        *(((name, all_classes), (constant, answers)) for name, constant, answers in facts),
    ]


class Group:
    """Runs that differ only in the seed.

    In setting 2 they also differ in the task.

    Attributes:
        setting: setting of the runs.
        options: options of the first run.
        shared: what all runs have in common, by option.
        tasks: names of what is scored.
        by_task: whether these are the data set's tasks, not all classes at once.
        usual: the same runs tested as usual, if these scores are those as trained; else None.
        seeds: the seeds that are scored: those that have every task, or all where none has.
        is_complete: whether some seed has every task.
        lacking: numbers of the missing tasks, for each seed that lacks any.
    """

    def __init__(self, runs: Sequence[Recorded], usual: "Group | None" = None) -> None:
        self.shared = runs[0].shared
        self.options = runs[0].options
        self.setting = self.options["setting"]
        self.usual = usual
        self.by_task = runs[0].by_task
        self.tasks = runs[0].history.data_set["tasks"] if self.by_task else [ALL_CLASSES]
        by_seed: dict[int, list[Recorded]] = {}
        for run in sorted(runs, key=lambda run: run.options["seed"]):
            by_seed.setdefault(run.options["seed"], []).append(run)
        self.lacking: dict[int, tuple[int, ...]] = {}
        for seed, of_seed in by_seed.items():
            there = {name for run in of_seed for name in run.history.tasks}
            if lacks := tuple(task for task, name in enumerate(self.tasks) if name not in there):
                self.lacking[seed] = lacks
        self.is_complete = len(self.lacking) < len(by_seed)
        self._by_seed = {s: runs for s, runs in by_seed.items() if s not in self.lacking} or by_seed
        self.seeds = list(self._by_seed)

    @property
    def runs(self) -> list[Recorded]:
        """The runs of the scored seeds."""
        return [run for runs in self._by_seed.values() for run in runs]

    def again(self) -> "Group | None":
        """The same runs scored as trained, or None without such scores."""
        runs = [run for run in self.runs if run.history.as_trained]
        return Group(runs, self) if runs else None

    @cached_property
    def right(self) -> list[np.ndarray] | None:
        """For each task, 1 where a seed answers an image rightly, else 0: seeds x images.

        None if not all runs have recorded it, or of unlike numbers of images.
        """
        rows: list[list[np.ndarray]] = [[] for _ in self.tasks]
        for runs in self._by_seed.values():
            for run in runs:
                answers = run.right(as_trained=self.usual is not None)
                if answers is None:
                    return None
                for name, each in zip(run.history.tasks, answers, strict=True):
                    rows[self.tasks.index(name)].append(each)
        sizes = [min(map(len, of_task), default=0) for of_task in rows]
        cut = [[each[:size] for each in of_task] for of_task, size in zip(rows, sizes, strict=True)]
        alike = all(
            len(of_task) == len(self.seeds) and not any(each[size:].any() for each in of_task)
            for of_task, size in zip(rows, sizes, strict=True)
        )
        return [np.stack(of_task) for of_task in cut] if alike else None

    def scores(self, measure: str = "accuracy", seeds: Sequence[int] | None = None) -> np.ndarray:
        """Scores after the last epoch: seeds x tasks.

        A score is NaN where a run is missing.

        Args:
            measure: one of MEASURES.
            seeds: seeds of the rows; default: all.
        """
        seeds = self.seeds if seeds is None else seeds
        scores = np.full((len(seeds), len(self.tasks)), np.nan)
        for row, seed in zip(scores, seeds, strict=True):
            for run in self._by_seed[seed]:
                again = run.history.as_trained if self.usual else None
                record = again or run.history.epochs[-1]
                for name, score in zip(run.history.tasks, record[measure], strict=True):
                    row[self.tasks.index(name)] = score
        return scores

    def per_task(self) -> dict[str, float]:
        """Accuracy of each task that has runs, averaged over seeds."""
        columns = zip(self.tasks, self.scores().T, strict=True)
        return {name: float(np.nanmean(column)) for name, column in columns if not np.isnan(column).all()}

    def means(self, measure: str = "accuracy") -> np.ndarray:
        """Mean score over the tasks, for each seed."""
        return np.nanmean(self.scores(measure), axis=1)

    def total(self, name: str) -> float | None:
        """One of AMOUNTS: mean over seeds of the sum over models.

        None if a run did not record it.
        """
        amounts = [amount for run in self.runs if (amount := run.amount(name)) is not None]
        return sum(amounts) / len(self.seeds) if len(amounts) == len(self.runs) else None


def _order(group: Group) -> tuple[object, ...]:
    """Sort key of groups.

    The setting comes first, then option by option, numbers as numbers and before words.
    """
    values = [(v, "") if isinstance(v, int | float) else (math.inf, str(v)) for v in group.shared.values()]
    return (group.setting, values, group.by_task)


class Study:
    """The groups of runs on one data set.

    Attributes:
        runs: all runs.
        title: name of the data set, and which images are scored.
        validation: share of the training images that is scored in the test images' place, mostly 0.
        tasks: names of its tasks.
        groups: groups of the runs, ordered by setting.
        as_trained: for each group that has such scores, the same group scored as trained.
        constant: by measure, what a constant answer scores in each task.
        measure: score by which tasks are compared with the single-task baseline.
        shared_inputs: whether every task has every image, as far as known.
    """

    def __init__(self, runs: Sequence[Recorded]) -> None:
        self.runs = runs
        history = runs[0].history
        self.validation = history.options["validation"]
        self.title = history.data_set["title"]
        if isinstance(history.options["data"], str):
            self.title += f" (content {runs[0].shared['data']})"
        if self.validation:
            self.title += f", scored on validation images ({100 * self.validation:g} % of those for training)"
        self.tasks = history.data_set["tasks"]
        groups: dict[tuple[object, ...], list[Recorded]] = {}
        for run in runs:
            groups.setdefault((run.options["setting"], str(run.shared), run.by_task), []).append(run)
        self.groups = sorted(map(Group, groups.values()), key=_order)
        self.as_trained = {group: again for group in self.groups if (again := group.again())}
        commonest: dict[str, float] = {}
        even: dict[str, float] = {}
        for each in [run.history for run in runs if run.by_task] or [history]:
            commonest |= dict(zip(each.tasks, each.constant_accuracy, strict=True))
            even |= {name: 1 / count for name, count in zip(each.tasks, each.num_answers, strict=True)}
        self.constant = {"accuracy": commonest, "balanced_accuracy": even}
        gap = self.constant_answer("accuracy") - self.constant_answer("balanced_accuracy")
        self.measure = "balanced_accuracy" if gap > UNBALANCED + ROUNDING else "accuracy"
        data = history.options["data"]
        self.shared_inputs = (
            DATA_SETS[data].shared_inputs
            if isinstance(data, int)
            else any(run.history.data_set.get("shared_images", False) for run in runs)
            or any(SETTINGS[group.setting].shared_inputs for group in self.groups)
        )

    def constant_answer(self, measure: str) -> float:
        """Score of always giving the commonest answer, as a mean over tasks."""
        return float(np.mean(list(self.constant[measure].values())))

    def values(self, name: str) -> list[Any]:
        """Distinct values of an option among the groups."""
        values = [group.shared[name] for group in self.groups if name in group.shared]
        return [value for i, value in enumerate(values) if value not in values[:i]]


def studies(runs: Sequence[Recorded]) -> list[Study]:
    """Group runs into a study per data set.

    Files of different content are different data sets, and so are test and validation images.
    """
    data_sets: dict[tuple[str, bool, float], list[Recorded]] = {}
    for run in sorted(runs, key=lambda run: run.data_set):
        data_sets.setdefault(run.data_set, []).append(run)
    return [Study(runs) for runs in data_sets.values()]
