"""report.md: everything that a report says, as Markdown tables."""

from collections.abc import Iterator, Mapping, Sequence
from math import isnan

from reporting.comparisons import AS_TRAINED, BOTH, USUAL, Comparison, Result, Section
from reporting.histories import AMOUNTS
from reporting.missing import Unanswered
from reporting.reasons import reasons, tuning
from reporting.screen import NOISY, delta_m, difference, gains, parts, percent, unranked
from reporting.statistics import CONFIDENCE
from reporting.tuned import Family
from reporting.words import Names, counted
from running.streams import in_one_line
from settings import SETTINGS

DEFINITIONS = """\
- **Configuration**: runs that differ in nothing but the seed (in setting 2 also in the task). Its words say
  where it differs from what holds "unless said otherwise".
- **accuracy**: mean over tasks after the last epoch, then over seeds, in per cent; **balanced**: the same for
  the mean recall over a task's classes; **as trained**: the same weights, tested with batch-norm statistics
  of batches like those of training.
- **Difference**: the choice minus its reference, in points (per cent of the images), each a mean over its
  seeds.
- **Interval** (95 %): over new seeds and, where the histories say which images are right, new test images.
  The seeds' variance of a configuration is moderated by that of all configurations of the table with several
  seeds (Smyth 2004, with 4 prior degrees of freedom, 2 for one task); seeds and images are joined by Welch
  and Satterthwaite, with no more degrees of freedom than the table has. It takes two seeds on each side.
  docs/report.md has the formulas.
- **p**: how probable so large a difference is if there is none. **q**: the same, corrected for all
  comparisons of mean accuracy that are tested alike (Benjamini and Hochberg 1995); single tasks are corrected
  within a pair of configurations, from 3 seeds on. **\\*** and a verdict other than `inconclusive`: q is at
  most 0.05.
- **delta_m**: mean over tasks of the change relative to single-task training, in per cent (Maninis et al.
  2019; Vandenhende et al. 2021).
- **s**: standard deviation over seeds, in points; ~ marks one more than 2.5 times that of all configurations.
- Known limit: a configuration three times as noisy as all others gets a false verdict in about 10 % of
  studies of three seeds."""


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; columns with nothing in them are left out."""
    kept = [i for i in range(len(headings)) if any(row[i] not in ("", "-") for row in rows)]
    lines = [[headings[i] for i in kept], ["---"] * len(kept)]
    lines += [[escaped(row[i]) for i in kept] for row in rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def escaped(text: str) -> str:
    """Text as Markdown shows it: neither a column, nor emphasis, nor HTML."""
    text = in_one_line(text)
    for character in "\\`*_|[]":
        text = text.replace(character, f"\\{character}")
    return text.replace("<", "&lt;")


def ends(result: Result | None, digits: int = 2) -> str:
    """A difference with its interval, empty if there is none."""
    return difference(result, digits) if result else ""


def number(value: float, digits: int) -> str:
    """A number from 0, empty if it is not one."""
    if isnan(value):
        return ""
    said = f"{value:.{digits}f}"
    return said if value == 0 or float(said) else f"< {10**-digits:.{digits}f}"


def ranking(section: Section, names: Names) -> list[str]:
    """The table of configurations, the best first."""
    rows = []
    for group in [*section.ranking, *section.unranked]:
        mean, trained = section.means[USUAL][group], section.means[AS_TRAINED].get(group)
        transfers = [section.transfer(group, way) for way in (USUAL, AS_TRAINED)]
        usual, again = (transfer.delta_m if transfer else None for transfer in transfers)
        scores = sorted((score, name) for name, score in group.per_task().items())
        worst, best = (f"{name} {100 * score:.1f}" for score, name in (scores[0], scores[-1]))
        spread = number(100 * mean.spreads[0], 2) + f" {NOISY}" * section.is_noisy(group)
        rows.append(
            (
                names.letters[group],
                names.words[group] + unranked(section, group),
                percent(mean, 2),
                percent(trained, 2) if trained else "",
                f"{100 * group.means('balanced_accuracy').mean():.2f}",
                spread,
                ends(usual) or delta_m(section, group),
                ends(again),
                gains(section, group),
                worst if group.by_task else "",
                best if group.by_task else "",
                str(len(group.seeds)),
            )
        )
    headings = (
        *("", "configuration", "accuracy, %", "as trained, %", "balanced, %", "s", "delta_m, %"),
        *("delta_m as trained, %", "tasks that gain / stay / lose", "worst task", "best task", "seeds"),
    )
    return table(headings, rows)


def amounts(section: Section, names: Names) -> list[str]:
    """The table of what training took, for a seed: of all models of a configuration together."""
    rows = []
    for group in [*section.ranking, *section.unranked]:
        totals = [group.total(name) for name in AMOUNTS]
        processors = sorted(set().union(*(run.processors for run in group.runs)))
        rows.append(
            (
                names.letters[group],
                str(group.options["epochs"]),
                *("" if total is None else f"{total:,.0f}" for total in totals),
                f"{len(group.runs)}",
                ", ".join(processors),
            )
        )
    return table(("", "epochs", *AMOUNTS, "runs", "processors"), rows)


def comparisons(section: Section, names: Names) -> Iterator[str]:
    """A table for each question."""
    by_question: dict[str, list[Comparison]] = {}
    for each in [*section.comparisons, *section.tests]:
        by_question.setdefault(each.question.name, []).append(each)
    for name, found in by_question.items():
        rows = []
        for each in found:
            sides = f"{names.letters[each.first]} - {names.letters[each.second]}"
            if BOTH in each.results:
                sides = names.letters[each.first]
            for way, result in each.results.items():
                estimate = result.estimate
                marks = ["steps differ"] * each.is_unlike + ["over seeds alone"] * (not estimate.images)
                spreads = [number(spread, 2) for spread in estimate.spreads]
                rows.append(
                    (
                        names.change(each),
                        sides,
                        "" if way == BOTH else way,
                        ends(result),
                        result.verdict,
                        str(estimate.freedom or ""),
                        number(estimate.p, 4),
                        number(result.q, 4),
                        ", ".join(spread or "-" for spread in spreads) if any(spreads) else "",
                        ", ".join(marks),
                    )
                )
        headings = ("choice", "", "tested", "difference [interval]", "verdict", "df", "p", "q", "s")
        yield from ["", f"### {name}", "", *table((*headings, ""), rows)]


def tasks(section: Section, names: Names) -> Iterator[str]:
    """Tables of every task: accuracies, and gains and losses against single-task training."""
    ranked = [*section.ranking, *(group for group in section.unranked if group.by_task)]
    if ranked:
        scores = [group.per_task() for group in ranked]
        rows = [
            (task, *(f"{100 * each[task]:.1f}" if task in each else "" for each in scores))
            for task in section.study.tasks
        ]
        yield from ["", "## Every task: accuracy, %", ""]
        yield from table(("task", *(names.letters[group] for group in ranked)), rows)
    measure = section.study.measure.replace("_", " ")
    for way in (USUAL, AS_TRAINED):
        found = [(each, each.transfers[way]) for each in section.comparisons if way in each.transfers]
        if found:
            rows = [
                (name, *(ends(transfer.tasks[task], 1) for _, transfer in found))
                for task, name in enumerate(section.study.tasks)
            ]
            sides = [f"{names.letters[each.first]} - {names.letters[each.second]}" for each, _ in found]
            yield from [
                "",
                f"## Every task against single-task training, tested {way}: points of {measure}",
                "",
            ]
            yield from table(("task", *sides), rows)


def notes(section: Section, names: Names) -> Iterator[str]:
    """What holds of a data set as a whole."""
    study = section.study
    for setting in sorted({group.setting for group in study.groups}):
        yield f"{setting} {SETTINGS[setting].name}: {SETTINGS[setting].words}"
    accuracy, balanced = (100 * study.constant_answer(each) for each in ("accuracy", "balanced_accuracy"))
    yield f"always giving a task's commonest answer scores {accuracy:.2f} %, balanced {balanced:.2f} %"
    if study.measure == "balanced_accuracy" and any(each.transfers for each in section.comparisons):
        yield (
            "delta_m, gains and losses are in balanced accuracy, as a constant answer has a high accuracy; "
            "their intervals are over new seeds alone"
        )
    sizes = {group: size for group in study.groups if (size := group.runs[0].amount("parameters"))}
    if sizes:
        largest = max(sizes, key=sizes.__getitem__)
        encoder = largest.runs[0].history.parameters["encoder"] / 1e6
        yield (
            f"{encoder:.2f} of the {sizes[largest] / 1e6:.2f} million parameters of "
            f"{names.letters[largest]} are shared"
        )
    if len(set().union(*(run.processors for run in study.runs))) > 1:
        yield (
            "several processors: their seconds are not comparable, and a run scores a little differently on "
            "each"
        )
    for group in study.groups:
        if "weights" in group.shared and len(study.values("weights")) > 1:
            yield f"weights of {names.letters[group]}: " + " ".join(
                f"{w:.4g}" for w in group.shared["weights"]
            )


def section_lines(
    section: Section, names: Names, questions: Sequence[Unanswered], families: Sequence[Family]
) -> Iterator[str]:
    """The lines of a data set."""
    yield from [f"# {escaped(section.study.title)}", "", f"All: {escaped(names.common[section])}."]
    if names.unsaid[section]:
        yield f"Unless said otherwise: {escaped(names.unsaid[section])}."
    yield from ["", "## Ranking", "", *ranking(section, names), ""]
    yield from [f"- {escaped(each)}" for each in notes(section, names)]
    yield from ["", "## What each choice changes, in points of mean accuracy"]
    yield from comparisons(section, names)
    intervals = section.num_intervals
    chance = (1 - CONFIDENCE) * intervals
    said = f"{counted(intervals, 'interval')} as usual: with nothing to find, {chance:.1f} would miss 0."
    yield from ["", said]
    lists = {
        "Tuned": tuning(families, names),
        "What could not be compared, or not fully": reasons(section, names),
        "What lacks runs": [
            f"{each.question.words}: {each.why_not or parts(each.numbers)}" for each in questions
        ],
    }
    for heading, lines in lists.items():
        if lines:
            yield from ["", f"## {heading}", "", *(f"- {escaped(line)}" for line in lines)]
    yield from tasks(section, names)
    yield from ["", "## Amounts of training, of a seed", "", *amounts(section, names)]


def page(
    sections: Sequence[Section],
    names: Names,
    questions: Sequence[Sequence[Unanswered]],
    families: Mapping[Section, Sequence[Family]],
    left_out: Sequence[str],
) -> str:
    """All of report.md; the arguments are those of `screen`."""
    lines: list[str] = []
    for section, unanswered in zip(sections, questions, strict=True):
        lines += [*section_lines(section, names, unanswered, families.get(section, ())), ""]
    lines += ["# What the words mean", "", *DEFINITIONS.splitlines()]
    if left_out:
        lines += ["", "# Left out", "", *(f"- {escaped(each)}" for each in left_out)]
    return "\n".join(map(in_one_line, lines))
