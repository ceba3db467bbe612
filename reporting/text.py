"""The report in words: a table, a statement, and a file of rows."""

import csv
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from files import replacing
from options import Option
from reporting.histories import SINGLE_TASK, Comparison, Group, Recorded, find_runs
from reporting.statistics import Change, spread
from settings import UserError

ROWS = "report.csv"


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
    lines = [
        f"{comparison.title}: {len(comparison.tasks)} tasks",
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


def write_rows(path: Path, runs: Sequence[Recorded]) -> None:
    """Write a file of comma-separated values with a row per run and task, and every option."""
    names = sorted({name for run in runs for name in run.options} - {"task"})
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    columns = [
        "data_set",
        "scored_on",
        "task",
        "accuracy",
        "balanced_accuracy",
        "training_loss",
        "task_option",
        "code",
    ]
    writer.writerow(["history", *columns, *names])
    for run in runs:
        history, last = run.history, run.history.epochs[-1]
        options = [run.options.get(name) for name in names]
        options = [" ".join(map(str, value)) if isinstance(value, list) else value for value in options]
        data_set = [history.data_set["title"], history.data_set["scored_on"]]
        for task, *scores in zip(history.tasks, last["accuracy"], last["balanced_accuracy"], strict=True):
            result = [task, *scores, last["loss"], run.options["task"], history.code]
            writer.writerow([run.path, *data_set, *result, *options])
    with replacing(path) as file:
        file.write(buffer.getvalue().encode(errors="backslashreplace"))


def report(directory: Path, verbose: bool, table: Sequence[Option]) -> list[Comparison]:
    """Print the report on the runs under a directory and write report.csv into it.

    Returns:
        what was compared, data set by data set.

    Raises:
        UserError: there is nothing to report on, or the file cannot be written.
    """
    runs, left_out = find_runs(directory, table)
    data_sets: dict[tuple, list[Recorded]] = {}
    for run in sorted(runs, key=lambda run: run.data_set):
        data_sets.setdefault(run.data_set, []).append(run)
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
