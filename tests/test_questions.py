"""The questions of a report, and the commands for missing runs.

What is compared to answer a question.
"""

import itertools
import json
import os
import subprocess
from pathlib import Path
from statistics import fmean

import pytest
from helpers import NARROW, write_data
from made_up import PAIR, TASKS, Report, delta_m, differences, edit, interval, line_of, write, write_way

import main
from options import OPTIONS, Run
from settings import SETTINGS
from tasks import DATA_SETS

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
    assert printed.compared("single-task") == [("3 uniform sampling, epochs 4", "2 single task, epochs 2")]
    after = printed.lines[printed.lines.index("single-task:") + 2]
    assert after.strip() == "the sides differ: parameters 140 and 240"


def test_each_way_without_a_partner_of_equal_steps_has_one_of_equal_epochs(report, tmp_path):
    # As on CIFAR-10, where an epoch of settings 2 and 3 has ten times the steps of one of 1 and 5
    scores = {0: (0.6, 0.7), 1: (0.6, 0.8)}
    for setting, steps in ((1, 20), (2, 100), (3, 200), (5, 20)):
        write_way(tmp_path, setting, scores, steps=steps)
    assert [first for first, _ in report().compared("single-task")] == [
        "1 standard by task", "3 uniform sampling", "5 summed losses"
    ]  # fmt: skip


def test_a_pair_of_equal_steps_goes_before_one_of_equal_epochs(report, tmp_path):
    scores = {0: (0.6, 0.7), 1: (0.6, 0.8)}
    for setting, epochs, steps in ((1, 2, 100), (1, 4, 100), (3, 2, 200)):
        write_way(tmp_path, setting, scores, epochs=epochs, steps=steps)
    assert report().compared("heads") == [("1 standard by task, epochs 4", "3 uniform sampling, epochs 2")]


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
    assert lines == ["parameters: 0.28 of the 84.28 million of 3 uniform sampling are shared"]


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
        ("3 uniform sampling, tasks_per_step 1", "3 uniform sampling, tasks_per_step 4")
    ]


def test_the_recipe_of_the_experiment_is_what_other_recipes_are_held_against(report, tmp_path):
    for lr in (0.01, 0.1, 1.0):
        write_way(tmp_path, 3, PAIR, lr=lr)
    write_way(tmp_path, 3, PAIR, lr=0.01, momentum=0.9)
    printed = report()
    base = "3 uniform sampling, lr 0.1, momentum 0.0"
    assert sorted(printed.compared()) == [
        (base, "3 uniform sampling, lr 0.01, momentum 0.0"),
        (base, "3 uniform sampling, lr 0.01, momentum 0.9"),
        (base, "3 uniform sampling, lr 1.0, momentum 0.0"),
    ]


def test_without_the_recipe_of_the_experiment_one_of_the_others_stands_for_it(report, tmp_path):
    for lr in (0.05, 0.2, 0.3):
        write_way(tmp_path, 3, PAIR, lr=lr)
    firsts, seconds = zip(*report().compared("recipe"), strict=True)
    assert len(set(firsts)) == 1
    assert len({*firsts, *seconds}) == 3


def by_task(scores: dict[int, tuple[float, ...]], setting: int) -> dict[int, tuple[float, ...]]:
    """What setting 0 scores in the place of two tasks: one number."""
    return scores if setting else {seed: score[:1] for seed, score in scores.items()}


@pytest.mark.parametrize("setting", range(len(SETTINGS)))
def test_scores_as_trained_are_a_row_and_compared(report, tmp_path, setting):
    usual = by_task({0: (0.60, 0.70), 1: (0.64, 0.72), 2: (0.59, 0.75)}, setting)
    again = by_task({0: (0.65, 0.72), 1: (0.66, 0.77), 2: (0.66, 0.76)}, setting)
    for seed in usual:
        write_way(tmp_path, setting, {seed: usual[seed]}, as_trained=again[seed])
    write_way(tmp_path, setting, by_task({3: (0.9, 0.9)}, setting))  # of a program that had none
    printed = report()
    label = f"{setting} {SETTINGS[setting].name}"
    cells = printed.cells(f"{label}, as trained")
    mean, low, high = interval([fmean(each) for each in again.values()])
    assert cells["accuracy [95 % CI]"] == f"{mean:.4f} [{low:.4f}, {high:.4f}]"
    assert cells["balanced"] == f"{mean - 0.02:.4f}"
    worst, best = (f"left {1.97 / 3:.3f}", "right 0.750") if setting else ("-", "-")
    assert (cells["worst task"], cells["best task"]) == (worst, best)
    assert cells["delta_m % [95 % CI]"] == ("0 by definition" if setting == 2 else "-")
    assert (cells["runs"], cells["seeds"]) == ("6" if setting == 2 else "3", "3")
    assert printed.cells(label)["seeds"] == "4"
    against = f"{label} against {label}, as trained"
    assert f"{against}{line_of(differences(usual, again))}\n" in printed.out
    assert printed.compared() == [(label, f"{label}, as trained")]
    assert printed.compared("test") == printed.compared()
    assert printed.said("test (testing as usual, or as trained)")
    assert printed.commands("test") == []
    for row in printed.rows("report.csv"):
        expected = ""
        if row["seed"] != "3":
            expected = again[int(row["seed"])][TASKS.index(row["task"]) if setting else 0]
        assert row["as_trained_accuracy"] == str(expected)
        if expected:
            assert float(row["as_trained_balanced_accuracy"]) == pytest.approx(expected - 0.02)


def test_the_single_task_baseline_as_trained_is_that_of_scores_as_trained(report, tmp_path):
    usual = {0: (0.60, 0.70), 1: (0.64, 0.72), 2: (0.59, 0.75)}
    again = {0: (0.65, 0.72), 1: (0.66, 0.77), 2: (0.66, 0.76)}
    alone = {0: (0.50, 0.60), 1: (0.54, 0.58), 2: (0.55, 0.65)}
    alone_again = {0: (0.55, 0.62), 1: (0.54, 0.59), 2: (0.55, 0.64)}
    for seed in usual:
        write_way(tmp_path, 4, {seed: usual[seed]}, as_trained=again[seed])
        write_way(tmp_path, 2, {seed: alone[seed]}, as_trained=alone_again[seed])
    printed = report("--verbose")
    labels = ("4 weighted sampling", "2 single task")
    for suffix, first, second in (("", usual, alone), (", as trained", again, alone_again)):
        one, other = (f"{label}{suffix}" for label in labels)
        change, low, high = interval(delta_m(first, second))
        assert printed.cells(one)["delta_m % [95 % CI]"] == f"{change:+.2f} [{low:+.2f}, {high:+.2f}]"
        assert f"{one} against {other}{line_of(differences(first, second))}\n" in printed.out
        for task, name in enumerate(TASKS):
            values = [100 * (first[seed][task] - second[seed][task]) for seed in first]
            assert f"{one} against {other} in {name}{line_of(values)}\n" in printed.out
    assert printed.compared("single-task") == [labels, tuple(f"{label}, as trained" for label in labels)]
    assert printed.compared("test") == [(label, f"{label}, as trained") for label in reversed(labels)]


def test_a_seed_that_lacks_a_task_as_trained_is_left_out_and_named(report, tmp_path):
    scores = {0: (0.6, 0.7), 1: (0.6, 0.8), 2: (0.7, 0.8)}
    write_way(tmp_path, 2, scores, missing=[(1, 1)], as_trained=(0.5, 0.6))
    write_way(tmp_path, 2, scores, missing=[(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)])
    printed = report()
    assert printed.cells("2 single task")["seeds"] == "3"
    assert printed.cells("2 single task, as trained")["seeds"] == "2"
    assert "2 single task, as trained: seed 1 lacks 1 of 2 tasks and is left out\n" in printed.out
    assert [row["seeds"] for row in printed.rows()] == ["2"]


def test_two_sides_are_compared_as_trained_if_both_have_such_scores_and_never_across(report, tmp_path):
    again = {1: (0.61, 0.7), 3: (0.65, 0.72), 4: (0.66, 0.77)}
    for setting, scores in again.items():
        write_way(tmp_path, setting, PAIR, as_trained=scores)
    write_way(tmp_path, 3, PAIR, tasks_per_step=2, as_trained=(0.6, 0.7))
    write_way(tmp_path, 3, PAIR, tasks_per_step=4)  # of a program that had none
    write_way(tmp_path, 5, PAIR, as_trained=(0.6, 0.7))
    write_way(tmp_path, 6, PAIR)
    printed = report()
    one, two, four = (f"3 uniform sampling, tasks_per_step {number}" for number in (1, 2, 4))
    weighted, alike = "4 weighted sampling, tasks_per_step 1", "1 standard by task"
    summed, weighed = "5 summed losses", "6 weighted losses"

    def scored(pair: tuple[str, str]) -> tuple[str, str]:
        first, second = pair
        return f"{first}, as trained", f"{second}, as trained"

    expected = {
        "draws": [(one, weighted), scored((one, weighted))],
        "weights": [(summed, weighed)],
        "tasks a step": [(one, two), scored((one, two)), (one, four)],
        "all tasks": [(one, summed), scored((one, summed)), (two, summed), scored((two, summed))],
        "heads": [(alike, one), scored((alike, one)), (alike, two), scored((alike, two)), (alike, four)],
        "test": [(label, f"{label}, as trained") for label in (alike, one, two, weighted, summed)],
    }
    expected["all tasks"].append((four, summed))
    for question, pairs in expected.items():
        assert printed.compared(question) == pairs, question


def test_nothing_is_shown_of_histories_that_have_own_statistics_alone(report, tmp_path):
    old = {"accuracy": [0.65, 0.72], "balanced_accuracy": [0.61, 0.68]}
    for setting in (3, 4):
        write_way(tmp_path, setting, PAIR)
    expected = report()
    for content in (old, None, [0.5]):  # which is not even read
        for path in tmp_path.rglob("history.json"):
            edit(path.parent, own_statistics=content)
        printed = report()
        assert printed.out == expected.out
        assert printed.rows() == expected.rows()
        assert printed.rows("report.csv") == expected.rows("report.csv")
    assert printed.labels == ["3 uniform sampling", "4 weighted sampling"]
    assert printed.compared() == [("3 uniform sampling", "4 weighted sampling")]
    for row in printed.rows("report.csv"):
        assert "own_statistics" not in " ".join(row)
        assert row["as_trained_accuracy"] == row["as_trained_balanced_accuracy"] == ""
    assert "- test (" not in printed.out  # neither answered nor a command that would


# Options of new versions


def test_losses_of_setting_3_are_compared_where_a_step_takes_all_tasks(report, tmp_path):
    title = {"data": 1, "image_size": 32}  # whose tasks do not share their images
    scores = {seed: [0.5 + 0.01 * seed] * 20 for seed in (0, 1)}
    for options in ({}, {"loss": "uw"}, {"loss": "dwa:temperature=3.0"}, {"tasks_per_step": 1}):
        write_way(tmp_path, 3, scores, **{"tasks_per_step": "all", "loss": "mean"} | title | options)
    printed = report()
    label = "3 uniform sampling, tasks_per_step"
    assert printed.compared("loss") == [
        (f"{label} all, loss mean", f"{label} all, loss dwa:temperature=3.0"),
        (f"{label} all, loss mean", f"{label} all, loss uw"),
    ]
    assert printed.compared("tasks a step") == [(f"{label} 1, loss mean", f"{label} all, loss mean")]


def test_whether_sets_of_images_are_normalised_apart_counts_only_where_a_step_has_several(report, tmp_path):
    for number, normalisation in ((1, "together"), (4, "together"), (4, "apart"), (4, "group")):
        write_way(tmp_path, 3, PAIR, tasks_per_step=number, normalisation=normalisation)
    for normalisation in ("together", "group"):
        write_way(tmp_path, 2, PAIR, normalisation=normalisation)
    printed = report()
    one, *more = (
        f"3 uniform sampling, tasks_per_step {number}, normalisation {name}"
        for number, name in ((1, "together"), (4, "apart"), (4, "group"), (4, "together"))
    )
    assert printed.compared("tasks a step") == [(one, more[0]), (one, more[2])]
    assert printed.compared("single-task") == [
        (one, "2 single task, normalisation together"),
        (more[0], "2 single task, normalisation together"),
        (more[1], "2 single task, normalisation group"),
        (more[2], "2 single task, normalisation together"),
    ]


@pytest.mark.parametrize(
    "options", [{"optimizer": "adamw", "lr": 0.001, "momentum": None}, {"augment": True}]
)
def test_optimizer_and_augmentation_are_a_recipe(report, tmp_path, options):
    write_way(tmp_path, 3, PAIR)
    write_way(tmp_path, 3, PAIR, **options)
    write_way(tmp_path, 4, PAIR, **options)
    printed = report()
    assert len(printed.compared("recipe")) == 1
    assert len(printed.compared("draws")) == 1
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
    for value, score in ((usual, 0.6), (other, 0.7)):
        scores = {seed: [score + 0.01 * seed] * (20 if setting else 1) for seed in (0, 1)}
        write_way(tmp_path / str(value), setting, scores, data=1, **options | {option: value})
    printed = report()
    rows = [row for row in printed.rows() if row["question"] == option]
    assert [row["measure"] for row in rows] == ["accuracy"]
    assert (f"{option} {other}" in rows[0]["first"], f"{option} {usual}" in rows[0]["second"]) == (True, True)
    assert float(rows[0]["difference"]) == pytest.approx(10)
    assert f"- {option} (" in printed.out


def test_without_the_default_the_reference_is_what_most_have(report, tmp_path):
    for setting, size in ((3, 16), (3, 32), (4, 32), (3, 64)):
        write_way(tmp_path, setting, PAIR, batch_size=size)
    found = report().compared("batch_size")
    sides = [tuple(label.rpartition(" ")[2] for label in pair) for pair in found]
    assert sides == [("16", "32"), ("64", "32")]


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


def write_run(path: Path, run: Run) -> None:
    """The history of a run, with as many steps as it takes."""
    num_tasks = {0: 1, 2: 1}.get(run.setting, len(run.spec.tasks))
    options = {name: value for name, value in run.recorded.items() if name not in ("setting", "seed")}
    write(
        path,
        run.setting,
        [0.6 + 0.02 * (run.seed % 5)] * num_tasks,
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
    seeds = {int(row["seeds"]) for row in printed.rows() if row["question"] == question}
    assert max(seeds) == 3


@pytest.mark.parametrize("setting", [0, 3])
def test_all_commands_of_a_report_go_side_by_side(report, tmp_path, setting):
    train(tmp_path, "--data", 1, "--setting", setting, "--epochs", 3)
    runs = carried_out(report())
    assert len({run.save_path for run in runs}) == len(runs)


@pytest.mark.parametrize(
    ("question", "there"),
    [
        ("heads", "--data 1 --setting 1 --epochs 3 --batch_size 4096"),  # a task has 2500 images
        ("single-task", "--data 2 --setting 1 --epochs 3 --validation 0.5"),  # a task has 112
        ("tasks a step", "--data 1 --setting 3 --epochs 3 --batch_size 31"),  # nothing divides it
    ],
)
def test_no_command_is_printed_that_would_be_refused(report, tmp_path, question, there):
    train(tmp_path, *there.split())
    printed = report()
    if printed.commands(question):
        carried_out(printed, question)


def test_commands_complete_what_is_there_in_part(report, tmp_path):
    for words in (
        "--setting 3 --seed 4",
        "--setting 3 --seed 7",
        "--setting 1 --seed 7",
        "--setting 1 --seed 9",
    ):
        argv = ["--train", "--data", "1", "--epochs", "3", *words.split()]
        write_run(tmp_path / words.replace(" ", ""), main.parse(argv, OPTIONS))
    runs = carried_out(report(), "heads")
    assert sorted((run.setting, run.seed) for run in runs) == [(1, 4), (3, 9)]
    for run in runs:
        write_run(run.save_path, run)
    printed = report()
    assert printed.commands("heads") == []
    assert [row["seeds"] for row in printed.rows() if row["question"] == "heads"] == ["3", "3"]


@pytest.mark.parametrize("setting", [0, 3])
def test_commands_complete_the_seeds_of_scores_as_trained(report, tmp_path, setting):
    write_run(tmp_path / "a", main.parse(["--train", "--setting", str(setting), "--epochs", "3"], OPTIONS))
    runs = carried_out(report(), "test")
    assert [(run.setting, run.seed) for run in runs] == [(setting, 1), (setting, 2)]
    for run in runs:
        write_run(run.save_path, run)
    printed = report()
    assert printed.commands("test") == []
    assert [row["seeds"] for row in printed.rows() if row["question"] == "test"] == ["3"]


def test_commands_complete_single_task_training(report, tmp_path):
    train_single(tmp_path, "--data", 0, "--epochs", 4, tasks=5)
    runs = carried_out(report(), "single-task")
    # The steps of the models that are there are not those of the whole
    for run in runs:
        write_run(run.save_path, run)
    rows = [row for row in report().rows() if row["measure"] == "accuracy" and row["question"] != "test"]
    assert [row["seeds"] for row in rows] == ["3", "3"]  # as usual, and as trained


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
    listed = printed.out.partition("\nNot answered for lack of runs")[2].split("\n\n")[0].splitlines()[1:]
    questions = [line.removeprefix("- ").partition(" (")[0] for line in listed]
    assert set(questions) >= {"draws", "tasks a step", "heads", "test", "single-task"}
    for words in printed.trained():
        assert words[words.index("--data") + 1] == str(file)
        assert main.main(words, network=NARROW) == 0
    answered = report(folder="my runs")
    assert "Not answered for lack of runs" not in answered.out
    assert not (tmp_path / "my runs" / "missing.sh").exists()
    for question in questions:
        assert max(int(row["seeds"]) for row in answered.rows() if row["question"] == question) == 3


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
