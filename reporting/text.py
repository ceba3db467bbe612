"""The report in words: a table, what can be concluded from it, and files of rows."""

import csv
import io
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from files import replacing
from options import Option
from reporting.comparisons import (
    QUESTIONS,
    SEEDS,
    Comparison,
    Question,
    Transfer,
    commands,
    common_seeds,
    compare,
)
from reporting.histories import SINGLE_TASK, Group, Recorded, Study, find_runs, studies
from reporting.statistics import CANNOT_BE_TOLD, CONFIDENCE, Estimate, estimate, expected_range
from settings import UserError

PRINTED, ROWS, COMPARISONS = "report.txt", "report.csv", "comparisons.csv"
"""The files that a report leaves beside the figure."""

NEVER_COMPARED = ("code", "precision", "image_size", "batch_size")
"""What ways of training have in common where the best and the worst of them are named."""


class Section:
    """What is said of one data set.

    Attributes:
        study: the groups of runs.
        answers: the comparisons that answer each question, by name.
        transfers: of each group that single-task training can be compared with, that comparison.
        comparisons: all of them, in order.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.answers = {q.name: compare(q, study) for q in QUESTIONS if q.applies(study)}
        self.transfers: dict[Group, Transfer] = {}
        self.comparisons: list[Comparison] = []
        for name, comparisons in self.answers.items():
            for comparison in comparisons:
                self.comparisons.append(comparison)
                if name == "single-task":
                    transfer = Transfer(comparison, study)
                    self.transfers.setdefault(comparison.first, transfer)
                    self.comparisons += transfer.comparisons()


# Numbers in words


def interval(difference: Estimate, digits: int = 2) -> str:
    """The ends of an interval in brackets."""
    if math.isnan(difference.low):
        return "[-]"
    return f"[{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]"


def counted(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def line(comparison: Comparison, study: Study) -> str:
    """A comparison as it is printed."""
    difference = comparison.difference
    unit = "% (delta_m)" if comparison.measure == "delta_m" else "points"
    task = comparison.measure.partition(" of ")[2]
    return (
        f"{study.label(comparison.first)} against {study.label(comparison.second)}"
        f"{f' in {task}' if task else ''}: {difference.mean:+.2f} {interval(difference)} {unit}, "
        f"{counted(difference.seeds, 'seed')}: {difference.verdict}"
    )


def unlike(comparison: Comparison) -> str | None:
    """In what the two sides were not trained alike, or None."""
    differ = []
    for name in ("steps", "images", "parameters"):
        first, second = comparison.first.total(name), comparison.second.total(name)
        if first is None or second is None:
            differ.append(f"{name} not recorded")
        elif first != second:
            differ.append(f"{name} {first:,.0f} and {second:,.0f}")
    return f"the sides differ: {'; '.join(differ)}" if differ else None


def span(amounts: Sequence[float]) -> str:
    """Amounts of the runs of a group: one number where they are the same, else the least and the most."""
    if not amounts:
        return "-"
    least, most = f"{min(amounts):,.0f}", f"{max(amounts):,.0f}"
    return least if least == most else f"{least} to {most}"


# The parts of a section


def table(section: Section) -> list[str]:
    """A line per group under a line of headings."""
    study = section.study
    rows = [
        (
            "setting",
            "accuracy [95 % CI]",
            "balanced",
            "delta_m % [95 % CI]",
            "worst task",
            "best task",
            "runs",
            "seeds",
            "steps",
            "images",
            "parameters",
            "seconds",
        )
    ]
    for group in (each for group in study.groups for each in (group, study.own.get(group)) if each):
        ranked = sorted((score, name) for name, score in group.per_task().items())
        (worst, worst_name), (best, best_name) = ranked[0], ranked[-1]
        seconds = group.amounts("seconds")
        rows.append(
            (
                study.label(group),
                f"{group.means().mean():.4f} {interval(estimate(group.means()), 4).replace('+', '')}",
                f"{group.means('balanced_accuracy').mean():.4f}",
                delta_words(section, group),
                "-" if group.setting == 0 else f"{worst_name} {worst:.3f}",
                "-" if group.setting == 0 else f"{best_name} {best:.3f}",
                str(len(group.runs)),
                str(len(group.seeds)),
                *(span(group.amounts(name)) for name in ("steps", "images", "parameters")),
                f"{np.mean(seconds):,.0f}" if seconds else "-",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def delta_words(section: Section, group: Group) -> str:
    """delta_m as it stands in the table."""
    if group.setting == SINGLE_TASK:
        return "0 by definition" if group.is_complete else "-"
    transfer = section.transfers.get(group)
    if not transfer or not transfer.change:
        return "-"
    return f"{transfer.change.mean:+.2f} {interval(transfer.change)}"


def explained(section: Section) -> list[str]:
    """What one has to know to read the table of this data set."""
    study = section.study
    lines = [
        f"constant answer: always giving a task's commonest answer scores "
        f"{study.constant_answer('accuracy'):.4f}, balanced {study.constant_answer('balanced_accuracy'):.4f}"
    ]
    if study.measure == "balanced_accuracy" and section.transfers:
        lines.append(
            "delta_m and the tasks are compared in balanced accuracy, as a constant answer scores so high"
        )
    shares: dict[tuple, Group] = {}
    for group in study.groups:
        if parameters := group.runs[0].history.parameters:
            shares.setdefault((parameters["encoder"], parameters["heads"]), group)
    if shares:
        (encoder, heads), group = max(shares.items(), key=lambda item: sum(item[0]))
        lines.append(
            f"parameters: {encoder / 1e6:.2f} of the {(encoder + heads) / 1e6:.2f} million of "
            f"{study.label(group)} are the encoder's, the others its {'heads' if group.setting > 2 else 'head'}'"
        )
    if any(group.setting == SINGLE_TASK for group in study.groups):
        lines.append("2 single task: steps, images, parameters and seconds are those of each of its models")
    lines += study.weights_explained()
    lines += [
        f"{study.label(group)}: seed {seed} lacks {lacking} of {len(group.tasks)} tasks"
        + (
            " and is left out"
            if group.is_complete
            else "; the means are over the others, nothing is compared"
        )
        for group in study.groups
        for seed, lacking in group.lacking.items()
    ]
    for name in ("code", "precision"):
        if len(values := study.values(name)) > 1:
            lines.append(f"runs of different {name} are neither averaged nor compared: {', '.join(values)}")
    return lines


def apart(comparison: Comparison, study: Study) -> str:
    """A difference that can be told, in words."""
    first, second, difference = comparison.first, comparison.second, comparison.difference
    if difference.mean < 0:
        first, second = second, first
        difference = Estimate(difference.seeds, -difference.mean, -difference.high, -difference.low)
    return (
        f"{study.label(first)} scores {difference.mean:.2f} [{difference.low:.2f}, {difference.high:.2f}] points "
        f"more than {study.label(second)}"
    )


def answer(question: Question, comparisons: Sequence[Comparison], study: Study) -> str:
    """What comparisons say about a question."""
    told = [c for c in comparisons if c.difference.verdict != CANNOT_BE_TOLD]
    open_ones = [c for c in comparisons if c.difference.verdict == CANNOT_BE_TOLD]
    told.sort(key=lambda c: -abs(c.difference.mean))
    parts = []
    if len(told) == 1:
        parts.append(apart(told[0], study))
    elif told:
        parts.append(
            f"{len(told)} of {len(comparisons)} comparisons tell a difference, the largest: {apart(told[0], study)}; "
            f"the smallest: {apart(told[-1], study)}"
        )
    bounded = [c for c in open_ones if not math.isnan(c.difference.low)]
    if bounded:
        low, high = min(c.difference.low for c in bounded), max(c.difference.high for c in bounded)
        which = (
            f"{study.label(bounded[0].first)} against {study.label(bounded[0].second)}"
            if len(bounded) == 1
            else f"{len(bounded)} comparisons, whose intervals all lie"
        )
        parts.append(f"cannot be told: {which} between {low:+.2f} and {high:+.2f} points")
    if unbounded := len(open_ones) - len(bounded):
        parts.append(f"cannot be told, for want of seeds that differ: {counted(unbounded, 'comparison')}")
    return f"{question.name} ({question.words}): {'; '.join(parts)}"


def extremes(study: Study) -> list[str]:
    """The best way of training and the worst, and how far apart seeds alone would put as many equal ones."""
    ways: dict[str, list[Group]] = {}
    for group in study.groups:
        if group.setting != 0 and group.is_complete:
            ways.setdefault(str([group.shared[name] for name in NEVER_COMPARED]), []).append(group)
    lines = []
    for groups in ways.values():
        if len(groups) < 2:
            continue
        seeds = [s for s in groups[0].seeds if all(s in common_seeds(groups[0], g) for g in groups)]
        means = [group.means(seeds=seeds or None).mean() for group in groups]
        best, worst = int(np.argmax(means)), int(np.argmin(means))
        text = (
            f"of {len(groups)} ways of training the best is {study.label(groups[best])}, {means[best]:.4f}, the "
            f"worst {study.label(groups[worst])}, {means[worst]:.4f}: {100 * (means[best] - means[worst]):.2f} "
            f"points apart"
        )
        if len(seeds) > 1:
            chance = 100 * expected_range(np.array([group.means(seeds=seeds) for group in groups]))
            text += (
                f"; if all were equally good, seeds alone would put them {chance:.2f} points apart on average "
                f"({len(seeds)} common seeds)"
            )
        else:
            text += "; without two seeds that all of them have it cannot be told what seeds alone would do"
        steps = [total for group in groups if (total := group.total("steps"))]
        if steps and len(set(steps)) > 1:
            text += f"; their steps are {span(steps)}"
        lines.append(text)
    return lines or ["fewer than two ways of training have every task: there is nothing to compare"]


def transfer_lines(section: Section, verbose: bool) -> list[str]:
    """How many tasks gain and lose against single-task training, task by task if asked for."""
    lines = []
    for transfer in section.transfers.values():
        label = section.study.label(transfer.comparison.first)
        if transfer.no_better:
            lines.append(
                f"{label}: no delta_m, as single-task training is no better than a constant answer in "
                f"{', '.join(transfer.no_better)}"
            )
        if transfer.tasks.seeds < SEEDS:
            lines.append(
                f"{label}: it takes {SEEDS} common seeds to say which tasks gain or lose against single-task "
                f"training, and there {'is' if transfer.tasks.seeds == 1 else 'are'} {transfer.tasks.seeds}"
            )
        else:
            verdicts = list(transfer.tasks.verdict)
            parts = [
                f"{verdicts.count(verdict)} {word}"
                for verdict, word in (
                    ("higher", "gain"),
                    ("lower", "lose (negative transfer)"),
                    (CANNOT_BE_TOLD, CANNOT_BE_TOLD),
                )
            ]
            lines.append(
                f"{label}: of {counted(len(verdicts), 'task')} {parts[0]}, {parts[1]} and {parts[2]} against "
                f"single-task training; chance alone would tell {(1 - CONFIDENCE) * len(verdicts):.1f} apart"
            )
        if verbose:
            tasks = [c for c in transfer.comparisons() if c.measure != "delta_m"]
            lines += [f"    {line(comparison, section.study)}" for comparison in tasks]
    return lines


def details(section: Section) -> list[str]:
    """Every comparison of means, a line each, under its question."""
    lines = []
    for name, comparisons in section.answers.items():
        if not comparisons:
            continue
        lines.append(f"{name}:")
        for comparison in comparisons:
            lines.append(f"  {line(comparison, section.study)}")
            transfer = section.transfers.get(comparison.first) if name == "single-task" else None
            if transfer and transfer.comparison is comparison and transfer.change:
                lines.append(f"  {line(transfer.comparisons()[0], section.study)}")
            if differ := unlike(comparison):
                lines.append(f"    {differ}")
    return lines


def text(section: Section, directory: Path, table_of_options: Sequence[Option], verbose: bool) -> str:
    """The printed report of one data set."""
    study = section.study
    tasks = counted(len(study.tasks), "task")
    lines = [f"{study.title}: {tasks}", "", *table(section), "", *explained(section), ""]
    lines.append("What matters, in points of mean accuracy [95 % interval over seeds]:")
    lacking = []
    for question in QUESTIONS:
        if not question.applies(study):
            continue
        comparisons = section.answers[question.name]
        if comparisons:
            lines.append(f"- {answer(question, comparisons, study)}")
        if all(comparison.difference.seeds < 2 for comparison in comparisons):
            lacking.append(question)
    lines += [f"- {each}" for each in extremes(study)]
    if single := sum(c.difference.seeds == 1 for answers in section.answers.values() for c in answers):
        lines.append(f"- {counted(single, 'comparison')} of one seed only: one seed decides nothing")
    if transfers := transfer_lines(section, verbose):
        lines += [
            "",
            "Single-task training:",
            *(f"- {each}" if each[0] != " " else each for each in transfers),
        ]
    if listed := details(section):
        lines += ["", "Every comparison:", *listed]
        intervals = [
            c for answers in section.answers.values() for c in answers if not math.isnan(c.difference.low)
        ]
        lines.append(
            f"{counted(len(intervals), 'interval')}: were all ways equally good, chance alone would tell "
            f"{(1 - CONFIDENCE) * len(intervals):.1f} apart"
        )
    if lacking:
        lines += ["", "Not answered for lack of runs, and the commands that give them:"]
        for question in lacking:
            lines.append(f"- {question.name} ({question.words}):")
            lines += [f"  {each}" for each in commands(question, study, directory, table_of_options)]
    return "\n".join(lines)


NOTES = """\
accuracy: mean over tasks after the last epoch, and over seeds; balanced: the mean of the mean recall over a task's
classes; delta_m: mean over tasks of the change relative to single-task training (setting 2); own statistics: the
same weights, scored with each task's own normalisation statistics. Setting 0 is scored on all classes at once and is
compared with nothing. Intervals contain the truth in 95 of 100 studies; they are over seeds, and another test set would
give other numbers. docs/report.md says more."""

APART = (
    "Data sets, files of different content, and test and validation images are reported apart, and nothing is "
    "compared across them."
)


# Files


def _csv(rows: Iterable[Sequence[object]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue().encode(errors="backslashreplace")


def run_rows(runs: Sequence[Recorded]) -> list[list[object]]:
    """A row per run and task with its scores, amounts and every option, under a row of headings."""
    names = sorted({name for run in runs for name in run.options} - {"task"})
    columns = (
        "history data_set scored_on task accuracy balanced_accuracy own_statistics_accuracy "
        "own_statistics_balanced_accuracy training_loss steps images parameters seconds task_option code"
    )
    rows: list[list[object]] = [[*columns.split(), *names]]
    for run in runs:
        history, last = run.history, run.history.epochs[-1]
        options = [run.options.get(name) for name in names]
        options = [" ".join(map(str, value)) if isinstance(value, list) else value for value in options]
        amounts = [run.amount(name) for name in ("steps", "images", "parameters", "seconds")]
        own = history.own_statistics or dict.fromkeys(
            ("accuracy", "balanced_accuracy"), [None] * len(history.tasks)
        )
        scores = (each[measure] for each in (last, own) for measure in ("accuracy", "balanced_accuracy"))
        for task, *of_task in zip(history.tasks, *scores, strict=True):
            rows.append(
                [run.path, history.data_set["title"], history.data_set["scored_on"], task, *of_task]
                + [last["loss"], *amounts, run.options["task"], history.code, *options]
            )
    return rows


def comparison_rows(sections: Sequence[Section]) -> list[list[object]]:
    """A row per comparison under a row of headings; numbers to four digits after the point."""
    columns = "data_set question first second measure seeds difference low high verdict"
    rows: list[list[object]] = [columns.split()]
    for section in sections:
        label = section.study.label
        for c in section.comparisons:
            difference = c.difference
            numbers = [
                "" if math.isnan(number) else f"{number:.4f}"
                for number in (difference.mean, difference.low, difference.high)
            ]
            sides = [label(c.first), label(c.second)]
            rows.append(
                [
                    section.study.title,
                    c.question,
                    *sides,
                    c.measure,
                    difference.seeds,
                    *numbers,
                    difference.verdict,
                ]
            )
    return rows


def report(directory: Path, verbose: bool, table: Sequence[Option]) -> list[Section]:
    """Print the report on the runs under a directory, and write it and its rows into it.

    Returns:
        what was said, data set by data set.

    Raises:
        UserError: there is nothing to report on, or a file cannot be written.
    """
    runs, left_out = find_runs(directory, table)
    sections = [Section(study) for study in studies(runs)]
    parts = [text(section, directory, table, verbose) for section in sections]
    closing = [NOTES] if sections else []
    if len(sections) > 1:
        closing.append(APART)
    closing += [f"left out: {each}" for each in left_out]
    printed = "\n\n".join([*parts, "\n".join(closing)])
    print(printed)
    sys.stdout.flush()
    if not runs:
        raise UserError(f"no run under {directory} can be reported: see what was left out")
    for name, content in (
        (PRINTED, f"{printed}\n".encode(errors="backslashreplace")),
        (ROWS, _csv(run_rows(runs))),
        (COMPARISONS, _csv(comparison_rows(sections))),
    ):
        with replacing(directory / name) as file:
            file.write(content)
    return sections
