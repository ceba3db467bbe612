"""Every number of a report against the same number worked out by hand from small histories."""

import csv
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import pi, sqrt
from pathlib import Path
from statistics import fmean, stdev

import pytest
from helpers import table_line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import main
import reporting
from options import OPTIONS, Option, Run, choice, number
from settings import DATA_SETS, LOSSES, SETTINGS

# Two tasks are enough to work with by hand; a file of one's own may have as few.
MINE = "mine.npz#0123456789ab"
TASKS = ("left", "right")
CIFAR10 = tuple(DATA_SETS[0].tasks)
CONSTANT = {0: (0.9, 2), 1: (0.2, 5), 2: (1 / 14, 14)}
"""What a constant answer scores in a task of each data set, and how many answers there are."""

# Published quantiles of Student's t by the number of seeds, expected ranges by the number of ways (Tippett
# 1925), and biases of the root of a variance by degrees of freedom (c4 in tables for control charts)
STUDENT = {2: 12.70620, 3: 4.302653, 4: 3.182446, 5: 2.776445}
TIPPETT = {2: 1.128379, 3: 1.692569, 4: 2.058751}
C4 = {1: sqrt(2 / pi), 2: 0.886227, 3: 0.921318, 4: 0.939986, 6: 0.959369}


def table_of(losses: Sequence[str]) -> tuple[Option, ...]:
    """The options, with some losses, and with tasks_per_step where the program has none yet."""
    tasks_per_step = Option(
        "tasks_per_step",
        "how to train",
        "tasks that a step draws",
        number(int, "a whole number from 1", lambda count: count > 0),
        1,
        settings=(3, 4),
        decides="training",
        check=lambda run: "does not go" if run.batch_size % run.tasks_per_step else None,
    )
    there = [option.name for option in OPTIONS]
    known = tuple(replace(o, read=choice(losses)) if o.name == "loss" else o for o in OPTIONS)
    return known if "tasks_per_step" in there else (*known, tasks_per_step)


TABLE = table_of([*LOSSES, "uw", "pcgrad"])
"""What the report is to know of options, whether or not the program has all of it yet."""


@pytest.fixture(autouse=True)
def _no_figure(monkeypatch):
    """Figures take time: matplotlib counts as not installed."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "reporting.figure", raising=False)
    monkeypatch.delattr(reporting, "figure", raising=False)


# Made-up histories


def options_of(setting: int, **options: object) -> dict:
    """What a run records of its options."""
    data = options.get("data", MINE)
    num_tasks = len(TASKS if isinstance(data, str) else DATA_SETS[data].tasks)
    late = {
        "weights": [task + 1.0 for task in range(num_tasks)] if SETTINGS[setting].weighted else None,
        "loss": "mean" if setting == 5 else None,
        "tasks_per_step": 1 if SETTINGS[setting].draws else None,
    }
    fixed = {"task": None, "seed": 0, "epochs": 2, "batch_size": 32, "image_size": 4, "synthetic": False}
    recipe = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "precision": "fp32"}
    return (
        {"setting": setting, "data": MINE, "validation": 0.0, "version": "2.0.0"}
        | fixed
        | recipe
        | late
        | options
    )


def write(
    path: Path,
    setting: int,
    accuracy: Sequence[float],
    seed: int = 0,
    *,
    balanced: Sequence[float] | None = None,
    own: Sequence[float] | None = None,
    tasks: Sequence[str] = TASKS,
    constant: Sequence[float] | None = None,
    answers: int | None = None,
    steps: int = 10,
    images: int = 320,
    parameters: tuple[int, int] = (100, 20),
    seconds: float = 3.0,
    codes: Sequence[str] = ("a",),
    **options: object,
) -> dict:
    """Write a history whose last epoch has these accuracies, the others half of them.

    Args:
        balanced: balanced accuracies; default: lower by 0.02.
        own: accuracies with the tasks' own statistics; the balanced ones are lower by 0.02.
        tasks: of a data set of one's own.
        constant: what a constant answer scores in each task.
        answers: how many answers a task has.
        steps: of an epoch, as are `images` and `seconds`.
        parameters: of the encoder and of the heads.
        codes: of the sittings.
    """
    options = options_of(setting, seed=seed, **options)
    data, held_out = options["data"], options["validation"]
    names = list(tasks if isinstance(data, str) else DATA_SETS[data].tasks)
    title = data.partition("#")[0] if isinstance(data, str) else DATA_SETS[data].name
    if options["synthetic"]:
        title = f"synthetic stand-in for {title}"
    recorded = {0: ["all classes"], 2: [names[options["task"] or 0]]}.get(setting, names)
    usual, usual_answers = CONSTANT.get(data, (0.5, 2))
    lower = [share - 0.02 for share in accuracy] if balanced is None else balanced
    epochs = [
        {
            "epoch": epoch,
            "accuracy": [share * part for share in accuracy],
            "balanced_accuracy": [max(0, share) * part for share in lower],
            "loss": 1 / epoch,
            "task_loss": [1.0] * len(recorded),
            "steps": steps,
            "images": images,
            "seconds": seconds,
            "evaluation_seconds": 0.5,
            "images_per_second": 100.0,
        }
        for epoch in range(1, options["epochs"] + 1)
        for part in [1 if epoch == options["epochs"] else 0.5]
    ]
    history = {
        "format": 2,
        "options": options,
        "data_set": {"title": title, "scored_on": "validation" if held_out else "test", "tasks": names},
        "sittings": [{"epoch": 0, "step": 0, "environment": {}, "code": code} for code in codes],
        "tasks": recorded,
        "constant_accuracy": list(constant or [usual] * len(recorded)),
        "num_answers": [answers or usual_answers] * len(recorded),
        "parameters": dict(zip(("encoder", "heads"), parameters, strict=True)),
        "epochs": epochs,
        "finished": True,
    }
    if own:
        history["own_statistics"] = {"accuracy": [*own], "balanced_accuracy": [share - 0.02 for share in own]}
    path.mkdir(parents=True)
    (path / "history.json").write_text(json.dumps(history))
    return history


Scores = Mapping[int, Sequence[float]]


def write_way(path: Path, setting: int, scores: Scores, missing: Sequence = (), **how: object) -> None:
    """Histories of a way of training, by seed; in setting 2 all but `missing`, (seed, task)."""
    name = "-".join(map(str, [setting, len(list(path.glob("*")))]))
    for seed, accuracy in scores.items():
        if setting != 2:
            write(path / name / str(seed), setting, accuracy, seed, **how)
            continue
        for task, score in enumerate(accuracy):
            if (seed, task) not in missing:
                by_task = {
                    key: [how[key][task]] for key in ("constant", "balanced") if how.get(key) is not None
                }
                write(path / name / f"{seed}-{task}", 2, [score], seed, task=task, **how | by_task)


def edit(path: Path, **entries: object) -> None:
    """Change some entries of a history."""
    path = path / "history.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


# Reports, taken apart


class Report:
    """What a report has printed and written."""

    def __init__(self, out: str, path: Path) -> None:
        self.out, self.path = out, path
        self.lines = out.splitlines()

    def cells(self, label: str) -> dict[str, str]:
        """The line of a group in the first table, by heading."""
        return table_line(self.out, label)

    @property
    def labels(self) -> list[str]:
        """The labels of all tables."""
        return [re.split(r"  ", line)[0] for line in self.lines if re.match(r"\d .*  +\d+ +\d+ ", line)]

    def rows(self, name: str = "comparisons.csv") -> list[dict[str, str]]:
        """A file of comma-separated values."""
        with open(self.path / name, newline="") as file:
            return list(csv.DictReader(file))

    def compared(self, question: str | None = None) -> list[tuple[str, str]]:
        """The labels of what is compared by mean accuracy, for a question."""
        return [
            (row["first"], row["second"])
            for row in self.rows()
            if row["measure"] == "accuracy" and question in (None, row["question"])
        ]

    def said(self, start: str) -> str:
        """The line of what matters that starts so, as `draws`."""
        matters = self.out.partition("\nWhat matters")[2].partition("\n\n")[0]
        (line,) = (line for line in matters.splitlines() if line.startswith(f"- {start}"))
        return line

    def commands(self, question: str) -> list[str]:
        """The command lines that are printed for a question."""
        after = self.out.partition("\nNot answered for lack of runs")[2].splitlines()
        starts = [i for i, line in enumerate(after) if line.startswith(f"- {question} (")]
        if not starts:
            return []
        following = itertools.takewhile(lambda line: line.startswith("  "), after[starts[0] + 1 :])
        return [line.strip() for line in following]


@pytest.fixture
def report(run, tmp_path):
    """Report on what has been written into tmp_path, or a folder of it."""

    def report(*options: object, folder: str = "") -> Report:
        reported = run("--report", "--save_path", tmp_path / folder, *options, table=TABLE)
        assert (reported.code, "Traceback" in reported.err) == (0, False)
        return Report(reported.out, tmp_path / folder)

    return report


# The same numbers by hand


def interval(values: Sequence[float]) -> tuple[float, float, float] | None:
    """Mean of values of different seeds and the ends of its interval."""
    half = STUDENT[len(values)] * stdev(values) / sqrt(len(values))
    return fmean(values), fmean(values) - half, fmean(values) + half


def between(low: float, high: float) -> str:
    return "higher" if low > 0 else "lower" if high < 0 else "cannot be told"


def line_of(values: Sequence[float], unit: str = "points") -> str:
    """The end of the printed line of a difference, by its values for some seeds."""
    mean, low, high = interval(values)
    if stdev(values) < 1e-9:
        return f": {mean:+.2f} [-] {unit}, {len(values)} seeds: cannot be told"
    return f": {mean:+.2f} [{low:+.2f}, {high:+.2f}] {unit}, {len(values)} seeds: {between(low, high)}"


def differences(first: Scores, second: Scores) -> list[float]:
    """In points of mean accuracy, for the seeds of both."""
    seeds = sorted(first.keys() & second.keys())
    return [100 * (fmean(first[seed]) - fmean(second[seed])) for seed in seeds]


def delta_m(first: Scores, baseline: Scores) -> list[float]:
    """In per cent, for the seeds of both."""
    seeds = sorted(first.keys() & baseline.keys())
    tasks = range(len(first[seeds[0]]))
    average = [fmean(baseline[seed][task] for seed in seeds) for task in tasks]
    return [
        fmean(100 * (first[seed][task] - baseline[seed][task]) / average[task] for task in tasks)
        for seed in seeds
    ]


def range_by_chance(ways: Sequence[Sequence[float]]) -> float:
    """Points between the best and the worst of equal ways, from their means: a list of seeds for each way."""
    ways = [list(way) for way in ways]
    seeds = range(len(ways[0]))
    overall = fmean(fmean(way) for way in ways)
    left = [
        way[seed] - fmean(way) - fmean(other[seed] for other in ways) + overall
        for way in ways
        for seed in seeds
    ]
    freedom = (len(ways) - 1) * (len(seeds) - 1)
    deviation = sqrt(sum(each**2 for each in left) / freedom / len(seeds))
    return 100 * TIPPETT[len(ways)] * deviation / C4[freedom]


# A small study, number by number: unequal seeds, four of setting 3, three of 4 and 2, two that all have

DRAWN = {0: (0.60, 0.70), 1: (0.64, 0.72), 2: (0.59, 0.75), 3: (0.70, 0.90)}
WEIGHTED = {0: (0.58, 0.69), 1: (0.60, 0.71), 2: (0.58, 0.71)}
SINGLE = {1: (0.50, 0.60), 2: (0.54, 0.58), 3: (0.55, 0.65)}


@pytest.fixture
def small_study(tmp_path):
    write_way(tmp_path, 3, DRAWN, parameters=(100, 40), seconds=1.5)
    write_way(tmp_path, 4, WEIGHTED, parameters=(100, 40))
    write_way(tmp_path, 2, SINGLE, parameters=(100, 20), steps=5, images=160, seconds=0.5)


def test_the_table_is_what_a_hand_works_out(small_study, report):
    printed = report()
    assert printed.lines[0] == "mine.npz (content 0123456789ab): 2 tasks"
    mean, low, high = interval([0.65, 0.68, 0.67, 0.80])
    change, below, above = interval(delta_m(DRAWN, SINGLE))
    assert printed.cells("3 uniform draws") == {
        "setting": "3 uniform draws",
        "accuracy [95 % CI]": f"{mean:.4f} [{low:.4f}, {high:.4f}]",
        "balanced": "0.6800",
        "delta_m % [95 % CI]": f"{change:+.2f} [{below:+.2f}, {above:+.2f}]",
        "worst task": f"left {(0.60 + 0.64 + 0.59 + 0.70) / 4:.3f}",
        "best task": f"right {(0.70 + 0.72 + 0.75 + 0.90) / 4:.3f}",
        "runs": "4",
        "seeds": "4",
        "steps": "20",
        "images": "640",
        "parameters": "140",
        "seconds": "3",
    }
    single = printed.cells("2 single task")
    mean, low, high = interval([0.55, 0.56, 0.60])
    assert single["accuracy [95 % CI]"] == f"{mean:.4f} [{low:.4f}, {high:.4f}]"
    assert single["delta_m % [95 % CI]"] == "0 by definition"
    assert [single[name] for name in ("runs", "seeds", "steps", "images", "parameters", "seconds")] == [
        "6", "3", "10", "320", "120", "1"
    ]  # fmt: skip
    assert printed.labels == ["2 single task", "3 uniform draws", "4 weighted draws"]
    assert "always giving a task's commonest answer scores 0.5000, balanced 0.5000" in printed.out


def test_every_comparison_is_formed_over_common_seeds(small_study, report):
    printed = report("--verbose")
    against = "3 uniform draws against 4 weighted draws"
    lines = [f"{against}{line_of(differences(DRAWN, WEIGHTED))}"]
    for setting, scores in (("3 uniform draws", DRAWN), ("4 weighted draws", WEIGHTED)):
        against = f"{setting} against 2 single task"
        lines.append(f"{against}{line_of(differences(scores, SINGLE))}")
        lines.append(f"{against}{line_of(delta_m(scores, SINGLE), '% (delta_m)')}")
        for task, name in enumerate(TASKS):
            seeds = sorted(scores.keys() & SINGLE.keys())
            values = [100 * (scores[seed][task] - SINGLE[seed][task]) for seed in seeds]
            lines.append(f"{against} in {name}{line_of(values)}")
    assert [
        line.strip() for line in printed.lines if re.search(r"seeds?: (higher|lower|cannot)", line)
    ] == lines
    assert len(differences(WEIGHTED, SINGLE)) == 2
    assert re.search(
        r"3 intervals of mean accuracy; were all equally good, chance would tell 0\.[12] ", printed.out
    )


def test_the_rows_of_comparisons_are_the_printed_lines(small_study, report):
    printed = report("--verbose")
    lines = [line.strip() for line in printed.lines if re.search(r"seeds?: (higher|lower|cannot)", line)]
    rows = printed.rows()
    columns = "data_set, question, first, second, measure, seeds, difference, low, high, verdict"
    assert ", ".join(rows[0]) == columns
    assert {row["data_set"] for row in rows} == {"mine.npz (content 0123456789ab)"}
    made = []
    for row in rows:
        measure, _, task = row["measure"].partition(" of ")
        unit = {"accuracy": "points", "delta_m": "% (delta_m)"}[measure]
        numbers = [f"{float(row[name]):+.2f}" for name in ("difference", "low", "high")]
        made.append(
            f"{row['first']} against {row['second']}{' in ' * bool(task)}{task}: {numbers[0]} "
            f"[{numbers[1]}, {numbers[2]}] {unit}, {row['seeds']} seeds: {row['verdict']}"
        )
    assert made == lines
    questions = [(row["question"], row["measure"]) for row in rows]
    assert questions == [
        ("draws", "accuracy"),
        *[("single-task", name) for name in ("accuracy", "delta_m", "accuracy of left", "accuracy of right")]
        * 2,
    ]
    for row, values in ((rows[0], differences(DRAWN, WEIGHTED)), (rows[2], delta_m(DRAWN, SINGLE))):
        got = [float(row[name]) for name in ("difference", "low", "high")]
        assert got == pytest.approx(interval(values), abs=1e-4)


def test_the_words_carry_the_numbers_of_their_comparisons(small_study, report):
    printed = report()
    for question, scores in (("draws", WEIGHTED), ("single-task", SINGLE)):
        mean, low, high = interval(differences(DRAWN, scores))
        words = f"3 uniform draws scores {mean:.2f} [{low:.2f}, {high:.2f}] points more than "
        assert words in printed.said(question)
    _, low, high = interval(differences(WEIGHTED, SINGLE))
    assert printed.said("single-task").endswith(
        f"; cannot be told: 4 weighted draws against 2 single task, between {low:+.2f} and {high:+.2f} points"
    )


def test_a_way_that_scores_lower_is_said_to_do_so(report, tmp_path):
    first, second = {0: (0.5, 0.6), 1: (0.51, 0.62)}, {0: (0.6, 0.7), 1: (0.61, 0.7195)}
    write_way(tmp_path, 3, first)
    write_way(tmp_path, 4, second)
    printed = report()
    values = differences(first, second)
    assert interval(values)[2] < 0
    assert f"3 uniform draws against 4 weighted draws{line_of(values)}" in printed.out
    mean, low, high = (-value for value in interval(values))
    assert printed.said("draws").endswith(
        f"4 weighted draws scores {mean:.2f} [{high:.2f}, {low:.2f}] points more than 3 uniform draws"
    )


def test_of_many_answers_the_largest_and_the_smallest_are_said_and_the_bounds_of_the_rest(report, tmp_path):
    base = {0: (0.50, 0.50), 1: (0.52, 0.50), 2: (0.50, 0.51)}
    gaps = {1: 0.1, 2: 0.2, 3: 0.3}  # by weights
    ways = {
        weight: {seed: [s + gap + 0.001 * seed for s in score] for seed, score in base.items()}
        for weight, gap in gaps.items()
    }
    ways[4] = {0: (0.50, 0.52), 1: (0.51, 0.50), 2: (0.51, 0.50)}
    ways[5] = {0: (0.50, 0.55), 1: (0.51, 0.50), 2: (0.51, 0.47)}
    write_way(tmp_path, 3, base)
    for weight, scores in ways.items():
        write_way(tmp_path, 4, scores, weights=[1, weight])
    said = report().said("draws")
    assert "3 of 5 comparisons tell a difference" in said
    largest, smallest = (-interval(differences(base, ways[weight]))[0] for weight in (3, 1))
    assert re.search(
        rf"the largest: 4 [^;]* scores {largest:.2f} [^;]*; the smallest: 4 [^;]* {smallest:.2f} ", said
    )
    ends = [interval(differences(base, ways[weight]))[1:] for weight in (4, 5)]
    low, high = min(min(ends)), max(high for _, high in ends)
    assert said.endswith(f"2 comparisons, whose intervals all lie between {low:+.2f} and {high:+.2f} points")


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("number_of_ways", [2, 3, 4])
def test_the_best_the_worst_and_what_seeds_alone_would_give(report, tmp_path, number_of_ways, seeds):
    level = {1: 0.6, 3: 0.7, 4: 0.65, 5: 0.5}
    noise = [0.011, -0.007, 0.002, 0.013, -0.012, 0.004, 0.001, -0.003, 0.008, -0.01, 0.006, 0.003]
    ways = {
        setting: {seed: [level[setting] + noise[3 * i + seed]] * 2 for seed in range(seeds)}
        for i, setting in enumerate([*level][:number_of_ways])
    }
    extra = {7: (0.9, 0.9)}  # a seed that one way alone has
    for setting, scores in ways.items():
        write_way(tmp_path, setting, scores | (extra if setting == 1 else {}), steps=10 + setting)
    write_way(tmp_path, 0, {seed: [0.99] for seed in range(seeds)})  # all classes: no rival
    means = {setting: [fmean(score) for score in scores.values()] for setting, scores in ways.items()}
    best, worst = (choose(ways, key=lambda s: fmean(means[s])) for choose in (max, min))
    names = {setting: f"{setting} {SETTINGS[setting].name}" for setting in ways}
    top, bottom = fmean(means[best]), fmean(means[worst])
    chance = range_by_chance(list(means.values()))
    least, most = 20 + 2 * min(ways), 20 + 2 * max(ways)
    assert report().said("of ") == (
        f"- of {len(ways)} ways of training the best is {names[best]}, {top:.4f}, and the worst "
        f"{names[worst]}, {bottom:.4f}, {100 * (top - bottom):.2f} points apart; were all equally good, "
        f"{seeds} seeds would put them {chance:.2f} apart on average (steps: {least} to {most})"
    )


# Tasks that gain and lose


def single_and_drawn(gains: Sequence[Sequence[float]]) -> tuple[dict, dict]:
    """Scores of setting 2 and of a way that is higher by some points: a list of seeds for each task."""
    single = {seed: [0.6] * len(gains) for seed in range(len(gains[0]))}
    drawn = {seed: [0.6 + task[seed] / 100 for task in gains] for seed in single}
    return single, drawn


def test_tasks_gain_lose_or_cannot_be_told_by_their_intervals(report, tmp_path):
    gains = [(5, 6, 7), (9, 8, 10), (-5, -6, -4), (9, -1, 1), (4, 4, 4)]  # the last: no deviation
    single, drawn = single_and_drawn(gains)
    names = ["up", "far up", "down", "open", "equal"]
    write_way(tmp_path, 2, single, tasks=names)
    write_way(tmp_path, 3, drawn, tasks=names)
    printed = report("--verbose")
    assert (
        "- 3 uniform draws: 2 of 5 tasks gain, 1 lose (negative transfer), 2 cannot be told; were none "
        "different, chance would tell 0.2"
    ) in printed.out or "chance would tell 0.3" in printed.out  # 0.05 x 5 is a tie of rounding
    for name, values in zip(names[:-1], gains, strict=False):
        assert f"3 uniform draws against 2 single task in {name}{line_of(values)}" in printed.out
    assert "in equal: +4.00 [-] points, 3 seeds: cannot be told" in printed.out
    assert " in up: " not in report().out


@pytest.mark.parametrize("seeds", [1, 2])
def test_with_less_than_three_common_seeds_no_task_gains_or_loses(report, tmp_path, seeds):
    write_way(tmp_path, 2, {seed: (0.5 + 0.01 * seed, 0.5) for seed in range(seeds)})
    write_way(tmp_path, 3, dict.fromkeys(range(3), (0.9, 0.9)))
    printed = report()
    assert f"- 3 uniform draws: which tasks gain and lose takes 3 common seeds, not {seeds}" in printed.out
    assert "tasks gain," not in printed.out


# Few seeds


def test_one_common_seed_decides_nothing(report, tmp_path):
    write_way(tmp_path, 3, {0: (0.6, 0.7), 1: (0.6, 0.8)})
    write_way(tmp_path, 4, {1: (0.5, 0.6), 2: (0.5, 0.7)})
    write_way(tmp_path, 2, {1: (0.55, 0.55)})
    printed = report()
    assert (
        "3 uniform draws against 4 weighted draws: +15.00 [-] points, 1 seed: cannot be told" in printed.out
    )
    assert "- one seed decides nothing: 3 comparisons of a single common seed" in printed.out
    assert printed.cells("2 single task")["accuracy [95 % CI]"] == "0.5500 [-]"
    change = 100 * (0.05 + 0.25) / 0.55 / 2
    assert printed.cells("3 uniform draws")["delta_m % [95 % CI]"] == f"{change:+.2f} [-]"
    assert printed.said("draws").endswith("cannot be told, for want of seeds that differ: 1 comparison")
    assert "takes two seeds that all of them have" in printed.said("of 3 ways")
    rows = printed.rows()
    assert {(row["low"], row["high"], row["verdict"]) for row in rows} == {("", "", "cannot be told")}
    assert "0 intervals of mean accuracy" in printed.out
    assert printed.commands("draws")


def test_without_a_common_seed_nothing_is_compared(report, tmp_path):
    write_way(tmp_path, 3, {0: (0.6, 0.7), 1: (0.6, 0.8)})
    write_way(tmp_path, 4, {2: (0.5, 0.6), 3: (0.5, 0.7)})
    printed = report()
    assert printed.rows() == []
    assert printed.commands("draws")


def test_seeds_that_agree_to_the_last_digit_tell_nothing(report, tmp_path):
    scores = {seed: (0.6 + 0.05 * seed, 0.7) for seed in range(3)}
    write_way(tmp_path, 3, scores)
    write_way(tmp_path, 4, {seed: [share - 0.1 for share in shares] for seed, shares in scores.items()})
    write_way(tmp_path, 5, dict.fromkeys(range(3), (0.3, 0.3)))
    printed = report()
    assert (
        "3 uniform draws against 4 weighted draws: +10.00 [-] points, 3 seeds: cannot be told" in printed.out
    )
    assert printed.cells("5 summed losses")["accuracy [95 % CI]"] == "0.3000 [-]"
    assert "one seed decides" not in printed.out
    assert printed.said("draws").endswith("cannot be told, for want of seeds that differ: 1 comparison")


# Single-task training that lacks something


def test_a_seed_that_lacks_a_task_of_setting_2_is_left_out(report, tmp_path):
    drawn = {0: (0.6, 0.7), 1: (0.6, 0.8), 2: (0.7, 0.8)}
    single = {0: (0.5, 0.6), 1: (0.5, 0.5), 2: (0.5, 0.7)}
    write_way(tmp_path, 3, drawn)
    write_way(tmp_path, 2, single, missing=[(1, 1)])
    printed = report()
    rest = {seed: single[seed] for seed in (0, 2)}
    assert f"3 uniform draws against 2 single task{line_of(differences(drawn, rest))}" in printed.out
    mean, low, high = interval([0.55, 0.6])
    cells = printed.cells("2 single task")
    assert cells["accuracy [95 % CI]"] == f"{mean:.4f} [{low:.4f}, {high:.4f}]"
    assert (cells["runs"], cells["seeds"]) == ("4", "2")
    assert "2 single task: seed 1 lacks 1 of 2 tasks and is left out" in printed.out


def test_without_any_seed_that_has_every_task_setting_2_is_compared_with_nothing(report, tmp_path):
    drawn = {0: (0.6, 0.7), 1: (0.6, 0.8)}
    write_way(tmp_path, 3, drawn)
    write_way(tmp_path, 2, {0: (0.5, 0.9), 1: (0.9, 0.5)}, missing=[(0, 1), (1, 0)])
    printed = report()
    assert printed.rows() == []
    assert "gain" not in printed.out.partition("\naccuracy: mean over tasks")[0]
    for label in ("2 single task", "3 uniform draws"):
        assert printed.cells(label)["delta_m % [95 % CI]"] == "-"
    for seed in (0, 1):
        assert f"seed {seed} lacks 1 of 2 tasks; the means are over the others, and not" in printed.out
    assert printed.commands("single-task")


@pytest.mark.parametrize("level", [0.2, 0.19, 0.2001])
def test_no_delta_m_where_single_task_training_is_no_better_than_a_constant_answer(report, tmp_path, level):
    names = ["sea", "land", "air"]
    for setting in (2, 3):
        scores = {seed: (0.5, level, 0.6 + 0.01 * seed) for seed in range(3)}
        write_way(tmp_path, setting, scores, tasks=names, constant=[0.2] * 3, answers=5)
    printed = report()
    if level > 0.2:
        assert printed.cells("3 uniform draws")["delta_m % [95 % CI]"] != "-"
        assert "no delta_m" not in printed.out
    else:  # shows a fault: 0.2 averaged over three seeds is above 0.2 by rounding
        assert printed.cells("3 uniform draws")["delta_m % [95 % CI]"] == "-"
        assert (
            "- 3 uniform draws: no delta_m, as single-task training is no better than a constant answer in "
            "land\n"
        ) in printed.out
        assert {row["measure"] for row in printed.rows()} == {
            "accuracy", "accuracy of sea", "accuracy of land", "accuracy of air"
        }  # fmt: skip


BALANCED = {
    2: {seed: [0.6 + 0.01 * ((seed * task) % 4) for task in range(10)] for seed in range(3)},
    3: {seed: [0.7 + 0.01 * ((seed + task) % 3) for task in range(10)] for seed in range(3)},
}


def write_cifar10(path: Path, balanced: Mapping[int, Scores]) -> None:
    """Accuracies just below and above 0.9, which a constant answer has, and some balanced ones."""
    for setting, scores in balanced.items():
        for seed, shares in scores.items():
            how = {"data": 0, "balanced": shares}
            accuracy = [0.88 + 0.01 * (task % 4) + 0.001 * seed for task in range(10)]
            write_way(path, setting, {seed: accuracy}, **how)


def test_delta_m_is_formed_on_balanced_accuracy_where_a_constant_answer_is_accurate(report, tmp_path):
    write_cifar10(tmp_path, BALANCED)
    printed = report("--verbose")
    change, low, high = interval(delta_m(BALANCED[3], BALANCED[2]))
    assert (
        printed.cells("3 uniform draws")["delta_m % [95 % CI]"] == f"{change:+.2f} [{low:+.2f}, {high:+.2f}]"
    )
    assert "delta_m, gains and losses are in balanced accuracy" in printed.out
    assert "always giving a task's commonest answer scores 0.9000, balanced 0.5000" in printed.out
    verdicts = []
    for task, name in enumerate(CIFAR10):
        values = [100 * (BALANCED[3][seed][task] - BALANCED[2][seed][task]) for seed in range(3)]
        assert f"3 uniform draws against 2 single task in {name}{line_of(values)}" in printed.out
        verdicts.append(line_of(values).rpartition(": ")[2])
    assert f"{verdicts.count('higher')} of 10 tasks gain, 0 lose" in printed.out
    assert 0 < verdicts.count("higher") < 10
    measures = [row["measure"] for row in printed.rows()]
    assert measures == ["accuracy", "delta_m", *(f"balanced_accuracy of {name}" for name in CIFAR10)]


def test_a_constant_answer_in_balanced_accuracy_is_one_over_the_number_of_answers(report, tmp_path):
    single = {seed: [0.5 if task in (3, 8) else 0.6 for task in range(10)] for seed in range(3)}
    write_cifar10(tmp_path, {2: single, 3: BALANCED[3]})
    printed = report()
    assert printed.cells("3 uniform draws")["delta_m % [95 % CI]"] == "-"
    assert "no better than a constant answer in cat, ship\n" in printed.out


@pytest.mark.parametrize("constant", [(0.55, 0.55), (0.5, 0.62)])
def test_the_gap_that_decides_the_measure_is_averaged_over_tasks(report, tmp_path, constant):
    for setting in (2, 3):
        write_way(tmp_path, setting, {0: (0.8, 0.8), 1: (0.8, 0.9)}, constant=constant)
    printed = report()
    balanced = sum(constant) / 2 - 0.5 > 0.055
    # shows a fault: 0.55 - 0.5 is above 0.05 by rounding
    assert ("in balanced accuracy" in printed.out) == balanced
    assert any(row["measure"].startswith("balanced") for row in printed.rows()) == balanced


# Amounts of training


@pytest.mark.parametrize(
    ("first", "second", "compared"),
    [
        ((1, 1000), (10, 100), True),  # epochs and steps of each: as many in all
        ((1, 950), (10, 100), True),
        ((10, 100), (1, 950), True),
        ((1, 949), (10, 100), False),
        ((10, 100), (1, 949), False),
        ((2, 100), (2, 300), True),  # equal epochs, for want of equal steps
        ((2, 100), (3, 100), False),
    ],
)
def test_settings_are_compared_where_steps_agree_and_else_at_equal_epochs(
    report, tmp_path, first, second, compared
):
    for setting, (epochs, steps) in ((1, first), (3, second)):
        write_way(tmp_path, setting, {0: (0.6, 0.7), 1: (0.6, 0.8)}, epochs=epochs, steps=steps)
    printed = report()
    assert bool(printed.compared("heads")) == compared
    totals = [epochs * steps for epochs, steps in (first, second)]
    difference = f"steps {totals[0]:,} and {totals[1]:,}"
    assert (difference in printed.out) == (compared and totals[0] != totals[1])


def test_steps_of_setting_2_are_those_of_all_its_models_together(report, tmp_path):
    scores = {0: (0.6, 0.7), 1: (0.6, 0.8)}
    write_way(tmp_path, 3, scores, epochs=4, steps=10, images=1000, parameters=(100, 40))
    write_way(tmp_path, 2, scores, epochs=2, steps=10, images=1000, parameters=(100, 20))
    write_way(tmp_path, 2, scores, epochs=4, steps=10, images=1000, parameters=(100, 20))
    printed = report()
    assert printed.compared("single-task") == [("3 uniform draws, epochs 4", "2 single task, epochs 2")]
    after = printed.lines[printed.lines.index("single-task:") + 2]
    assert after.strip() == "the sides differ: parameters 140 and 240"


def test_each_way_without_a_partner_of_equal_steps_has_one_of_equal_epochs(report, tmp_path):
    # As on CIFAR-10, where an epoch of settings 2 and 3 has ten times the steps of one of 1 and 5
    scores = {0: (0.6, 0.7), 1: (0.6, 0.8)}
    for setting, steps in ((1, 20), (2, 100), (3, 200), (5, 20)):
        write_way(tmp_path, setting, scores, steps=steps)
    # shows a fault: 2 has a partner of equal steps in 3, and is withheld from 1 and 5 for it
    assert [first for first, _ in report().compared("single-task")] == [
        "1 standard by task", "3 uniform draws", "5 summed losses"
    ]  # fmt: skip


def test_a_pair_of_equal_steps_goes_before_one_of_equal_epochs(report, tmp_path):
    scores = {0: (0.6, 0.7), 1: (0.6, 0.8)}
    for setting, epochs, steps in ((1, 2, 100), (1, 4, 100), (3, 2, 200)):
        write_way(tmp_path, setting, scores, epochs=epochs, steps=steps)
    assert report().compared("heads") == [("1 standard by task, epochs 4", "3 uniform draws, epochs 2")]


def test_what_differs_between_the_sides_is_said(report, tmp_path):
    scores = {0: (0.6, 0.7), 1: (0.6, 0.8)}
    write_way(tmp_path, 3, scores, steps=1000, images=32000, parameters=(100, 40))
    write_way(tmp_path, 4, scores, steps=1010, images=32320, parameters=(100, 40))
    write_way(tmp_path, 1, scores, steps=1000, images=32000, parameters=(100, 1900))
    printed = report()
    at = {line.strip(): i for i, line in enumerate(printed.lines)}
    assert printed.lines[at["draws:"] + 2].strip() == (
        "the sides differ: steps 2,000 and 2,020; images 64,000 and 64,640"
    )
    assert printed.lines[at["heads:"] + 2].strip() == "the sides differ: parameters 2,000 and 140"


def test_sides_that_are_alike_need_no_line(report, tmp_path):
    for setting in (3, 4):
        write_way(tmp_path, setting, {0: (0.6, 0.7), 1: (0.6, 0.8)})
    printed = report()
    assert printed.compared("draws")
    assert "the sides differ" not in printed.out


def test_the_encoders_share_of_the_parameters_is_said_once(report, tmp_path):
    write_way(tmp_path, 3, {0: (0.6, 0.7)}, parameters=(280_000, 84_000_000))
    write_way(tmp_path, 2, {0: (0.6, 0.7)}, parameters=(280_000, 4_200_000))
    lines = [line for line in report().lines if line.startswith("parameters: ")]
    assert lines == ["parameters: the encoder has 0.28 of the 84.28 million of 3 uniform draws"]


# Questions: what is compared, and what must agree

QUESTIONS = [
    ("draws", {"setting": 3}, {"setting": 4, "weights": [2, 1]}),
    ("weights", {"setting": 5}, {"setting": 6, "weights": [2, 1]}),
    ("loss", {"setting": 5}, {"setting": 5, "loss": "uw"}),
    ("tasks a step", {"setting": 3}, {"setting": 3, "tasks_per_step": 4}),
    ("tasks a step", {"setting": 4}, {"setting": 4, "tasks_per_step": 2}),
    ("all tasks", {"setting": 3}, {"setting": 5}),
    ("all tasks", {"setting": 3, "tasks_per_step": 4}, {"setting": 5}),
    ("heads", {"setting": 1}, {"setting": 3}),
    ("heads", {"setting": 1}, {"setting": 3, "tasks_per_step": 4}),
    *[("single-task", {"setting": setting}, {"setting": 2}) for setting in (1, 3, 4, 5, 6)],
    ("single-task", {"setting": 5, "loss": "uw"}, {"setting": 2}),
    ("single-task", {"setting": 3, "tasks_per_step": 2}, {"setting": 2}),
    *[
        ("recipe", {"setting": setting}, {"setting": setting} | recipe)
        for setting, recipe in (
            (1, {"lr": 0.2}),
            (2, {"momentum": 0.9}),
            (3, {"weight_decay": 0.01}),
            (6, {"schedule": "cosine"}),
            (5, {"lr": 0.2, "momentum": 0.9, "weight_decay": 0.01, "schedule": "cosine"}),
        )
    ],
]
MUST_AGREE = {
    "batch_size": 64, "image_size": 8, "precision": "bf16", "codes": ("b",), "lr": 0.2, "momentum": 0.9,
    "weight_decay": 0.01, "schedule": "cosine",
}  # fmt: skip
PAIR = {0: (0.6, 0.7), 1: (0.6, 0.8)}


@pytest.mark.parametrize(
    ("question", "first", "second"),
    QUESTIONS,
    ids=lambda value: value if isinstance(value, str) else str(value["setting"]),
)
def test_a_question_is_answered_by_runs_that_differ_in_nothing_else(
    report, tmp_path, question, first, second
):
    write_way(tmp_path / "same", **first, scores=PAIR)
    write_way(tmp_path / "same", **second, scores=PAIR)
    ((one, other),) = report(folder="same").compared(question)
    assert (int(one[0]), int(other[0])) == (first["setting"], second["setting"])
    write_way(tmp_path / "other", **first, scores=PAIR)
    for name, value in MUST_AGREE.items():
        if question != "recipe" or name not in ("lr", "momentum", "weight_decay", "schedule"):
            write_way(tmp_path / "other", **second | {name: value}, scores=PAIR)
    if first["setting"] == second["setting"]:
        write_way(tmp_path / "other", **second, scores=PAIR, epochs=4, steps=5)
    assert report(folder="other").compared(question) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"setting": 3, "tasks_per_step": 4}, {"setting": 4}),
        ({"setting": 3, "tasks_per_step": 2}, {"setting": 3, "tasks_per_step": 4}),
        ({"setting": 4, "weights": [1, 3]}, {"setting": 4, "tasks_per_step": 4}),
        ({"setting": 4}, {"setting": 4, "weights": [1, 3]}),
        ({"setting": 5, "loss": "uw"}, {"setting": 6}),
        ({"setting": 3}, {"setting": 5, "loss": "uw"}),
        ({"setting": 5, "loss": "pcgrad"}, {"setting": 5, "loss": "uw"}),
        ({"setting": 4}, {"setting": 5}),
        ({"setting": 1}, {"setting": 4}),
        ({"setting": 0}, {"setting": 3}),
        ({"setting": 0}, {"setting": 0, "lr": 0.2}),
        ({"setting": 5}, {"setting": 5, "loss": "uw", "lr": 0.2}),
    ],
)
def test_what_answers_no_question_is_not_compared(report, tmp_path, first, second):
    write_way(tmp_path, **first, scores=PAIR if first["setting"] else {0: (0.5,), 1: (0.6,)})
    write_way(tmp_path, **second, scores=PAIR if second["setting"] else {0: (0.5,), 1: (0.6,)})
    assert report().compared() == []


def test_histories_that_know_no_tasks_per_step_count_as_of_one(report, tmp_path):
    write_way(tmp_path, 3, PAIR)
    write_way(tmp_path, 3, PAIR, tasks_per_step=4)
    for path in (tmp_path / "3-0").glob("*"):
        options = json.loads((path / "history.json").read_text())["options"]
        edit(path, options={name: options[name] for name in options if name != "tasks_per_step"})
    assert report().compared("tasks a step") == [
        ("3 uniform draws, tasks_per_step 1", "3 uniform draws, tasks_per_step 4")
    ]


def test_the_recipe_of_the_experiment_is_what_other_recipes_are_held_against(report, tmp_path):
    for lr in (0.01, 0.1, 1.0):
        write_way(tmp_path, 3, PAIR, lr=lr)
    write_way(tmp_path, 3, PAIR, lr=0.01, momentum=0.9)
    printed = report()
    base = "3 uniform draws, lr 0.1, momentum 0.0"
    assert sorted(printed.compared()) == [
        (base, "3 uniform draws, lr 0.01, momentum 0.0"),
        (base, "3 uniform draws, lr 0.01, momentum 0.9"),
        (base, "3 uniform draws, lr 1.0, momentum 0.0"),
    ]


def test_without_the_recipe_of_the_experiment_one_of_the_others_stands_for_it(report, tmp_path):
    for lr in (0.05, 0.2, 0.3):
        write_way(tmp_path, 3, PAIR, lr=lr)
    firsts, seconds = zip(*report().compared("recipe"), strict=True)
    assert len(set(firsts)) == 1
    assert len({*firsts, *seconds}) == 3


@pytest.mark.parametrize("setting", [3, 4])
def test_the_tasks_own_statistics_are_a_row_and_a_comparison(report, tmp_path, setting):
    shared = {0: (0.60, 0.70), 1: (0.64, 0.72), 2: (0.59, 0.75)}
    own = {0: (0.65, 0.72), 1: (0.66, 0.77), 2: (0.66, 0.76)}
    for seed in shared:
        write_way(tmp_path, setting, {seed: shared[seed]}, own=own[seed])
    write_way(tmp_path, setting, {3: (0.9, 0.9)})  # of a program that had none
    write_way(tmp_path, 2, {0: (0.5, 0.5), 1: (0.5, 0.6)})
    printed = report()
    label = f"{setting} {SETTINGS[setting].name}"
    cells = printed.cells(f"{label}, own statistics")
    mean, low, high = interval([fmean(each) for each in own.values()])
    assert cells["accuracy [95 % CI]"] == f"{mean:.4f} [{low:.4f}, {high:.4f}]"
    assert cells["balanced"] == f"{mean - 0.02:.4f}"
    assert (cells["worst task"], cells["best task"]) == (f"left {1.97 / 3:.3f}", "right 0.750")
    assert (cells["runs"], cells["seeds"], cells["delta_m % [95 % CI]"]) == ("3", "3", "-")
    values = differences(shared, own)
    assert f"{label} against {label}, own statistics{line_of(values)}\n" in printed.out
    assert printed.compared("normalisation") == [(label, f"{label}, own statistics")]
    assert printed.compared("single-task") == [(label, "2 single task")]
    for row in printed.rows("report.csv"):
        expected = ""
        if row["setting"] != "2" and row["seed"] != "3":
            expected = own[int(row["seed"])][TASKS.index(row["task"])]
        assert row["own_statistics_accuracy"] == str(expected)


# What is never averaged or compared


def test_runs_of_different_code_are_kept_apart_and_a_line_says_so(report, tmp_path):
    for seed, codes in enumerate(
        [("a",), ("a", "a"), ("a", "b"), ("b",)]
    ):  # the third: resumed under other code
        write_way(tmp_path, 3, {seed: (0.6, 0.7)}, codes=codes)
    write_way(tmp_path, 4, dict.fromkeys(range(4), (0.5, 0.7)), codes=["b"])
    printed = report()
    assert {label: printed.cells(label)["seeds"] for label in printed.labels} == {
        "3 uniform draws, code a": "2",
        "3 uniform draws, code a b": "1",
        "3 uniform draws, code b": "1",
        "4 weighted draws, code b": "4",
    }
    (said,) = re.findall(r"runs of different code are neither averaged nor compared: (.+)", printed.out)
    assert sorted(said.split(", ")) == ["a", "a b", "b"]
    assert printed.compared() == [("3 uniform draws, code b", "4 weighted draws, code b")]
    assert printed.said("of 2 ways").startswith(
        "- of 2 ways of training the best is 3 uniform draws, code b, "
    )


def test_runs_of_different_precision_are_kept_apart_and_a_line_says_so(report, tmp_path):
    write_way(tmp_path, 3, PAIR)
    write_way(tmp_path, 3, {2: (0.9, 0.9)}, precision="bf16")
    printed = report()
    assert printed.cells("3 uniform draws, precision fp32")["seeds"] == "2"
    assert printed.cells("3 uniform draws, precision bf16")["accuracy [95 % CI]"] == "0.9000 [-]"
    assert "runs of different precision are neither averaged nor compared: " in printed.out
    # shows a fault: the reason is not that tasks are missing
    assert "fewer than two ways of training have every task" not in printed.out


def test_validation_results_are_kept_apart_from_test_results(report, tmp_path):
    write_way(tmp_path, 3, PAIR, constant=(0.5, 0.7))
    write_way(tmp_path, 4, {0: (0.3, 0.4), 1: (0.3, 0.5)}, validation=0.1, constant=(0.6, 0.8))
    printed = report()
    title = "mine.npz (content 0123456789ab)"
    test, validation = printed.out.split(f"{title}, scored on validation images: 2 tasks")
    assert "3 uniform draws  0.7" not in validation
    assert "4 weighted draws  0.3750" in validation
    assert "4 weighted draws  0" not in test
    assert "commonest answer scores 0.6000," in test
    assert "commonest answer scores 0.7000," in validation
    assert printed.rows() == []
    assert "test and validation images are reported apart" in printed.out


def test_validation_images_of_one_share_are_not_held_against_those_of_another(report, tmp_path):
    write_way(tmp_path, 3, PAIR, validation=0.1)
    write_way(tmp_path, 4, {0: (0.3, 0.4), 1: (0.3, 0.5)}, validation=0.2)
    printed = report()
    assert printed.rows() == []
    # shows a fault: the best and the worst are named across different validation images
    assert "points apart" not in printed.out


def test_files_of_one_content_are_one_data_set_whatever_their_names(report, tmp_path):
    for seed, name in enumerate(["mine.npz", "copy.npz", "a b.npz"]):
        write_way(tmp_path, 3, {seed: PAIR[seed % 2]}, data=f"{name}#0123456789ab")
    printed = report()
    assert printed.cells("3 uniform draws")["seeds"] == "3"
    assert printed.out.count(": 2 tasks") == 1
    assert "left out" not in printed.out


def test_files_of_one_name_and_different_content_are_reported_apart(report, tmp_path):
    write_way(tmp_path, 3, PAIR)
    write_way(tmp_path, 4, {0: (0.3, 0.4), 1: (0.3, 0.5)}, data="mine.npz#fedcba987654")
    printed = report()
    assert "mine.npz (content 0123456789ab): 2 tasks" in printed.lines
    assert "mine.npz (content fedcba987654): 2 tasks" in printed.lines
    assert printed.rows() == []
    assert "files of different content" in printed.out


def test_data_sets_are_reported_each_for_itself(report, tmp_path):
    write_way(tmp_path, 3, {0: [0.95] * 10, 1: [0.96] * 10}, data=0)
    write_way(tmp_path, 4, {0: [0.5] * 20, 1: [0.6] * 20}, data=1)
    printed = report()
    first, second = printed.out.split("CIFAR-100: 20 tasks")
    assert first.startswith("CIFAR-10: 10 tasks\n")
    assert "commonest answer scores 0.9000" in first
    assert "commonest answer scores 0.2000" in second
    assert printed.rows() == []
    for name, label in (("weights", first), ("normalisation", second)):
        assert f"- {name} (" in label
    for name, label in (
        ("normalisation", first),
        ("weights", second),
        ("loss", second),
        ("all tasks", second),
    ):
        assert f"- {name} (" not in label


def test_generated_images_are_named_as_such_and_left_out_beside_real_ones(report, tmp_path):
    write(tmp_path / "generated" / "3", 3, [0.6] * 10, data=0, synthetic=True)
    assert report(folder="generated").lines[0] == "synthetic stand-in for CIFAR-10: 10 tasks"
    write(tmp_path / "real", 3, [0.7] * 10, data=0)
    printed = report()
    assert f"left out: {tmp_path / 'generated' / '3' / 'history.json'}: generated images" in printed.out
    assert printed.cells("3 uniform draws")["accuracy [95 % CI]"] == "0.7000 [-]"


# Labels


def test_groups_are_told_apart_by_what_differs(report, tmp_path):
    for options in ({}, {"lr": 0.2}, {"setting": 4, "weights": [1, 1]}, {"setting": 4, "weights": [1, 3]}):
        write_way(tmp_path, **{"setting": 3} | options, scores=PAIR)
    printed = report()
    assert printed.labels == [
        "3 uniform draws, lr 0.1",
        "3 uniform draws, lr 0.2",
        "4 weighted draws, lr 0.1, weights 1",
        "4 weighted draws, lr 0.1, weights 2",
    ]
    explained = re.findall(r"^weights ([12]) of setting 4: (.+)$", printed.out, re.MULTILINE)
    assert sorted(words for _, words in explained) == ["0.25 0.75", "0.5 0.5"]


def test_weights_that_say_the_same_are_one_group(report, tmp_path):
    for seed, weights in enumerate(([1, 1], [1.0, 1.0], [2.5, 2.5])):
        write_way(tmp_path, 4, {seed: (0.6, 0.7)}, weights=weights)
    assert report().cells("4 weighted draws")["seeds"] == "3"


# Commands for what is missing

SEEDS = {0: 0.6, 1: 0.7, 2: 0.5}


def steps_of(run: Run) -> int:
    """Steps of an epoch, counted from the images of a data set."""
    spec, setting = run.spec, run.setting
    names = list(spec.tasks)
    tasks = [names[run.task]] if setting == 2 else names if setting in (3, 4) else [None]
    return sum(spec.num_training_images(task) // run.batch_size for task in tasks)


def write_run(path: Path, run: Run) -> None:
    """The history of a run, with as many steps as it takes."""
    num_tasks = {0: 1, 2: 1}.get(run.setting, len(run.spec.tasks))
    options = {name: value for name, value in run.recorded.items() if name not in ("setting", "seed")}
    own = [0.65 + 0.01 * (run.seed % 7)] * num_tasks if run.setting in (3, 4) and run.data else None
    write(
        path,
        run.setting,
        [0.6 + 0.02 * (run.seed % 5)] * num_tasks,
        run.seed,
        own=own,
        steps=steps_of(run),
        images=steps_of(run) * run.batch_size,
        **options,
    )


def train(path: Path, *words: object) -> None:
    """The histories that a command line leaves for two seeds, in setting 2 for every task."""
    runs = [main.parse(["--train", *map(str, words), *more], TABLE) for more in ([], ["--seed", "1"])]
    for run in runs:
        write_run(path / "-".join(map(str, [*words, run.seed])), run)


def train_single(path: Path, *words: object, seeds: int = 2, tasks: int | None = None) -> None:
    """The same of setting 2, for all tasks or the first ones."""
    data = words[words.index("--data") + 1]
    for seed, task in itertools.product(range(seeds), range(tasks or len(DATA_SETS[data].tasks))):
        argv = ["--train", "--setting", 2, "--task", task, "--seed", seed, *words]
        write_run(path / f"single-{task}-{seed}", main.parse([str(word) for word in argv], TABLE))


def carried_out(lines: Sequence[str]) -> list[Run]:
    """What a shell makes of printed lines: every command of the program, read as the program reads it."""
    script = "python() { printf '%s\\0' \"$@\"; printf '\\n\\0'; }\n" + "\n".join(lines)
    shell = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert shell.stderr == ""
    commands = [words.split("\0")[:-1] for words in shell.stdout.split("\n\0")[:-1]]
    assert all(words[0] == "main.py" for words in commands)
    return [main.parse(words[1:], TABLE) for words in commands]


@pytest.mark.parametrize(
    ("question", "there"),
    [
        # one side is there
        ("draws", ["--data 1 --setting 3"]),
        ("draws", ["--data 1 --setting 4 --validation 0.1 --lr 0.05 --precision bf16 --schedule cosine"]),
        ("draws", ["--data 0 --setting 4 --weights 5 1 1 1 1 1 1 1 1 1 --epochs 3"]),
        ("draws", ["--data 1 --setting 3 --synthetic --epochs 3"]),
        ("draws", ["--data 1 --setting 3 --tasks_per_step 2"]),
        ("weights", ["--data 0 --setting 5 --epochs 3 --weight_decay 0.001"]),
        ("weights", ["--data 0 --setting 6"]),
        ("loss", ["--data 0 --setting 5 --epochs 3"]),
        ("loss", ["--data 0 --setting 5 --epochs 3 --loss uw"]),
        ("tasks a step", ["--data 1 --setting 3 --epochs 3"]),
        ("tasks a step", ["--data 1 --setting 3 --epochs 3 --tasks_per_step 4"]),
        ("all tasks", ["--data 0 --setting 3 --epochs 2"]),
        ("all tasks", ["--data 0 --setting 5 --epochs 20"]),
        ("heads", ["--data 1 --setting 3 --epochs 4"]),
        ("heads", ["--data 0 --setting 1 --epochs 20"]),
        ("heads", ["--data 2 --setting 3 --epochs 30 --image_size 16"]),
        ("heads", ["--data 1 --setting 1 --epochs 3 --batch_size 50"]),
        ("normalisation", ["--data 1 --setting 1 --epochs 3"]),
        ("recipe", ["--data 1 --setting 3 --epochs 3"]),
        ("recipe", ["--data 1 --setting 3 --epochs 3 --lr 0.3"]),
        ("single-task", ["--data 0 --setting 3 --epochs 2"]),
        ("single-task", ["--data 0 --setting 5 --epochs 20 --loss uw"]),
        # neither is
        ("draws", ["--data 1 --setting 1 --epochs 3"]),
        ("draws", ["--data 1 --setting 0 --epochs 3 --momentum 0.5"]),
        ("heads", ["--data 1 --setting 4 --epochs 3 --weights " + "1 " * 20]),
        ("weights", ["--data 0 --setting 1 --epochs 3"]),
        ("all tasks", ["--data 0 --setting 1 --epochs 20"]),
        ("single-task", ["--data 1 --setting 0 --epochs 3"]),
        # both are, but they differ in something else
        ("draws", ["--data 1 --setting 3 --epochs 3 --lr 0.2", "--data 1 --setting 4 --epochs 3 --lr 0.3"]),
        # each of these shows a fault:
        # both sides are of one setting, and their commands write to one directory (as some above do)
        ("loss", ["--data 0 --setting 1 --epochs 3"]),
        ("tasks a step", ["--data 1 --setting 1 --epochs 3"]),
        ("recipe", ["--data 1 --setting 1 --epochs 3"]),
        # another loss than `mean` is taken for a side
        ("weights", ["--data 0 --setting 5 --epochs 3 --loss uw"]),
        ("all tasks", ["--data 0 --setting 5 --epochs 20 --loss uw"]),
        # the other recipe is the one that is there already
        ("recipe", ["--data 1 --setting 3 --epochs 3 --momentum 0.9 --schedule cosine"]),
        # a whole number of epochs does not come within 5 % of the steps
        ("all tasks", ["--data 0 --setting 5 --epochs 4"]),
        ("heads", ["--data 2 --setting 3 --epochs 6"]),
        # the other side would be refused: as many tasks do not divide the batch, too few images for a batch
        ("tasks a step", ["--data 1 --setting 3 --epochs 3 --batch_size 50"]),
        ("heads", ["--data 1 --setting 1 --epochs 3 --batch_size 4096"]),
    ],
    ids=lambda value: value if isinstance(value, str) else " and ".join(value).replace("--", ""),
)  # fmt: skip
def test_the_commands_that_are_printed_give_the_runs_that_a_question_lacks(report, tmp_path, question, there):
    for words in there:
        train(tmp_path, *words.split())
    commands = report().commands(question)
    runs = carried_out(commands)
    assert commands
    assert len({run.save_path for run in runs}) == len(runs)
    for run in runs:
        assert run.save_history
        assert run.save_path.is_relative_to(tmp_path)
        write_run(run.save_path, run)
    printed = report()
    assert "left out" not in printed.out
    assert printed.commands(question) == []
    seeds = {int(row["seeds"]) for row in printed.rows() if row["question"] == question}
    assert max(seeds) == 3


def test_commands_complete_what_is_there_in_part(report, tmp_path):
    for words in (
        "--setting 3 --seed 4",
        "--setting 3 --seed 7",
        "--setting 1 --seed 7",
        "--setting 1 --seed 9",
    ):
        argv = ["--train", "--data", "1", "--epochs", "3", *words.split()]
        write_run(tmp_path / words.replace(" ", ""), main.parse(argv, TABLE))
    runs = carried_out(report().commands("heads"))
    assert sorted((run.setting, run.seed) for run in runs) == [(1, 4), (3, 9)]
    for run in runs:
        write_run(run.save_path, run)
    printed = report()
    assert printed.commands("heads") == []
    assert [row["seeds"] for row in printed.rows() if row["question"] == "heads"] == ["3"]


def test_commands_complete_single_task_training(report, tmp_path):
    train_single(tmp_path, "--data", 0, "--epochs", 4, tasks=5)
    runs = carried_out(report().commands("single-task"))
    # shows a fault: with half of the models half of the steps are there: setting 3 would stop early
    for run in runs:
        write_run(run.save_path, run)
    assert [row["seeds"] for row in report().rows() if row["measure"] == "accuracy"] == ["3"]


def test_commands_of_single_task_training_train_every_task(report, tmp_path):
    train(tmp_path, "--data", 1, "--setting", 3, "--epochs", 3)
    runs = carried_out(report().commands("single-task"))
    wanted = [(2, task, seed) for task in range(20) for seed in range(3)] + [(3, None, 2)]
    assert sorted((run.setting, run.task, run.seed) for run in runs[-60:]) == wanted[:60]
    assert {(run.setting, run.task, run.seed) for run in runs} == set(wanted)


def test_a_directory_that_a_shell_would_split_is_quoted(report, run, tmp_path):
    odd = tmp_path / "it's $HOME; my runs"
    train(odd, "--data", 1, "--setting", 3, "--epochs", 1)
    (run,) = carried_out(report(folder=odd.name).commands("draws")[1:])[:1]
    assert run.save_path.parent == odd


def test_what_is_answered_needs_no_command(small_study, report):
    printed = report()
    assert printed.commands("draws") == []
    assert printed.commands("single-task") == []
    assert printed.commands("heads")


# What is read


def write_format_1(
    path: Path, setting: int, accuracy: Sequence[float], seed: int = 0, **options: object
) -> None:
    """A history as version 1 wrote it: no steps, no parameters, no code, few options."""
    history = write(path, setting, accuracy, seed, data=0, image_size=32, **options)
    later = ("momentum", "weight_decay", "schedule", "precision", "validation", "loss", "tasks_per_step")
    old = {name: value for name, value in history["options"].items() if name not in later}
    named = ("epoch", "accuracy", "balanced_accuracy", "loss", "seconds", "images_per_second")
    epochs = [{name: epoch[name] for name in named} for epoch in history["epochs"]]
    content = {"options": old | {"version": "1.1.0"}, "tasks": history["tasks"], "epochs": epochs}
    (path / "history.json").write_text(json.dumps(content))


def test_histories_of_format_1_are_read_and_compared(report, tmp_path):
    for seed in (0, 1):
        for setting in (3, 4):
            weights = {"weights": [task + 1.0 for task in range(10)]} if setting == 4 else {}
            accuracy = [0.91 + 0.01 * setting + 0.003 * seed * (setting == 3)] * 10
            write_format_1(tmp_path / f"{setting}-{seed}", setting, accuracy, seed, **weights)
        write(tmp_path / f"new-{seed}", 3, [0.97] * 10, seed, data=0, image_size=32)
    printed = report()
    cells = printed.cells("3 uniform draws, code version 1.1.0")
    mean, low, high = interval([0.94, 0.943])
    assert cells["accuracy [95 % CI]"] == f"{mean:.4f} [{low:.4f}, {high:.4f}]"
    assert [cells[name] for name in ("steps", "images", "parameters", "seconds")] == ["-", "-", "-", "6"]
    assert printed.compared() == [
        ("3 uniform draws, code version 1.1.0", "4 weighted draws, code version 1.1.0")
    ]
    assert "the sides differ: steps not recorded; images not recorded; parameters not recorded" in printed.out
    assert "commonest answer scores 0.9000, balanced 0.5000" in printed.out


def test_a_copy_of_a_run_is_left_out(report, tmp_path):
    write(tmp_path / "a", 3, (0.6, 0.7))
    write(tmp_path / "b", 3, (0.6, 0.7))
    printed = report()
    assert (
        f"left out: {tmp_path / 'b' / 'history.json'}: same options and seed as {tmp_path / 'a'}"
        in printed.out
    )
    assert printed.cells("3 uniform draws")["runs"] == "1"


def test_an_unfinished_run_is_left_out(report, tmp_path):
    write(tmp_path / "a", 3, (0.6, 0.7))
    write(tmp_path / "b", 3, (0.6, 0.7), seed=1)
    edit(tmp_path / "b", finished=False)
    printed = report()
    assert f"left out: {tmp_path / 'b' / 'history.json'}: unfinished: 2 of 2 epochs" in printed.out
    assert printed.cells("3 uniform draws")["runs"] == "1"


SCORES = {"accuracy": [0.6, 0.7], "balanced_accuracy": [0.6, 0.7]}
DAMAGED = {
    "no code": {"sittings": [{}]},
    "no data set": {"data_set": {}},
    "constant answers of fewer tasks": {"constant_accuracy": [0.9]},
    "no answers": {"num_answers": [0, 0]},
    "parameters below 0": {"parameters": {"encoder": -1}},
    "finished that is no truth value": {"finished": 1},
    "fewer names": {"tasks": ["left"]},
    "another name": {"tasks": ["left", "nobody"]},
    "no such setting": {"options": options_of(3) | {"setting": 9}},
    "no such data set": {"options": options_of(3) | {"data": 7}},
    "no epochs": {"epochs": []},
    "a score above 1": {
        "epochs": [{"epoch": e, "loss": 1.0, **SCORES, "accuracy": [1.2, 0.5]} for e in (1, 2)]
    },
    # each of these shows a fault: the report ends in a traceback
    "parameters without an encoder": {"parameters": {"heads": 3}},
    "weights that go with no setting": {"options": options_of(3, weights=["a"])},
    "weights of 0 that go with no setting": {"options": options_of(3, weights=[0, 0])},
    "the name of another setting": {
        "tasks": ["all classes"],
        "constant_accuracy": [0.5],
        "num_answers": [2],
        "epochs": [{"epoch": e, "loss": 1.0, "accuracy": [0.5], "balanced_accuracy": [0.5]} for e in (1, 2)],
    },
    "names of tasks in setting 0": {"options": options_of(0)},
    "own statistics of fewer tasks": {"own_statistics": {"accuracy": [0.5], "balanced_accuracy": [0.5]}},
    "own statistics without balanced accuracy": {"own_statistics": {"accuracy": [0.5, 0.5]}},
    "own statistics that are none": {"own_statistics": [0.5, 0.5]},
}


@pytest.mark.parametrize("change", DAMAGED.values(), ids=DAMAGED)
def test_a_history_with_a_wrong_entry_is_left_out(report, tmp_path, change):
    write(tmp_path / "a", 3, (0.6, 0.7), seed=1)
    write(tmp_path / "b", 3, (0.6, 0.7))
    edit(tmp_path / "b", **change)
    printed = report()
    assert f"left out: {tmp_path / 'b' / 'history.json'}: is not a history of this program" in printed.out
    assert printed.cells("3 uniform draws")["runs"] == "1"


def test_a_file_that_is_no_history_is_left_out(report, tmp_path):
    write(tmp_path / "good", 3, (0.6, 0.7))
    text = (tmp_path / "good" / "history.json").read_text()
    contents = {
        "empty": "", "text": "no json", "list": "[]", "other": '{"options": {}}', "deep": "[" * 100_000,
        "loss": text.replace('"loss":', '"lost":'), "short": text.replace("0.6, ", "", 1), "cut": text[:-20],
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "history.json").write_text(content)
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "history.json").write_text(json.dumps({"format": 99}))
    left_out = re.findall(r"^left out: (.+?): (.+)$", report().out, re.MULTILINE)
    reasons = {Path(path).parent.name: why for path, why in left_out}
    assert "newer version" in reasons.pop("newer")
    assert reasons == dict.fromkeys(contents, "is not a history of this program")


@pytest.mark.parametrize("content", [None, "broken"])
def test_nothing_to_report_on_is_one_line_of_error(run, tmp_path, content):
    if content:
        (tmp_path / "history.json").write_text(content)
    refused = run("--report", "--save_path", tmp_path)
    assert refused.code == 1
    assert refused.err.count("\n") == 1
    assert refused.err.startswith("main.py: error: ")
    assert not (tmp_path / "report.csv").exists()


# What is written


def test_the_text_that_is_written_is_what_was_printed(small_study, report, tmp_path):
    for options in ((), ("--verbose",)):
        printed = report(*options)
        assert (tmp_path / "report.txt").read_bytes() == printed.out.encode()


def test_that_another_test_set_would_give_other_numbers_is_said_once(report, tmp_path):
    write_way(tmp_path, 3, PAIR)
    write_way(tmp_path, 3, PAIR, data="other.npz#fedcba987654")
    assert report().out.count("another test set would give other numbers") == 1


def test_the_rows_hold_every_run_and_task_with_every_option(report, tmp_path):
    history = write(tmp_path / "a", 4, (0.6, 0.7), seed=3, steps=7, images=70, seconds=2.5)
    write(tmp_path / "b", 2, (0.8,), task=1)
    rows = report().rows("report.csv")
    assert [(row["task"], row["accuracy"]) for row in rows] == [
        ("left", "0.6"),
        ("right", "0.7"),
        ("right", "0.8"),
    ]
    first = rows[0]
    for name, value in history["options"].items():
        if name == "weights":
            assert first[name] == "1.0 2.0"
        elif name != "task":
            assert first[name] == ("" if value is None else str(value)), name
    expected = {
        "balanced_accuracy": 0.58, "training_loss": 0.5, "steps": 14, "images": 140, "parameters": 120,
        "seconds": 5,
    }  # fmt: skip
    assert {name: float(first[name]) for name in expected} == pytest.approx(expected)
    assert (first["history"], first["scored_on"]) == (str(tmp_path / "a" / "history.json"), "test")
    assert rows[2]["task_option"] == "1"


def test_a_result_that_cannot_be_replaced_stays_as_it_was(small_study, run, report, tmp_path):
    report()
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.*")}
    (tmp_path / "report.csv").unlink()
    (tmp_path / "report.csv").mkdir()
    refused = run("--report", "--save_path", tmp_path, "--verbose", table=TABLE)
    assert refused.code == 1
    assert "report.csv" in refused.err.splitlines()[-1]
    assert (tmp_path / "comparisons.csv").read_bytes() == before["comparisons.csv"]
    assert not list(tmp_path.glob(".*.tmp"))


def test_names_that_cannot_be_printed_or_written_do_not_end_the_report(tmp_path):
    write(tmp_path / os.fsdecode(b"\xff"), 3, (0.6, 0.7))
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        f"import main; assert main.main(['--report', '--save_path', {str(tmp_path)!r}]) == 0\n"
        "print('torch' in sys.modules)"  # which takes seconds to load
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert "0.6500" in finished.stdout
    assert finished.stdout.splitlines()[-1] == "False"
    assert (tmp_path / "report.csv").read_text().count("mine.npz,") == 2
    assert "pip install matplotlib" in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert not (tmp_path / "report.png").exists()


# Any mixture

SHARE = st.integers(0, 100).map(lambda hundredths: hundredths / 100)
HISTORIES = st.fixed_dictionaries(
    {
        "setting": st.integers(0, 6),
        "seed": st.integers(0, 2),
        "accuracy": st.lists(SHARE, min_size=2, max_size=2),
        "epochs": st.integers(1, 2),
        "steps": st.sampled_from([10, 20, 21]),
    },
    optional={
        "own": st.lists(SHARE, min_size=2, max_size=2),
        "lr": st.sampled_from([0.1, 0.2]),
        "momentum": st.just(0.9),
        "tasks_per_step": st.sampled_from([1, 2]),
        "loss": st.sampled_from(["mean", "uw"]),
        "weights": st.sampled_from([[1.0, 2.0], [3.0, 1.0], [0.0, 1.0]]),
        "codes": st.sampled_from([("b",), ("a", "b")]),
        "validation": st.sampled_from([0.1, 0.2]),
        "precision": st.just("bf16"),
        "data": st.just("mine.npz#fedcba987654"),
        "constant": st.sampled_from([(0.5, 0.5), (0.9, 0.9), (1.0, 0.2)]),
    },
)


def written_as(history: Mapping, path: Path) -> None:
    """Write a history of a mixture, with the options that its setting has."""
    setting, history = history["setting"], dict(history)
    for name in ("tasks_per_step", "loss", "weights"):
        (option,) = (option for option in TABLE if option.name == name)
        if setting not in option.settings:
            history.pop(name, None)
    if setting not in (3, 4):
        history.pop("own", None)
    if setting in (0, 2):
        history["accuracy"], constant = history["accuracy"][:1], history.pop("constant", None)
        if constant:
            history["constant"] = constant[:1]
    if setting == 2:
        history["task"] = int(history["steps"] == 20)
    write(path, **history)


@given(histories=st.lists(HISTORIES, min_size=1, max_size=12), verbose=st.booleans())
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
def test_whatever_histories_there_are_the_report_says_what_holds(tmp_path_factory, capfd, histories, verbose):
    path = tmp_path_factory.mktemp("mixture")
    for i, history in enumerate(histories):
        written_as(history, path / str(i))
    capfd.readouterr()
    assert main.main(["--report", "--save_path", str(path), *["--verbose"] * verbose], TABLE) == 0
    printed = Report(capfd.readouterr()[0], path)
    assert (path / "report.txt").read_text() == printed.out
    assert "nan" not in re.sub(r"\S*/\S*", "", printed.out)
    for section in re.split(r"\n(?=mine.npz .*: 2 tasks\n)", printed.out):
        labels = Report(section, path).labels
        assert len(labels) == len(set(labels))
    listed = {tuple(row.items()) for row in printed.rows()}
    assert len(listed) == len(printed.rows())
    for row in printed.rows():
        ends = [float(row[name] or "nan") for name in ("low", "difference", "high")]
        assert row["verdict"] == between(ends[0], ends[2])
        assert row["low"] == "" or ends == sorted(ends)
        assert {row["first"], row["second"]} <= set(printed.labels)
        if row["measure"] == "accuracy":
            assert f"{row['first']} against {row['second']}: {ends[1]:+.2f} [" in printed.out
