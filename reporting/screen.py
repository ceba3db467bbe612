"""The screen of a report: what a person reads in a minute."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import isnan
from statistics import median

from reporting.comparisons import (
    AS_TRAINED,
    BOTH,
    HIGHER,
    INCONCLUSIVE,
    LOWER,
    USUAL,
    Comparison,
    Result,
    Section,
    are_alike,
)
from reporting.estimates import Estimate
from reporting.histories import SINGLE_TASK, Group
from reporting.missing import SCRIPT, Unanswered
from reporting.reasons import reasons, steps, tuning
from reporting.statistics import CONFIDENCE
from reporting.tuned import Family
from reporting.words import Names, counted, filled
from running.streams import in_one_line
from settings import SETTINGS

WIDTH, MOST_LEFT_OUT = 100, 5
"""Columns of the screen; most paths that it names as left out."""

FINE = 0.5
"""Width of an interval in points below which a tenth of a point is too coarse."""

CONCLUSIVE, UNLIKE, NOISY, SEEDS_ALONE = "*", "!", "~", "#"
"""Marks beside numbers; each is explained where it is used."""


def decimals(section: Section) -> int:
    """How many decimals the screen shows: two where intervals are narrower than half a point."""
    widths = [
        result.estimate.high - result.estimate.low
        for each in section.comparisons
        for result in each.results.values()
        if not isnan(result.estimate.low)
    ]
    return 2 if widths and median(widths) < FINE else 1


def percent(mean: Estimate, digits: int) -> str:
    """A mean accuracy in per cent, with the half-width of its interval."""
    said = f"{decimal(100 * mean.value):.{digits}f}"
    if isnan(mean.low):
        return said
    # An end that is cut at 0 or 1 makes the other one the half-width.
    half = max(mean.high - mean.value, mean.value - mean.low)
    return f"{said} ± {decimal(100 * half):.{digits}f}"


def difference(result: Result | None, digits: int) -> str:
    """A difference with its interval, and whether it is conclusive."""
    if result is None:
        return "-"
    each = result.estimate
    said = signed(each.value, digits)
    if not isnan(each.low):
        said += f" [{signed(each.low, digits)}, {signed(each.high, digits)}]"
    return said + f" {CONCLUSIVE}" * result.is_conclusive


def signed(number: float, digits: int) -> str:
    """A number with its sign, but for 0."""
    said = f"{decimal(number):+.{digits}f}"
    return said[1:] if float(said) == 0 else said


def decimal(number: float) -> Decimal:
    """Six digits after the point, as comparisons.csv has them, so that a half is rounded alike everywhere."""
    return Decimal(f"{number:.6f}")


def columns(rows: Sequence[Sequence[str]], words: int, right: Sequence[int] = ()) -> list[str]:
    """Lay out rows in columns; empty columns are left out.

    Args:
        rows: cells, the first row of headings.
        words: number of the column whose cells are wrapped to what is left of WIDTH.
        right: numbers of the columns that are set flush right.
    """
    kept = [i for i in range(len(rows[0])) if any(row[i] not in ("", "-") for row in rows[1:])]
    widths = {i: max(len(row[i]) for row in rows) for i in kept}
    left = WIDTH - sum(widths[i] + 2 for i in kept if i != words)
    widths[words] = min(widths[words], max(20, left))
    lines = []
    for row in rows:
        wrapped = filled(row[words], widths[words], more="  ") or [""]
        for number, part in enumerate(wrapped):
            cells = [part if i == words else "" if number else row[i] for i in kept]
            said = [
                cell.rjust(widths[i]) if i in right else cell.ljust(widths[i])
                for i, cell in zip(kept, cells, strict=True)
            ]
            lines.append("  ".join(said).rstrip())
    return lines


def ranking(section: Section, names: Names) -> list[str]:
    """The configurations, the best first, then those that are not ranked."""
    headings = (
        "",
        "setting, and what differs",
        "as usual, %",
        "as trained",
        "delta_m, %",
        "tasks",
        "seeds",
        "steps",
    )
    rows: list[Sequence[str]] = [headings]
    digits = decimals(section)
    for group in [*section.ranking, *section.unranked]:
        ranked = group in section.ranking
        trained = section.means[AS_TRAINED].get(group)
        unlike = ranked and _is_unlike(group, section.ranking)
        rows.append(
            (
                names.letters[group],
                names.words[group] + unranked(section, group),
                percent(section.means[USUAL][group], digits) + f" {NOISY}" * section.is_noisy(group),
                percent(trained, digits) if trained else "-",
                delta_m(section, group),
                gains(section, group),
                str(len(group.seeds)),
                steps(group) + f" {UNLIKE}" * unlike,
            )
        )
    lines = columns(rows, words=1, right=(6,))
    if len(section.ranking) > 2:
        best, worst = section.ranking[0], section.ranking[-1]
        apart = 100 * (section.means[USUAL][best].value - section.means[USUAL][worst].value)
        lines += filled(
            f"Best {names.letters[best]}, worst {names.letters[worst]}, {apart:.{digits}f} points apart"
            + (" (of those ranked)." if section.unranked else "."),
            WIDTH,
        )
    if section.means[AS_TRAINED]:
        lines += filled(
            "as usual: tested with the running averages of batch normalisation; as trained: with statistics "
            "of batches like those of training.",
            WIDTH,
        )
    if any(row[5] not in ("", "-") for row in rows[1:]):
        by = " in balanced accuracy" if section.study.measure == "balanced_accuracy" else ""
        lines += filled(
            f"tasks: how many gain / stay / lose{by} against single-task training; delta_m: by how much.",
            WIDTH,
        )
    if any(UNLIKE in row[-1] for row in rows[1:]):
        lines.append(f"{UNLIKE}: other numbers of steps than most others, by more than 5 %.")
    if any(NOISY in row[2] for row in rows[1:]):
        lines.append(
            f"{NOISY} its seeds vary more than 2.5 times as much as all: intervals may be too short."
        )
    return lines


def unranked(section: Section, group: Group) -> str:
    """Why a configuration is not ranked, to stand behind its words; empty if it is."""
    if group in section.ranking:
        return ""
    return " (not ranked: tasks missing)" if group.by_task else " (not ranked: all classes at once)"


def _is_unlike(group: Group, groups: Sequence[Group]) -> bool:
    """Whether a group took other numbers of steps than half of the others or more."""
    others = [other for other in groups if other is not group]
    unlike = sum(not are_alike(group.total("steps"), other.total("steps")) for other in others)
    return unlike > 0 and 2 * unlike >= len(others)


def delta_m(section: Section, group: Group) -> str:
    """The cell of delta_m."""
    if group.setting == SINGLE_TASK and group.is_complete:
        return "0"
    transfer = section.transfer(group, USUAL)
    if not transfer or not transfer.delta_m:
        return "-"
    return signed(transfer.delta_m.estimate.value, 1) + f" {CONCLUSIVE}" * transfer.delta_m.is_conclusive


def gains(section: Section, group: Group) -> str:
    """How many tasks gain, stay and lose."""
    transfer = section.transfer(group, USUAL)
    if not transfer or not transfer.is_judged:
        return "-"
    return "/".join(str(transfer.count(verdict)) for verdict in (HIGHER, INCONCLUSIVE, LOWER))


def changes(section: Section, names: Names) -> list[str]:
    """A line for each comparison, and what its numbers and marks mean."""
    results = [result for each in section.comparisons for result in each.results.values()]
    with_images = any(result.estimate.images for result in results)
    rows = comparisons(section, names, with_images)
    lines = columns(rows, words=0) if section.comparisons else []
    lines += tested(section.tests)
    if not lines:
        return ["Nothing: no two configurations can be compared."]
    if section.num_intervals:
        over = "new seeds and new test images" if with_images else "new seeds"
        note = f"[ ] and \N{PLUS-MINUS SIGN}: 95 % intervals over {over}"
        note += "." if with_images else "; which images are right is not recorded, and new ones would add."
        by_chance = (1 - CONFIDENCE) * section.num_intervals
        note += (
            f" {CONCLUSIVE}: conclusive after correction for {counted(section.num_intervals, 'comparison')}; "
        )
        note += f"without it, chance alone would make {by_chance:.1f} of them look so."
        lines += filled(note, WIDTH)
    if any(UNLIKE in row[-1] for row in rows[1:]):
        lines.append(f"{UNLIKE}: the steps of the two differ by more than 5 %; their epochs are equal.")
    if any(SEEDS_ALONE in row[-1] for row in rows[1:]):
        lines.append(f"{SEEDS_ALONE}: over new seeds alone, as it is not recorded which images are right.")
    return lines


def comparisons(section: Section, names: Names, with_images: bool) -> list[Sequence[str]]:
    """The cells of the comparisons, by what they change, after a row of headings.

    Args:
        section: the comparisons.
        names: what the configurations are called.
        with_images: whether intervals are over new images, too, unless they are marked.
    """
    rows: list[Sequence[str]] = [("choice", "", "as usual", "as trained", "")]
    by_words: dict[str, list[Comparison]] = {}
    for each in section.comparisons:
        by_words.setdefault(names.change(each), []).append(each)
    digits = decimals(section)
    for words, alike in by_words.items():
        if len(alike) > 1:
            rows.append((words, "", "", "", ""))
        seconds = [each.second for each in alike]
        for each in alike:
            marks = [UNLIKE] * each.is_unlike
            if with_images and not all(result.estimate.images for result in each.results.values()):
                marks.append(SEEDS_ALONE)
            where = each.second if len({*seconds}) == len(seconds) else each.first
            rows.append(
                (
                    f"\N{NO-BREAK SPACE} {names.words[where]}" if len(alike) > 1 else words,
                    f"{names.letters[each.first]} - {names.letters[each.second]}",
                    difference(each.results.get(USUAL), digits),
                    difference(each.results.get(AS_TRAINED), digits),
                    " ".join(marks),
                )
            )
    return rows


def tested(tests: Sequence[Comparison]) -> list[str]:
    """What testing as trained changes, in a line."""
    if not tests:
        return []
    results = [each.results[BOTH] for each in tests]
    values = [result.estimate.value for result in results]
    said = " to ".join(dict.fromkeys(signed(value, 1) for value in (min(values), max(values))))
    conclusive = sum(result.is_conclusive for result in results)
    return filled(
        f"tested as trained instead of as usual: {said}, conclusive in {conclusive} of "
        f"{counted(len(tests), 'configuration')}", WIDTH,
    )  # fmt: skip


def unanswered(questions: Sequence[Unanswered]) -> list[str]:
    """A line for each question that lacks runs."""
    lines = []
    for each in questions:
        said = f"not with these options: {each.why_not}" if each.why_not else parts(each.numbers)
        lines += filled(f"- {each.question.words}: {said}", WIDTH, more="  ")
    return lines


def parts(numbers: Sequence[int]) -> str:
    """Some parts of missing.sh, by number."""
    return f"part{'' if len(numbers) == 1 else 's'} {', '.join(map(str, numbers))} of {SCRIPT}"


def section_lines(
    section: Section, names: Names, questions: Sequence[Unanswered], families: Sequence[Family]
) -> list[str]:
    """The lines of a data set."""
    lines = filled(f"all: {names.common[section]}", WIDTH, more="  ")
    if names.unsaid[section]:
        lines += filled(f"unless said otherwise: {names.unsaid[section]}", WIDTH, more="  ")
    constant = 100 * section.study.constant_answer("accuracy")
    lines.append(f"Always giving a task's commonest answer would score {constant:.1f} %.")
    lines += ["", *ranking(section, names), ""]
    for setting in sorted({group.setting for group in section.study.groups}):
        lines += filled(f"{setting} {SETTINGS[setting].name}: {SETTINGS[setting].words}", WIDTH, more="  ")
    lines += ["", "What each choice changes, in points of mean accuracy (+: the choice helps)", ""]
    lines += changes(section, names)
    if families:
        lines += ["", "Tuned: each at its best recipe on held-out images"]
        lines += [line for each in tuning(families, names) for line in filled(f"- {each}", WIDTH, more="  ")]
    if why := reasons(section, names):
        lines += ["", "What could not be compared, or not fully"]
        lines += [line for each in why for line in filled(f"- {each}", WIDTH, more="  ")]
    if questions:
        lines += ["", "What lacks runs", *unanswered(questions)]
    return lines


def screen(
    sections: Sequence[Section],
    names: Names,
    questions: Sequence[Sequence[Unanswered]],
    families: Mapping[Section, Sequence[Family]],
    left_out: Sequence[str],
    rest: str,
) -> str:
    """The whole screen.

    Args:
        sections: the comparisons on each data set.
        names: what the configurations are called.
        questions: the questions that lack runs, on each data set.
        families: what was tuned, for some data sets.
        left_out: a line for everything that is not reported on.
        rest: a line that says where everything else is; empty where it is nowhere.
    """
    parts = [
        section_lines(section, names, open_questions, families.get(section, ()))
        for section, open_questions in zip(sections, questions, strict=True)
    ]
    shown = MOST_LEFT_OUT if rest else len(left_out)
    closing = [f"left out: {each}" for each in left_out[:shown]]
    if len(left_out) > shown:
        closing.append(f"left out: {len(left_out) - shown} more, see report.md")
    parts += [closing] if closing else []
    parts += [filled(rest, WIDTH, more="  ")] if rest else []
    return "\n\n".join("\n".join(map(in_one_line, part)) for part in parts)
