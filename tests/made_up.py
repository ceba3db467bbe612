"""Helpers for tests of the report: made-up studies, reports taken apart.

The numbers of a report are worked out by hand, too.
"""

import csv
import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from math import floor, sqrt
from pathlib import Path
from statistics import fmean, variance
from tempfile import TemporaryDirectory

from helpers import TOP

from settings import SETTINGS
from tasks import DATA_SETS

# Two tasks are enough to work with by hand; a file of one's own may have as few.
MINE = "mine.npz#0123456789ab"
TASKS = ("left", "right")
CIFAR10 = tuple(DATA_SETS[0].tasks)
CONSTANT = {0: (0.9, 2), 1: (0.2, 5), 2: (1 / 14, 14)}
"""What a constant answer scores in a task of each data set, and how many answers there are."""

STUDENT = (
    *(12.70620, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139),
    *(2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024, 2.085963),
)
"""Published quantiles of Student's t for an interval of 95 %, from 1 degree of freedom on."""


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
    right: Sequence[str] | None = None,
    right_as_trained: Sequence[str] | None = None,
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
        right: for each task, which images are answered rightly, as histories have it; default: not recorded.
        right_as_trained: likewise as trained; default: text that says nothing.
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
            "right": list(right_as_trained or [""] * len(recorded)),
        }
    if right:
        history["right"] = list(right)
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


def plain(text: str) -> str:
    """Markdown without the marks that keep characters what they are."""
    return re.sub(r"\\(.)", r"\1", text).replace("&lt;", "<")


def said(row: Mapping[str, str]) -> str:
    """The words of a configuration in a row of the ranking."""
    return row["configuration"].partition(" (not ranked")[0]


class Report:
    """What a report has printed and written."""

    def __init__(self, out: str, path: Path) -> None:
        self.out, self.path = out, path
        self.lines = out.splitlines()
        page = path / "report.md"
        self.page = page.read_text() if page.exists() else ""
        self.text = plain(self.page)

    def tables(self, heading: str) -> list[dict[str, str]]:
        """The rows of the tables of report.md under a heading, of all data sets, by their headings."""
        rows, headings, inside = [], [], False
        for line in self.page.splitlines():
            if line.startswith("#"):
                inside, headings = line.lstrip("# ").startswith(heading), []
            elif inside and line.startswith("| "):
                cells = [plain(cell.strip()) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
                if headings and set(cells) != {"---"}:
                    rows.append(dict(zip(headings, cells, strict=True)))
                headings = headings or cells
        return rows

    def cells(self, words: str) -> dict[str, str]:
        """All that is said of a configuration, by heading: its ranking and what its training took."""
        (row,) = (row for row in self.tables("Ranking") if said(row) == words)
        (took,) = (each for each in self.tables("Amounts of training") if each[""] == row[""])
        return took | row

    @property
    def labels(self) -> list[str]:
        """The words of all configurations, in order of rank."""
        return [said(row) for row in self.tables("Ranking")]

    @property
    def left_out(self) -> dict[str, str]:
        """Why each path was left out, by its end below the directory."""
        lines = re.findall(r"^- (.+?): (.+)$", self.text.partition("\n# Left out\n")[2], re.MULTILINE)
        return {path.removeprefix(f"{self.path}").lstrip("/"): why for path, why in lines}

    def rows(self, name: str = "comparisons.csv") -> list[dict[str, str]]:
        """A file of comma-separated values."""
        with open(self.path / name, newline="") as file:
            return list(csv.DictReader(file))

    def means(self, question: str | None = None, test: str = "usual") -> list[dict[str, str]]:
        """The rows of comparisons.csv of mean accuracies, for a question, with the words of both sides."""
        words = {row[""]: said(row) for row in self.tables("Ranking")}
        return [
            row | {side: words[row[f"letter_{side[0]}"]] for side in ("a_words", "b_words")}
            for row in self.rows()
            if row["measure"] == "mean_accuracy"
            and row["test"] == test
            and question in (None, row["question"])
        ]

    def compared(self, question: str | None = None, test: str = "usual") -> list[tuple[str, str]]:
        """The words of what is compared by mean accuracy, for a question: the choice and its reference."""
        return [(row["a_words"], row["b_words"]) for row in self.means(question, test)]

    def commands(self, question: str) -> list[str]:
        """The parts of missing.sh that train what a question lacks."""
        script = self.path / "missing.sh"
        parts = script.read_text().split("\n\n# ")[1:] if script.exists() else []
        named = [part for part in parts if question in part.partition("\n")[0].partition(": ")[2].split(", ")]
        return [f"# {part}" for part in named]

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


def by_hand(
    sides: Sequence[Scores], everyone: Sequence[Scores], weights: Sequence[Sequence[float]] | None = None
) -> tuple[float, float, float]:
    """A mean, or a difference of two, in points, and the ends of its interval over new seeds.

    Args:
        sides: one or two, of which the second is subtracted.
        everyone: all configurations of the report; those with one seed say nothing of how much seeds vary.
        weights: for each side what each task counts; default: all the same, so that 1 is 100 points.
    """
    tasks = range(len(next(iter(sides[0].values()))))
    weights = weights or [[100 / len(tasks)] * len(tasks)] * len(sides)

    def values(scores: Scores, weigh: Sequence[float]) -> list[float]:
        return [sum(weigh[task] * score[task] for task in tasks) for score in scores.values()]

    difference, total, least = 0.0, 0.0, 0.0
    most = sum(len(scores) - 1 for scores in everyone)
    for sign, side, weigh in zip((1, -1), sides, weights, strict=False):
        of_all = [values(scores, weigh) for scores in everyone if len(scores) > 1]
        common = sum((len(each) - 1) * variance(each) for each in of_all) / most
        own, count = values(side, weigh), len(side)
        difference += sign * fmean(own)
        part = (4 * common + (count - 1) * variance(own)) / (4 + count - 1) / count
        total += part
        least += part**2 / (4 + count - 1)
    freedom = max(1, floor(min(total**2 / least, most) + 1e-9))
    half = STUDENT[freedom - 1] * sqrt(total)
    return difference, difference - half, difference + half


def delta_m(first: Scores, baseline: Scores, everyone: Sequence[Scores]) -> tuple[float, float, float]:
    """In per cent, and the ends of its interval over new seeds."""
    tasks = range(len(next(iter(baseline.values()))))
    mean, base = (
        [fmean(score[task] for score in each.values()) for task in tasks] for each in (first, baseline)
    )
    weights = [
        [100 / len(tasks) / base[task] for task in tasks],
        [100 / len(tasks) * mean[task] / base[task] ** 2 for task in tasks],
    ]
    difference, low, high = by_hand([first, baseline], everyone, weights)
    value = fmean(100 * (mean[task] / base[task] - 1) for task in tasks)
    return value, value + low - difference, value + high - difference


def numbers(row: Mapping[str, str]) -> tuple[float, float, float]:
    """The difference and the ends of its interval in a row of comparisons.csv."""
    return tuple(float(row[name] or "nan") for name in ("difference", "low", "high"))
