"""Draw the answer, results/answer.png, from the published studies: python results/answer.py

It takes their comparisons.csv and report.csv, and matplotlib.
"""

import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
STUDIES = ("cifar100", "omniglot", "cifar10", "losses")


class Configuration(NamedTuple):
    """A setting with the options that tell the rows of the figure apart, as the report writes them."""

    setting: int
    lr: str = "0.1"
    momentum: str = "0.0"
    tasks_per_step: str | None = None
    loss: str | None = None


NAMED = {3: ("tasks_per_step",), 4: ("tasks_per_step",), 5: ("loss",)}
"""Options that a configuration of a setting names besides the learning rate and momentum."""

PLAIN, SINGLE = Configuration(1), Configuration(2)
ONE, FOUR, SIXTEEN = (Configuration(3, tasks_per_step=number) for number in ("1", "4", "16"))
ALL = Configuration(5, loss="mean")
UNEQUAL_DRAWS, UNEQUAL_LOSSES = Configuration(4, tasks_per_step="1"), Configuration(6)
PLAIN_MOMENTUM, ONE_MOMENTUM, FOUR_MOMENTUM = (
    each._replace(lr="0.03", momentum="0.9") for each in (PLAIN, ONE, FOUR)
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
    "Learning rate 0.5, instead of 0.1": (Row("with all tasks on every image", ALL._replace(lr="0.5"), ALL),),
}
"""Every comparison that still counts, by headings that say what a row changes."""

LOOKS = {
    "CIFAR-10": {"fmt": "o", "color": "#0072b2"},
    "CIFAR-100": {"fmt": "s", "color": "#000000"},
    "Omniglot": {"fmt": "^", "color": "#d55e00"},
}


class Effect(NamedTuple):
    """A difference in points of mean accuracy with its interval, and whether the interval excludes 0."""

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


def configuration(label: str, common: Mapping[str, str]) -> Configuration:
    """The configuration that a label of a report stands for.

    Args:
        common: the options that all runs of the report share, which its labels leave out.

    Raises:
        SystemExit: the label and `common` leave an option of the configuration open.
    """
    setting, *named = label.split(", ")
    number = int(setting.split()[0])
    options = {**common, **dict(each.split(" ", 1) for each in named)}
    names = ("lr", "momentum", *NAMED.get(number, ()))
    if missing := [name for name in names if name not in options]:
        sys.exit(f"results/answer.py: no {missing[0]} in {label!r}, and the runs of its report differ in it")
    return Configuration(number, **{name: options[name] for name in names})


def withdrawn(row: Mapping[str, str]) -> bool:
    """Whether a row of comparisons.csv no longer counts: docs/answer.md says why."""
    own_statistics = any(row[side].endswith("per-task statistics") for side in ("first", "second"))
    unsettled = (row["data_set"], row["question"]) == ("Omniglot", "single-task")
    return own_statistics or unsettled or row["question"] == "loss"


def read(study: Path) -> list[Comparison]:
    """Read the comparisons of mean accuracy in a study that are not withdrawn."""
    values: dict[str, set[str]] = {}
    for run in rows(study / "report.csv"):
        for name, value in run.items():
            values.setdefault(name, set()).update({value} - {""})  # empty: not an option of the run's setting
    common = {name: min(found) for name, found in values.items() if len(found) == 1}
    comparisons = []
    for row in rows(study / "comparisons.csv"):
        if row["measure"] == "accuracy" and not withdrawn(row):
            sides = (configuration(row[side], common) for side in ("first", "second"))
            numbers = (float(row[name]) for name in ("difference", "low", "high"))
            effect = Effect(*numbers, row["verdict"] in ("higher", "lower"))
            comparisons.append(Comparison(row["data_set"], *sides, effect))
    return comparisons


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, by heading."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def effects(row: Row, comparisons: Iterable[Comparison]) -> dict[str, Effect]:
    """The effect of a choice, by data set.

    Raises:
        SystemExit: a data set has two comparisons of its configurations.
    """
    found: dict[str, Effect] = {}
    for data_set, first, second, effect in comparisons:
        if {first, second} != {row.choice, row.reference}:
            continue
        if data_set in found:
            sys.exit(f"results/answer.py: two comparisons for {row.words!r} on {data_set}")
        mean, low, high, conclusive = effect
        found[data_set] = effect if first == row.choice else Effect(-mean, -high, -low, conclusive)
    return found


def draw(comparisons: Sequence[Comparison], path: Path) -> None:
    """Draw the figure and write it: a row for each choice, in it a point for each data set."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        sys.exit("results/answer.py needs matplotlib: pip install matplotlib")

    labels, headings = [], []
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
    for heading in headings:
        axes.get_yticklabels()[heading].set_fontweight("bold")
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_title("What each choice changes", fontweight="bold")
    axes.set_xlabel("points of mean accuracy over the tasks; right of 0: the choice named first helps")
    note = (
        "bars: 95 % intervals over three seeds, in the usual test; hollow: inconclusive\n"
        "momentum: 0.9, with a cosine schedule from a learning rate of 0.03"
    )
    for name, look in LOOKS.items():
        axes.errorbar([], [], xerr=[], label=name, **look)
    legend = figure.legend(loc="outside lower center", ncols=len(LOOKS), frameon=False, title=note)
    legend.get_title().set_multialignment("center")
    figure.savefig(path, dpi=130, metadata={"Software": None})


def draw_effects(axes, found: Sequence[tuple[str, Effect]], row: int) -> None:
    """A point with its interval for each effect, one below the other."""
    for i, (name, each) in enumerate(found):
        place = row + 0.24 * (i - (len(found) - 1) / 2)
        look = {"ms": 5, "capsize": 2.5, "elinewidth": 1.25, **LOOKS[name]}
        lengths = [[each.mean - each.low], [each.high - each.mean]]
        axes.errorbar(each.mean, place, xerr=lengths, mfc=None if each.conclusive else "white", **look)


if __name__ == "__main__":
    draw([each for study in STUDIES for each in read(HERE / study)], HERE / "answer.png")
