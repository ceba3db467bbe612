"""A report that compares runs by their histories: a table, a statement, a figure and a file of rows."""

import csv
import io
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from files import HISTORY, are_records, is_number, replacing
from settings import DATA_SETS, LATER_OPTIONS, SETTINGS, SYNTHETIC, DataSpec, UserError

ROWS = "report.csv"

SINGLE_TASK = 2

GROUPED_BY = ("epochs", "batch_size", "lr", "image_size", "precision", "weights", "version")
"""The options that runs to be averaged must share, beside data set and setting."""

COMPARED_BY = tuple(name for name in GROUPED_BY if name != "weights")
"""Those of them that a group must share with its single-task baseline, which has no weights."""


@dataclass(frozen=True)
class Run:
    """A finished run: its options, what it was scored on, and its records of every epoch."""

    path: Path
    options: dict
    tasks: list[str]
    epochs: list[dict]

    @property
    def spec(self) -> DataSpec:
        """The data set that it was trained on."""
        return (SYNTHETIC if self.options["synthetic"] else DATA_SETS)[self.options["data"]]

    @property
    def group(self) -> tuple:
        """What it shares with the runs that it is averaged with."""
        weights = self.options["weights"]
        shares = None if weights is None else [round(weight / sum(weights), 12) for weight in weights]
        options = self.options | {"weights": shares}
        return (self.options["setting"], *(str(options[name]) for name in GROUPED_BY))


def read_run(path: Path) -> Run:
    """Read a history.

    Raises:
        ValueError: it is none, or of a run that has not ended; the text says so.
    """
    try:
        history = json.loads(path.read_bytes())
        run = Run(path, LATER_OPTIONS | history["options"], history["tasks"], history["epochs"])
        wanted, fits = run.options["epochs"], _fits(run)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        fits = False
    if not fits:
        raise ValueError("is not a history of this program")
    if len(run.epochs) != wanted:
        raise ValueError(f"unfinished: {len(run.epochs)} of {wanted} epochs")
    return run


def _fits(run: Run) -> bool:
    """Whether a history holds what a run writes; what is missing or of another type may raise, too."""
    setting, weights, task = (run.options[name] for name in ("setting", "weights", "task"))
    numbers = [setting, run.options["epochs"], run.options["seed"], run.options["data"], task or 0]
    if not all(type(number) is int and number >= 0 for number in numbers):
        return False
    names = list(run.spec.tasks)
    scored = {0: ["all classes"], SINGLE_TASK: names[task or 0 : (task or 0) + 1]}.get(setting, names)
    if weights is not None:
        fits = len(weights) == len(names) and all(map(is_number, weights)) and sum(weights) > 0
    else:
        fits = not SETTINGS[setting].weighted
    return (
        fits
        and run.options["epochs"] > 0
        and run.tasks == scored
        and are_records(run.epochs, len(scored))
        and len(run.group) > 0
    )


def find_runs(directory: Path) -> tuple[list[Run], list[str]]:
    """The finished runs at any depth under a directory, and what was left out and why, a line each.

    Raises:
        UserError: there is no directory or no history in it.
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
            runs.append(read_run(path))
        except ValueError as error:
            left_out.append(f"{path}: {error}")
    if any(not run.spec.synthetic for run in runs):
        left_out += [
            f"{run.path}: generated images, beside runs on real ones" for run in runs if run.spec.synthetic
        ]
        runs = [run for run in runs if not run.spec.synthetic]
    first = {}
    for run in runs:
        same = first.setdefault((run.spec.title, run.group, run.options["seed"], run.options["task"]), run)
        if same is not run:
            left_out.append(f"{run.path}: same options and seed as {same.path}")
    return list(first.values()), left_out


class Group:
    """Runs on one data set that differ in the seed alone, in setting 2 also in the task."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.options = runs[0].options
        self.setting = self.options["setting"]
        self.tasks = ["all classes"] if self.setting == 0 else list(runs[0].spec.tasks)
        by_seed: dict[int, list[Run]] = {}
        for run in runs:
            by_seed.setdefault(run.options["seed"], []).append(run)
        num_tasks = {seed: sum(len(run.tasks) for run in runs) for seed, runs in by_seed.items()}
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
                for name, score in zip(run.tasks, run.epochs[epoch][key], strict=True):
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


def spread(values: np.ndarray) -> float:
    """Standard deviation over seeds, NaN for a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def t_quantile(freedom: int) -> float:
    """The value that a t-distributed variable stays within, on either side of 0, with probability 0.95.

    The probability is a finite sum (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4); it is inverted by
    bisection.

    Args:
        freedom: degrees of freedom, from 1.
    """

    def probability(angle: float) -> float:
        odd = freedom % 2
        term = total = math.cos(angle) if odd else 1.0
        for k in range(2 + odd, freedom, 2):
            term *= math.cos(angle) ** 2 * (k - 1) / k
            total += term
        total = 0.0 if freedom == 1 else math.sin(angle) * total
        return 2 / math.pi * (angle + total) if odd else total

    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if probability(middle) < 0.95 else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


@dataclass(frozen=True)
class Change:
    """Relative change of accuracy against single-task training, in per cent.

    Attributes:
        tasks: of each task, averaged over seeds.
        mean: over tasks and seeds: delta_m (Maninis et al. 2019; Vandenhende et al. 2021).
        half_width: of the 95 % confidence interval of `mean` over seeds, NaN for a single seed.
    """

    tasks: np.ndarray
    mean: float
    half_width: float


def change_against(group: Group, baseline: np.ndarray) -> Change:
    """How much better or worse the tasks are than with single-task training.

    Args:
        baseline: accuracy of single-task training per task, averaged over seeds.
    """
    changes = 100 * (group.scores() - baseline) / baseline
    per_seed = changes.mean(axis=1)
    seeds = len(per_seed)
    half_width = t_quantile(seeds - 1) * spread(per_seed) / math.sqrt(seeds) if seeds > 1 else math.nan
    return Change(changes.mean(axis=0), float(per_seed.mean()), half_width)


class Comparison:
    """The groups of runs on one data set, ordered by setting."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.spec = runs[0].spec
        groups: dict[tuple, list[Run]] = {}
        for run in runs:
            groups.setdefault(run.group, []).append(run)
        self.groups = [Group(groups[key]) for key in sorted(groups)]
        self._shown = [
            name for name in COMPARED_BY if len({str(group.options[name]) for group in self.groups}) > 1
        ]

    def label(self, group: Group) -> str:
        """Setting in words, with the options that tell it from other groups."""
        options = [f"{name} {group.options[name]}" for name in self._shown]
        weightings = self._weightings(group.setting)
        if len(weightings) > 1:
            options.append(f"weights {weightings.index(group.options['weights']) + 1}")
        return ", ".join([f"{group.setting} {SETTINGS[group.setting].name}", *options])

    def _weightings(self, setting: int) -> list[list[float]]:
        """The different weights among the groups of a setting."""
        weightings = []
        for group in self.groups:
            if group.setting == setting and group.options["weights"] not in weightings:
                weightings.append(group.options["weights"])
        return weightings

    def weights_explained(self) -> list[str]:
        """A line per weighting that a label calls by a number."""
        return [
            f"weights {number} of setting {setting}: {' '.join(f'{weight:g}' for weight in weights)}"
            for setting in sorted({group.setting for group in self.groups})
            if len(self._weightings(setting)) > 1
            for number, weights in enumerate(self._weightings(setting), 1)
        ]

    def baseline(self, group: Group) -> np.ndarray | None:
        """Accuracy per task of single-task training with the group's options, or None if a task lacks it."""
        if group.setting in (0, SINGLE_TASK):
            return None
        for other in self.groups:
            same = all(other.options[name] == group.options[name] for name in COMPARED_BY)
            if other.setting == SINGLE_TASK and same:
                per_task = other.per_task()
                if len(per_task) == len(group.tasks) and all(per_task.values()):
                    return np.array([per_task[name] for name in group.tasks])
        return None

    def change(self, group: Group) -> Change | None:
        """Change against single-task training, or None where that is missing or incomplete."""
        baseline = self.baseline(group)
        return None if baseline is None else change_against(group, baseline)

    @property
    def constant_accuracy(self) -> float:
        """What always giving the commonest answer scores, as a mean over tasks."""
        shares = []
        for row in self.spec.tasks.values():
            numbers = [number for number in row if number >= 0]
            shares.append(max(numbers.count(number) for number in numbers) / len(numbers))
        return float(np.mean(shares))


def table(comparison: Comparison) -> list[str]:
    """A line per group under a line of headings."""
    rows = [("setting", "runs", "accuracy", "balanced", "worst task", "best task", "delta_m % [95 % CI]")]
    for group in comparison.groups:
        ranked = sorted((score, name) for name, score in group.per_task().items())
        (worst, worst_name), (best, best_name) = ranked[0], ranked[-1]
        change = comparison.change(group)
        rows.append(
            (
                comparison.label(group),
                str(group.num_runs),
                with_spread(group.means()),
                f"{group.means('balanced_accuracy').mean():.4f}",
                "-" if group.setting == 0 else f"{worst_name} {worst:.3f}",
                "-" if group.setting == 0 else f"{best_name} {best:.3f}",
                delta_words(group, change),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def with_spread(means: np.ndarray) -> str:
    """A mean over seeds with its standard deviation."""
    return f"{means.mean():.4f} ± " + ("-" if len(means) == 1 else f"{spread(means):.4f}")


def delta_words(group: Group, change: Change | None) -> str:
    """delta_m as it stands in the table."""
    if group.setting == SINGLE_TASK:
        return "0 by definition" if group.is_complete else "-"
    if change is None:
        return "-"
    if math.isnan(change.half_width):
        return f"{change.mean:+.2f} [-]"
    return (
        f"{change.mean:+.2f} [{change.mean - change.half_width:+.2f}, {change.mean + change.half_width:+.2f}]"
    )


def statement(comparison: Comparison) -> str:
    """Which group did best, by how much, and whether that is more than the seeds differ among themselves."""
    scored = [group for group in comparison.groups if group.setting != 0 and group.is_complete]
    if len(scored) < 2:
        return "Fewer than two groups are scored on all tasks: there is nothing to compare."
    first, second = sorted(scored, key=lambda group: group.means().mean(), reverse=True)[:2]
    difference = first.means().mean() - second.means().mean()
    text = (
        f"Best: {comparison.label(first)}, with a mean accuracy over tasks of {first.means().mean():.4f}, "
        f"{difference:.4f} above the next, {comparison.label(second)}. "
    )
    if difference == 0:
        text = f"{comparison.label(first)} and {comparison.label(second)} do best, equally well. "
    spreads = [spread(group.means()) for group in (first, second)]
    if any(math.isnan(value) for value in spreads):
        return (
            text
            + "At least one of the two has a single seed, so whether seeds differ by as much is not known."
        )
    verdict = "larger than" if difference > max(spreads) else "within"
    return text + f"That is {verdict} the spread between seeds (standard deviation {max(spreads):.4f})."


def incomplete(comparison: Comparison) -> list[str]:
    """A line for each seed of a group that has not trained every task."""
    return [
        f"{comparison.label(group)}: seed {seed} lacks {lacking} of {len(group.tasks)} tasks"
        + (" and is left out of the means" if group.is_complete else "; the means are over the others")
        for group in comparison.groups
        for seed, lacking in group.lacking.items()
    ]


def transfer(comparison: Comparison, verbose: bool) -> list[str]:
    """How many tasks gain and lose against single-task training, task by task if asked for."""
    lines = []
    for group in comparison.groups:
        change = comparison.change(group)
        if change is None:
            continue
        gain, lose = int((change.tasks > 0).sum()), int((change.tasks < 0).sum())
        lines.append(
            f"{comparison.label(group)}: {gain} of {len(group.tasks)} tasks gain and {lose} lose "
            f"(negative transfer) against single-task training"
        )
        if verbose:
            lines += [
                f"    {name} {change:+.2f} %" for name, change in zip(group.tasks, change.tasks, strict=True)
            ]
    return lines


def text(comparison: Comparison, verbose: bool) -> str:
    """The printed report of one data set."""
    spec = comparison.spec
    lines = [
        f"{spec.title}: {len(spec.tasks)} tasks",
        "",
        *table(comparison),
        f"constant answer: always giving a task's commonest answer scores {comparison.constant_accuracy:.4f}",
        "",
        statement(comparison),
        *comparison.weights_explained(),
        *incomplete(comparison),
        *transfer(comparison, verbose),
    ]
    return "\n".join(lines)


NOTES = """\
accuracy: mean over tasks of the last epoch, and over seeds ± their standard deviation; balanced: the mean of
the mean recall over a task's classes; delta_m: mean over tasks of the change relative to single-task training
(setting 2 with the same options, averaged over its seeds). Setting 0 is scored on all classes at once and
cannot be compared with the others."""


def write_rows(path: Path, runs: Sequence[Run]) -> None:
    """Write a file of comma-separated values with a row per run and task, and every option."""
    names = sorted({name for run in runs for name in run.options} - {"task"})
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(
        ["history", "data_set", "task", "accuracy", "balanced_accuracy", "loss", "task_option", *names]
    )
    for run in runs:
        last = run.epochs[-1]
        options = [run.options.get(name) for name in names]
        options = [" ".join(map(str, value)) if isinstance(value, list) else value for value in options]
        for task, *scores in zip(run.tasks, last["accuracy"], last["balanced_accuracy"], strict=True):
            row = [run.path, run.spec.title, task, *scores, last["loss"], run.options["task"], *options]
            writer.writerow(row)
    with replacing(path) as file:
        file.write(buffer.getvalue().encode(errors="backslashreplace"))


def report(directory: Path, verbose: bool) -> list[Comparison]:
    """Print the report on the runs under a directory and write report.csv into it.

    Returns:
        what was compared, data set by data set.

    Raises:
        UserError: there is nothing to report on, or the file cannot be written.
    """
    runs, left_out = find_runs(directory)
    data_sets: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.options["data"]):
        data_sets.setdefault(run.spec.title, []).append(run)
    comparisons = [Comparison(runs) for runs in data_sets.values()]
    for comparison in comparisons:
        print(text(comparison, verbose), end="\n\n")
    if comparisons:
        print(NOTES)
    for line in left_out:
        print(f"left out: {line}")
    sys.stdout.flush()
    if not runs:
        raise UserError(f"no run under {directory} can be reported: see what was left out")
    write_rows(directory / ROWS, runs)
    return comparisons
