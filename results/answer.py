"""Draw the answer, results/answer.png, from the published studies: python results/answer.py

It takes nothing but their comparisons.csv, and matplotlib.
"""

import csv
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
STUDIES = ("cifar100", "cifar10", "omniglot", "losses")


class Way(NamedTuple):
    """A way of training, as far as the rows of the figure tell them apart.

    Attributes:
        setting: its number.
        tasks: a step, in settings 3 and 4.
        own: whether scored with each task's own statistics.
        recipe: whether with momentum and what goes with it.
        rate: the learning rate, where it is not that of the recipe.
    """

    setting: int
    tasks: int = 1
    own: bool = False
    recipe: bool = False
    rate: float = 0.1


@dataclass(frozen=True)
class Row:
    """A choice in words, the report's question about it, and the ways whose difference it is."""

    words: str
    question: str
    choice: Way
    reference: Way


@dataclass(frozen=True)
class Group:
    """Rows of a kind, and a heading that says what they hold against what."""

    heading: str
    rows: Sequence[Row]


LOSSES = "Another loss, against the mean"

GROUPS = (
    Group(
        "More tasks a step, against 1",
        (
            Row("4 tasks", "tasks a step", Way(3, 4), Way(3)),
            Row("4 tasks, own statistics", "tasks a step", Way(3, 4, own=True), Way(3, own=True)),
            Row("4 tasks, momentum", "tasks a step", Way(3, 4, recipe=True), Way(3, recipe=True)),
            Row(
                "4 tasks, momentum, own statistics",
                "tasks a step",
                Way(3, 4, own=True, recipe=True),
                Way(3, own=True, recipe=True),
            ),
            Row("16 tasks", "tasks a step", Way(3, 16), Way(3)),
            Row("16 tasks, own statistics", "tasks a step", Way(3, 16, own=True), Way(3, own=True)),
            Row("all tasks, on every image", "all tasks", Way(5), Way(3)),
        ),
    ),
    Group(
        "Own statistics in the test, against shared",
        (
            Row("1 task a step", "normalisation", Way(3, own=True), Way(3)),
            Row("1 task, momentum", "normalisation", Way(3, own=True, recipe=True), Way(3, recipe=True)),
            Row("4 tasks a step", "normalisation", Way(3, 4, own=True), Way(3, 4)),
            Row("16 tasks a step", "normalisation", Way(3, 16, own=True), Way(3, 16)),
        ),
    ),
    Group(
        "One network for all tasks, against one each",
        (
            Row("1 task a step", "single-task", Way(3), Way(2)),
            Row("1 task a step, own statistics", "single-task", Way(3, own=True), Way(2)),
            Row("4 tasks a step", "single-task", Way(3, 4), Way(2)),
            Row("all tasks a step", "single-task", Way(5), Way(2)),
        ),
    ),
    Group(
        "A plain classifier, against a head for each task",
        (
            Row("those trained with 1 task a step", "heads", Way(1), Way(3)),
            Row("with 1 task a step, own statistics", "heads", Way(1), Way(3, own=True)),
            Row("those trained with 4 tasks a step", "heads", Way(1), Way(3, 4)),
            Row("with 4 tasks a step, momentum", "heads", Way(1, recipe=True), Way(3, 4, recipe=True)),
        ),
    ),
    Group(
        "Momentum, against none",
        (
            Row("a plain classifier", "recipe", Way(1, recipe=True), Way(1)),
            Row("1 task a step", "recipe", Way(3, recipe=True), Way(3)),
            Row("4 tasks a step", "recipe", Way(3, 4, recipe=True), Way(3, 4)),
        ),
    ),
    Group(
        "Unequal weights of the tasks, against equal",
        (Row("of drawing them", "draws", Way(4), Way(3)), Row("of their losses", "weights", Way(6), Way(5))),
    ),
    Group(LOSSES, (Row("the mean, at five times the learning rate", "recipe", Way(5, rate=0.5), Way(5)),)),
)

LINEAR = 5
"""Points up to which the axis is linear; logarithmic beyond, so that large effects leave small ones room."""

TICKS = (-4, -2, 0, 2, 4, 8, 16, 24)

LOOKS = {
    "CIFAR-10": {"fmt": "o", "color": "#0072b2"},
    "CIFAR-100": {"fmt": "s", "color": "#000000"},
    "Omniglot": {"fmt": "^", "color": "#d55e00"},
}


class Effect(NamedTuple):
    """A difference in points of mean accuracy with its interval, and whether that leaves out 0."""

    mean: float
    low: float
    high: float
    told: bool


Comparison = Mapping[str, str]
"""A row of comparisons.csv, by heading."""


def way(label: str) -> Way:
    """The way that a label of the report stands for; labels name the options that differ in their report."""
    tasks = re.search(r"tasks_per_step (\d+)", label)
    rate = re.search(r"lr ([\d.]+)", label)
    own, recipe = label.endswith(", own statistics"), "momentum 0.9" in label
    rates = {"rate": float(rate[1])} if rate and not recipe else {}
    return Way(int(label.split()[0]), int(tasks[1]) if tasks else 1, own, recipe, **rates)


def effect(comparison: Comparison, sign: int = 1) -> Effect:
    """What a comparison says of its first side against its second, or with sign -1 of its second."""
    mean, *ends = (sign * float(comparison[name] or "nan") for name in ("difference", "low", "high"))
    return Effect(mean, min(ends), max(ends), comparison["verdict"] in ("higher", "lower"))


def about(question: str, comparisons: Iterable[Comparison]) -> list[Comparison]:
    """The comparisons of mean accuracies that answer a question."""
    return [each for each in comparisons if (each["question"], each["measure"]) == (question, "accuracy")]


def effects(row: Row, comparisons: Iterable[Comparison]) -> dict[str, Effect]:
    """The effect of a choice, by data set."""
    found = {}
    for comparison in about(row.question, comparisons):
        sides = way(comparison["first"]), way(comparison["second"])
        if sides == (row.choice, row.reference):
            found[comparison["data_set"]] = effect(comparison)
        elif sides == (row.reference, row.choice):
            found[comparison["data_set"]] = effect(comparison, -1)
    return found


def loss_effects(comparisons: Iterable[Comparison]) -> dict[str, Effect]:
    """The effect of each loss against the mean, by its name, the best first; one seed says nothing yet."""
    estimated = [each for each in about("loss", comparisons) if each["low"]]
    estimated.sort(key=lambda each: float(each["difference"]))  # of the mean against it
    return {re.search(r"loss (\w+)", each["second"])[1]: effect(each, -1) for each in estimated}


def read(directory: Path) -> list[Comparison]:
    """The comparisons of the studies that there are."""
    comparisons = []
    for name in STUDIES:
        path = directory / name / "comparisons.csv"
        if path.exists():
            with open(path, newline="", encoding="utf-8") as file:
                comparisons += csv.DictReader(file)
    return comparisons


def sections(comparisons: Sequence[Comparison]) -> dict[str, dict[str, list[tuple[str, Effect]]]]:
    """What there is to draw: by heading and by the words of a row, its effects, each with its data set."""
    found = {}
    for group in GROUPS:
        found[group.heading] = {}
        for row in group.rows:
            if of_row := effects(row, comparisons):
                found[group.heading][row.words] = [(name, of_row[name]) for name in LOOKS if name in of_row]
    found[LOSSES] |= {loss: [("CIFAR-10", each)] for loss, each in loss_effects(comparisons).items()}
    return {heading: rows for heading, rows in found.items() if rows}


def draw(comparisons: Sequence[Comparison], path: Path) -> None:
    """Draw the figure and write it: a row for each choice, in it a point for each data set."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        sys.exit("results/answer.py needs matplotlib: pip install matplotlib")

    labels, headings = [], []
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    for heading, rows in sections(comparisons).items():
        headings.append(len(labels))
        labels.append(heading)
        for words, found in rows.items():
            draw_effects(axes, found, len(labels))
            labels.append(words)
    for start, end in list(pairwise([*headings, len(labels)]))[1::2]:
        axes.axhspan(start - 0.5, end - 0.5, color="0.95", zorder=0)
    figure.set_size_inches(9, 1.4 + 0.3 * len(labels))
    axes.axvline(0, color="0.3", lw=1)
    axes.set_xscale("symlog", linthresh=LINEAR)
    axes.set_xticks(TICKS)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_yticks(range(len(labels)), labels)
    for heading in headings:
        axes.get_yticklabels()[heading].set_fontweight("bold")
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("points of mean accuracy over the tasks; right: what is named first is better")
    figure.suptitle("What a choice changes in multi-task training", fontweight="bold")
    handles = {
        label: handle for handle, label in reversed([*zip(*axes.get_legend_handles_labels(), strict=True)])
    }
    names = [name for name in LOOKS if name in handles]
    note = (
        "own statistics: the test normalises with those of the task alone\n"
        "momentum: 0.9, with a cosine schedule from a learning rate of 0.03\n"
        "bars: 95 % intervals over seeds; hollow: cannot be told from 0\n"
        f"the scale is even up to {LINEAR} points and logarithmic beyond"
    )
    look = {"loc": "outside lower center", "ncols": len(names), "frameon": False}
    legend = figure.legend([handles[name] for name in names], names, title=note, **look)
    legend.get_title().set_multialignment("center")
    figure.savefig(path, dpi=130, metadata={"Software": None})


def draw_effects(axes, found: Sequence[tuple[str, Effect]], row: int) -> None:
    """A point with its interval for each effect, one below the other."""
    for i, (name, each) in enumerate(found):
        place = row + 0.24 * (i - (len(found) - 1) / 2)
        look = {"ms": 5, "capsize": 2.5, "elinewidth": 1.25, **LOOKS[name]}
        lengths = [[each.mean - each.low], [each.high - each.mean]]
        axes.errorbar(each.mean, place, xerr=lengths, label=name, mfc=None if each.told else "white", **look)


if __name__ == "__main__":
    draw(read(HERE), HERE / "answer.png")
