"""The runs that a report is about: found, read, and grouped by what they share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from history import ALL_CLASSES, HISTORY, History, read_history
from options import Option, grouping
from reporting.statistics import Change, change_against
from settings import SETTINGS, UserError

SINGLE_TASK = 2


@dataclass(frozen=True)
class Recorded:
    """A finished run and where its history was found.

    Attributes:
        path: of the history.
        history: what it says.
        shared: what it shares with the runs that repeat it: what counts of each option, and its code.
    """

    path: Path
    history: History
    shared: dict[str, object]

    @property
    def options(self) -> dict:
        """The options of the run."""
        return self.history.options

    @property
    def data_set(self) -> tuple:
        """What tells its data set from others: those of different content differ, whatever their names."""
        return (str(self.shared["data"]), self.options["synthetic"], self.history.data_set["scored_on"])


def read_run(path: Path, table: Sequence[Option]) -> Recorded:
    """Read the history of a finished run.

    Raises:
        ValueError: it is none, or of a run that has not ended; the text says so.
    """
    history = read_history(path, table)
    shared = grouping(table, history.options) | {"code": history.code}
    if not history.finished:
        raise ValueError(f"unfinished: {len(history.epochs)} of {history.options['epochs']} epochs")
    return Recorded(path, history, shared)


def find_runs(directory: Path, table: Sequence[Option]) -> tuple[list[Recorded], list[str]]:
    """The finished runs at any depth under a directory, and what was left out and why, a line each.

    Raises:
        UserError: there is no directory or no history in it, or two data sets cannot be told apart by name.
    """
    try:
        paths = sorted(directory.rglob(HISTORY))
    except OSError as error:
        raise UserError(
            f"cannot look into {directory}: {error.strerror}; give another --save_path"
        ) from error
    if not paths:
        raise UserError(
            f"there is no {HISTORY} under {directory}: train with --save_history, or give --save_path"
        )
    runs, left_out = [], []
    for path in paths:
        try:
            runs.append(read_run(path, table))
        except ValueError as error:
            left_out.append(f"{path}: {error}")
    check_names(runs)
    if not all(run.options["synthetic"] for run in runs):
        generated = [run for run in runs if run.options["synthetic"]]
        left_out += [f"{run.path}: generated images, beside runs on real ones" for run in generated]
        runs = [run for run in runs if not run.options["synthetic"]]
    first = {}
    for run in runs:
        key = (run.data_set, str(run.shared), run.options["seed"], run.options["task"])
        same = first.setdefault(key, run)
        if same is not run:
            left_out.append(f"{run.path}: same options and seed as {same.path}")
    return list(first.values()), left_out


def check_names(runs: Sequence[Recorded]) -> None:
    """Make sure that files of one name have one content.

    Raises:
        UserError: two of them differ.
    """
    seen: dict[str, Recorded] = {}
    for run in runs:
        title = run.history.data_set["title"]
        other = seen.setdefault(title, run)
        if other.shared["data"] != run.shared["data"]:
            raise UserError(
                f"{other.path} and {run.path} are of files that are both called {title} and differ in "
                f"content: report on them apart, or rename one and train again"
            )


class Group:
    """Runs on one data set that differ in the seed alone, in setting 2 also in the task."""

    def __init__(self, runs: Sequence[Recorded]) -> None:
        self.shared = runs[0].shared
        self.options = runs[0].options
        self.setting = self.options["setting"]
        self.tasks = [ALL_CLASSES] if self.setting == 0 else runs[0].history.data_set["tasks"]
        by_seed: dict[int, list[Recorded]] = {}
        for run in runs:
            by_seed.setdefault(run.options["seed"], []).append(run)
        num_tasks = {seed: sum(len(run.history.tasks) for run in runs) for seed, runs in by_seed.items()}
        self._by_seed = {s: runs for s, runs in by_seed.items() if num_tasks[s] == len(self.tasks)} or by_seed
        self.is_complete = len(self.tasks) in num_tasks.values()
        self.lacking = {seed: len(self.tasks) - n for seed, n in num_tasks.items() if n < len(self.tasks)}

    @property
    def num_runs(self) -> int:
        """Number of runs that the scores are of."""
        return sum(map(len, self._by_seed.values()))

    def scores(self, key: str = "accuracy", epoch: int = -1) -> np.ndarray:
        """Scores of an epoch, seeds x tasks.

        Seeds that lack a task are left out, unless all do; then NaN stands where there is no run.

        Args:
            key: `accuracy` or `balanced_accuracy`.
            epoch: from 0; the last one by default.
        """
        scores = np.full((len(self._by_seed), len(self.tasks)), np.nan)
        for row, runs in zip(scores, self._by_seed.values(), strict=True):
            for run in runs:
                for name, score in zip(run.history.tasks, run.history.epochs[epoch][key], strict=True):
                    row[self.tasks.index(name)] = score
        return scores

    def per_task(self) -> dict[str, float]:
        """Accuracy of each task that there are runs of, averaged over seeds."""
        columns = zip(self.tasks, self.scores().T, strict=True)
        return {name: float(np.nanmean(column)) for name, column in columns if not np.isnan(column).all()}

    def means(self, key: str = "accuracy") -> np.ndarray:
        """Mean of a score over the tasks, per seed."""
        return np.nanmean(self.scores(key), axis=1)

    @property
    def curve(self) -> np.ndarray:
        """Mean accuracy over the tasks, seeds x epochs."""
        epochs = range(self.options["epochs"])
        return np.stack([np.nanmean(self.scores(epoch=epoch), axis=1) for epoch in epochs], axis=1)


class Comparison:
    """The groups of runs on one data set, ordered by setting.

    Attributes:
        title: the data set in words.
        tasks: the names of its tasks.
        groups: what is compared.
        constant_accuracy: what always giving the commonest answer scores, as a mean over tasks.
    """

    def __init__(self, runs: Sequence[Recorded]) -> None:
        history = runs[0].history
        self.title = history.data_set["title"]
        if isinstance(history.options["data"], str):
            self.title += f" (content {runs[0].shared['data']})"
        if history.data_set["scored_on"] == "validation":
            self.title += ", scored on validation images"
        self.tasks = history.data_set["tasks"]
        groups: dict[tuple, list[Recorded]] = {}
        for run in runs:
            groups.setdefault((run.options["setting"], str(run.shared)), []).append(run)
        self.groups = [Group(groups[key]) for key in sorted(groups)]
        constant = {}
        for each in [run.history for run in runs if run.options["setting"]] or [history]:
            constant |= dict(zip(each.tasks, each.constant_accuracy, strict=True))
        self.constant_accuracy = float(np.mean(list(constant.values())))
        told_by = [name for name in self.groups[0].shared if name not in ("setting", "data", "weights")]
        self._shown = [name for name in told_by if len(self._values(name)) > 1]

    def _values(self, name: str) -> set[str]:
        """The different values of an option among the groups that it goes with."""
        return {str(group.shared[name]) for group in self.groups if group.shared[name] is not None}

    def label(self, group: Group) -> str:
        """Setting in words, with the options that tell it from other groups."""
        told = [f"{name} {group.shared[name]}" for name in self._shown if group.shared[name] is not None]
        weightings = self._weightings(group.setting)
        if len(weightings) > 1:
            told.append(f"weights {weightings.index(group.shared['weights']) + 1}")
        return ", ".join([f"{group.setting} {SETTINGS[group.setting].name}", *told])

    def _weightings(self, setting: int) -> list[list[float]]:
        """The different weights among the groups of a setting."""
        weightings = []
        for group in self.groups:
            if group.setting == setting and group.shared["weights"] not in weightings:
                weightings.append(group.shared["weights"])
        return weightings

    def weights_explained(self) -> list[str]:
        """A line per weighting that a label calls by a number."""
        return [
            f"weights {number} of setting {setting}: {' '.join(f'{weight:.4g}' for weight in weights)}"
            for setting in sorted({group.setting for group in self.groups})
            if len(self._weightings(setting)) > 1
            for number, weights in enumerate(self._weightings(setting), 1)
        ]

    def baseline(self, group: Group) -> np.ndarray | None:
        """Accuracy per task of single-task training with the group's options, or None if a task lacks it."""
        if group.setting in (0, SINGLE_TASK):
            return None
        for other in self.groups:
            if other.setting == SINGLE_TASK and agree(group, other):
                per_task = other.per_task()
                if len(per_task) == len(group.tasks) and all(per_task.values()):
                    return np.array([per_task[name] for name in group.tasks])
        return None

    def change(self, group: Group) -> Change | None:
        """Change against single-task training, or None where that is missing or incomplete."""
        baseline = self.baseline(group)
        return None if baseline is None else change_against(group.scores(), baseline)


def agree(one: Group, other: Group) -> bool:
    """Whether two groups share all that both have, but for the setting."""
    pairs = [(one.shared[name], other.shared[name]) for name in one.shared if name != "setting"]
    return all(first == second for first, second in pairs if first is not None and second is not None)
