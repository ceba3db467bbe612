"""The questions of a report, and the commands for missing runs.

What is compared to answer a question.
"""

import itertools
import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import pytest
from helpers import NARROW, write_data
from made_up import PAIR, TASKS, Report, Scores, by_hand, delta_m, edit, numbers, write, write_way

import main
from options import OPTIONS, Run
from settings import SETTINGS
from tasks import DATA_SETS


def higher(scores: Scores, points: float) -> Scores:
    """Scores that are higher by some points in every task."""
    return {seed: tuple(score + points / 100 for score in each) for seed, each in scores.items()}


def of_setting(setting: int, scores: Scores) -> Scores:
    """Scores of two tasks; in setting 0, which has one number, the last alone."""
    return scores if setting else {seed: tuple(score[-1:]) for seed, score in scores.items()}


def in_cell(value: object) -> str:
    """The value of an option in a file of comma-separated values."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def sides(printed: Report, question: str, *names: str) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The values of some options of what is compared for a question: of the choice, and its reference."""
    return [
        (tuple(row[f"{name}_a"] for name in names), tuple(row[f"{name}_b"] for name in names))
        for row in printed.means(question)
    ]


def near(numbers: Sequence[float], digits: int = 4) -> object:
    """Numbers that are written with some digits after the point."""
    return pytest.approx(tuple(numbers), abs=0.6 * 10**-digits)


def in_one_row(printed: Report) -> str:
    """The screen as one line, without the ends of lines between words."""
    return " ".join(printed.out.split())


# Amounts of training

MARK = "!: the steps of the two differ by more than 5 %; their epochs are equal."


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        ((1, 1000), (10, 100), "compared"),  # epochs and steps of each: as many in all
        ((1, 950), (10, 100), "compared"),
        ((10, 100), (1, 950), "compared"),
        ((1, 949), (10, 100), "listed"),
        ((10, 100), (1, 949), "listed"),
        ((2, 100), (2, 106), "marked"),  # equal epochs, for want of equal steps
        ((2, 300), (2, 100), "marked"),
        ((2, 100), (2, 105), "compared"),
        ((2, 100), (3, 100), "listed"),
    ],
)
def test_settings_are_compared_where_steps_agree_and_else_at_equal_epochs(
    report, tmp_path, first, second, outcome
):
    for setting, (epochs, steps) in ((1, first), (3, second)):
        write_way(tmp_path, setting, PAIR, epochs=epochs, steps=steps)
    printed = report()
    settings = [(one[0], other[0]) for one, other in printed.compared("heads")]
    assert settings == ([] if outcome == "listed" else [("1", "3")])
    assert (MARK in printed.lines) == (outcome == "marked")
    lines = [line for line in printed.lines if line.startswith("one head for all classes")]
    assert [line.endswith(" !") for line in lines] == ([] if outcome == "listed" else [outcome == "marked"])
    assert [row[""].startswith("steps differ") for row in printed.tables("heads")] == [
        outcome == "marked" for _ in settings
    ]
    one, other = (epochs * steps for epochs, steps in (first, second))
    why = "- too unlike in training, as neither steps are within 5 % nor epochs equal: "
    why += f"A ({one:,} steps) and B ({other:,} steps)"
    assert (why in in_one_row(printed)) == (outcome == "listed")
    assert ("too unlike in training" in in_one_row(printed)) == (outcome == "listed")


def test_unlike_amounts_do_not_hinder_a_comparison_within_a_setting(report, tmp_path):
    for epochs, steps in ((2, 10), (3, 100)):
        write_way(tmp_path, 3, PAIR, epochs=epochs, steps=steps)
    printed = report()
    assert len(printed.compared("epochs")) == 1
    assert "too unlike in training" not in in_one_row(printed)
    assert MARK not in printed.lines  # which says that epochs are equal


def test_steps_of_setting_2_are_those_of_all_its_models_together(report, tmp_path):
    write_way(tmp_path, 3, PAIR, epochs=4, steps=10, images=1000, parameters=(100, 40))
    write_way(tmp_path, 2, PAIR, epochs=2, steps=10, images=1000, parameters=(100, 20))
    write_way(tmp_path, 2, PAIR, epochs=4, steps=10, images=1000, parameters=(100, 20))
    printed = report()
    assert printed.compared("single-task") == [("3 uniform sampling", "2 single task, 2 epochs")]
    amounts = ("steps", "images", "parameters")
    shared, alone = (printed.cells(words) for words in ("3 uniform sampling", "2 single task, 2 epochs"))
    assert [shared[name] for name in amounts] == ["40", "4,000", "140"]
    assert [alone[name] for name in amounts] == ["40", "4,000", "240"]
    assert not any(row[""].startswith("steps differ") for row in printed.tables("single-task"))


def test_each_way_without_a_partner_of_equal_steps_has_one_of_equal_epochs(report, tmp_path):
    # As on CIFAR-10, where an epoch of settings 2 and 3 has ten times the steps of one of 1 and 5
    for setting, steps in ((1, 20), (2, 100), (3, 200), (5, 20)):
        write_way(tmp_path, setting, PAIR, steps=steps)
    printed = report()
    assert printed.compared("single-task") == [
        (first, "2 single task") for first in ("1 standard by task", "3 uniform sampling", "5 summed losses")
    ]
    marked = [row[""].startswith("steps differ") for row in printed.tables("single-task")]
    assert marked == [True, False, True]
    assert MARK in printed.lines


def test_a_pair_of_equal_steps_goes_before_one_of_equal_epochs(report, tmp_path):
    for setting, epochs, steps in ((1, 2, 100), (1, 4, 100), (3, 2, 200)):
        write_way(tmp_path, setting, PAIR, epochs=epochs, steps=steps)
    printed = report()
    assert printed.compared("heads") == [("1 standard by task, 4 epochs", "3 uniform sampling")]
    assert "too unlike in training" not in in_one_row(printed)


def test_what_its_training_took_is_said_of_each_configuration(report, tmp_path):
    write_way(tmp_path, 3, PAIR, steps=1000, images=32000, parameters=(100, 40))
    write_way(tmp_path, 4, PAIR, steps=1010, images=32320, parameters=(100, 40))
    write_way(tmp_path, 1, PAIR, steps=1000, images=32000, parameters=(100, 1900))
    printed = report()
    took = {
        words: [printed.cells(words)[name] for name in ("steps", "images", "parameters")]
        for words in printed.labels
    }
    assert took == {
        "1 standard by task": ["2,000", "64,000", "2,000"],
        "3 uniform sampling": ["2,000", "64,000", "140"],
        "4 weighted sampling": ["2,020", "64,640", "140"],
    }
    assert len(printed.compared("draws")) == len(printed.compared("heads")) == 1
    assert "!" not in printed.out  # steps within 5 % need no mark


def test_the_encoders_share_of_the_parameters_is_said_once(report, tmp_path):
    write_way(tmp_path, 3, {0: (0.6, 0.7)}, parameters=(280_000, 84_000_000))
    write_way(tmp_path, 2, {0: (0.6, 0.7)}, parameters=(280_000, 4_200_000))
    printed = report()
    letter = printed.cells("3 uniform sampling")[""]
    lines = [line for line in printed.page.splitlines() if line.endswith("are shared")]
    assert lines == [f"- 0.28 of the 84.28 million parameters of {letter} are shared"]


# Questions: what is compared, and what must agree

QUESTIONS = [  # the choice, and its reference
    ("draws", {"setting": 4, "weights": [0.75, 0.25]}, {"setting": 3}),
    ("weights", {"setting": 6, "weights": [0.75, 0.25]}, {"setting": 5}),
    ("loss", {"setting": 5, "loss": "uw"}, {"setting": 5}),
    ("tasks a step", {"setting": 3, "tasks_per_step": 4}, {"setting": 3}),
    ("tasks a step", {"setting": 4, "tasks_per_step": 2}, {"setting": 4}),
    ("all tasks", {"setting": 5}, {"setting": 3}),
    ("all tasks", {"setting": 5}, {"setting": 3, "tasks_per_step": 4}),
    ("heads", {"setting": 1}, {"setting": 3}),
    ("heads", {"setting": 1}, {"setting": 3, "tasks_per_step": 4}),
    *[("single-task", {"setting": setting}, {"setting": 2}) for setting in (1, 3, 4, 5, 6)],
    ("single-task", {"setting": 5, "loss": "uw"}, {"setting": 2}),
    ("single-task", {"setting": 3, "tasks_per_step": 2}, {"setting": 2}),
    *[
        ("recipe", {"setting": setting} | recipe, {"setting": setting})
        for setting, recipe in (
            (0, {"lr": 0.2}),
            (1, {"lr": 0.2}),
            (2, {"momentum": 0.9}),
            (3, {"weight_decay": 0.01}),
            (6, {"schedule": "cosine"}),
            (5, {"lr": 0.2, "momentum": 0.9, "weight_decay": 0.01, "schedule": "cosine"}),
        )
    ],
]
RECIPE = ("lr", "momentum", "weight_decay", "schedule")
MUST_AGREE = {
    "batch_size": 64, "image_size": 8, "precision": "bf16", "codes": ("b",), "lr": 0.2, "momentum": 0.9,
    "weight_decay": 0.01, "schedule": "cosine", "validation": 0.1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("question", "choice", "reference"),
    QUESTIONS,
    ids=lambda value: value if isinstance(value, str) else str(value["setting"]),
)
def test_a_question_is_answered_by_runs_that_differ_in_nothing_else(
    report, tmp_path, question, choice, reference
):
    base = of_setting(choice["setting"], PAIR)
    best = higher(base, 10)
    write_way(tmp_path / "same", **choice, scores=best)
    write_way(tmp_path / "same", **reference, scores=base)
    (row,) = report(folder="same").means(question)
    for side, options in (("a", choice), ("b", reference)):
        for name, value in options.items():
            assert row[f"{name}_{side}"] == in_cell(value)
    assert float(row["difference"]) == pytest.approx(10)
    assert numbers(row) == near(by_hand([best, base], [best, base]))
    write_way(tmp_path / "other", **reference, scores=base)
    for name, value in MUST_AGREE.items():
        if question != "recipe" or name not in RECIPE:
            write_way(tmp_path / "other", **choice | {name: value}, scores=base)
    if choice["setting"] == reference["setting"]:
        write_way(tmp_path / "other", **choice, scores=base, epochs=4, steps=5)
    assert report(folder="other").compared(question) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"setting": 3, "tasks_per_step": 4}, {"setting": 4}),
        ({"setting": 4, "weights": [1, 3]}, {"setting": 4, "tasks_per_step": 4}),
        ({"setting": 5, "loss": "uw"}, {"setting": 6}),
        ({"setting": 3}, {"setting": 5, "loss": "uw"}),
        ({"setting": 4}, {"setting": 5}),
        ({"setting": 1}, {"setting": 4}),
        ({"setting": 0}, {"setting": 2}),
        ({"setting": 0}, {"setting": 3}),
        ({"setting": 5}, {"setting": 5, "loss": "uw", "lr": 0.2}),
        ({"setting": 3}, {"setting": 3, "codes": ("b",)}),
        ({"setting": 3, "validation": 0.1}, {"setting": 3, "validation": 0.2}),
        ({"setting": 3}, {"setting": 4, "validation": 0.1}),
        ({"setting": 3}, {"setting": 4, "data": "other.npz#ba9876543210"}),
    ],
)
def test_what_answers_no_question_is_not_compared(report, tmp_path, first, second):
    for options in (first, second):
        write_way(tmp_path, **options, scores=of_setting(options["setting"], PAIR))
    printed = report()
    assert printed.compared() == []
    assert "Nothing: no two configurations can be compared." in printed.out
    assert len(printed.labels) == 2


def test_runs_that_are_not_compared_for_their_code_are_named(report, tmp_path):
    for code in ("a", "b"):
        write_way(tmp_path, 3, PAIR, codes=(code,))
    assert (
        "- runs of different code are not averaged, and compared by --note alone: code a: A; code b: B"
        in report().lines
    )


def test_histories_that_know_no_tasks_per_step_count_as_of_one(report, tmp_path):
    write_way(tmp_path, 3, PAIR)
    write_way(tmp_path, 3, PAIR, tasks_per_step=4)
    for path in (tmp_path / "3-0").glob("*"):
        options = json.loads((path / "history.json").read_text())["options"]
        edit(path, options={name: options[name] for name in options if name != "tasks_per_step"})
    assert report().compared("tasks a step") == [
        ("3 uniform sampling, four tasks a step", "3 uniform sampling")
    ]


def test_the_recipe_of_the_experiment_is_what_other_recipes_are_held_against(report, tmp_path):
    for lr in (0.01, 0.1, 1.0):
        write_way(tmp_path, 3, PAIR, lr=lr)
    write_way(tmp_path, 3, PAIR, lr=0.01, momentum=0.9)
    printed = report()
    default = ("0.1", "0.0")
    assert sorted(sides(printed, "recipe", "lr", "momentum")) == [
        (("0.01", "0.0"), default), (("0.01", "0.9"), default), (("1.0", "0.0"), default)
    ]  # fmt: skip
    assert len(printed.compared()) == 3


@pytest.mark.parametrize(
    ("question", "setting", "option", "values"),
    [
        ("recipe", 3, "lr", (0.05, 0.2, 0.3)),
        ("batch_size", 3, "batch_size", (16, 32, 64)),
        ("tasks a step", 3, "tasks_per_step", (2, 4, 8)),
        ("loss", 5, "loss", ("dwa:temperature=3.0", "pcgrad", "uw")),
        ("weights", 4, "weights", ([0.25, 0.75], [0.5, 0.5], [0.75, 0.25])),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_without_the_default_the_reference_is_what_most_have(
    report, tmp_path, question, setting, option, values
):
    for number, value in enumerate(values):
        write_way(tmp_path, setting, higher(PAIR, number), **{option: value})
    write_way(tmp_path, setting, PAIR, **{option: values[1]}, epochs=3)
    said = [in_cell(value) for value in values]
    rows = report().means(question)
    sides = {(row[f"{option}_a"], row[f"{option}_b"]): float(row["difference"]) for row in rows}
    assert sides == pytest.approx({(said[0], said[1]): -1, (said[2], said[1]): 1})


# Tested as trained

USUAL = {0: (0.60, 0.70), 1: (0.64, 0.72), 2: (0.59, 0.75)}
AGAIN = {0: (0.65, 0.72), 1: (0.66, 0.77), 2: (0.66, 0.76)}


def write_both(path: Path, setting: int, usual: Scores, again: Scores, **how: object) -> None:
    """Write the histories of a configuration that is tested both ways."""
    for seed in usual:
        write_way(path, setting, {seed: usual[seed]}, as_trained=again[seed], **how)


def changed(usual: Scores, again: Scores) -> Scores:
    """For each seed that has both, how much the score of a task changes."""
    return {
        seed: tuple(new - old for new, old in zip(again[seed], usual[seed], strict=True)) for seed in again
    }


def with_half(estimate: tuple[float, float, float]) -> str:
    """A mean accuracy in per cent, as it is shown."""
    mean, low, _ = estimate
    return f"{mean:.2f} ± {mean - low:.2f}"


@pytest.mark.parametrize("setting", range(len(SETTINGS)))
def test_scores_as_trained_are_beside_the_usual_ones_and_compared_with_them(report, tmp_path, setting):
    usual, again, more = (of_setting(setting, scores) for scores in (USUAL, AGAIN, {3: (0.9, 0.9)}))
    write_both(tmp_path, setting, usual, again)
    write_way(tmp_path, setting, more)  # of a program that had none
    printed = report()
    label = f"{setting} {SETTINGS[setting].name}"
    cells = printed.cells(label)
    assert cells["as trained, %"] == with_half(by_hand([again], [again]))
    every = usual | more
    assert cells["accuracy, %"] == with_half(by_hand([every], [every]))
    assert cells["balanced, %"] == f"{100 * fmean(map(fmean, every.values())) - 2:.2f}"
    if setting:
        assert (cells["worst task"], cells["best task"]) == ("left 68.2", "right 76.8")
    assert cells.get("delta_m, %") == ("0" if setting == 2 else None)
    assert (cells["runs"], cells["seeds"]) == ("8" if setting == 2 else "4", "4")
    assert printed.compared() == []
    (row,) = printed.rows()
    assert (row["question"], row["test"], row["seeds_a"], row["seeds_b"]) == ("test", "both", "3", "3")
    assert row["letter_a"] == row["letter_b"] == cells[""]
    change = by_hand([changed(usual, again)], [changed(usual, again)])
    assert numbers(row) == near(change)
    conclusive = int(not change[1] < 0 < change[2])
    assert row["verdict"] == ("higher" if conclusive else "inconclusive")
    said = f"instead of as usual: {change[0]:+.1f}, conclusive in {conclusive} of 1 configuration"
    assert f"tested as trained {said}" in printed.lines
    assert printed.commands("test") == []
    for row in printed.rows("report.csv"):
        expected = ""
        if row["seed"] != "3":
            expected = again[int(row["seed"])][TASKS.index(row["task"]) if setting else 0]
        assert row["as_trained_accuracy"] == str(expected)
        if expected:
            assert float(row["as_trained_balanced_accuracy"]) == pytest.approx(expected - 0.02)


def test_what_testing_as_trained_changes_is_measured_run_by_run(report, tmp_path):
    # Seeds differ far more than the change of each: sides taken apart would have a wide interval
    usual = {3: {0: (0.5, 0.6), 1: (0.7, 0.8)}, 4: {0: (0.4, 0.6), 1: (0.6, 0.9), 2: (0.5, 0.5)}, 5: PAIR}
    points = {3: (1.0, 1.2), 4: (-2.0, -2.6, -2.9)}
    again = {
        setting: {seed: higher({seed: usual[setting][seed]}, by)[seed] for seed, by in enumerate(each)}
        for setting, each in points.items()
    }
    for setting, scores in again.items():
        write_both(tmp_path, setting, usual[setting], scores)
    write_way(tmp_path, 5, PAIR)
    printed = report()
    changes = {setting: changed(usual[setting], again[setting]) for setting in again}
    rows = {row["setting_a"]: row for row in printed.means("test", "both")}
    assert {row["setting_b"]: row for row in rows.values()} == rows
    assert set(rows) == {"3", "4"}
    for setting, row in rows.items():
        assert numbers(row) == near(by_hand([changes[int(setting)]], [*changes.values()]))
    assert float(rows["3"]["difference"]) == pytest.approx(1.1)
    assert float(rows["4"]["difference"]) == pytest.approx(-2.5)
    said = "tested as trained instead of as usual: -2.5 to +1.1, conclusive in 2 of 2 configurations"
    assert said in printed.lines


def test_the_single_task_baseline_as_trained_is_that_of_scores_as_trained(report, tmp_path):
    alone = {0: (0.50, 0.60), 1: (0.54, 0.58), 2: (0.55, 0.65)}
    alone_again = {0: (0.55, 0.62), 1: (0.54, 0.59), 2: (0.55, 0.64)}
    write_both(tmp_path, 4, USUAL, AGAIN)
    write_both(tmp_path, 2, alone, alone_again)
    printed = report()
    labels = ("4 weighted sampling", "2 single task")
    rows = printed.rows()
    for way, heading, first, second in (
        ("usual", "delta_m, %", USUAL, alone),
        ("as trained", "delta_m as trained, %", AGAIN, alone_again),
    ):
        everyone = [first, second]
        (row,) = printed.means("single-task", way)
        assert numbers(row) == near(by_hand([first, second], everyone))
        (of_tasks,) = (each for each in rows if (each["measure"], each["test"]) == ("delta_m", way))
        change, low, high = delta_m(first, second, everyone)
        assert numbers(of_tasks) == near((change, low, high))
        cell = printed.cells(labels[0])[heading].removesuffix(" *")
        assert cell == f"{change:+.2f} [{low:+.2f}, {high:+.2f}]"
        differences = {
            row["task"]: float(row["difference"])
            for row in rows
            if (row["measure"], row["test"]) == ("accuracy", way)
        }
        assert differences == pytest.approx({
            name: 100 * (fmean(s[task] for s in first.values()) - fmean(s[task] for s in second.values()))
            for task, name in enumerate(TASKS)
        }, abs=1e-4)  # fmt: skip
        assert printed.compared("single-task", way) == [labels]
    assert printed.compared("test", "both") == [(label, label) for label in reversed(labels)]


def test_a_seed_that_lacks_a_task_as_trained_is_left_out_and_named(report, tmp_path):
    scores = {0: (0.6, 0.7), 1: (0.6, 0.8), 2: (0.7, 0.8)}
    write_way(tmp_path, 2, scores, missing=[(1, 1)], as_trained=(0.5, 0.6))
    write_way(tmp_path, 2, scores, missing=[(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)])
    printed = report()
    assert printed.cells("2 single task")["seeds"] == "3"
    assert "- A as trained: left out: seed 1 (lacks 1 of 2 tasks)" in printed.lines
    (row,) = printed.means("test", "both")
    assert (row["seeds_a"], float(row["difference"])) == ("2", pytest.approx(-15))  # of seeds 0 and 2


def test_two_sides_are_compared_as_trained_if_both_have_such_scores_and_never_across(report, tmp_path):
    again = {1: (0.61, 0.7), 3: (0.65, 0.72), 4: (0.66, 0.77)}
    for setting, scores in again.items():
        write_way(tmp_path, setting, PAIR, as_trained=scores)
    write_way(tmp_path, 3, PAIR, tasks_per_step=2, as_trained=(0.6, 0.7))
    write_way(tmp_path, 3, PAIR, tasks_per_step=4)  # of a program that had none
    write_way(tmp_path, 5, PAIR, as_trained=(0.6, 0.7))
    write_way(tmp_path, 6, PAIR)
    printed = report()
    one = "3 uniform sampling"
    two, four = (f"{one}, {number} tasks a step" for number in ("two", "four"))
    weighted, alike = "4 weighted sampling", "1 standard by task"
    summed, weighed = "5 summed losses", "6 weighted losses"
    usual = {
        "draws": [(weighted, one)],
        "weights": [(weighed, summed)],
        "tasks a step": [(two, one), (four, one)],
        "all tasks": [(summed, one), (summed, two), (summed, four)],
        "heads": [(alike, one), (alike, two), (alike, four)],
    }
    for question, pairs in usual.items():
        assert printed.compared(question) == pairs, question
        trained = [pair for pair in pairs if four not in pair and weighed not in pair]
        assert printed.compared(question, "as trained") == trained, question
    assert printed.compared("test", "both") == [
        (label, label) for label in (alike, one, two, weighted, summed)
    ]
    assert {row["test"] for row in printed.rows() if row["question"] != "test"} == {"usual", "as trained"}
    (row,) = printed.means("draws", "as trained")
    assert float(row["difference"]) == pytest.approx(3)  # both as trained
    (row,) = printed.means("draws")
    assert float(row["difference"]) == 0


def test_nothing_is_shown_of_histories_that_have_own_statistics_alone(report, tmp_path):
    old = {"accuracy": [0.65, 0.72], "balanced_accuracy": [0.61, 0.68]}
    for setting in (3, 4):
        write_way(tmp_path, setting, PAIR)
    expected = report()
    for content in (old, None, [0.5]):  # which is not even read
        for path in tmp_path.rglob("history.json"):
            edit(path.parent, own_statistics=content)
        printed = report()
        assert (printed.out, printed.page) == (expected.out, expected.page)
        assert printed.rows() == expected.rows()
        assert printed.rows("report.csv") == expected.rows("report.csv")
    assert printed.labels == ["3 uniform sampling", "4 weighted sampling"]
    assert printed.compared() == [("4 weighted sampling", "3 uniform sampling")]
    assert "as trained, %" not in printed.cells("3 uniform sampling")
    for row in printed.rows("report.csv"):
        assert "own_statistics" not in " ".join(row)
        assert row["as_trained_accuracy"] == row["as_trained_balanced_accuracy"] == ""
    assert "as trained" not in printed.out  # neither answered nor a command that would
    assert printed.commands("test") == []


# Options of new versions


def test_losses_of_setting_3_are_compared_where_a_step_takes_all_tasks(report, tmp_path):
    title = {"data": 1, "image_size": 32}  # whose tasks do not share their images
    scores = {seed: [0.5 + 0.01 * seed] * 20 for seed in (0, 1)}
    for options in ({}, {"loss": "uw"}, {"loss": "dwa:temperature=3.0"}, {"tasks_per_step": 1}):
        write_way(tmp_path, 3, scores, **{"tasks_per_step": "all", "loss": "mean"} | title | options)
    printed = report()
    assert sides(printed, "loss", "tasks_per_step", "loss") == [
        (("all", "dwa:temperature=3.0"), ("all", "mean")),
        (("all", "uw"), ("all", "mean")),
    ]
    assert sides(printed, "tasks a step", "tasks_per_step", "loss") == [(("all", "mean"), ("1", "mean"))]


def test_whether_sets_of_images_are_normalised_apart_counts_only_where_a_step_has_several(report, tmp_path):
    for number, normalisation in ((1, "together"), (4, "together"), (4, "apart"), (4, "group")):
        write_way(tmp_path, 3, PAIR, tasks_per_step=number, normalisation=normalisation)
    for normalisation in ("together", "group"):
        write_way(tmp_path, 2, PAIR, normalisation=normalisation)
    printed = report()
    one, *four = (("3", number, name) for number, name in (
        ("1", "together"), ("4", "apart"), ("4", "group"), ("4", "together")
    ))  # fmt: skip
    apart, groups, together = four
    single, by_group = (("2", "", name) for name in ("together", "group"))
    names = ("setting", "tasks_per_step", "normalisation")
    assert sides(printed, "tasks a step", *names) == [(apart, one), (together, one)]
    assert sides(printed, "single-task", *names) == [
        (one, single), (apart, single), (groups, by_group), (together, single)
    ]  # fmt: skip
    assert sorted(sides(printed, "normalisation", *names)) == [
        (by_group, single), (apart, together), (groups, together)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options", [{"optimizer": "adamw", "lr": 0.001, "momentum": None}, {"augment": True}]
)
def test_optimizer_and_augmentation_are_a_recipe(report, tmp_path, options):
    write_way(tmp_path, 3, PAIR)
    write_way(tmp_path, 3, PAIR, **options)
    write_way(tmp_path, 4, PAIR, **options)
    printed = report()
    name = next(iter(options))
    values = [in_cell(value) for value in (options[name], {"optimizer": "sgd", "augment": False}[name])]
    assert sides(printed, "recipe", "setting", name) == [(("3", values[0]), ("3", values[1]))]
    assert sides(printed, "draws", "setting", name) == [(("4", values[0]), ("3", values[0]))]
    assert len(printed.compared()) == 2


# Any other option

OTHERS = {
    "batch_size": (128, 32),
    "epochs": (DATA_SETS[1].epochs, 4),
    "precision": ("fp32", "bf16"),
    "image_size": (32, 16),
    "normalisation": ("together", "group"),
    "encoder": ("cnn", "resnet18"),
    "head": ("hidden", "linear"),
}


@pytest.mark.parametrize("option", OTHERS)
@pytest.mark.parametrize("setting", [0, 3])
def test_what_differs_in_one_option_is_compared_whatever_option_it_is(report, tmp_path, option, setting):
    usual, other = OTHERS[option]
    options = {name: values[0] for name, values in OTHERS.items()}
    tasks = 20 if setting else 1
    scores = {value: {seed: [by + 0.01 * seed] * tasks for seed in (0, 1)} for value, by in (
        (usual, 0.6), (other, 0.7)
    )}  # fmt: skip
    for value, each in scores.items():
        write_way(tmp_path / str(value), setting, each, data=1, **options | {option: value})
    (row,) = report().rows()
    assert (row["question"], row["measure"], row["test"]) == (option, "mean_accuracy", "usual")
    assert (row[f"{option}_a"], row[f"{option}_b"]) == (str(other), str(usual))
    assert numbers(row) == near(by_hand([scores[other], scores[usual]], [*scores.values()]))
    assert float(row["difference"]) == pytest.approx(10)


def test_each_of_many_values_is_compared_with_the_default_alone(report, tmp_path):
    default = OTHERS["batch_size"][0]
    for size in (32, 64, default, 256):
        write_way(tmp_path, 3, {seed: [0.5 + 0.01 * seed] * 20 for seed in (0, 1)}, data=1, batch_size=size)
    rows = report().means()
    assert sorted((row["batch_size_a"], row["batch_size_b"]) for row in rows) == [
        (size, str(default)) for size in ("256", "32", "64")
    ]


def test_what_differs_in_two_options_is_not_compared(report, tmp_path):
    write_way(tmp_path, 3, PAIR, batch_size=16, precision="bf16")
    write_way(tmp_path, 3, PAIR, batch_size=32)
    assert report().compared() == []


# Commands for what is missing

SEEDS = {0: 0.6, 1: 0.7, 2: 0.5}


def steps_of(run: Run) -> int:
    """Steps of an epoch, counted from the images of a data set."""
    spec, setting = run.spec, run.setting
    names = list(spec.tasks)
    tasks = [names[run.task]] if setting == 2 else names if setting in (3, 4) else [None]
    return sum(spec.num_training_images(task) // run.batch_size for task in tasks)


def write_run(path: Path, run: Run, score: float = 0.6) -> None:
    """The history of a run, with as many steps as it takes."""
    num_tasks = {0: 1, 2: 1}.get(run.setting, len(run.spec.tasks))
    options = {name: value for name, value in run.recorded.items() if name not in ("setting", "seed")}
    write(
        path,
        run.setting,
        [score + 0.02 * (run.seed % 5)] * num_tasks,
        run.seed,
        as_trained=[0.65 + 0.01 * (run.seed % 7)] * num_tasks,
        steps=steps_of(run),
        images=steps_of(run) * run.batch_size,
        **options,
    )


def train(path: Path, *words: object) -> None:
    """The histories that a command line leaves for two seeds, in setting 2 for every task."""
    runs = [main.parse(["--train", *map(str, words), *more], OPTIONS) for more in ([], ["--seed", "1"])]
    for run in runs:
        write_run(path / "-".join(map(str, [*words, run.seed])), run)


def train_single(path: Path, *words: object, seeds: int = 2, tasks: int | None = None) -> None:
    """The same of setting 2, for all tasks or the first ones."""
    data = words[words.index("--data") + 1]
    for seed, task in itertools.product(range(seeds), range(tasks or len(DATA_SETS[data].tasks))):
        argv = ["--train", "--setting", 2, "--task", task, "--seed", seed, *words]
        write_run(path / f"single-{task}-{seed}", main.parse([str(word) for word in argv], OPTIONS))


def carried_out(printed: Report, question: str | None = None) -> list[Run]:
    """The runs that missing.sh, or its parts for a question, train, read as the program reads them."""
    runs = [main.parse(words, OPTIONS) for words in printed.trained(question)]
    assert all(run.save_history and run.resume for run in runs)
    return runs


def most_seeds(printed: Report, question: str) -> int:
    """Of the comparisons that answer a question, the most seeds that both sides of one have."""
    rows = [row for row in printed.rows() if row["question"] == question]
    return max(min(int(row["seeds_a"]), int(row["seeds_b"])) for row in rows)


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
        ("recipe", ["--data 1 --setting 3 --epochs 3"]),
        ("recipe", ["--data 1 --setting 3 --epochs 3 --lr 0.3"]),
        ("single-task", ["--data 0 --setting 3 --epochs 2"]),
        ("single-task", ["--data 0 --setting 5 --epochs 20 --loss uw"]),
        ("draws", ["--data 0 --setting 4 --epochs 3 --optimizer adamw --augment"]),
        ("loss", ["--data 0 --setting 5 --epochs 3 --loss dwa:temperature=3"]),
        ("loss", ["--data 0 --setting 3 --epochs 3 --tasks_per_step all --batch_size 40 --loss uw"]),
        ("tasks a step", ["--data 1 --setting 3 --epochs 3 --tasks_per_step 4 --normalisation apart"]),
        ("tasks a step", ["--data 1 --setting 3 --epochs 3 --tasks_per_step all --batch_size 40"]),
        ("heads", ["--data 1 --setting 3 --epochs 4 --tasks_per_step 4 --normalisation apart"]),
        ("heads", ["--data 1 --setting 3 --epochs 4 --encoder resnet18 --head linear --normalisation group"]),
        ("recipe", ["--data 1 --setting 3 --epochs 3 --optimizer adamw"]),
        # neither is
        ("draws", ["--data 1 --setting 1 --epochs 3"]),
        ("draws", ["--data 1 --setting 0 --epochs 3 --momentum 0.5"]),
        ("heads", ["--data 1 --setting 4 --epochs 3 --weights " + "1 " * 20]),
        ("weights", ["--data 0 --setting 1 --epochs 3"]),
        ("all tasks", ["--data 0 --setting 1 --epochs 20"]),
        ("single-task", ["--data 1 --setting 0 --epochs 3"]),
        # both are, but they differ in something else
        ("draws", ["--data 1 --setting 3 --epochs 3 --lr 0.2", "--data 1 --setting 4 --epochs 3 --lr 0.3"]),
        # what would go wrong easily:
        # both sides are of one setting
        ("loss", ["--data 0 --setting 1 --epochs 3"]),
        ("tasks a step", ["--data 1 --setting 1 --epochs 3"]),
        ("recipe", ["--data 1 --setting 1 --epochs 3"]),
        # another loss than `mean` is taken for a side
        ("weights", ["--data 0 --setting 5 --epochs 3 --loss uw"]),
        ("all tasks", ["--data 0 --setting 5 --epochs 20 --loss uw"]),
        ("heads", ["--data 0 --setting 5 --epochs 20 --loss uw"]),
        # a setting has no such number of tasks a step, or no such loss with it
        ("draws", ["--data 1 --setting 3 --epochs 3 --tasks_per_step all --batch_size 40"]),
        ("tasks a step", ["--data 1 --setting 3 --epochs 3 --tasks_per_step all --batch_size 40 --loss uw"]),
        ("all tasks", ["--data 0 --setting 3 --epochs 2 --tasks_per_step all --batch_size 40 --loss uw"]),
        # the other recipe is the one that is there already
        ("recipe", ["--data 1 --setting 3 --epochs 3 --momentum 0.9 --schedule cosine"]),
        # a whole number of epochs does not come within 5 % of the steps
        ("all tasks", ["--data 0 --setting 5 --epochs 4"]),
        ("heads", ["--data 2 --setting 3 --epochs 6"]),
        # the other side would be refused: 4 does not divide the batch
        ("tasks a step", ["--data 1 --setting 3 --epochs 3 --batch_size 50"]),
    ],
    ids=lambda value: value if isinstance(value, str) else " and ".join(value).replace("--", ""),
)  # fmt: skip
def test_the_commands_that_are_printed_give_the_runs_that_a_question_lacks(report, tmp_path, question, there):
    for words in there:
        train(tmp_path, *words.split())
    runs = carried_out(report(), question)
    assert runs
    assert len({run.save_path for run in runs}) == len(runs)
    for run in runs:
        assert run.save_path.is_relative_to(tmp_path)
        write_run(run.save_path, run)
    printed = report()
    assert "left out" not in printed.out
    assert printed.commands(question) == []
    assert most_seeds(printed, question) == 3


@pytest.mark.parametrize("setting", [0, 3])
def test_all_commands_of_a_report_go_side_by_side(report, tmp_path, setting):
    train(tmp_path, "--data", 1, "--setting", setting, "--epochs", 3)
    runs = carried_out(report())
    assert len({run.save_path for run in runs}) == len(runs)


@pytest.mark.parametrize(
    ("question", "there", "words"),
    [
        (
            "heads",
            "--data 1 --setting 1 --epochs 3 --batch_size 4096",  # a task has 2500 images
            "one head for all classes instead of one per task",
        ),
        (
            "single-task",
            "--data 2 --setting 1 --epochs 3 --validation 0.5",  # a task has 112
            "one network for all tasks instead of one per task",
        ),
        (
            "tasks a step",
            "--data 1 --setting 3 --epochs 3 --batch_size 31",  # nothing divides it
            "more tasks a step instead of one",
        ),
    ],
)
def test_no_command_is_printed_that_would_be_refused(report, tmp_path, question, there, words):
    train(tmp_path, *there.split())
    printed = report()
    assert printed.commands(question) == []
    assert f"- {words}: not with these options: " in in_one_row(printed)


def write_seeds(path: Path, *words: str) -> None:
    """The histories of command lines on CIFAR-100."""
    for each in words:
        argv = ["--train", "--data", "1", "--epochs", "3", *each.split()]
        write_run(path / each.replace(" ", ""), main.parse(argv, OPTIONS))


def test_commands_complete_what_is_there_in_part(report, tmp_path):
    write_seeds(tmp_path, "--setting 3 --seed 4", "--setting 1 --seed 7", "--setting 1 --seed 9")
    runs = carried_out(report(), "heads")
    assert sorted((run.setting, run.seed) for run in runs) == [(1, 4), (3, 7), (3, 9)]
    for run in runs:
        write_run(run.save_path, run)
    printed = report()
    assert printed.commands("heads") == []
    assert [(row["seeds_a"], row["seeds_b"]) for row in printed.means("heads")] == [("3", "3")]


def test_two_seeds_of_either_side_are_an_answer_whatever_seeds_they_are(report, tmp_path):
    write_seeds(
        tmp_path,
        *(f"--setting 3 --seed {seed}" for seed in (4, 7)),
        *(f"--setting 1 --seed {seed}" for seed in (8, 9)),
    )
    printed = report()
    assert printed.commands("heads") == []
    (row,) = printed.means("heads")
    assert (row["seeds_a"], row["seeds_b"]) == ("2", "2")
    assert row["low"]


@pytest.mark.parametrize("setting", [0, 3])
def test_commands_complete_the_seeds_of_scores_as_trained(report, tmp_path, setting):
    write_run(tmp_path / "a", main.parse(["--train", "--setting", str(setting), "--epochs", "3"], OPTIONS))
    runs = carried_out(report(), "test")
    assert [(run.setting, run.seed) for run in runs] == [(setting, 1), (setting, 2)]
    for run in runs:
        write_run(run.save_path, run)
    printed = report()
    assert printed.commands("test") == []
    assert [row["seeds_a"] for row in printed.means("test", "both")] == ["3"]


def test_commands_complete_single_task_training(report, tmp_path):
    train_single(tmp_path, "--data", 0, "--epochs", 4, tasks=5)
    runs = carried_out(report(), "single-task")
    # The steps of the models that are there are not those of the whole
    for run in runs:
        write_run(run.save_path, run)
    printed = report()
    for test in ("usual", "as trained"):
        (row,) = printed.means("single-task", test)
        assert (row["seeds_a"], row["seeds_b"]) == ("3", "3")


def test_commands_of_single_task_training_train_every_task(report, tmp_path):
    train(tmp_path, "--data", 1, "--setting", 3, "--epochs", 3)
    runs = carried_out(report(), "single-task")
    wanted = [(2, task, seed) for task in range(20) for seed in range(3)] + [(3, None, 2)]
    assert sorted((run.setting, run.task, run.seed) for run in runs[-60:]) == wanted[:60]
    assert {(run.setting, run.task, run.seed) for run in runs} == set(wanted)


def test_a_directory_that_a_shell_would_split_is_quoted(report, tmp_path):
    odd = tmp_path / "it's $HOME; my runs"
    train(odd, "--data", 1, "--setting", 3, "--epochs", 1)
    assert {run.save_path.parent for run in carried_out(report(folder=odd.name), "draws")} == {odd}


def test_what_is_answered_needs_no_command(report, tmp_path):
    for setting in (3, 4):
        write_way(tmp_path, setting, PAIR)
    printed = report()
    assert printed.commands("draws") == []
    assert printed.commands("heads")


TWO_TASKS = [[0, 1, 0, 1], [0, 0, 1, 1]]


def test_the_script_answers_every_question_on_a_file_with_a_blank_in_its_path(program, report, tmp_path):
    (tmp_path / "my data").mkdir()
    file = write_data(tmp_path / "my data" / "it's mine.npz", [16] * 4, tasks=TWO_TASKS)
    train = ("--train", "--setting", 3, "--data", file, "--batch_size", 8, "--epochs", 1, "--save_history")
    assert program(*train, "--save_path", tmp_path / "my runs" / "a").code == 0
    printed = report(folder="my runs")
    script = (tmp_path / "my runs" / "missing.sh").read_text().splitlines()
    headings = [line.partition(": ")[2] for line in script if re.match(r"# \d+: ", line)]
    questions = {question for heading in headings for question in heading.split(", ")}
    assert "What lacks runs" in printed.lines
    assert questions >= {"draws", "tasks a step", "heads", "test", "single-task"}
    for words in printed.trained():
        assert words[words.index("--data") + 1] == str(file)
        assert main.main(words, network=NARROW) == 0
    answered = report(folder="my runs")
    assert "What lacks runs" not in answered.out
    assert not (tmp_path / "my runs" / "missing.sh").exists()
    for question in questions:
        assert most_seeds(answered, question) == 3


def test_the_script_takes_what_is_set_outside_first(program, report, tmp_path):
    file = write_data(tmp_path / "mine.npz", [16, 16])
    train = ("--train", "--setting", 3, "--data", file, "--batch_size", 8, "--epochs", 1, "--save_history")
    assert program(*train, "--save_path", tmp_path / "run").code == 0
    moved = str(file.rename(tmp_path / "moved to.npz"))
    for words in report().trained(DATA=moved):
        assert words[words.index("--data") + 1] == moved


@pytest.mark.parametrize("recorded", [True, False])
def test_a_file_that_is_gone_keeps_its_place_or_is_asked_for(report, tmp_path, recorded):
    write_way(tmp_path, 3, PAIR)
    for path in tmp_path.rglob("history.json") if recorded else ():
        (session,) = json.loads(path.read_text())["sittings"]
        edit(path.parent, sittings=[session | {"file": "/no where/mine.npz"}])
    printed = report()
    if recorded:
        assert all("/no where/mine.npz" in words for words in printed.trained())
    else:
        run = subprocess.run(["bash", printed.path / "missing.sh"], capture_output=True, text=True)
        assert (run.returncode, run.stderr) == (1, "set DATA to the path of mine.npz\n")
    assert all("here it is.npz" in words for words in printed.trained(DATA="here it is.npz"))


def test_two_files_have_a_variable_each_and_published_data_a_folder(report, tmp_path):
    write_way(tmp_path / "one", 3, PAIR)
    write_way(tmp_path / "two", 3, PAIR, data="other.npz#ba9876543210")
    train(tmp_path / "three", "--data", 1, "--setting", 3, "--epochs", 3)
    commands = report().trained(DATA="a", DATA_2="b", DATA_PATH="c d")
    assert {words[words.index("--data") + 1] for words in commands} == {"a", "b", "1"}
    for words in commands:
        assert ("c d" in words) == (words[words.index("--data") + 1] == "1")


def test_the_script_stops_at_the_first_error(report, tmp_path):
    train(tmp_path, "--data", 1, "--setting", 3, "--epochs", 3)
    report()
    (tmp_path / "fails").write_text("#!/bin/sh\necho started\nexit 3\n")
    (tmp_path / "fails").chmod(0o755)
    environment = {**os.environ, "PYTHON": str(tmp_path / "fails")}
    command = ["bash", tmp_path / "missing.sh"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (3, "started\n")


# Tuned: each at its best recipe

GOOD, BETTER, BEST = (higher(PAIR, points) for points in (1, 2, 3))


def write_rates(path: Path, setting: int, scores: Mapping[float, Scores], **options: object) -> None:
    """Write the histories of configurations that differ in their learning rates."""
    for lr, each in scores.items():
        write_way(path, setting, each, lr=lr, **options)


def tuning(printed: Report) -> list[str]:
    """The lines of the screen on what was tuned."""
    after = printed.out.partition("\nTuned: each at its best recipe on held-out images\n")[2]
    return " ".join(after.partition("\n\n")[0].removeprefix("- ").split()).split(" - ") if after else []


def test_families_are_compared_on_test_images_at_their_best_on_held_out_images(report, tmp_path):
    write_rates(tmp_path, 3, {0.05: GOOD, 0.1: BEST, 0.2: PAIR}, validation=0.1)
    write_rates(tmp_path, 4, {0.05: GOOD, 0.2: BETTER}, validation=0.1)
    # On the test images others would be the best
    tested = {
        3: {0.05: higher(PAIR, 9), 0.1: higher(PAIR, 4), 0.2: higher(PAIR, 8)},
        4: {0.05: higher(PAIR, 7), 0.2: {0: (0.7, 0.7), 1: (0.6, 0.9), 2: (0.7, 0.6)}},
    }
    for setting, scores in tested.items():
        write_rates(tmp_path, setting, scores)
    printed = report()
    (row,) = printed.means("tuned")
    assert (row["setting_a"], row["lr_a"], row["setting_b"], row["lr_b"]) == ("4", "0.2", "3", "0.1")
    assert row["data_set"] == "mine.npz (content 0123456789ab)"
    everyone = [each for scores in tested.values() for each in scores.values()]
    assert numbers(row) == near(by_hand([tested[4][0.2], tested[3][0.1]], everyone))
    assert {(row["lr_a"], row["lr_b"]) for row in printed.means("draws")} == {("0.05",) * 2, ("0.2",) * 2}
    letters = {
        (row[f"setting_{side}"], row[f"lr_{side}"], "validation" in row["data_set"]): row[f"letter_{side}"]
        for row in printed.means()
        for side in "ab"
    }
    uniform, weighted = tuning(printed)
    assert uniform.startswith(f"3 recipes tried on held-out images, the best {letters['3', '0.1', True]} (3 ")
    assert uniform.endswith(f"); on the test images {letters['3', '0.1', False]}")
    assert weighted.startswith(
        f"2 recipes tried on held-out images, the best {letters['4', '0.2', True]} (4 "
    )
    edge = ", whose learning rate is at the edge of those tried"
    assert weighted.endswith(f"{edge}; on the test images {letters['4', '0.2', False]}")
    assert "edge" not in uniform
    assert printed.commands("tuned") == []
    assert any(line.startswith("tasks sampled by weight instead of equally, tuned") for line in printed.lines)


@pytest.mark.parametrize(
    ("best", "at_edge"),
    [
        ({"lr": 0.1}, False),
        ({"lr": 0.05}, True),
        ({"lr": 0.2}, True),
        ({"lr": 0.1, "momentum": 0.9}, True),  # of 0.01 and 0.1
        ({"lr": 0.3, "schedule": "cosine"}, False),  # no other rate with it
    ],
)
def test_the_edge_is_that_of_the_rates_tried_with_the_rest_of_the_recipe(report, tmp_path, best, at_edge):
    recipes = [{"lr": lr} for lr in (0.05, 0.1, 0.2)]
    recipes += [{"lr": lr, "momentum": 0.9} for lr in (0.01, 0.1)] + [{"lr": 0.3, "schedule": "cosine"}]
    for recipe in recipes:
        write_way(tmp_path, 3, BEST if recipe == best else PAIR, validation=0.1, **recipe)
    write_rates(tmp_path, 4, {0.05: PAIR, 0.1: BEST, 0.2: PAIR}, validation=0.1)
    write_way(tmp_path, 4, PAIR)
    lines = tuning(report())
    assert [line.split()[0] for line in lines] == ["6", "3"]
    assert ["at the edge" in line for line in lines] == [at_edge, False]


@pytest.mark.parametrize(
    ("held_out", "tested"),
    [
        ({3: [0.1], 4: [0.1]}, {3: [0.1], 4: [0.1]}),  # one recipe alone
        ({0: [0.1, 0.2]}, {0: [0.1], 3: [0.1]}),  # setting 0 is not scored by task
        ({}, {3: [0.1, 0.2], 4: [0.1, 0.2]}),  # chosen on test images
    ],
    ids=["one recipe", "setting 0", "no held-out images"],
)
def test_nothing_is_tuned_without_several_recipes(report, tmp_path, held_out, tested):
    for rates, options in ((held_out, {"validation": 0.1}), (tested, {})):
        for setting, lrs in rates.items():
            scores = {lr: of_setting(setting, higher(PAIR, lr)) for lr in lrs}
            write_rates(tmp_path, setting, scores, **options)
    printed = report()
    assert printed.compared("tuned") == []
    assert "Tuned:" not in printed.out
    assert printed.commands("tuned") == []


def test_one_family_alone_has_a_best_recipe_and_nothing_to_be_compared_with(report, tmp_path):
    write_rates(tmp_path, 3, {0.1: GOOD, 0.2: BEST}, validation=0.1)
    write_rates(tmp_path, 3, {0.1: PAIR, 0.2: GOOD})
    write_rates(tmp_path, 4, {0.1: PAIR, 0.2: GOOD})
    printed = report()
    assert printed.compared("tuned") == []
    (line,) = tuning(printed)
    assert line.startswith("2 recipes tried on held-out images, the best ")
    assert "(3 uniform sampling, lr 0.2)" in line
    assert printed.commands("tuned") == []


def test_what_is_tuned_on_one_data_set_says_nothing_of_another(report, tmp_path):
    for setting in (3, 4):
        rates = {lr: higher(PAIR, lr) for lr in (0.1, 0.2)}
        write_rates(tmp_path, setting, rates, validation=0.1, data="other.npz#ba9876543210")
        write_rates(tmp_path, setting, rates)
    printed = report()
    assert printed.compared("tuned") == []
    mine, other = printed.out.split("\nall: other.npz ")
    assert ("\nTuned: " in mine, "\nTuned: " in other) == (False, True)


def test_after_a_search_on_held_out_images_alone_the_best_are_to_be_trained(report, tmp_path):
    for setting, best in ((3, 0.1), (4, 0.2)):
        argv = ["--train", "--setting", setting, "--epochs", 3, "--validation", 0.1]
        for lr in (0.05, 0.1, 0.2):
            run = main.parse([*map(str, argv), "--lr", str(lr)], OPTIONS)
            write_run(tmp_path / f"{setting}-{lr}", run, 0.6 + 0.1 * (lr == best))
    printed = report()
    assert len(tuning(printed)) == 2
    runs = carried_out(printed, "tuned")
    assert {(run.setting, run.lr) for run in runs} == {(3, 0.1), (4, 0.2)}
    assert {run.validation for run in runs} == {0.0}
    for run in runs:
        write_run(run.save_path, run)
    assert [(row["lr_a"], row["lr_b"]) for row in report().means("tuned")] == [("0.2", "0.1")]


def test_recipes_are_chosen_among_those_of_one_share_of_held_out_images(report, tmp_path):
    for setting in (3, 4):
        write_rates(tmp_path, setting, {0.05: PAIR, 0.1: GOOD, 0.2: PAIR}, validation=0.1)
        write_rates(tmp_path, setting, {0.05: BEST, 0.2: BETTER}, validation=0.2)
        write_rates(tmp_path, setting, {0.05: PAIR, 0.1: higher(PAIR, setting)})
    printed = report()
    assert [(row["lr_a"], row["lr_b"]) for row in printed.means("tuned")] == [("0.1", "0.1")]
    assert [line.split()[0] for line in tuning(printed)] == ["3", "3"]


def test_testing_as_trained_is_no_choice_to_tune(report, tmp_path):
    for setting in (3, 4):
        write_rates(tmp_path, setting, {0.1: GOOD, 0.2: BETTER}, validation=0.1)
        write_both(tmp_path, setting, higher(USUAL, setting), higher(AGAIN, setting), lr=0.2)
    printed = report()
    pair = ("4 weighted sampling", "3 uniform sampling")
    for test in ("usual", "as trained"):
        assert printed.compared("tuned", test) == [pair]
    assert printed.compared("tuned", "both") == []


def test_the_best_recipe_without_test_runs_is_trained_by_the_script(report, tmp_path):
    scores = {5: {0.1: 0.5, 0.2: 0.6}, 6: {0.1: 0.6, 0.2: 0.5}}
    for setting, rates in scores.items():
        for lr, score in rates.items():
            for seed in range(2):
                words = ["--train", "--data", 0, "--setting", setting, "--epochs", 3, "--seed", seed]
                words += ["--lr", lr, "--validation", 0.1]
                run = main.parse([str(word) for word in words], OPTIONS)
                write_run(tmp_path / f"{setting}-{lr}-{seed}", run, score)
    train(tmp_path, "--data", 0, "--setting", 6, "--epochs", 3, "--lr", 0.1)
    printed = report()
    assert printed.compared("tuned") == []
    lines = tuning(printed)
    assert [line.endswith("; it has no runs on the test images") for line in lines] == [True, False]
    runs = carried_out(printed, "tuned")
    assert [(run.setting, run.seed, run.lr) for run in runs] == [(5, seed, 0.2) for seed in range(3)]
    assert {run.validation for run in runs} == {0.0}
    assert "- the best recipe of each on the test images: part" in in_one_row(printed)
    for run in runs:
        write_run(run.save_path, run)
    after = report()
    assert [
        (row["setting_a"], row["lr_a"], row["setting_b"], row["lr_b"]) for row in after.means("tuned")
    ] == [("6", "0.1", "5", "0.2")]
    assert after.commands("tuned") == []
    assert "it has no runs" not in after.out


def test_the_best_recipe_of_single_task_training_is_trained_for_every_task(report, tmp_path):
    for setting in (2, 3):
        write_rates(tmp_path, setting, {0.1: PAIR, 0.2: GOOD}, validation=0.1)
    write_way(tmp_path, 3, PAIR, lr=0.2)
    printed = report()
    assert printed.compared("tuned") == []
    commands = printed.trained("tuned", DATA="here.npz")
    found = sorted((words[words.index("--task") + 1], words[words.index("--seed") + 1]) for words in commands)
    assert found == list(itertools.product("01", "012"))
    for words in commands:
        assert words[words.index("--lr") + 1] == "0.2"
        assert words[words.index("--setting") + 1] == "2"
        assert "--validation" not in words
