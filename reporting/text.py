"""The text of a report: a table, conclusions, and every comparison."""

import math
from collections.abc import Sequence

import numpy as np

from reporting.comparisons import SEEDS, Comparison, Section
from reporting.histories import AMOUNTS, SINGLE_TASK, Group, Study
from reporting.missing import SCRIPT, Unanswered
from reporting.statistics import CONFIDENCE, INCONCLUSIVE, Estimate, estimate, expected_range
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

RANKED_TOGETHER = ("code", "precision", "validation", "image_size", "batch_size")
"""Configurations that agree in these options are ranked from best to worst."""

NOTES = """\
accuracy: mean over tasks after the last epoch, then over seeds; balanced: the same for the mean recall over a
task's classes; delta_m: mean over tasks of the change relative to the single-task baseline (setting 2);
as trained: the same weights, scored with batch-norm statistics of batches like those of training. Steps,
images, parameters and seconds are per run. Differences are formed seed by seed; each interval
(t distribution) contains the true value in 95 of 100 studies. Intervals are over seeds: another test set
would give other numbers. See docs/report.md."""

APART = (
    "Data sets, files of different content, and test and validation images are reported separately; nothing "
    "is averaged or compared across them."
)


# Numbers as text


def interval(difference: Estimate, sign: str = "+", digits: int = 2) -> str:
    """The ends of an interval in brackets.

    Args:
        difference: a scalar estimate.
        sign: `+` to write the sign of positive numbers.
        digits: number of decimals.
    """
    if math.isnan(difference.low):
        return "[-]"
    return f"[{difference.low:{sign}.{digits}f}, {difference.high:{sign}.{digits}f}]"


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def span(amounts: Sequence[float]) -> str:
    """The amount if all are equal, else the range."""
    if not amounts:
        return "-"
    least, most = f"{min(amounts):,.0f}", f"{max(amounts):,.0f}"
    return least if least == most else f"{least} to {most}"


def sides(comparison: Comparison, study: Study) -> str:
    """The labels of the two sides of a comparison."""
    return f"{study.label(comparison.first)} against {study.label(comparison.second)}"


def one_line(comparison: Comparison, study: Study) -> str:
    """A comparison with its interval and verdict."""
    difference = comparison.difference
    unit = "% (delta_m)" if comparison.measure == "delta_m" else "points"
    task = f" in {comparison.task}" if comparison.task else ""
    return (
        f"{sides(comparison, study)}{task}: {difference.mean:+.2f} {interval(difference)} {unit}, "
        f"{counted(difference.seeds, 'seed')}: {difference.verdict}"
    )


def unlike(comparison: Comparison) -> str | None:
    """The amounts of training in which the two sides differ, or None."""
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
    """The table: a line of headings, then a line per group."""
    rows: list[tuple[str, ...]] = [HEADINGS]
    for group in section.study.groups:
        rows.append(row(section, group))
        if again := section.study.as_trained.get(group):
            rows.append(row(section, again))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def row(section: Section, group: Group) -> tuple[str, ...]:
    """The cells of a group in the table."""
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
    """The cell of delta_m in the table."""
    if group.setting == SINGLE_TASK:
        return "0 by definition" if group.is_complete else "-"
    transfer = section.transfers.get(group)
    if not transfer or not transfer.change:
        return "-"
    return f"{transfer.change.mean:+.2f} {interval(transfer.change)}"


def explanations(section: Section) -> list[str]:
    """Lines that explain the table of a data set."""
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
            f"processors: {', '.join(sorted(processors))}; their seconds are not comparable, and a run "
            "scores a little differently on each"
        )
    lines += study.weights_explained()
    lines += [
        f"{study.label(group)}: seed {seed} lacks {len(lacking)} of {len(group.tasks)} tasks"
        + (" and is left out" if group.is_complete else "; the means are over the others, and not compared")
        for group in [*study.groups, *study.as_trained.values()]
        for seed, lacking in group.lacking.items()
    ]
    for name in ("code", "validation"):
        if len(values := study.values(name)) > 1:
            lines.append(
                f"runs of different {name} are neither averaged nor compared: {', '.join(map(str, values))}"
            )
    return lines


# What can be concluded


def conclusions(section: Section) -> list[str]:
    """A line per question, then the best and worst configurations.

    The line of a question says what matters and how much.
    """
    lines = []
    for question in section.questions:
        if comparisons := section.answers[question.name]:
            said = answer(comparisons, section.study)
            lines.append(f"{question.name} ({question.words}): {said}")
    lines += extremes(section.study)
    if alone := sum(c.difference.seeds == 1 for c in section.main):
        lines.append(f"one seed decides nothing: {counted(alone, 'comparison')} of a single common seed")
    return lines


def answer(comparisons: Sequence[Comparison], study: Study) -> str:
    """What the comparisons for a question conclude."""
    conclusive = [c for c in comparisons if c.difference.verdict != INCONCLUSIVE]
    conclusive.sort(key=lambda comparison: -abs(comparison.difference.mean))
    inconclusive = [c for c in comparisons if c.difference.verdict == INCONCLUSIVE]
    parts = []
    if len(conclusive) == 1:
        parts.append(more_than(conclusive[0], study))
    elif conclusive:
        parts.append(
            f"{len(conclusive)} of {len(comparisons)} comparisons are conclusive, the largest: "
            f"{more_than(conclusive[0], study)}; the smallest: {more_than(conclusive[-1], study)}"
        )
    if bounded := [c for c in inconclusive if not math.isnan(c.difference.low)]:
        low, high = min(c.difference.low for c in bounded), max(c.difference.high for c in bounded)
        which = f"{len(bounded)} comparisons, whose intervals all lie"
        if len(bounded) == 1:
            which = f"{sides(bounded[0], study)},"
        parts.append(f"inconclusive: {which} between {low:+.2f} and {high:+.2f} points")
    if unbounded := [c for c in inconclusive if math.isnan(c.difference.low)]:
        which = sides(unbounded[0], study) if len(unbounded) == 1 else f"{len(unbounded)} comparisons"
        parts.append(
            f"inconclusive, as one seed or seeds that agree to the last digit give no interval: {which}"
        )
    return "; ".join(parts)


def more_than(comparison: Comparison, study: Study) -> str:
    """A conclusive difference: the better side first."""
    higher, lower, difference = comparison.first, comparison.second, comparison.difference
    if difference.mean < 0:
        higher, lower = lower, higher
        difference = Estimate(difference.seeds, -difference.mean, -difference.high, -difference.low)
    return (
        f"{study.label(higher)} scores {difference.mean:.2f} {interval(difference, '')} points more than "
        f"{study.label(lower)}"
    )


def extremes(study: Study) -> list[str]:
    """The best and worst configurations, and their expected distance by chance."""
    rankings: dict[str, list[Group]] = {}
    for group in study.groups:
        if group.by_task and group.is_complete:
            rankings.setdefault(str([group.shared[name] for name in RANKED_TOGETHER]), []).append(group)
    lines = []
    for groups in rankings.values():
        if len(groups) < 2:
            continue
        seeds = [seed for seed in groups[0].seeds if all(seed in group.seeds for group in groups)]
        means = [group.means(seeds=seeds or None).mean() for group in groups]
        best, worst = int(np.argmax(means)), len(means) - 1 - int(np.argmin(means[::-1]))
        text = (
            f"of {len(groups)} configurations the best is {study.label(groups[best])}, {means[best]:.4f}, "
            f"and the worst {study.label(groups[worst])}, {means[worst]:.4f}, "
            f"{100 * (means[best] - means[worst]):.2f} points apart"
        )
        if seeds and any(len(group.seeds) > len(seeds) for group in groups):
            text += f", over the {counted(len(seeds), 'seed')} that all have"
        if len(seeds) > 1:
            chance = 100 * expected_range(np.array([group.means(seeds=seeds) for group in groups]))
            text += (
                f"; if all were equally good, {len(seeds)} seeds would put them {chance:.2f} apart on average"
            )
        else:
            text += "; how far apart chance alone would put them takes two seeds that all of them have"
        steps = [total for group in groups if (total := group.total("steps"))]
        if len(set(steps)) > 1:
            text += f" (steps: {span(steps)})"
        lines.append(text)
    return lines or ["no two configurations that have every task can be compared"]


def gains_and_losses(section: Section) -> list[str]:
    """How many tasks gain and lose relative to the single-task baseline."""
    lines = []
    for group, transfer in section.transfers.items():
        label, seeds = section.study.label(group), transfer.tasks.seeds
        if transfer.no_better:
            lines.append(
                f"{label}: no delta_m, as the single-task baseline is no better than a constant answer in "
                f"{', '.join(transfer.no_better)}"
            )
        if seeds < SEEDS:
            lines.append(f"{label}: which tasks gain or lose takes {SEEDS} common seeds, not {seeds}")
            continue
        verdicts = transfer.tasks.verdict.tolist()
        by_chance = (1 - CONFIDENCE) * np.count_nonzero(~np.isnan(transfer.tasks.low))
        lines.append(
            f"{label}: {verdicts.count('higher')} of {counted(len(verdicts), 'task')} gain, "
            f"{verdicts.count('lower')} lose (negative transfer), {verdicts.count(INCONCLUSIVE)} "
            f"inconclusive; if none differed, chance alone would make {by_chance:.1f} conclusive"
        )
    return lines


def every_comparison(section: Section, verbose: bool) -> list[str]:
    """A line per comparison, under its question.

    Comparisons of single tasks are listed only if verbose.
    """
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
            f"{counted(intervals, 'interval')} of mean accuracy; if all were equally good, chance alone "
            f"would make {(1 - CONFIDENCE) * intervals:.1f} conclusive"
        )
    return lines


def unanswered(questions: Sequence[Unanswered]) -> list[str]:
    """A line for each question that lacks runs."""
    lines = []
    for each in questions:
        said = f"not with the options of these runs: {each.why_not}"
        if not each.why_not:
            said = f"runs {', '.join(map(str, each.numbers))}"
        lines.append(f"- {each.question.name} ({each.question.words}): {said}")
    if lines:
        trains = any(each.numbers for each in questions)
        how = f"; {SCRIPT} trains them (with other code they are not compared)" if trains else ""
        lines.insert(0, f"Not answered for lack of runs{how}:")
    return lines


def section_text(section: Section, questions: Sequence[Unanswered], verbose: bool) -> str:
    """The text of one data set."""
    study = section.study
    lines = [f"{study.title}: {counted(len(study.tasks), 'task')}", "", *table(section), ""]
    lines += explanations(section)
    lines += ["", "What matters, in points of mean accuracy [95 % interval over seeds]:"]
    lines += [f"- {line}" for line in conclusions(section)]
    if section.transfers:
        lines += ["", "Tasks that gain and lose relative to the single-task baseline:"]
        lines += [f"- {line}" for line in gains_and_losses(section)]
    if section.comparisons:
        lines += ["", "Every comparison:", *every_comparison(section, verbose)]
    if open_questions := unanswered(questions):
        lines += ["", *open_questions]
    return "\n".join(map(in_one_line, lines))


def report_text(
    sections: Sequence[Section],
    questions: Sequence[Sequence[Unanswered]],
    left_out: Sequence[str],
    verbose: bool,
) -> str:
    """The whole text.

    Args:
        sections: the comparisons on each data set.
        questions: the questions that lack runs, on each data set.
        left_out: a line for everything that is not reported on.
        verbose: whether to list every task.
    """
    closing = [NOTES] if sections else []
    closing += [APART] if len(sections) > 1 else []
    closing += [f"left out: {each}" for each in left_out]
    parts = [section_text(*each, verbose) for each in zip(sections, questions, strict=True)]
    return "\n\n".join([*parts, "\n".join(closing)])
