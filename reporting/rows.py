"""The CSV files of a report.

report.csv has a row per run and task, comparisons.csv a row per comparison.
"""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence

from options import Option
from reporting.comparisons import Comparison, Result, Section
from reporting.histories import AMOUNTS, MEASURES, Study
from reporting.words import Names

RUN_COLUMNS = (
    "history",
    "data_set",
    "scored_on",
    "task",
    *MEASURES,
    *(f"as_trained_{measure}" for measure in MEASURES),
    "training_loss",
    *AMOUNTS,
    "task_option",
    "code",
)

COMPARISON_COLUMNS = (
    "question", "measure", "task", "test", "difference", "low", "high", "df", "p", "q", "verdict", "seeds_a",
    "seeds_b",
)  # fmt: skip
MORE_COLUMNS = ("s_a", "s_b", "images", "data_set", "letter_a", "letter_b")
"""After the options: standard deviations over seeds, in the unit of the difference; whether the interval is
over new test images, too; and the letters of the report."""


def comma_separated(rows: Iterable[Sequence[object]]) -> bytes:
    """Encode rows as CSV."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue().encode(errors="backslashreplace")


def run_rows(studies: Sequence[Study]) -> list[Sequence[object]]:
    """Rows of report.csv, one per run and task.

    Each has scores, amounts of training and options.
    """
    runs = [(study.title, run) for study in studies for run in study.runs]
    names = sorted({name for _, run in runs for name in run.options} - {"task"})
    rows: list[Sequence[object]] = [[*RUN_COLUMNS, *names]]
    for title, run in runs:
        history = run.history
        last, again = history.epochs[-1], history.as_trained
        options = [_plain(run.options.get(name)) for name in names]
        whole = [last["loss"], *map(run.amount, AMOUNTS), run.options["task"], run.shared["code"], *options]
        for i, task in enumerate(history.tasks):
            scores = [last[measure][i] for measure in MEASURES]
            scores += [again[measure][i] if again else None for measure in MEASURES]
            rows.append([run.path, title, history.data_set["scored_on"], task, *scores, *whole])
    return rows


def comparison_rows(
    sections: Sequence[Section], names: Names, table: Sequence[Option]
) -> list[Sequence[object]]:
    """Rows of comparisons.csv: each comparison with the options of either side."""
    options = [
        *(option.name for option in table if option.decides != "nothing" and not option.repeats),
        "code",
    ]
    sides = [f"{name}_{side}" for name in options for side in "ab"]
    rows: list[Sequence[object]] = [[*COMPARISON_COLUMNS, *sides, *MORE_COLUMNS]]
    for section in sections:
        for comparison in [*section.comparisons, *section.tests]:
            groups = (comparison.first, comparison.second)
            values = [_plain(group.shared.get(name)) for name in options for group in groups]
            letters = [names.letters[group] for group in groups]
            for *what, result in _measured(comparison, section):
                start = [comparison.question.name, *what, *_numbers(result)]
                rows.append([*start, *values, *_more(result), section.study.title, *letters])
    return rows


def _measured(comparison: Comparison, section: Section) -> Iterator[tuple[str, str, str, Result]]:
    """The measure, the task, the way of testing, and the result, of all that is compared."""
    for way, result in comparison.results.items():
        yield "mean_accuracy", "", way, result
        if transfer := comparison.transfers.get(way):
            if transfer.delta_m:
                yield "delta_m", "", way, transfer.delta_m
            for name, task in zip(comparison.first.tasks, transfer.tasks, strict=True):
                yield section.study.measure, name, way, task


def _numbers(result: Result) -> list[object]:
    """The columns from `difference` to `seeds_b`."""
    each = result.estimate
    ends = map(_number, (each.value, each.low, each.high))
    seeds = (each.seeds * 2)[:2]
    return [*ends, each.freedom or "", _number(each.p), _number(result.q), result.verdict, *seeds]


def _more(result: Result) -> list[object]:
    """The columns `s_a`, `s_b`, and `images`."""
    each = result.estimate
    return [*map(_number, (each.spreads * 2)[:2]), str(each.images).lower()]


def _number(number: float) -> str:
    """A number in a cell, with so many digits that it can be rounded once more."""
    return "" if math.isnan(number) else f"{number:.6f}"


def _plain(value: object) -> object:
    """An option in a cell."""
    return " ".join(map(str, value)) if isinstance(value, list) else value
