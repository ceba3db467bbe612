"""The report in words: a table, what can be concluded from it, and every comparison."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from options import CommandError, Option
from reporting.comparisons import QUESTIONS, SEEDS, Comparison, Section
from reporting.histories import AMOUNTS, SINGLE_TASK, Group, Study
from reporting.missing import Missing, missing_runs
from reporting.statistics import CANNOT_BE_TOLD, CONFIDENCE, Estimate, estimate, expected_range
from running.streams import in_one_line
from settings import SETTINGS

HEADINGS = (
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

SHARED_BY_WAYS = ("code", "precision", "validation", "image_size", "batch_size")
"""What ways of training have in common where the best and the worst of them are named."""

NOTES = """\
accuracy: mean over tasks after the last epoch, and over seeds; balanced: likewise, of the mean recall over a
task's classes; delta_m: mean over tasks of the change relative to single-task training (setting 2); own
statistics: the same weights, scored with each task's own normalisation statistics. Steps, images, parameters
and seconds are of one run. Differences are formed seed by seed; their intervals (t distribution) contain the
truth in 95 of 100 studies, each by itself. They are over seeds: another test set would give other numbers.
docs/report.md says more."""

APART = (
    "Data sets, files of different content, and test and validation images are reported apart; nothing is "
    "averaged or compared across them."
)


# Numbers in words


def interval(difference: Estimate, sign: str = "+", digits: int = 2) -> str:
    """The ends of an interval in brackets.

    Args:
        difference: of no dimension.
        sign: `+` to write one before positive numbers, too.
        digits: after the point.
    """
    if math.isnan(difference.low):
        return "[-]"
    return f"[{difference.low:{sign}.{digits}f}, {difference.high:{sign}.{digits}f}]"


def counted(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def span(amounts: Sequence[float]) -> str:
    """One number where amounts are the same, else the least and the most."""
    if not amounts:
        return "-"
    least, most = f"{min(amounts):,.0f}", f"{max(amounts):,.0f}"
    return least if least == most else f"{least} to {most}"


def sides(comparison: Comparison, study: Study) -> str:
    """What is compared."""
    return f"{study.label(comparison.first)} against {study.label(comparison.second)}"


def one_line(comparison: Comparison, study: Study) -> str:
    """A comparison as it is printed."""
    difference = comparison.difference
    unit = "% (delta_m)" if comparison.measure == "delta_m" else "points"
    task = f" in {comparison.task}" if comparison.task else ""
    return (
        f"{sides(comparison, study)}{task}: {difference.mean:+.2f} {interval(difference)} {unit}, "
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


# The table


def table(section: Section) -> list[str]:
    """A line per group under a line of headings."""
    rows: list[tuple[str, ...]] = [HEADINGS]
    for group in section.study.groups:
        rows.append(row(section, group))
        if own := section.study.own.get(group):
            rows.append(row(section, own))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def row(section: Section, group: Group) -> tuple[str, ...]:
    """What stands in the table about a group."""
    ranked = sorted((score, name) for name, score in group.per_task().items())
    (worst, worst_name), (best, best_name) = ranked[0], ranked[-1]
    seconds = group.amounts("seconds")
    return (
        section.study.label(group),
        f"{group.means().mean():.4f} {interval(estimate(group.means()), '', 4)}",
        f"{group.means('balanced_accuracy').mean():.4f}",
        delta_m(section, group),
        "-" if not group.by_task else f"{worst_name} {worst:.3f}",
        "-" if not group.by_task else f"{best_name} {best:.3f}",
        str(len(group.runs)),
        str(len(group.seeds)),
        *(span(group.amounts(name)) for name in ("steps", "images", "parameters")),
        f"{np.mean(seconds):,.0f}" if seconds else "-",
    )


def delta_m(section: Section, group: Group) -> str:
    """delta_m as it stands in the table."""
    if group.setting == SINGLE_TASK:
        return "0 by definition" if group.is_complete else "-"
    transfer = section.transfers.get(group)
    if not transfer or not transfer.change:
        return "-"
    return f"{transfer.change.mean:+.2f} {interval(transfer.change)}"


def explained(section: Section) -> list[str]:
    """What has to be known to read the table of this data set."""
    study = section.study
    settings = dict.fromkeys(group.setting for group in study.groups)
    lines = [f"{setting} {SETTINGS[setting].name}: {SETTINGS[setting].words}" for setting in settings]
    for group in study.groups:
        if group.setting == SINGLE_TASK and group.is_complete:
            took = [f"{total:,.0f} {name}" for name in AMOUNTS if (total := group.total(name))]
            lines.append(f"{study.label(group)}: all models of a seed together took {', '.join(took)}")
    lines.append(
        f"constant answer: always giving a task's commonest answer scores "
        f"{study.constant_answer('accuracy'):.4f}, balanced {study.constant_answer('balanced_accuracy'):.4f}"
    )
    if study.measure == "balanced_accuracy" and section.transfers:
        lines.append(
            "delta_m, gains and losses are in balanced accuracy, as a constant answer has a high accuracy"
        )
    sizes = {group: size for group in study.groups if (size := group.runs[0].amount("parameters"))}
    if sizes:
        largest = max(sizes, key=sizes.__getitem__)
        encoder = largest.runs[0].history.parameters["encoder"] / 1e6
        lines.append(
            f"parameters: {encoder:.2f} of the {sizes[largest] / 1e6:.2f} million of "
            f"{study.label(largest)} are shared"
        )
    processors = set().union(*(run.processors for group in study.groups for run in group.runs))
    if len(processors) > 1:
        lines.append(
            f"processors: {', '.join(sorted(processors))}; their seconds do not compare, and a run scores a "
            "little differently on each"
        )
    lines += study.weights_explained()
    lines += [
        f"{study.label(group)}: seed {seed} lacks {len(lacking)} of {len(group.tasks)} tasks"
        + (" and is left out" if group.is_complete else "; the means are over the others, and not compared")
        for group in study.groups
        for seed, lacking in group.lacking.items()
    ]
    for name in ("code", "precision", "validation"):
        if len(values := study.values(name)) > 1:
            lines.append(
                f"runs of different {name} are neither averaged nor compared: {', '.join(map(str, values))}"
            )
    return lines


# What can be concluded


def conclusions(section: Section) -> list[str]:
    """Question by question what matters, by how much, and what cannot be told; then over all ways."""
    lines = []
    for question in QUESTIONS:
        if comparisons := section.answers.get(question.name):
            said = answer(comparisons, section.study)
            lines.append(f"{question.name} ({question.words}): {said}")
    lines += extremes(section.study)
    if alone := sum(c.difference.seeds == 1 for c in section.main):
        lines.append(f"one seed decides nothing: {counted(alone, 'comparison')} of a single common seed")
    return lines


def answer(comparisons: Sequence[Comparison], study: Study) -> str:
    """What the comparisons for a question say about it."""
    told = [c for c in comparisons if c.difference.verdict != CANNOT_BE_TOLD]
    told.sort(key=lambda comparison: -abs(comparison.difference.mean))
    parts = []
    if len(told) == 1:
        parts.append(apart(told[0], study))
    elif told:
        parts.append(
            f"{len(told)} of {len(comparisons)} comparisons tell a difference, the largest: "
            f"{apart(told[0], study)}; the smallest: {apart(told[-1], study)}"
        )
    untold = [c for c in comparisons if c.difference.verdict == CANNOT_BE_TOLD]
    bounded = [c for c in untold if not math.isnan(c.difference.low)]
    if bounded:
        low, high = min(c.difference.low for c in bounded), max(c.difference.high for c in bounded)
        which = f"{len(bounded)} comparisons, whose intervals all lie"
        if len(bounded) == 1:
            which = f"{sides(bounded[0], study)},"
        parts.append(f"cannot be told: {which} between {low:+.2f} and {high:+.2f} points")
    if unbounded := [c for c in untold if math.isnan(c.difference.low)]:
        which = sides(unbounded[0], study) if len(unbounded) == 1 else f"{len(unbounded)} comparisons"
        parts.append(
            f"cannot be told, as one seed or seeds that agree to the last digit give no interval: {which}"
        )
    return "; ".join(parts)


def apart(comparison: Comparison, study: Study) -> str:
    """A difference that can be told, in words."""
    higher, lower, difference = comparison.first, comparison.second, comparison.difference
    if difference.mean < 0:
        higher, lower = lower, higher
        difference = Estimate(difference.seeds, -difference.mean, -difference.high, -difference.low)
    return (
        f"{study.label(higher)} scores {difference.mean:.2f} {interval(difference, '')} points more than "
        f"{study.label(lower)}"
    )


def extremes(study: Study) -> list[str]:
    """The best way of training and the worst, and how far apart seeds alone would put as many equal ones."""
    ways: dict[str, list[Group]] = {}
    for group in study.groups:
        if group.by_task and group.is_complete:
            ways.setdefault(str([group.shared[name] for name in SHARED_BY_WAYS]), []).append(group)
    lines = []
    for groups in ways.values():
        if len(groups) < 2:
            continue
        seeds = [seed for seed in groups[0].seeds if all(seed in group.seeds for group in groups)]
        means = [group.means(seeds=seeds or None).mean() for group in groups]
        best, worst = int(np.argmax(means)), len(means) - 1 - int(np.argmin(means[::-1]))
        text = (
            f"of {len(groups)} ways of training the best is {study.label(groups[best])}, {means[best]:.4f}, "
            f"and the worst {study.label(groups[worst])}, {means[worst]:.4f}, "
            f"{100 * (means[best] - means[worst]):.2f} points apart"
        )
        if seeds and any(len(group.seeds) > len(seeds) for group in groups):
            text += f", over the {counted(len(seeds), 'seed')} that all have"
        if len(seeds) > 1:
            chance = 100 * expected_range(np.array([group.means(seeds=seeds) for group in groups]))
            text += (
                f"; were all equally good, {len(seeds)} seeds would put them {chance:.2f} apart on average"
            )
        else:
            text += "; how far apart seeds alone would put them takes two seeds that all of them have"
        steps = [total for group in groups if (total := group.total("steps"))]
        if len(set(steps)) > 1:
            text += f" (steps: {span(steps)})"
        lines.append(text)
    return lines or ["there are no two ways of training, with every task, that can be compared"]


def gains_and_losses(section: Section) -> list[str]:
    """How many tasks gain and lose against single-task training."""
    lines = []
    for group, transfer in section.transfers.items():
        label, seeds = section.study.label(group), transfer.tasks.seeds
        if transfer.no_better:
            lines.append(
                f"{label}: no delta_m, as single-task training is no better than a constant answer in "
                f"{', '.join(transfer.no_better)}"
            )
        if seeds < SEEDS:
            lines.append(f"{label}: which tasks gain and lose takes {SEEDS} common seeds, not {seeds}")
            continue
        verdicts = transfer.tasks.verdict.tolist()
        by_chance = (1 - CONFIDENCE) * np.count_nonzero(~np.isnan(transfer.tasks.low))
        lines.append(
            f"{label}: {verdicts.count('higher')} of {counted(len(verdicts), 'task')} gain, "
            f"{verdicts.count('lower')} lose (negative transfer), {verdicts.count(CANNOT_BE_TOLD)} cannot be "
            f"told; were none different, chance alone would tell {by_chance:.1f} apart"
        )
    return lines


def every_comparison(section: Section, verbose: bool) -> list[str]:
    """The comparisons, a line each, under their questions; those of single tasks if asked for."""
    lines, last = [], None
    for comparison in section.comparisons:
        if comparison.task and not verbose:
            continue
        if comparison.question != last:
            last = comparison.question
            lines.append(f"{last}:")
        lines.append(f"  {one_line(comparison, section.study)}")
        if comparison.measure == "accuracy" and (differ := unlike(comparison)):
            lines.append(f"    {differ}")
    intervals = sum(not math.isnan(comparison.difference.low) for comparison in section.main)
    if intervals:
        lines.append(
            f"{counted(intervals, 'interval')} of mean accuracy; were all equally good, chance alone would "
            f"tell {(1 - CONFIDENCE) * intervals:.1f} apart"
        )
    return lines


def unanswered(section: Section, directory: Path, options: Sequence[Option]) -> list[str]:
    """The questions that lack runs for an interval, and the commands that would do these."""
    lines: list[str] = []
    commands: dict[str, Missing] = {}  # by what each would be without seeds
    for question in QUESTIONS:
        comparisons = section.answers.get(question.name)
        if comparisons is None or any(comparison.difference.seeds > 1 for comparison in comparisons):
            continue
        try:
            missing = missing_runs(question, section, options)
        except CommandError as error:
            lines.append(f"- {question.name} ({question.words}): not with the options of these runs: {error}")
            continue
        numbers = []
        for runs in missing:
            key = replace(runs, seeds=()).command(directory, options)
            seeds = {*runs.seeds, *(commands[key].seeds if key in commands else ())}
            commands[key] = replace(runs, seeds=sorted(seeds))
            numbers.append(str([*commands].index(key) + 1))
        if missing:
            each = "command" if len(numbers) == 1 else "commands"
            lines.append(f"- {question.name} ({question.words}): {each} {', '.join(numbers)}")
    if lines:
        lines.insert(0, "Not answered for lack of runs:")
    for number, runs in enumerate(commands.values(), 1):
        lines.append(f"  {runs.command(directory, options)}  # {number}")
    if commands:
        lines.append("  (runs are compared with runs of the same code)")
    return lines


def of_data_set(section: Section, directory: Path, options: Sequence[Option], verbose: bool) -> str:
    """What is said of one data set."""
    study = section.study
    lines = [f"{study.title}: {counted(len(study.tasks), 'task')}", "", *table(section), ""]
    lines += explained(section)
    lines += ["", "What matters, in points of mean accuracy [95 % interval over seeds]:"]
    lines += [f"- {line}" for line in conclusions(section)]
    if section.transfers:
        lines += ["", "Tasks that gain and lose against single-task training:"]
        lines += [f"- {line}" for line in gains_and_losses(section)]
    if section.comparisons:
        lines += ["", "Every comparison:", *every_comparison(section, verbose)]
    if open_questions := unanswered(section, directory, options):
        lines += ["", *open_questions]
    return "\n".join(map(in_one_line, lines))


def written(
    sections: Sequence[Section],
    left_out: Sequence[str],
    directory: Path,
    options: Sequence[Option],
    verbose: bool,
) -> str:
    """The whole report.

    Args:
        sections: what there is to say, data set by data set.
        left_out: the histories that are not reported on, and why.
        directory: that is reported on.
        options: those that there are.
        verbose: whether to list every task.
    """
    closing = [NOTES] if sections else []
    closing += [APART] if len(sections) > 1 else []
    closing += [f"left out: {each}" for each in left_out]
    parts = [of_data_set(section, directory, options, verbose) for section in sections]
    return "\n\n".join([*parts, "\n".join(closing)])
