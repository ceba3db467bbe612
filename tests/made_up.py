"""Helpers for tests of the report: made-up studies, reports taken apart.

The numbers of a report are worked out by hand, too.
"""

import csv
import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from math import pi, sqrt
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory

from helpers import TOP, table_line

from settings import SETTINGS
from tasks import DATA_SETS

# Two tasks are enough to work with by hand; a file of one's own may have as few.
MINE = "mine.npz#0123456789ab"
TASKS = ("left", "right")
CIFAR10 = tuple(DATA_SETS[0].tasks)
CONSTANT = {0: (0.9, 2), 1: (0.2, 5), 2: (1 / 14, 14)}
"""What a constant answer scores in a task of each data set, and how many answers there are."""

# Published quantiles of Student's t by the number of seeds, expected ranges of k variables (Tippett
# 1925), and biases of the root of a variance by degrees of freedom (c4 in tables for control charts)
STUDENT = {2: 12.70620, 3: 4.302653, 4: 3.182446, 5: 2.776445}
TIPPETT = {2: 1.128379, 3: 1.692569, 4: 2.058751}
C4 = {1: sqrt(2 / pi), 2: 0.886227, 3: 0.921318, 4: 0.939986, 6: 0.959369}


# Made-up histories


def options_of(setting: int, **options: object) -> dict:
    """What a run records of its options."""
    data = options.get("data", MINE)
    num_tasks = len(TASKS if isinstance(data, str) else DATA_SETS[data].tasks)
    late = {
        "weights": [task + 1.0 for task in range(num_tasks)] if SETTINGS[setting].weighted else None,
        "loss": "mean" if setting == 5 else None,
        "tasks_per_step": 1 if SETTINGS[setting].samples_tasks else None,
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
    as_trained: Sequence[float] | None = None,
    tasks: Sequence[str] = TASKS,
    constant: Sequence[float] | None = None,
    answers: int | None = None,
    steps: int = 10,
    images: int = 320,
    parameters: tuple[int, int] = (100, 20),
    seconds: float = 3.0,
    codes: Sequence[str] = ("a",),
    processor: str = "",
    **options: object,
) -> dict:
    """Write a history whose last epoch has these accuracies, the others half of them.

    Args:
        balanced: balanced accuracies; default: lower by 0.02.
        as_trained: accuracies as trained; the balanced ones are lower by 0.02.
        tasks: of a data set of one's own.
        constant: what a constant answer scores in each task.
        answers: how many answers a task has.
        steps: of an epoch, as are `images` and `seconds`.
        parameters: of the encoder and of the heads.
        codes: of the sessions.
        processor: that they ran on; default: not recorded.
    """
    where = {"processor": processor} if processor else {}
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
        "sittings": [{"epoch": 0, "step": 0, "environment": where, "code": code} for code in codes],
        "tasks": recorded,
        "constant_accuracy": list(constant or [usual] * len(recorded)),
        "num_answers": [answers or usual_answers] * len(recorded),
        "parameters": dict(zip(("encoder", "heads"), parameters, strict=True)),
        "epochs": epochs,
        "finished": True,
    }
    if as_trained:
        history["as_trained"] = {
            "accuracy": [*as_trained],
            "balanced_accuracy": [max(0, share - 0.02) for share in as_trained],
            "right": [""] * len(recorded),
        }
    path.mkdir(parents=True)
    (path / "history.json").write_text(json.dumps(history))
    return history


Scores = Mapping[int, Sequence[float]]
"""By seed, a score for each task."""

PAIR = {0: (0.6, 0.7), 1: (0.6, 0.8)}


def write_way(path: Path, setting: int, scores: Scores, missing: Sequence = (), **how: object) -> None:
    """Write the histories of a configuration, by seed; in setting 2 all but `missing`, (seed, task)."""
    name = "-".join(map(str, [setting, len(list(path.glob("*")))]))
    for seed, accuracy in scores.items():
        if setting != 2:
            write(path / name / str(seed), setting, accuracy, seed, **how)
            continue
        for task, score in enumerate(accuracy):
            if (seed, task) not in missing:
                lists = ("constant", "balanced", "as_trained")
                by_task = {key: [how[key][task]] for key in lists if how.get(key) is not None}
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
        """The parts of missing.sh that train what a question lacks."""
        after = self.out.partition("\nNot answered for lack of runs")[2].splitlines()
        listed = [line for line in after if line.startswith(f"- {question} (")]
        found = re.search(r": runs ([\d, ]+)$", listed[0]) if listed else None
        parts = (self.path / "missing.sh").read_text().split("\n\n# ") if found else []
        return [f"# {parts[int(number)]}" for number in (found[1].split(", ") if found else [])]

    def trained(self, question: str | None = None, **environment: str) -> list[list[str]]:
        """The command lines of the program that missing.sh, or its parts for a question, come to.

        Bash runs it from another folder, with a program in place of Python that writes down what it gets.
        """
        script = self.path / "missing.sh"
        if question is not None:
            start, script = script.read_text().partition("\n\n# ")[0], self.path / "a part of missing.sh"
            script.write_text("\n\n".join([start, *self.commands(question)]))
        with TemporaryDirectory() as folder:
            python = Path(folder) / "python"
            python.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" >>{folder}/words; echo >>{folder}/words\n")
            python.chmod(0o755)
            env = {**os.environ, "PYTHON": str(python), **environment}
            ended = subprocess.run(["bash", script], cwd=folder, env=env, capture_output=True, text=True)
            assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
            commands = (Path(folder) / "words").read_text().split("\0\n")[:-1]
        words = [command.split("\0") for command in commands]
        assert {word[0] for word in words} == {str(TOP / "main.py")}
        return [word[1:] for word in words]


# The same numbers by hand


def interval(values: Sequence[float]) -> tuple[float, float, float] | None:
    """Mean of values of different seeds and the ends of its interval."""
    half = STUDENT[len(values)] * stdev(values) / sqrt(len(values))
    return fmean(values), fmean(values) - half, fmean(values) + half


def between(low: float, high: float) -> str:
    return "higher" if low > 0 else "lower" if high < 0 else "inconclusive"


def line_of(values: Sequence[float], unit: str = "points") -> str:
    """The end of the printed line of a difference, by its values for some seeds."""
    mean, low, high = interval(values)
    if stdev(values) < 1e-9:
        return f": {mean:+.2f} [-] {unit}, {len(values)} seeds: inconclusive"
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


def range_by_chance(means: Sequence[Sequence[float]]) -> float:
    """Expected range in points of equally good configurations, given their means: one list of seeds each."""
    rows = [list(row) for row in means]
    seeds = range(len(rows[0]))
    overall = fmean(fmean(row) for row in rows)
    left = [
        row[seed] - fmean(row) - fmean(other[seed] for other in rows) + overall
        for row in rows
        for seed in seeds
    ]
    freedom = (len(rows) - 1) * (len(seeds) - 1)
    std = sqrt(sum(each**2 for each in left) / freedom / len(seeds))
    return 100 * TIPPETT[len(rows)] * std / C4[freedom]
