"""Every number and sentence of a report, worked out by hand.

The reports are on small histories.
"""

import errno
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import pytest
from helpers import error_line, one_line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up import (
    CIFAR10,
    PAIR,
    TASKS,
    Report,
    Scores,
    between,
    delta_m,
    differences,
    edit,
    interval,
    line_of,
    options_of,
    range_by_chance,
    write,
    write_way,
)

import main
from options import OPTIONS
from settings import SETTINGS

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
    assert printed.cells("3 uniform sampling") == {
        "setting": "3 uniform sampling",
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
    assert printed.labels == ["2 single task", "3 uniform sampling", "4 weighted sampling"]
    assert "always giving a task's commonest answer scores 0.5000, balanced 0.5000" in printed.out


def test_every_comparison_is_formed_over_common_seeds(small_study, report):
    printed = report("--verbose")
    against = "3 uniform sampling against 4 weighted sampling"
    lines = [f"{against}{line_of(differences(DRAWN, WEIGHTED))}"]
    for setting, scores in (("3 uniform sampling", DRAWN), ("4 weighted sampling", WEIGHTED)):
        against = f"{setting} against 2 single task"
        lines.append(f"{against}{line_of(differences(scores, SINGLE))}")
        lines.append(f"{against}{line_of(delta_m(scores, SINGLE), '% (delta_m)')}")
        for task, name in enumerate(TASKS):
            seeds = sorted(scores.keys() & SINGLE.keys())
            values = [100 * (scores[seed][task] - SINGLE[seed][task]) for seed in seeds]
            lines.append(f"{against} in {name}{line_of(values)}")
    assert [
        line.strip() for line in printed.lines if re.search(r"seeds?: (higher|lower|inconclusive)", line)
    ] == lines
    assert len(differences(WEIGHTED, SINGLE)) == 2
    assert re.search(
        r"3 intervals of mean accuracy; if all were equally good, chance alone would make 0\.[12] ",
        printed.out,
    )


def test_the_rows_of_comparisons_are_the_printed_lines(small_study, report):
    printed = report("--verbose")
    lines = [
        line.strip() for line in printed.lines if re.search(r"seeds?: (higher|lower|inconclusive)", line)
    ]
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
        words = f"3 uniform sampling scores {mean:.2f} [{low:.2f}, {high:.2f}] points more than "
        assert words in printed.said(question)
    _, low, high = interval(differences(WEIGHTED, SINGLE))
    assert printed.said("single-task").endswith(
        "; inconclusive: 4 weighted sampling against 2 single task, "
        f"between {low:+.2f} and {high:+.2f} points"
    )


def test_a_configuration_that_scores_lower_is_said_to_do_so(report, tmp_path):
    first, second = {0: (0.5, 0.6), 1: (0.51, 0.62)}, {0: (0.6, 0.7), 1: (0.61, 0.7195)}
    write_way(tmp_path, 3, first)
    write_way(tmp_path, 4, second)
    printed = report()
    values = differences(first, second)
    assert interval(values)[2] < 0
    assert f"3 uniform sampling against 4 weighted sampling{line_of(values)}" in printed.out
    mean, low, high = (-value for value in interval(values))
    assert printed.said("draws").endswith(
        f"4 weighted sampling scores {mean:.2f} [{high:.2f}, {low:.2f}] points more than 3 uniform sampling"
    )


def test_of_many_answers_the_largest_and_the_smallest_are_said_and_the_bounds_of_the_rest(report, tmp_path):
    base = {0: (0.50, 0.50), 1: (0.52, 0.50), 2: (0.50, 0.51)}
    gaps = {1: 0.1, 2: 0.2, 3: 0.3}  # by weights
    scores_of = {
        weight: {seed: [s + gap + 0.001 * seed for s in score] for seed, score in base.items()}
        for weight, gap in gaps.items()
    }
    scores_of[4] = {0: (0.50, 0.52), 1: (0.51, 0.50), 2: (0.51, 0.50)}
    scores_of[5] = {0: (0.50, 0.55), 1: (0.51, 0.50), 2: (0.51, 0.47)}
    write_way(tmp_path, 3, base)
    for weight, scores in scores_of.items():
        write_way(tmp_path, 4, scores, weights=[1, weight])
    said = report().said("draws")
    assert "3 of 5 comparisons are conclusive" in said
    largest, smallest = (-interval(differences(base, scores_of[weight]))[0] for weight in (3, 1))
    assert re.search(
        rf"the largest: 4 [^;]* scores {largest:.2f} [^;]*; the smallest: 4 [^;]* {smallest:.2f} ", said
    )
    ends = [interval(differences(base, scores_of[weight]))[1:] for weight in (4, 5)]
    low, high = min(min(ends)), max(high for _, high in ends)
    assert said.endswith(f"2 comparisons, whose intervals all lie between {low:+.2f} and {high:+.2f} points")


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_best_the_worst_and_what_seeds_alone_would_give(report, tmp_path, count, seeds):
    level = {1: 0.6, 3: 0.7, 4: 0.65, 5: 0.5}
    noise = [0.011, -0.007, 0.002, 0.013, -0.012, 0.004, 0.001, -0.003, 0.008, -0.01, 0.006, 0.003]
    scores_of = {
        setting: {seed: [level[setting] + noise[3 * i + seed]] * 2 for seed in range(seeds)}
        for i, setting in enumerate([*level][:count])
    }
    extra = {7: (0.9, 0.9)}  # a seed that only one configuration has
    for setting, scores in scores_of.items():
        write_way(tmp_path, setting, scores | (extra if setting == 1 else {}), steps=10 + setting)
    write_way(tmp_path, 0, {seed: [0.99] for seed in range(seeds)})  # all classes: no rival
    means = {setting: [fmean(score) for score in scores.values()] for setting, scores in scores_of.items()}
    best, worst = (choose(scores_of, key=lambda s: fmean(means[s])) for choose in (max, min))
    names = {setting: f"{setting} {SETTINGS[setting].name}" for setting in scores_of}
    top, bottom = fmean(means[best]), fmean(means[worst])
    chance = range_by_chance(list(means.values()))
    least, most = 20 + 2 * min(scores_of), 20 + 2 * max(scores_of)
    assert report().said("of ") == (
        f"- of {len(scores_of)} configurations the best is {names[best]}, {top:.4f}, and the worst "
        f"{names[worst]}, {bottom:.4f}, {100 * (top - bottom):.2f} points apart, over the {seeds} "
        f"seeds that all have; if all were equally good, {seeds} seeds would put them {chance:.2f} apart on "
        f"average (steps: {least} to {most})"
    )


# Tasks that gain and lose


def baseline_and_gains(gains: Sequence[Sequence[float]]) -> tuple[dict, dict]:
    """Scores of setting 2 and of another by some points higher: a list of seeds for each task."""
    single = {seed: [0.6] * len(gains) for seed in range(len(gains[0]))}
    drawn = {seed: [0.6 + task[seed] / 100 for task in gains] for seed in single}
    return single, drawn


def test_tasks_gain_lose_or_are_inconclusive_by_their_intervals(report, tmp_path):
    gains = [(5, 6, 7), (9, 8, 10), (-5, -6, -4), (9, -1, 1), (4, 4, 4)]  # the last: no spread
    single, drawn = baseline_and_gains(gains)
    names = ["up", "far up", "down", "open", "equal"]
    write_way(tmp_path, 2, single, tasks=names)
    write_way(tmp_path, 3, drawn, tasks=names)
    printed = report("--verbose")
    assert (  # by chance: of the four that have an interval
        "- 3 uniform sampling: 2 of 5 tasks gain, 1 lose (negative transfer), 2 inconclusive; if none "
        "differed, chance alone would make 0.2 conclusive\n"
    ) in printed.out
    for name, values in zip(names[:-1], gains, strict=False):
        assert f"3 uniform sampling against 2 single task in {name}{line_of(values)}" in printed.out
    assert "in equal: +4.00 [-] points, 3 seeds: inconclusive" in printed.out
    assert " in up: " not in report().out


@pytest.mark.parametrize("seeds", [1, 2])
def test_with_less_than_three_common_seeds_no_task_gains_or_loses(report, tmp_path, seeds):
    write_way(tmp_path, 2, {seed: (0.5 + 0.01 * seed, 0.5) for seed in range(seeds)})
    write_way(tmp_path, 3, dict.fromkeys(range(3), (0.9, 0.9)))
    printed = report()
    assert f"- 3 uniform sampling: which tasks gain or lose takes 3 common seeds, not {seeds}" in printed.out
    assert "tasks gain," not in printed.out


# Few seeds


def test_one_common_seed_decides_nothing(report, tmp_path):
    write_way(tmp_path, 3, {0: (0.6, 0.7), 1: (0.6, 0.8)})
    write_way(tmp_path, 4, {1: (0.5, 0.6), 2: (0.5, 0.7)})
    write_way(tmp_path, 2, {1: (0.55, 0.55)})
    printed = report()
    assert (
        "3 uniform sampling against 4 weighted sampling: +15.00 [-] points, 1 seed: inconclusive"
        in printed.out
    )
    assert "- one seed decides nothing: 3 comparisons of a single common seed" in printed.out
    assert printed.cells("2 single task")["accuracy [95 % CI]"] == "0.5500 [-]"
    change = 100 * (0.05 + 0.25) / 0.55 / 2
    assert printed.cells("3 uniform sampling")["delta_m % [95 % CI]"] == f"{change:+.2f} [-]"
    assert printed.said("draws").endswith("give no interval: 3 uniform sampling against 4 weighted sampling")
    assert "takes two seeds that all of them have" in printed.said("of 3 configurations")
    rows = printed.rows()
    assert {(row["low"], row["high"], row["verdict"]) for row in rows} == {("", "", "inconclusive")}
    assert "if all were equally good" not in printed.out
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
        "3 uniform sampling against 4 weighted sampling: +10.00 [-] points, 3 seeds: inconclusive"
        in printed.out
    )
    assert printed.cells("5 summed losses")["accuracy [95 % CI]"] == "0.3000 [-]"
    assert "one seed decides" not in printed.out
    assert printed.said("draws").endswith("give no interval: 3 uniform sampling against 4 weighted sampling")


# Single-task training that lacks something


def test_a_seed_that_lacks_a_task_of_setting_2_is_left_out(report, tmp_path):
    drawn = {0: (0.6, 0.7), 1: (0.6, 0.8), 2: (0.7, 0.8)}
    single = {0: (0.5, 0.6), 1: (0.5, 0.5), 2: (0.5, 0.7)}
    write_way(tmp_path, 3, drawn)
    write_way(tmp_path, 2, single, missing=[(1, 1)])
    printed = report()
    rest = {seed: single[seed] for seed in (0, 2)}
    assert f"3 uniform sampling against 2 single task{line_of(differences(drawn, rest))}" in printed.out
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
    for label in ("2 single task", "3 uniform sampling"):
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
        assert printed.cells("3 uniform sampling")["delta_m % [95 % CI]"] != "-"
        assert "no delta_m" not in printed.out
    else:  # 0.2 averaged over three seeds is above 0.2 by rounding
        assert printed.cells("3 uniform sampling")["delta_m % [95 % CI]"] == "-"
        assert (
            "- 3 uniform sampling: no delta_m, as the single-task baseline is no better than a constant "
            "answer in land\n"
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
        printed.cells("3 uniform sampling")["delta_m % [95 % CI]"]
        == f"{change:+.2f} [{low:+.2f}, {high:+.2f}]"
    )
    assert "delta_m, gains and losses are in balanced accuracy" in printed.out
    assert "always giving a task's commonest answer scores 0.9000, balanced 0.5000" in printed.out
    verdicts = []
    for task, name in enumerate(CIFAR10):
        values = [100 * (BALANCED[3][seed][task] - BALANCED[2][seed][task]) for seed in range(3)]
        assert f"3 uniform sampling against 2 single task in {name}{line_of(values)}" in printed.out
        verdicts.append(line_of(values).rpartition(": ")[2])
    assert f"{verdicts.count('higher')} of 10 tasks gain, 0 lose" in printed.out
    assert 0 < verdicts.count("higher") < 10
    measures = [row["measure"] for row in printed.rows()]
    assert measures == ["accuracy", "delta_m", *(f"balanced_accuracy of {name}" for name in CIFAR10)]


def test_a_constant_answer_in_balanced_accuracy_is_one_over_the_number_of_answers(report, tmp_path):
    single = {seed: [0.5 if task in (3, 8) else 0.6 for task in range(10)] for seed in range(3)}
    write_cifar10(tmp_path, {2: single, 3: BALANCED[3]})
    printed = report()
    assert printed.cells("3 uniform sampling")["delta_m % [95 % CI]"] == "-"
    assert "no better than a constant answer in cat, ship\n" in printed.out


@pytest.mark.parametrize("constant", [(0.55, 0.55), (0.5, 0.62)])
def test_the_gap_that_decides_the_measure_is_averaged_over_tasks(report, tmp_path, constant):
    for setting in (2, 3):
        write_way(tmp_path, setting, {0: (0.8, 0.8), 1: (0.8, 0.9)}, constant=constant)
    printed = report()
    balanced = sum(constant) / 2 - 0.5 > 0.055
    # 0.55 - 0.5 is above 0.05 by rounding
    assert ("in balanced accuracy" in printed.out) == balanced
    assert any(row["measure"].startswith("balanced") for row in printed.rows()) == balanced


# What is never averaged or compared


def test_runs_of_different_code_are_kept_apart_and_a_line_says_so(report, tmp_path):
    for seed, codes in enumerate(
        [("a",), ("a", "a"), ("a", "b"), ("b",)]
    ):  # the third: resumed under other code
        write_way(tmp_path, 3, {seed: (0.6, 0.7)}, codes=codes)
    write_way(tmp_path, 4, dict.fromkeys(range(4), (0.5, 0.7)), codes=["b"])
    printed = report()
    assert {label: printed.cells(label)["seeds"] for label in printed.labels} == {
        "3 uniform sampling, code a": "2",
        "3 uniform sampling, code a b": "1",
        "3 uniform sampling, code b": "1",
        "4 weighted sampling, code b": "4",
    }
    (said,) = re.findall(r"runs of different code are neither averaged nor compared: (.+)", printed.out)
    assert sorted(said.split(", ")) == ["a", "a b", "b"]
    assert printed.compared() == [("3 uniform sampling, code b", "4 weighted sampling, code b")]
    assert printed.said("of 2 configurations").startswith(
        "- of 2 configurations the best is 3 uniform sampling, code b, "
    )


def test_runs_of_different_precision_are_never_averaged(report, tmp_path):
    write_way(tmp_path, 3, PAIR)
    write_way(tmp_path, 3, {2: (0.9, 0.9)}, precision="bf16")
    printed = report()
    assert printed.cells("3 uniform sampling, precision fp32")["seeds"] == "2"
    assert printed.cells("3 uniform sampling, precision bf16")["accuracy [95 % CI]"] == "0.9000 [-]"


def test_a_line_says_that_runs_are_from_different_processors(report, tmp_path):
    write_way(tmp_path, 3, PAIR, processor="a CPU")
    write_way(tmp_path, 4, PAIR)  # an older program has recorded none
    assert "processors" not in report().out
    write_way(tmp_path, 4, {2: (0.5, 0.7)}, processor="a GPU")
    printed = report()
    assert "processors: a CPU, a GPU; " in printed.out
    assert printed.cells("4 weighted sampling")["seeds"] == "3"  # they are averaged all the same


def test_validation_results_are_kept_apart_from_test_results(report, tmp_path):
    write_way(tmp_path, 3, PAIR, constant=(0.5, 0.7))
    write_way(tmp_path, 4, {0: (0.3, 0.4), 1: (0.3, 0.5)}, validation=0.1, constant=(0.6, 0.8))
    printed = report()
    title = "mine.npz (content 0123456789ab)"
    test, validation = printed.out.split(f"{title}, scored on validation images: 2 tasks")
    assert "3 uniform sampling  0.7" not in validation
    assert "4 weighted sampling  0.3750" in validation
    assert "4 weighted sampling  0" not in test
    assert "commonest answer scores 0.6000," in test
    assert "commonest answer scores 0.7000," in validation
    assert printed.rows() == []
    assert "test and validation images are reported separately" in printed.out


def test_validation_images_of_one_share_are_not_held_against_those_of_another(report, tmp_path):
    write_way(tmp_path, 3, PAIR, validation=0.1)
    write_way(tmp_path, 4, {0: (0.3, 0.4), 1: (0.3, 0.5)}, validation=0.2)
    printed = report()
    assert printed.rows() == []
    assert "points apart" not in printed.out


def test_files_of_one_content_are_one_data_set_whatever_their_names(report, tmp_path):
    for seed, name in enumerate(["mine.npz", "copy.npz", "a b.npz"]):
        write_way(tmp_path, 3, {seed: PAIR[seed % 2]}, data=f"{name}#0123456789ab")
    printed = report()
    assert printed.cells("3 uniform sampling")["seeds"] == "3"
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
    assert "commonest answer scores 0.2000, balanced 0.2000" in second
    assert printed.rows() == []
    for name in ("weights", "loss", "all tasks"):  # which take tasks that share their images
        assert f"- {name} (" in first
        assert f"- {name} (" not in second


def test_generated_images_are_named_as_such_and_left_out_beside_real_ones(report, tmp_path):
    write(tmp_path / "generated" / "3", 3, [0.6] * 10, data=0, synthetic=True)
    assert report(folder="generated").lines[0] == "synthetic stand-in for CIFAR-10: 10 tasks"
    write(tmp_path / "real", 3, [0.7] * 10, data=0)
    printed = report()
    assert f"left out: {tmp_path / 'generated' / '3' / 'history.json'}: generated images" in printed.out
    assert printed.cells("3 uniform sampling")["accuracy [95 % CI]"] == "0.7000 [-]"


# Labels


def test_groups_are_told_apart_by_what_differs(report, tmp_path):
    for options in ({}, {"lr": 0.2}, {"setting": 4, "weights": [1, 1]}, {"setting": 4, "weights": [1, 3]}):
        write_way(tmp_path, **{"setting": 3} | options, scores=PAIR)
    printed = report()
    assert printed.labels == [
        "3 uniform sampling, lr 0.1",
        "3 uniform sampling, lr 0.2",
        "4 weighted sampling, lr 0.1, weights 1",
        "4 weighted sampling, lr 0.1, weights 2",
    ]
    explained = re.findall(r"^weights ([12]) of setting 4: (.+)$", printed.out, re.MULTILINE)
    assert sorted(words for _, words in explained) == ["0.25 0.75", "0.5 0.5"]


def test_numbers_of_tasks_a_step_are_in_order_and_all_comes_last(report, tmp_path):
    for number in ("all", 16, 2):
        write_way(tmp_path, 3, PAIR, tasks_per_step=number)
    assert report().labels == [f"3 uniform sampling, tasks_per_step {number}" for number in (2, 16, "all")]


def test_a_label_states_the_parameters_of_a_loss_that_are_not_the_default(report, tmp_path):
    losses = {"mean": 0, "dwa": 0, "dwa:temperature=2.0": 1, "dwa:temperature=3.0": 0, "stch": 0}
    losses["famo:lr=0.1,weight_decay=0.001"] = 0
    for loss, seed in losses.items():
        write_way(tmp_path, 5, {seed: (0.6, 0.7)}, loss=loss)
    printed = report()
    names = ("dwa", "dwa:temperature=3.0", "famo:lr=0.1", "mean", "stch")
    assert printed.labels == [f"5 summed losses, loss {name}" for name in names]
    assert printed.cells("5 summed losses, loss dwa")["seeds"] == "2"
    assert {second for _, second in printed.compared("loss")} == {
        f"5 summed losses, loss {name}" for name in names if name != "mean"
    }


def test_setting_3_of_a_version_without_a_loss_has_the_mean(report, tmp_path):
    write_way(tmp_path, 3, {0: (0.6, 0.7)}, loss=None)
    write_way(tmp_path, 3, {1: (0.6, 0.8)}, loss="mean")
    write_way(tmp_path, 3, {0: (0.6, 0.7)}, loss="uw", tasks_per_step="all")
    assert report().labels == [
        "3 uniform sampling, tasks_per_step 1, loss mean",
        "3 uniform sampling, tasks_per_step all, loss uw",
    ]


def test_weights_that_say_the_same_are_one_group(report, tmp_path):
    for seed, weights in enumerate(([1, 1], [1.0, 1.0], [2.5, 2.5])):
        write_way(tmp_path, 4, {seed: (0.6, 0.7)}, weights=weights)
    assert report().cells("4 weighted sampling")["seeds"] == "3"


# What is read


def test_a_history_of_version_1_is_left_out_with_the_reason(report, tmp_path):
    write(tmp_path / "good", 3, (0.6, 0.7))
    content = write(tmp_path / "old", 3, (0.6, 0.7), seed=1)
    old = {name: content[name] for name in ("options", "tasks", "epochs")}
    (tmp_path / "old" / "history.json").write_text(json.dumps(old))
    assert "history.json: was written by version 1.1 or before" in report().out


def test_runs_of_version_2_1_and_of_the_present_results_are_one_group(report, tmp_path):
    codes = (["5ed33d9c973d"], ["results 1"], ["5ed33d9c973d", "results 1"], ["5ed33d9c973e"])
    for seed, code in enumerate(codes):
        write(tmp_path / str(seed), 0, [0.5], seed, data=0, image_size=32, codes=code)
    printed = report()
    assert printed.cells("0 standard, code results 1")["runs"] == "3"
    assert printed.cells("0 standard, code 5ed33d9c973e")["runs"] == "1"
    assert [row["code"] for row in printed.rows("report.csv")] == ["results 1"] * 3 + ["5ed33d9c973e"]


def test_a_copy_of_a_run_is_left_out(report, tmp_path):
    write(tmp_path / "a", 3, (0.6, 0.7))
    write(tmp_path / "b", 3, (0.6, 0.7))
    printed = report()
    assert (
        f"left out: {tmp_path / 'b' / 'history.json'}: same options and seed as {tmp_path / 'a'}"
        in printed.out
    )
    assert printed.cells("3 uniform sampling")["runs"] == "1"


def test_an_unfinished_run_is_left_out(report, tmp_path):
    write(tmp_path / "a", 3, (0.6, 0.7))
    write(tmp_path / "b", 3, (0.6, 0.7), seed=1)
    edit(tmp_path / "b", finished=False)
    printed = report()
    assert f"left out: {tmp_path / 'b' / 'history.json'}: unfinished: 2 of 2 epochs" in printed.out
    assert printed.cells("3 uniform sampling")["runs"] == "1"


def test_a_history_that_contradicts_the_others_on_its_data_is_left_out(report, tmp_path):
    write_way(tmp_path, 3, {**PAIR, 2: (0.6, 0.7)})
    write_way(tmp_path, 2, PAIR)
    one, other = sorted(tmp_path.rglob("history.json"))[:2]
    edit(one.parent, data_set=json.loads(one.read_text())["data_set"] | {"tasks": ["left", "nobody"]})
    edit(other.parent, num_answers=[9])
    left_out = re.findall(r"^left out: (.+?): its tasks or answers are not", report().out, re.MULTILINE)
    assert left_out == [str(one), str(other)]


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
    "scores as trained of fewer tasks": {
        "as_trained": {"accuracy": [0.5], "balanced_accuracy": [0.5], "right": [""]}
    },
    "scores as trained without balanced accuracy": {
        "as_trained": {"accuracy": [0.5, 0.5], "right": ["", ""]}
    },
    "scores as trained without right answers": {"as_trained": SCORES},
    "right answers as trained that are no base64": {"as_trained": SCORES | {"right": ["", "?"]}},
    "scores as trained that are none": {"as_trained": [0.5, 0.5]},
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
}


@pytest.mark.parametrize("change", DAMAGED.values(), ids=DAMAGED)
def test_a_history_with_a_wrong_entry_is_left_out(report, tmp_path, change):
    write(tmp_path / "a", 3, (0.6, 0.7), seed=1)
    write(tmp_path / "b", 3, (0.6, 0.7))
    edit(tmp_path / "b", **change)
    printed = report()
    assert f"left out: {tmp_path / 'b' / 'history.json'}: is not a history of this program" in printed.out
    assert printed.cells("3 uniform sampling")["runs"] == "1"


def test_a_file_that_is_no_history_is_left_out(report, tmp_path):
    write(tmp_path / "good", 3, (0.6, 0.7))
    text = (tmp_path / "good" / "history.json").read_text()
    contents = {
        "empty": "", "text": "no json", "list": "[]", "other": '{"options": {}}', "deep": "[" * 100_000,
        "short": text.replace("0.6, ", "", 1), "loss": text.replace('"loss": 1', '"lost": 1'),
        "cut": text[:-20],
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "history.json").write_text(content)
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "history.json").write_text(json.dumps({"format": 99}))
    left_out = re.findall(r"^left out: (.+?): (.+)$", report().out, re.MULTILINE)
    reasons = {Path(path).parent.name: why for path, why in left_out}
    assert "newer version" in reasons.pop("newer")
    assert "version 1.1" in reasons.pop("other")
    assert reasons.pop("loss").endswith(": epochs[0].loss is None")
    assert reasons.pop("short").endswith(": epochs[1].accuracy is not a list of a share for each of 2 tasks")
    assert set(reasons.values()) == {"is not a history of this program"}


# What else lies under the directory


def left_out(printed: Report) -> dict[str, str]:
    """Why each path was left out, by its end below the directory."""
    lines = re.findall(r"^left out: (.+?): (.+)$", printed.out, re.MULTILINE)
    return {path.removeprefix(f"{printed.path}").lstrip("/"): why for path, why in lines}


def test_what_cannot_be_read_is_named_and_the_rest_is_reported(program, report, tmp_path, monkeypatch):
    for seed, name in enumerate("abc"):
        write(tmp_path / name, 3, (0.6, 0.7), seed=seed)
    scandir = os.scandir

    def refuse(path: Path) -> object:  # as root may read anything
        if Path(path) == tmp_path / "b":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    printed = report()
    assert left_out(printed) == {"b": "cannot be read: Permission denied"}
    assert printed.cells("3 uniform sampling")["runs"] == "2"
    monkeypatch.setattr(os, "scandir", lambda _: refuse(tmp_path / "b"))
    refused = program("--report", "--save_path", tmp_path)
    assert f"cannot look into {tmp_path}: Permission denied" in error_line(refused)
    assert one_line(refused)


def test_links_are_followed_and_each_place_is_looked_through_once(report, tmp_path):
    study = tmp_path / "study"
    write(study / "b" / "run", 3, (0.6, 0.7), seed=0)
    write(tmp_path / "elsewhere" / "run", 3, (0.6, 0.7), seed=1)
    write(tmp_path / "file", 3, (0.6, 0.7), seed=2)
    links = {
        "a": "b", "c": "../elsewhere", "d": "c", "e": "missing", "b/up": "..", "self": "self",
        "run/history.json": "../../file/history.json", "run/model.pt": "missing",
        "run/other": "../b/run/history.json",
    }  # fmt: skip
    (study / "run").mkdir()
    for name, target in links.items():
        (study / name).symlink_to(target)
    printed = report(folder="study")
    assert left_out(printed) == {
        "a": f"leads to {study / 'b'}, which is searched already",
        "b/up": f"leads to {study}, which is searched already",
        "d": f"leads to {study / 'c'}, which is searched already",
        "e": "cannot be read: No such file or directory",
        "self": f"cannot be read: {os.strerror(errno.ELOOP)}",
    }
    assert printed.cells("3 uniform sampling")["seeds"] == "3"
    assert {row["history"] for row in printed.rows("report.csv")} == {
        str(study / name / "history.json") for name in ("b/run", "c/run", "run")
    }


def test_what_is_no_file_never_blocks_and_is_named(report, tmp_path):
    write(tmp_path / "run", 3, (0.6, 0.7))
    for name in ("directory", "fifo", "socket", "device"):
        (tmp_path / name).mkdir()
    (tmp_path / "directory" / "history.json").mkdir()
    os.mkfifo(tmp_path / "fifo" / "history.json")
    (tmp_path / "device" / "history.json").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(tmp_path / "socket" / "history.json"))
        names = ("device", "directory", "fifo", "socket")
        assert left_out(report()) == {f"{name}/history.json": "is not a file" for name in names}


def test_a_run_without_a_history_is_named(report, tmp_path):
    write(tmp_path / "done", 3, (0.6, 0.7))
    others = {"model": ["model.pt"], "both": ["log.txt", "model.pt"], "empty": [], "done": ["log.txt"]}
    for name, files in others.items():
        (tmp_path / name).mkdir(exist_ok=True)
        for file in files:
            (tmp_path / name / file).touch()
    assert left_out(report()) == {
        "both": "has model.pt and log.txt and no history.json",
        "model": "has model.pt and no history.json",
    }


def test_a_history_that_is_gone_when_it_is_read_is_left_out(report, tmp_path, monkeypatch):
    write(tmp_path / "a", 3, (0.6, 0.7))
    write(tmp_path / "b", 3, (0.6, 0.7), seed=1)
    read_bytes = Path.read_bytes

    def read(path: Path) -> bytes:
        (tmp_path / "b" / "history.json").unlink(missing_ok=True)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    assert left_out(report()) == {"b/history.json": "cannot be read: No such file or directory"}


def test_no_name_breaks_a_line(report, tmp_path):
    odd = tmp_path / "a\nb 'c' \x1b"
    write(odd / "run", 3, (0.6, 0.7), data="odd\nname.npz#0123456789ab", tasks=("le\u2028ft", "right"))
    (session,) = json.loads((odd / "run" / "history.json").read_text())["sittings"]
    edit(odd / "run", sittings=[session | {"file": "/it's\nan odd\u2028name.npz"}])
    (odd / "fifo").mkdir()
    os.mkfifo(odd / "fifo" / "history.json")
    printed = report(folder=odd.name)
    assert all(character.isprintable() or character == "\n" for character in printed.out)
    assert printed.lines[0] == "odd\\nname.npz (content 0123456789ab): 2 tasks"
    assert printed.cells("3 uniform sampling")["worst task"].startswith("le\\u2028ft")
    assert rf"left out: {tmp_path}/a\nb 'c' \x1b/fifo/history.json: is not a file" in printed.lines
    words = printed.trained("draws")[0]
    assert words[words.index("--save_path") + 1].startswith(f"{odd}/3_epochs-2_batch_size-32_lr-0.1")
    assert words[words.index("--data") + 1] == "/it's\nan odd\u2028name.npz"


def test_a_directory_of_nothing_but_what_is_left_out_is_said_so(program, tmp_path):
    (tmp_path / "link").symlink_to("missing")
    refused = program("--report", "--save_path", tmp_path)
    assert refused.code == 1
    assert refused.out == f"left out: {tmp_path / 'link'}: cannot be read: No such file or directory\n"
    assert "see what was left out" in refused.err


@pytest.mark.parametrize("content", [None, "broken"])
def test_nothing_to_report_on_is_one_line_of_error(program, tmp_path, content):
    if content:
        (tmp_path / "history.json").write_text(content)
    refused = program("--report", "--save_path", tmp_path)
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
    assert report().out.replace("\n", " ").count("another test set would give other numbers") == 1


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


def test_a_result_that_cannot_be_replaced_stays_as_it_was(small_study, program, report, tmp_path):
    report()
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.*")}
    (tmp_path / "report.csv").unlink()
    (tmp_path / "report.csv").mkdir()
    refused = program("--report", "--save_path", tmp_path, "--verbose")
    assert refused.code == 1
    assert "report.csv" in refused.err.splitlines()[-1]
    assert (tmp_path / "comparisons.csv").read_bytes() == before["comparisons.csv"]
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_report_that_cannot_be_written_is_printed_all_the_same(small_study, program, no_figure, tmp_path):
    (tmp_path / "report.txt").mkdir()
    refused = program("--report", "--save_path", tmp_path)
    assert refused.code == 1
    assert "delta_m" in refused.out
    assert refused.err.count("\n") == 1
    assert f"cannot write {tmp_path / 'report.txt'}" in refused.err


def test_every_file_is_whole_before_anything_is_printed(small_study, report, tmp_path):
    names = ("report.txt", "report.csv", "comparisons.csv")
    report()
    before = {name: (tmp_path / name).read_bytes() for name in names}
    for name in names:
        (tmp_path / name).unlink()
    code = "import main, sys; sys.modules['matplotlib'] = None; "
    code += f"main.main(['--report', '--save_path', {str(tmp_path)!r}])"
    with open("/dev/full", "w") as full:
        refused = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    assert refused.stderr.startswith("main.py: error: standard output cannot be written to")
    assert {name: (tmp_path / name).read_bytes() for name in names} == before


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
    assert (tmp_path / "report.csv").read_text().count(",mine.npz (content 0123456789ab),") == 2
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
        "as_trained": st.lists(SHARE, min_size=2, max_size=2),
        "lr": st.sampled_from([0.1, 0.2]),
        "momentum": st.just(0.9),
        "tasks_per_step": st.sampled_from([1, 2, "all"]),
        "loss": st.sampled_from(["mean", "uw", "dwa:temperature=2.0", "dwa:temperature=3.0"]),
        "normalisation": st.sampled_from(["together", "apart", "group"]),
        "augment": st.just(True),
        "encoder": st.just("resnet18"),
        "head": st.just("linear"),
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
        (option,) = (option for option in OPTIONS if option.name == name)
        if setting not in option.settings:
            history.pop(name, None)
    if setting in (0, 2):
        for name in ("accuracy", "constant", "as_trained"):
            if name in history:
                history[name] = history[name][:1]
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
def test_whatever_histories_there_are_the_report_says_what_holds(
    tmp_path_factory, capfd, no_figure, histories, verbose
):
    path = tmp_path_factory.mktemp("mixture")
    for i, history in enumerate(histories):
        written_as(history, path / str(i))
    capfd.readouterr()
    assert main.main(["--report", "--save_path", str(path), *["--verbose"] * verbose]) == 0
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
