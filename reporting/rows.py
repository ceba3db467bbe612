"""The CSV files of a report.

report.csv has a row per run and task, comparisons.csv a row per comparison.
"""

import csv
import io
import math
from collections.abc import Iterable, Sequence

from reporting.comparisons import Section
from reporting.histories import AMOUNTS, MEASURES, Study

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
    "data_set",
    "question",
    "first",
    "second",
    "measure",
    "seeds",
    "difference",
    "low",
    "high",
    "verdict",
)


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
        options = [run.options.get(name) for name in names]
        options = [" ".join(map(str, value)) if isinstance(value, list) else value for value in options]
        whole = [last["loss"], *map(run.amount, AMOUNTS), run.options["task"], run.shared["code"], *options]
        for i, task in enumerate(history.tasks):
            scores = [last[measure][i] for measure in MEASURES]
            scores += [again[measure][i] if again else None for measure in MEASURES]
            rows.append([run.path, title, history.data_set["scored_on"], task, *scores, *whole])
    return rows


def comparison_rows(sections: Sequence[Section]) -> list[Sequence[object]]:
    """Rows of comparisons.csv, with numbers to four decimals."""
    rows: list[Sequence[object]] = [COMPARISON_COLUMNS]
    for section in sections:
        for comparison in section.comparisons:
            difference = comparison.difference
            numbers = [
                "" if math.isnan(number) else f"{number:.4f}"
                for number in (difference.mean, difference.low, difference.high)
            ]
            sides = [section.study.label(group) for group in (comparison.first, comparison.second)]
            rows.append(
                [section.study.title, comparison.question, *sides, comparison.measure]
                + [difference.seeds, *numbers, difference.verdict]
            )
    return rows
