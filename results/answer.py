"""Draw the answer, results/answer.png, from the published studies: python results/answer.py

It reads the comparisons that `main.py --report` has written beside their histories, and needs matplotlib.
"""

import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = Path(__file__).parent
STUDIES = ("first/cifar100", "first/omniglot", "first/cifar10", "first/losses")


class Configuration(NamedTuple):
    """A setting with the options that the figure tells apart.

    An option is None where it does not apply.
    """

    setting: int
    lr: float = 0.1
    momentum: float = 0.0
    tasks_per_step: int | None = None
    loss: str | None = None


PLAIN, SINGLE = Configuration(1), Configuration(2)
ONE, FOUR, SIXTEEN = (Configuration(3, tasks_per_step=number, loss="mean") for number in (1, 4, 16))
ALL = Configuration(5, loss="mean")
UNEQUAL_DRAWS, UNEQUAL_LOSSES = Configuration(4, tasks_per_step=1), Configuration(6)
PLAIN_MOMENTUM, ONE_MOMENTUM, FOUR_MOMENTUM = (
    each._replace(lr=0.03, momentum=0.9) for each in (PLAIN, ONE, FOUR)
)


@dataclass(frozen=True)
class Row:
    """A choice in words, and the two configurations whose difference it is."""

    words: str
    choice: Configuration
    reference: Configuration


GROUPS = {
    "More tasks a step": (
        Row("four instead of one", FOUR, ONE),
        Row("four instead of one, with momentum", FOUR_MOMENTUM, ONE_MOMENTUM),
        Row("sixteen instead of one", SIXTEEN, ONE),
        Row("all, on every image, instead of one", ALL, ONE),
        Row("all, on every image, instead of four", ALL, FOUR),
    ),
    "Weights by position, instead of equal ones": (
        Row("for sampling the tasks", UNEQUAL_DRAWS, ONE),
        Row("for their losses", UNEQUAL_LOSSES, ALL),
    ),
    "One network, instead of one per task": (
        Row("four tasks a step", FOUR, SINGLE),
        Row("sixteen tasks a step", SIXTEEN, SINGLE),
        Row("one task a step", ONE, SINGLE),
        Row("one task a step, sampled by position", UNEQUAL_DRAWS, SINGLE),
        Row("all tasks on every image", ALL, SINGLE),
        Row("all tasks, losses weighted by position", UNEQUAL_LOSSES, SINGLE),
        Row("plain classifier", PLAIN, SINGLE),
    ),
    "Plain classifier, instead of a head per task": (
        Row("and four tasks a step", PLAIN, FOUR),
        Row("and four tasks a step, with momentum", PLAIN_MOMENTUM, FOUR_MOMENTUM),
        Row("and sixteen tasks a step", PLAIN, SIXTEEN),
        Row("and one task a step", PLAIN, ONE),
        Row("and one task a step, with momentum", PLAIN_MOMENTUM, ONE_MOMENTUM),
    ),
    "Momentum, instead of none": (
        Row("with four tasks a step", FOUR_MOMENTUM, FOUR),
        Row("with one task a step", ONE_MOMENTUM, ONE),
        Row("with a plain classifier", PLAIN_MOMENTUM, PLAIN),
    ),
    "Learning rate 0.5, instead of 0.1": (Row("with all tasks on every image", ALL._replace(lr=0.5), ALL),),
}
"""Every comparison that still counts, by headings that say what a row changes."""

LOOKS: dict[str, dict[str, Any]] = {
    "CIFAR-10": {"fmt": "o", "color": "#0072b2"},
    "CIFAR-100": {"fmt": "s", "color": "#000000"},
    "Omniglot": {"fmt": "^", "color": "#d55e00"},
}


class Effect(NamedTuple):
    """A difference in points of mean accuracy, with its interval.

    It is conclusive if it is so after correction for all comparisons of its study.
    """

    mean: float
    low: float
    high: float
    conclusive: bool


class Comparison(NamedTuple):
    """What one configuration scores above another on a data set."""

    data_set: str
    first: Configuration
    second: Configuration
    effect: Effect


def configuration(row: Mapping[str, str], side: str) -> Configuration:
    """The configuration of a side, `a` or `b`, in a row of comparisons.csv."""
    values: dict[str, Any] = {name: row[f"{name}_{side}"] for name in Configuration._fields}
    count = values["tasks_per_step"]
    return Configuration(
        int(values["setting"]),
        float(values["lr"]),
        float(values["momentum"]),
        int(count) if count else None,
        values["loss"] or None,
    )


def withdrawn(row: Mapping[str, str]) -> bool:
    """Whether a comparison in a row of comparisons.csv no longer counts: docs/answer.md says why."""
    return row["question"] == "loss" or (row["data_set"], row["question"]) == ("Omniglot", "single-task")


def read(directory: Path) -> list[Comparison]:
    """Comparisons of mean accuracy in the usual test of a study, without withdrawn ones."""
    with open(directory / "comparisons.csv", newline="") as file:
        return [
            Comparison(row["data_set"], configuration(row, "a"), configuration(row, "b"), effect(row))
            for row in csv.DictReader(file)
            if (row["measure"], row["test"]) == ("mean_accuracy", "usual") and not withdrawn(row)
        ]


def effect(row: Mapping[str, str]) -> Effect:
    """The difference in a row of comparisons.csv."""
    mean, low, high = (float(row[name] or "nan") for name in ("difference", "low", "high"))
    return Effect(mean, low, high, row["verdict"] in ("higher", "lower"))


def effects(row: Row, comparisons: Iterable[Comparison]) -> dict[str, Effect]:
    """The effect of a choice, by data set.

    Raises:
        SystemExit: a data set has two comparisons of its configurations.
    """
    found: dict[str, Effect] = {}
    for data_set, first, second, each in comparisons:
        if {first, second} != {row.choice, row.reference}:
            continue
        if data_set in found:
            sys.exit(f"results/answer.py: two comparisons for {row.words!r} on {data_set}")
        swapped = Effect(-each.mean, -each.high, -each.low, each.conclusive)
        found[data_set] = each if first == row.choice else swapped
    return found


def draw(comparisons: Sequence[Comparison], path: Path) -> None:
    """Draw the figure and write it.

    It has a row for each choice, and in it a point for each data set.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        sys.exit("results/answer.py needs matplotlib: pip install matplotlib")

    labels: list[str] = []
    headings: list[int] = []
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    for heading, choices in GROUPS.items():
        headings.append(len(labels))
        labels.append(heading)
        for row in choices:
            found = effects(row, comparisons)
            draw_effects(axes, [(name, found[name]) for name in LOOKS if name in found], len(labels))
            labels.append(row.words)
    for start, end in list(pairwise([*headings, len(labels)]))[1::2]:
        axes.axhspan(start - 0.5, end - 0.5, color="0.95", zorder=0)
    figure.set_size_inches(9, 1.2 + 0.3 * len(labels))
    axes.axvline(0, color="0.3", lw=1)
    axes.grid(axis="x", color="0.85", lw=0.7)
    axes.set_axisbelow(True)
    axes.set_xticks(range(-6, 11, 2))
    axes.set_yticks(range(len(labels)), labels)
    for place in headings:
        axes.get_yticklabels()[place].set_fontweight("bold")
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_title("What each choice changes", fontweight="bold")
    axes.set_xlabel("points of mean accuracy over the tasks; right of 0: the choice named first helps")
    note = (
        "bars: 95 % intervals over new seeds, in the usual test; hollow: inconclusive\n"
        "momentum: 0.9, with a cosine schedule from a learning rate of 0.03"
    )
    for name, look in LOOKS.items():
        axes.errorbar([], [], xerr=[], label=name, **look)
    legend = figure.legend(loc="outside lower center", ncols=len(LOOKS), frameon=False, title=note)
    legend.get_title().set_multialignment("center")
    figure.savefig(path, dpi=130, metadata={"Software": None})


def draw_effects(axes: "Axes", found: Sequence[tuple[str, Effect]], row: int) -> None:
    """Draw a point with its interval for each effect.

    They stand one below the other.
    """
    for i, (name, each) in enumerate(found):
        place = row + 0.24 * (i - (len(found) - 1) / 2)
        look: dict[str, Any] = {"ms": 5, "capsize": 2.5, "elinewidth": 1.25, **LOOKS[name]}
        lengths = [[each.mean - each.low], [each.high - each.mean]]
        axes.errorbar(each.mean, place, xerr=lengths, mfc=None if each.conclusive else "white", **look)


if __name__ == "__main__":
    draw([each for study in STUDIES for each in read(HERE / study)], HERE / "answer.png")
