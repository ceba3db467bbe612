"""Print the tables of the answer from the published studies, and draw its figure: python results/answer.py

It reads the comparisons that `main.py --report` has written beside their histories. README and docs/answer.md
have the tables as they are printed. The figure, results/answer.png, needs matplotlib.
"""

import csv
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

sys.path.insert(0, str(Path(__file__).parents[1]))

from reporting.screen import signed

HERE = Path(__file__).parent

AS_TRAINED, USUAL, BOTH = "as trained", "usual", "both"
"""How the sides of a comparison are tested; `both`: as trained, minus as usual."""

TESTS = {AS_TRAINED: "as trained", USUAL: "as usual", BOTH: ""}
"""What the heading of a column says of its test, the fairest first."""

Options = dict[str, Any]
"""Options of a configuration, those by which a row tells it from the others of its study."""


class Row(NamedTuple):
    """A choice in words, and the two configurations whose difference it is, in each of some studies.

    If they are the same configuration, the difference is that of its two tests.
    """

    words: str
    choice: Options
    reference: Options
    studies: Sequence[str] = ("cifar100", "omniglot", "first/cifar10")


PLAIN: Options = {"setting": 1}
SINGLE: Options = {"setting": 2}
ONE, FOUR, SIXTEEN = ({"setting": 3, "tasks_per_step": number} for number in (1, 4, 16))
ALL: Options = {"setting": 5}
UNEQUAL_DRAWS: Options = {"setting": 4}
UNEQUAL_LOSSES: Options = {"setting": 6}
NONE, MOMENTUM = {"momentum": 0.0}, {"momentum": 0.9}
HIGH_RATE, LOW_RATE = ALL | {"lr": 0.5}, ALL | {"lr": 0.1, "loss": "mean"}
RATES = ("first/losses",)
FIRST = ("first/cifar100",)
SHARING = ("sharing",)
TUNED = ("tuned",)


def between(studies: Sequence[str]) -> tuple[Row, ...]:
    """The differences between settings 1, 2 and 3, with one and four tasks a step, in some studies."""
    return (
        Row("four tasks a step, not one", FOUR, ONE, studies),
        Row("one network, not one per task: four tasks a step", FOUR, SINGLE, studies),
        Row("one network, not one per task: one task a step", ONE, SINGLE, studies),
        Row("one network, not one per task: plain classifier", PLAIN, SINGLE, studies),
        Row("plain classifier, not four tasks a step", PLAIN, FOUR, studies),
        Row("plain classifier, not one task a step", PLAIN, ONE, studies),
    )


def of_tests(studies: Sequence[str]) -> tuple[Row, ...]:
    """The differences between the two tests of these configurations."""
    return (
        Row("four tasks a step", FOUR, FOUR, studies),
        Row("one task a step", ONE, ONE, studies),
        Row("plain classifier", PLAIN, PLAIN, studies),
        Row("single-task baselines", SINGLE, SINGLE, studies),
    )


GROUPS = {
    "More tasks a step": (
        Row("four instead of one", FOUR, ONE),
        Row("all, on every image, instead of one", ALL, ONE),
        Row("all, on every image, instead of four", ALL, FOUR),
    ),
    "Weights by position, instead of equal ones": (
        Row("for sampling the tasks", UNEQUAL_DRAWS, ONE),
        Row("for their losses", UNEQUAL_LOSSES, ALL),
    ),
    "One network, instead of one per task": (
        Row("four tasks a step", FOUR, SINGLE),
        Row("one task a step", ONE, SINGLE),
        Row("one task a step, sampled by position", UNEQUAL_DRAWS, SINGLE),
        Row("all tasks on every image", ALL, SINGLE),
        Row("all tasks, losses weighted by position", UNEQUAL_LOSSES, SINGLE),
        Row("plain classifier", PLAIN, SINGLE),
    ),
    "Plain classifier, instead of a head per task": (
        Row("and four tasks a step", PLAIN, FOUR),
        Row("and one task a step", PLAIN, ONE),
    ),
    "Learning rate 0.5, instead of 0.1": (Row("with all tasks on every image", HIGH_RATE, LOW_RATE, RATES),),
    "Tested as trained, instead of as usual": (
        Row("four tasks a step", FOUR, FOUR),
        Row("one task a step", ONE, ONE),
        Row("one task a step, sampled by position", UNEQUAL_DRAWS, UNEQUAL_DRAWS),
        Row("plain classifier", PLAIN, PLAIN),
        Row("single-task baselines", SINGLE, SINGLE),
    ),
    "Almost all parameters shared": between(SHARING),
    "Almost all shared, tested as trained, instead of as usual": of_tests(SHARING),
    "Each at its best learning rate": between(TUNED),
    "Each at its best rate, tested as trained, instead of as usual": of_tests(TUNED),
    "CIFAR-100 in the first edition": (
        Row("four tasks a step, not one", FOUR | NONE, ONE | NONE, FIRST),
        Row("four tasks a step, not one; with momentum", FOUR | MOMENTUM, ONE | MOMENTUM, FIRST),
        Row("sixteen tasks a step, not one", SIXTEEN, ONE, FIRST),
        Row("sampling high-numbered tasks more, not equally", UNEQUAL_DRAWS, ONE, FIRST),
        Row("one network, not one per task: four tasks a step", FOUR, SINGLE, FIRST),
        Row("one network, not one per task: sixteen tasks a step", SIXTEEN, SINGLE, FIRST),
        Row("one network, not one per task: one task a step", ONE, SINGLE, FIRST),
        Row("one network, not one per task: sampled by position", UNEQUAL_DRAWS, SINGLE, FIRST),
        Row("one network, not one per task: plain classifier", PLAIN, SINGLE, FIRST),
        Row("plain classifier, not four tasks a step", PLAIN | NONE, FOUR | NONE, FIRST),
        Row(
            "plain classifier, not four tasks a step; with momentum", PLAIN | MOMENTUM, FOUR | MOMENTUM, FIRST
        ),
        Row("plain classifier, not sixteen tasks a step", PLAIN, SIXTEEN, FIRST),
        Row("plain classifier, not one task a step", PLAIN | NONE, ONE | NONE, FIRST),
        Row("plain classifier, not one task a step; with momentum", PLAIN | MOMENTUM, ONE | MOMENTUM, FIRST),
        Row("momentum's recipe, not the default: four tasks a step", FOUR | MOMENTUM, FOUR | NONE, FIRST),
        Row("momentum's recipe, not the default: one task a step", ONE | MOMENTUM, ONE | NONE, FIRST),
        Row("momentum's recipe, not the default: plain classifier", PLAIN | MOMENTUM, PLAIN | NONE, FIRST),
    ),
}
"""Every comparison that counts, by headings that say what a row changes: the tables of docs/answer.md.

The last has runs of the first edition, in whose place there are new ones.
"""

AT_BEST_RATE = "the same, each at its best learning rate"

FIRST_SCREEN = (
    Row("four tasks a step, not one", FOUR, ONE),
    Row(AT_BEST_RATE, FOUR, ONE, TUNED),
    Row("sampling high-numbered tasks more, not equally", UNEQUAL_DRAWS, ONE),
    Row("weighting high-numbered tasks' losses more, not equally", UNEQUAL_LOSSES, ALL),
    Row("one network, not one per task: four tasks a step", FOUR, SINGLE),
    Row(AT_BEST_RATE, FOUR, SINGLE, TUNED),
    Row("one network, not one per task: one task a step", ONE, SINGLE),
    Row("plain classifier, not four tasks a step", PLAIN, FOUR),
    Row(AT_BEST_RATE, PLAIN, FOUR, TUNED),
    Row("the same, at one rate, with equally many parameters", PLAIN, FOUR, SHARING),
    Row("tested as trained, not as usual: one task a step", ONE, ONE),
)
"""The rows of the README's table and of its figure; "the same" is the last row that does not say so."""

LOOKS: dict[str, dict[str, Any]] = {
    "CIFAR-100": {"fmt": "s", "color": "#000000"},
    "Omniglot": {"fmt": "^", "color": "#d55e00"},
    "CIFAR-10": {"fmt": "o", "color": "#0072b2"},
}
"""The data sets, in the order of the tables."""

FAR = 10
"""Differences of more points than this would leave no room for the others in the figure."""


class Effect(NamedTuple):
    """A difference in points of mean accuracy, with its interval.

    It is conclusive if it is so after correction for all comparisons of its study.
    """

    mean: float
    low: float
    high: float
    conclusive: bool

    def swapped(self) -> "Effect":
        """The difference seen from the other side."""
        return Effect(-self.mean, -self.high, -self.low, self.conclusive)

    def written(self, digits: int) -> str:
        """The difference as the tables have it."""
        mean, low, high = (signed(number, digits) for number in self[:3])
        return f"{mean} [{low}, {high}]" + "*" * self.conclusive


Effects = Mapping[str, Effect]
"""The effects of a choice, by the way of testing."""


WITHDRAWN = "loss"
"""A question whose comparisons no longer count: docs/answer.md says why."""


@cache
def read(study: Path) -> list[dict[str, str]]:
    """The comparisons of mean accuracy of a study, as rows of its comparisons.csv, each pair once in a test.

    Withdrawn ones are left out, and so are those on held-out images, which only choose a recipe.
    """
    with open(study / "comparisons.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["measure"] == "mean_accuracy"]
    counted = (row for row in rows if row["question"] != WITHDRAWN and not float(row["validation_a"]))
    pair = ("data_set", "letter_a", "letter_b", "test")
    return [*{tuple(map(row.__getitem__, pair)): row for row in counted}.values()]


def effect(row: Mapping[str, str]) -> Effect:
    """The difference in a row of comparisons.csv."""
    mean, low, high = (float(row[name] or "nan") for name in ("difference", "low", "high"))
    return Effect(mean, low, high, row["verdict"] in ("higher", "lower"))


def has(row: Mapping[str, str], side: str, options: Options) -> bool:
    """Whether a side, `a` or `b`, of a row of comparisons.csv has some options."""
    return all(row[f"{name}_{side}"] == str(value) for name, value in options.items())


def compared(row: Row, directory: Path = HERE) -> dict[str, Effects]:
    """The effects of a choice, by data set.

    Raises:
        SystemExit: a data set has two comparisons of such configurations.
    """
    found: dict[str, dict[str, Effect]] = {}
    for study in row.studies:
        for each in read(directory / study):
            if (each["question"] == "test") != (row.choice == row.reference):
                continue
            if has(each, "a", row.choice) and has(each, "b", row.reference):
                shown = effect(each)
            elif has(each, "b", row.choice) and has(each, "a", row.reference):
                shown = effect(each).swapped()
            else:
                continue
            by_test = found.setdefault(each["data_set"], {})
            if each["test"] in by_test:
                sys.exit(f"results/answer.py: two comparisons for {row.words!r} on {each['data_set']}")
            by_test[each["test"]] = shown
    return {name: found[name] for name in LOOKS if name in found}


def fairest(effects: Effects) -> str:
    """The test to show: as trained, or else as usual where a study has no other."""
    return next(test for test in TESTS if test in effects)


def disagree(effects: Effects) -> bool:
    """Whether the usual test says something else: another verdict, or a difference outside the interval."""
    shown, usual = effects[fairest(effects)], effects.get(USUAL)
    return usual is not None and (
        not shown.low <= usual.mean <= shown.high or usual.conclusive != shown.conclusive
    )


def first_screen(directory: Path = HERE) -> Iterator[str]:
    """The lines of the README's table: as trained, and as usual where that disagrees."""
    found = [(row.words, compared(row, directory)) for row in FIRST_SCREEN]
    names = titles([effects for _, effects in found])
    yield "| choice | " + " | ".join(names.values()) + " |"
    yield "|---" * (len(names) + 1) + "|"
    for words, effects in found:
        cells = [short(effects[name]) if name in effects else "" for name in names]
        yield f"| {words} |" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def headed(name: str, *tests: str) -> str:
    """What to call a data set that is tested in some ways."""
    return ", ".join(filter(None, (name, " or ".join(TESTS[test] for test in TESTS if test in tests))))


def titles(found: Collection[Mapping[str, Effects]]) -> dict[str, str]:
    """What to call each data set of some rows, of which the fairest test is shown."""
    tests = {name: {fairest(effects[name]) for effects in found if name in effects} for name in LOOKS}
    return {name: headed(name, *(shown - {BOTH})) for name, shown in tests.items() if shown}


def short(effects: Effects) -> str:
    """A cell of the README's table."""
    cell = effects[fairest(effects)].written(1)
    if disagree(effects):
        usual = effects[USUAL]
        cell += f"; usual {signed(usual.mean, 1)}" + "*" * usual.conclusive
    return cell


def table(heading: str, directory: Path = HERE) -> Iterator[str]:
    """The lines of a table of docs/answer.md: every test of every data set that a group of rows has."""
    found = {row.words: compared(row, directory) for row in GROUPS[heading]}
    columns = [
        (name, test)
        for name in LOOKS
        for test in TESTS
        if any(test in effects.get(name, {}) for effects in found.values())
    ]
    names = [headed(*column) for column in columns]
    yield f"| {heading} | " + " | ".join(names) + " |"
    yield "| --- " * (len(columns) + 1) + "|"
    for words, effects in found.items():
        cells = [effects.get(name, {}).get(test) for name, test in columns]
        yield f"| {words} |" + "|".join(f" {cell.written(2)} " if cell else " " for cell in cells) + "|"


def draw(path: Path, directory: Path = HERE) -> None:
    """Draw the figure and write it.

    It has the rows of the README's table, and in each a point for each data set.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        sys.exit("results/answer.py: no figure without matplotlib: pip install matplotlib")

    figure = Figure(figsize=(9, 1.2 + 0.42 * len(FIRST_SCREEN)), layout="constrained")
    axes = figure.subplots()
    found = [compared(row, directory) for row in FIRST_SCREEN]
    for place, each in enumerate(found):
        draw_effects(axes, {name: effects[fairest(effects)] for name, effects in each.items()}, place)
    for start, end in list(pairwise(range(len(FIRST_SCREEN) + 1)))[1::2]:
        axes.axhspan(start - 0.5, end - 0.5, color="0.95", zorder=0)
    axes.axvline(0, color="0.3", lw=1)
    axes.grid(axis="x", color="0.85", lw=0.7)
    axes.set_axisbelow(True)
    axes.set_yticks(range(len(FIRST_SCREEN)), [row.words for row in FIRST_SCREEN])
    axes.set_ylim(len(FIRST_SCREEN) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_title("What each choice changes", fontweight="bold")
    axes.set_xlabel("points of mean accuracy; right of 0: the first-named choice helps")
    names = titles(found)
    for name, title in names.items():
        axes.errorbar([], [], xerr=[], label=title, **LOOKS[name])
    note = "bars: 95 % intervals; hollow: inconclusive"
    figure.legend(loc="outside lower center", ncols=len(names), frameon=False, title=note)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def draw_effects(axes: "Axes", effects: Effects, row: int) -> None:
    """Draw a point with its interval for each data set.

    They stand one below the other. One that lies far away is written at that side.
    """
    for i, (name, each) in enumerate(effects.items()):
        place = row + 0.24 * (i - (len(effects) - 1) / 2)
        if abs(each.mean) > FAR:
            write_at_side(axes, each, place, LOOKS[name]["color"])
        else:
            look: dict[str, Any] = {"ms": 5, "capsize": 2.5, "elinewidth": 1.25, **LOOKS[name]}
            lengths = [[each.mean - each.low], [each.high - each.mean]]
            axes.errorbar(each.mean, place, xerr=lengths, mfc=None if each.conclusive else "white", **look)


def write_at_side(axes: "Axes", each: Effect, place: float, color: str) -> None:
    """Write a difference at the side of the figure beyond which it lies."""
    said = each.written(1)
    x, side, text = (0.99, "right", f"{said} →") if each.mean > 0 else (0.01, "left", f"← {said}")
    look: dict[str, Any] = {"ha": side, "va": "center", "fontsize": "x-small", "color": color}
    axes.text(x, place, text, transform=axes.get_yaxis_transform(), **look)


if __name__ == "__main__":
    for lines in (first_screen(), *map(table, GROUPS)):
        print(*lines, "", sep="\n")
    draw(HERE / "answer.png")
