"""Every number and sentence of a report, worked out by hand.

The reports are on small histories.
"""

import base64
import errno
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
from helpers import error_line, one_line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up import (
    CIFAR10,
    PAIR,
    STUDENT,
    TASKS,
    Report,
    Scores,
    by_hand,
    delta_m,
    edit,
    numbers,
    options_of,
    write,
    write_way,
)

import main
from options import OPTIONS

# A small study, number by number: unequal seeds, four of setting 3, three of 4 and 2, two that all have

DRAWN = {0: (0.60, 0.70), 1: (0.64, 0.72), 2: (0.59, 0.75), 3: (0.70, 0.90)}
WEIGHTED = {0: (0.58, 0.69), 1: (0.60, 0.71), 2: (0.58, 0.71)}
SINGLE = {1: (0.50, 0.60), 2: (0.54, 0.58), 3: (0.55, 0.65)}
ALL = [DRAWN, WEIGHTED, SINGLE]


@pytest.fixture
def small_study(tmp_path):
    write_way(tmp_path, 3, DRAWN, parameters=(100, 40), seconds=1.5)
    write_way(tmp_path, 4, WEIGHTED, parameters=(100, 40))
    write_way(tmp_path, 2, SINGLE, parameters=(100, 20), steps=5, images=160, seconds=0.5)


def half_width(ends: tuple[float, float, float], digits: int) -> str:
    """A number with the half-width of its interval, as reports write it."""
    return f"{ends[0]:.{digits}f} ± {ends[2] - ends[0]:.{digits}f}"


def in_brackets(ends: tuple[float, float, float], digits: int, star: bool = False) -> str:
    """A difference with its interval, as reports write it."""
    value, low, high = (f"{each:+.{digits}f}" for each in ends)
    return f"{value} [{low}, {high}]{' *' * star}"


def test_the_table_is_what_a_hand_works_out(small_study, report):
    printed = report()
    common = "mine.npz (content 0123456789ab), 2 tasks, 2 epochs, batch 32, lr 0.1, fp32, images of 4 pixels"
    assert printed.lines[:2] == [f"all: {common},", "  code a"]
    assert printed.cells("3 uniform sampling") == {
        "": "A",
        "configuration": "3 uniform sampling",
        "accuracy, %": half_width(by_hand([DRAWN], ALL), 2),
        "balanced, %": "68.00",
        "s": f"{100 * stdev([0.65, 0.68, 0.67, 0.80]):.2f}",
        "delta_m, %": in_brackets(delta_m(DRAWN, SINGLE, ALL), 2, star=True),
        "tasks that gain / stay / lose": "2/0/0",
        "worst task": f"left {100 * (0.60 + 0.64 + 0.59 + 0.70) / 4:.1f}",
        "best task": f"right {100 * (0.70 + 0.72 + 0.75 + 0.90) / 4:.1f}",
        "seeds": "4",
        "epochs": "2",
        "runs": "4",
        "steps": "20",
        "images": "640",
        "parameters": "140",
        "seconds": "3",
    }
    single = printed.cells("2 single task")  # its amounts are those of both models together
    assert single["accuracy, %"] == half_width(by_hand([SINGLE], ALL), 2)
    assert single["delta_m, %"] == "0"
    assert [single[name] for name in ("runs", "seeds", "steps", "images", "parameters", "seconds")] == [
        "6", "3", "20", "640", "240", "2"
    ]  # fmt: skip
    assert printed.labels == ["3 uniform sampling", "4 weighted sampling", "2 single task"]
    assert "always giving a task's commonest answer scores 50.00 %, balanced 50.00 %" in printed.text


def test_every_difference_and_its_interval_is_what_a_hand_works_out(small_study, report):
    rows = report().rows()
    expected = {("draws", "mean_accuracy", ""): [by_hand([WEIGHTED, DRAWN], ALL)]}
    for scores in (DRAWN, WEIGHTED):
        measured = {("mean_accuracy", ""): by_hand([scores, SINGLE], ALL)}
        measured["delta_m", ""] = delta_m(scores, SINGLE, ALL)
        for measure, ends in measured.items():
            expected.setdefault(("single-task", *measure), []).append(ends)
    found = {}
    for row in rows:
        if row["measure"] != "accuracy":
            found.setdefault((row["question"], row["measure"], row["task"]), []).append(numbers(row))
    assert found.keys() == expected.keys()
    for what, ends in expected.items():
        assert np.array(found[what]) == pytest.approx(np.array(ends), abs=1e-4), what
    assert [row["task"] for row in rows if row["measure"] == "accuracy"] == [*TASKS] * 2
    assert {row["test"] for row in rows} == {"usual"}
    assert [(row["seeds_a"], row["seeds_b"]) for row in rows if row["question"] == "draws"] == [("3", "4")]


def test_a_tasks_difference_has_the_variance_of_all_tasks_of_its_own_sides(small_study, report):
    for row in report().rows():
        if row["measure"] != "accuracy":
            continue
        scores = {"3": DRAWN, "4": WEIGHTED}[row["setting_a"]]
        task = TASKS.index(row["task"])
        parts, weights, frees = [], [], []
        for side in (scores, SINGLE):
            columns = [[100 * score[t] for score in side.values()] for t in (0, 1)]
            own, pooled = stdev(columns[task]) ** 2, fmean(stdev(column) ** 2 for column in columns)
            free = len(side) - 1
            parts.append((2 * pooled + free * own) / (2 + free) / len(side))
            weights.append(parts[-1] ** 2 / (2 + free))
            frees.append(2 * free)
        freedom = int(min(sum(parts) ** 2 / sum(weights), *frees) + 1e-9)
        half = STUDENT[freedom - 1] * sum(parts) ** 0.5
        value = 100 * (
            fmean(score[task] for score in scores.values()) - fmean(score[task] for score in SINGLE.values())
        )
        assert int(row["df"]) == freedom
        assert numbers(row) == pytest.approx((value, value - half, value + half), abs=1e-4)


def test_the_screen_shows_the_rows_of_comparisons(small_study, report):
    printed = report()
    for question, letters in (("draws", ["B - A"]), ("single-task", ["A - C", "B - C"])):
        rows = printed.means(question)
        assert len(rows) == len(letters)
        for row, sides in zip(rows, letters, strict=True):
            star = row["verdict"] != "inconclusive"
            (line,) = (line for line in printed.lines if f" {sides}  " in line)
            assert line.endswith(f"{sides}  {in_brackets(numbers(row), 1, star)}"), line
    for letter, words, scores in (("A", "3 uniform sampling", DRAWN), ("C", "2 single task", SINGLE)):
        mean = half_width(by_hand([scores], ALL), 1)
        assert any(line.startswith(f"{letter}  {words} ") and f" {mean} " in line for line in printed.lines)


def test_the_first_columns_of_comparisons_are_those_that_programs_read(small_study, report):
    rows = report().rows()
    columns = [*rows[0]]
    first = ["question", "measure", "task", "test", "difference", "low", "high", "df", "p", "q", "verdict"]
    assert columns[: len(first)] == first
    assert columns[len(first) :][:2] == ["seeds_a", "seeds_b"]
    options = [name for name in columns[len(first) :] if name[-2:] in ("_a", "_b")]
    assert {"setting_a", "lr_b", "batch_size_a", "note_b", "code_a"} <= {*options}
    for row in rows:
        assert (row["setting_b"], row["lr_a"], row["code_b"]) == (
            "2" if "single" in row["question"] else "3",
            "0.1",
            "a",
        )
        assert row["data_set"] == "mine.npz (content 0123456789ab)"
        assert row["images"] == "false"


def test_verdicts_follow_the_corrected_p_values_of_all_comparisons_tested_alike(report, tmp_path):
    levels = (0.5, 0.509, 0.501, 0.502, 0.5155, 0.507)
    for number, level in enumerate(levels):
        scores = {seed: [level + 0.004 * ((seed * (number + 2)) % 3)] * 2 for seed in range(3)}
        write_way(tmp_path, 3, scores, lr=0.1 + number / 10, as_trained=[0.7] * 2)
    rows = report().means("recipe")
    p, q = ([float(row[name]) for row in rows] for name in "pq")
    assert len(rows) == 5
    for one in range(5):
        least = min(
            5 * p[other] / (1 + sum(each < p[other] for each in p))
            for other in range(5)
            if p[other] >= p[one]
        )
        assert q[one] == pytest.approx(min(1, least), abs=1e-5)
    verdicts = [row["verdict"] for row in rows]
    assert verdicts == ["higher" if each <= 0.05 else "inconclusive" for each in q]
    assert len({*verdicts}) == 2
    assert [each <= 0.05 for each in p] != [each <= 0.05 for each in q]


def test_the_best_and_the_worst_are_those_of_the_ranking_and_nothing_else(report, tmp_path):
    for setting, level in {1: 0.6, 3: 0.7, 4: 0.65}.items():
        write_way(tmp_path, setting, {seed: [level + 0.01 * seed] * 2 for seed in range(setting)})
    write_way(tmp_path, 0, {0: [0.99]})  # all classes: no rival
    write_way(tmp_path, 2, {0: (0.99, 0.99)}, missing=[(0, 1)])  # nor one that lacks a task
    printed = report()
    assert "Best A, worst C, 11.0 points apart (of those ranked)." in printed.lines
    assert printed.labels[:3] == ["3 uniform sampling", "4 weighted sampling", "1 standard by task"]
    ranked = [row["configuration"].partition(" (")[2] for row in printed.tables("Ranking")]
    assert sorted(ranked) == ["", "", "", "not ranked: all classes at once)", "not ranked: tasks missing)"]


def test_letters_go_on_through_all_data_sets_and_after_z_comes_aa(report, tmp_path):
    for number in range(27):
        write(tmp_path / "a" / str(number), 3, [0.9 - 0.01 * number] * 2, lr=0.1 + number / 100)
    write(tmp_path / "b", 3, [0.5] * 2, data="other.npz#fedcba987654")
    printed = report()
    letters = [row[""] for row in printed.tables("Ranking")]
    assert letters == [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "AA", "AB"]
    assert printed.labels[0] == "3 uniform sampling"
    assert printed.labels[26] == "3 uniform sampling, lr 0.36"


def test_another_amount_of_training_than_that_of_most_is_marked(report, tmp_path):
    for setting, steps in ((1, 100), (3, 102), (4, 110), (5, 100)):
        write_way(tmp_path, setting, PAIR, steps=steps)
    printed = report()
    marked = [line.split()[1] for line in printed.lines if re.match(r"[A-D]  .*\d !$", line)]
    assert marked == ["4"]
    assert "!: other numbers of steps than most others, by more than 5 %." in printed.lines


def test_a_configuration_whose_seeds_vary_far_more_than_all_is_marked(report, tmp_path):
    for number in range(20):
        spread = 0.1 if number == 4 else 0.01
        scores = {seed: [0.5 + 0.001 * number + spread * (seed - 1)] * 2 for seed in range(3)}
        write_way(tmp_path, 3, scores, lr=0.1 + number / 100)
    printed = report()
    marked = [row["configuration"] for row in printed.tables("Ranking") if row["s"].endswith(" ~")]
    assert marked == ["3 uniform sampling, lr 0.14"]
    assert [line.split()[5] for line in printed.lines if re.match(r"[A-Z]  .* ~ ", line)] == ["0.14"]


# Intervals over new test images


def packed(answers: Sequence[int]) -> str:
    """Which images are answered rightly, as histories have it."""
    return base64.b64encode(np.packbits(np.array(answers, dtype=np.uint8)).tobytes()).decode()


def write_with_answers(
    path: Path, setting: int, answers: np.ndarray, again: np.ndarray | None = None
) -> None:
    """Histories with the answers to every image: seeds x tasks x images."""
    for seed, of_seed in enumerate(answers):
        how = {"right": [*map(packed, of_seed)]}
        if again is not None:
            how |= {"as_trained": again[seed].mean(axis=1).tolist()}
            how |= {"right_as_trained": [*map(packed, again[seed])]}
        write(path / f"{setting}-{seed}", setting, of_seed.mean(axis=1).tolist(), seed, **how)


def answers_of(seed: int, level: float, images: int = 75) -> np.ndarray:
    """Answers of three seeds to the images of two tasks, some images harder than others."""
    random = np.random.RandomState(seed)
    hard = np.random.RandomState(9).uniform(0, 1, (1, 2, images))
    taste = random.uniform(0, 0.4, (1, 2, images))
    return (hard + taste + random.uniform(0, 0.02, (3, 2, images)) < level + 0.2).astype(int)


def images_part(sides: Sequence[np.ndarray]) -> float:
    """Variance in points that new images of two tasks of their own would add, written out."""
    mean = sides[0].mean(axis=0) - (sides[1].mean(axis=0) if len(sides) > 1 else 0)

    def variance(values: np.ndarray) -> float:
        return sum(50**2 * np.var(each, ddof=1) / len(each) for each in values)

    total = variance(mean)
    for side in sides:
        of_seeds = fmean(variance(each) for each in side)
        total -= (of_seeds - variance(side.mean(axis=0))) / (len(side) - 1)
    return max(0.0, total)


def test_intervals_are_over_new_images_where_answers_are_recorded(report, tmp_path):
    first, second = answers_of(1, 0.7), answers_of(2, 0.55)
    write_with_answers(tmp_path, 3, first)
    write_with_answers(tmp_path, 4, second)
    printed = report()
    (row,) = printed.means("draws")
    scores = [dict(enumerate(each.mean(axis=2).tolist())) for each in (second, first)]
    value, low, _ = by_hand(scores, scores)
    freedom = int(row["df"])
    seeds = ((value - low) / STUDENT[3]) ** 2  # four degrees of freedom: all that there are
    images = images_part([second, first])
    half = STUDENT[freedom - 1] * (seeds + images) ** 0.5
    assert images > 0.1 * seeds
    assert freedom == 4
    assert numbers(row) == pytest.approx((value, value - half, value + half), abs=1e-4)
    assert row["images"] == "true"
    assert "95 % intervals over new seeds and new test images." in " ".join(printed.lines)
    assert "not recorded" not in printed.out


def test_the_same_runs_tested_twice_are_compared_run_by_run_and_image_by_image(report, tmp_path):
    usual, other = answers_of(1, 0.6), answers_of(5, 0.5)
    again = np.maximum(usual, answers_of(3, 0.3))
    write_with_answers(tmp_path, 3, usual, again)
    write_with_answers(tmp_path, 4, other, other)
    rows = report().means("test", test="both")
    row = next(row for row in rows if row["setting_a"] == "3")
    changes = [dict(enumerate((b - a).mean(axis=2).tolist())) for a, b in ((usual, again), (other, other))]
    value, low, _ = by_hand([changes[0]], changes)
    freedom = int(row["df"])
    assert freedom == 4
    half = STUDENT[3] * (((value - low) / STUDENT[3]) ** 2 + images_part([again - usual])) ** 0.5
    assert numbers(row) == pytest.approx((value, value - half, value + half), abs=1e-4)
    assert (row["letter_a"], row["images"]) == (row["letter_b"], "true")


@pytest.mark.parametrize("fault", ["none", "other accuracy", "fewer images"])
def test_without_answers_to_all_images_an_interval_is_over_seeds_alone_and_says_so(report, tmp_path, fault):
    first, second = answers_of(1, 0.7), answers_of(2, 0.55)
    write_with_answers(tmp_path, 3, first)
    write_with_answers(tmp_path, 4, second)
    write_with_answers(tmp_path, 1, answers_of(4, 0.6))
    for path in tmp_path.glob("4-*"):
        right = json.loads((path / "history.json").read_text())["right"]
        if fault == "none":
            edit(path, right=None)
        elif fault == "other accuracy":
            edit(path, right=[packed([1] * 75), right[1]])
        else:
            edit(path, right=[packed([1, 0] * 10), right[1]])
    printed = report()
    (row,) = printed.means("draws")
    scores = [dict(enumerate(each.mean(axis=2).tolist())) for each in (second, first, answers_of(4, 0.6))]
    assert row["images"] == "false"
    assert numbers(row) == pytest.approx(by_hand(scores[:2], scores), abs=1e-4)
    (line,) = (line for line in printed.lines if "sampled by weight" in line)
    assert line.endswith(" #")
    assert "#: over new seeds alone, as it is not recorded which images are right." in printed.lines
    assert printed.means("heads")[0]["images"] == "true"


# Tasks that gain and lose


def baseline_and_gains(gains: Sequence[Sequence[float]]) -> tuple[dict, dict]:
    """Scores of setting 2 and of another by some points higher: a list of seeds for each task."""
    single = {seed: [0.6] * len(gains) for seed in range(len(gains[0]))}
    drawn = {seed: [0.6 + task[seed] / 100 for task in gains] for seed in single}
    return single, drawn


def test_tasks_gain_lose_or_stay_by_their_corrected_p_values(report, tmp_path):
    gains = [(5, 6, 7), (9, 8, 10), (-5, -6, -4), (3, -1, 1), (4, 4, 5)]
    single, drawn = baseline_and_gains(gains)
    single = {seed: [score + 0.002 * seed for score in scores] for seed, scores in single.items()}
    names = ["up", "far up", "down", "open", "near"]
    write_way(tmp_path, 2, single, tasks=names)
    write_way(tmp_path, 3, drawn, tasks=names)
    printed = report()
    rows = [row for row in printed.rows() if row["measure"] == "accuracy"]
    assert [row["task"] for row in rows] == names
    verdicts = {row["task"]: row["verdict"] for row in rows}
    assert verdicts == {
        "up": "higher", "far up": "higher", "down": "lower", "open": "inconclusive", "near": "higher"
    }  # fmt: skip
    assert all((float(row["q"]) <= 0.05) == (row["verdict"] != "inconclusive") for row in rows)
    assert max(float(row["q"]) for row in rows) == pytest.approx(max(float(row["p"]) for row in rows))
    assert printed.cells("3 uniform sampling")["tasks that gain / stay / lose"] == "3/1/1"
    told = {row["task"]: row["A - B"] for row in printed.tables("Every task against single-task training")}
    for row in rows:
        assert told[row["task"]] == in_brackets(numbers(row), 1, row["verdict"] != "inconclusive")


@pytest.mark.parametrize("seeds", [1, 2])
def test_with_less_than_three_seeds_of_a_side_no_task_gains_or_loses(report, tmp_path, seeds):
    write_way(tmp_path, 2, {seed: (0.5 + 0.01 * seed, 0.5) for seed in range(seeds)})
    write_way(tmp_path, 3, {seed: (0.9, 0.9 + 0.01 * seed) for seed in range(3)})
    printed = report()
    assert "tasks that gain / stay / lose" not in printed.cells("3 uniform sampling")
    verdicts = {row["verdict"] for row in printed.rows() if row["measure"] == "accuracy"}
    assert verdicts == {"inconclusive"}


# Few seeds


def test_one_seed_gives_no_interval_and_a_line_names_what_has_one(report, tmp_path):
    write_way(tmp_path, 3, {0: (0.6, 0.7), 1: (0.6, 0.8)})
    write_way(tmp_path, 4, {1: (0.5, 0.6)})
    write_way(tmp_path, 2, {1: (0.55, 0.55)})
    printed = report()
    assert any(line.endswith(("  B - A  -12.5", "  C - A  -12.5")) for line in printed.lines)
    assert printed.cells("2 single task")["accuracy, %"] == "55.00"
    change = 100 * (0.05 + 0.2) / 0.55 / 2
    assert printed.cells("3 uniform sampling")["delta_m, %"] == f"{change:+.2f}"
    assert (
        "- one seed gives no interval: B, C" in printed.lines
        or "- one seed gives no interval: C, B" in printed.lines
    )
    for row in printed.rows():
        assert (row["low"], row["high"], row["df"], row["p"], row["q"]) == ("",) * 5
        assert row["verdict"] == "inconclusive"
    assert "by chance" not in printed.out
    assert printed.commands("draws")
    assert [row["s"] for row in printed.tables("draws")] == ["-, 3.54"]
    assert {row["s"] for row in printed.tables("single-task")} == {"3.54, -", ""}


def test_sides_need_no_common_seeds(report, tmp_path):
    first, second = {2: (0.5, 0.6), 3: (0.5, 0.7)}, {0: (0.6, 0.7), 1: (0.6, 0.8)}
    write_way(tmp_path, 4, first)
    write_way(tmp_path, 3, second)
    printed = report()
    (row,) = printed.means("draws")
    assert numbers(row) == pytest.approx(by_hand([first, second], [first, second]), abs=1e-4)
    assert printed.commands("draws") == []


def test_seeds_that_agree_to_the_last_digit_tell_nothing(report, tmp_path):
    for setting, level in ((3, 0.6), (4, 0.5), (5, 0.3)):
        write_way(tmp_path, setting, dict.fromkeys(range(3), (level, 0.7)))
    printed = report()
    assert any(line.endswith("  B - A  -5.0") for line in printed.lines)
    assert printed.cells("5 summed losses")["accuracy, %"] == "50.00"
    assert "one seed" not in printed.out
    assert "- seeds that agree to the last digit give no interval: A, B, C" in printed.lines
    assert all(row["low"] == "" for row in printed.rows())


def test_an_interval_of_a_mean_stays_between_none_and_all(report, tmp_path):
    write_way(tmp_path, 3, {0: (0.97, 0.98), 1: (1.0, 1.0)})
    write_way(tmp_path, 4, {0: (0.5, 0.98), 1: (0.5, 0.9)})
    said = report().cells("3 uniform sampling")["accuracy, %"]
    mean, half = map(float, said.split(" ± "))
    assert mean == 98.75
    assert half > 1.25  # to the side where there is room


# Single-task training that lacks something


def test_a_seed_that_lacks_a_task_of_setting_2_is_left_out(report, tmp_path):
    drawn = {0: (0.6, 0.7), 1: (0.6, 0.8), 2: (0.7, 0.8)}
    single = {0: (0.5, 0.6), 1: (0.5, 0.5), 2: (0.5, 0.7)}
    write_way(tmp_path, 3, drawn)
    write_way(tmp_path, 2, single, missing=[(1, 1)])
    printed = report()
    rest = {seed: single[seed] for seed in (0, 2)}
    (row,) = printed.means("single-task")
    assert numbers(row) == pytest.approx(by_hand([drawn, rest], [drawn, rest]), abs=1e-4)
    cells = printed.cells("2 single task")
    assert cells["accuracy, %"] == half_width(by_hand([rest], [drawn, rest]), 2)
    assert (cells["runs"], cells["seeds"]) == ("4", "2")
    assert "- B: left out: seed 1 (lacks 1 of 2 tasks)" in printed.lines


def test_without_any_seed_that_has_every_task_setting_2_is_compared_with_nothing(report, tmp_path):
    drawn = {0: (0.6, 0.7), 1: (0.6, 0.8)}
    write_way(tmp_path, 3, drawn)
    write_way(tmp_path, 2, {0: (0.5, 0.9), 1: (0.9, 0.5)}, missing=[(0, 1), (1, 0)])
    printed = report()
    assert printed.rows() == []
    assert printed.tables("Ranking")[1]["configuration"] == "2 single task (not ranked: tasks missing)"
    assert "delta_m, %" not in printed.cells("3 uniform sampling")
    assert "- B: no seed has all tasks, but at most 1 of 2" in printed.lines
    assert "Nothing: no two configurations can be compared." in printed.lines
    assert printed.commands("single-task")


@pytest.mark.parametrize("level", [0.2, 0.19, 0.2001])
def test_no_delta_m_where_single_task_training_is_no_better_than_a_constant_answer(report, tmp_path, level):
    names = ["sea", "land", "air"]
    for setting in (2, 3):
        scores = {seed: (0.5, level, 0.6 + 0.01 * seed) for seed in range(3)}
        write_way(tmp_path, setting, scores, tasks=names, constant=[0.2] * 3, answers=5)
    printed = report()
    measures = {(row["measure"], row["task"]) for row in printed.rows()}
    others = {("mean_accuracy", ""), *(("accuracy", name) for name in names)}
    if level > 0.2:
        assert printed.cells("3 uniform sampling")["delta_m, %"].startswith("0.00 [")
        assert "no delta_m" not in printed.out
        assert measures == others | {("delta_m", "")}
    else:  # 0.2 averaged over three seeds is above 0.2 by rounding
        assert printed.cells("3 uniform sampling").get("delta_m, %", "-") == "-"
        said = "no delta_m for B: single-task training is no better than a constant answer in land"
        assert said in " ".join(printed.lines) or said.replace("B", "A") in " ".join(printed.lines)
        assert measures == others


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
    printed = report()
    change = delta_m(BALANCED[3], BALANCED[2], [*BALANCED.values()])
    (row,) = (row for row in printed.rows() if row["measure"] == "delta_m")
    assert numbers(row) == pytest.approx(change, abs=1e-4)
    assert "delta_m, gains and losses are in balanced accuracy" in printed.text
    assert "always giving a task's commonest answer scores 90.00 %, balanced 50.00 %" in printed.text
    tasks = {row["task"]: row for row in printed.rows() if row["measure"] == "balanced_accuracy"}
    assert [*tasks] == [*CIFAR10]
    for task, name in enumerate(CIFAR10):
        gain = 100 * fmean(BALANCED[3][seed][task] - BALANCED[2][seed][task] for seed in range(3))
        assert float(tasks[name]["difference"]) == pytest.approx(gain, abs=1e-4)
        assert tasks[name]["images"] == "false"
    higher = [row["verdict"] for row in tasks.values()].count("higher")
    counts = printed.cells("3 uniform sampling")["tasks that gain / stay / lose"]
    assert counts == f"{higher}/{10 - higher}/0"
    assert higher > 0


def test_a_constant_answer_in_balanced_accuracy_is_one_over_the_number_of_answers(report, tmp_path):
    single = {seed: [0.5 if task in (3, 8) else 0.6 for task in range(10)] for seed in range(3)}
    write_cifar10(tmp_path, {2: single, 3: BALANCED[3]})
    printed = report()
    assert "delta_m" not in {row["measure"] for row in printed.rows()}
    assert "no better than a constant answer in cat, ship" in " ".join(printed.text.split())


@pytest.mark.parametrize("constant", [(0.55, 0.55), (0.5, 0.62)])
def test_the_gap_that_decides_the_measure_is_averaged_over_tasks(report, tmp_path, constant):
    for setting in (2, 3):
        write_way(tmp_path, setting, {0: (0.8, 0.8), 1: (0.8, 0.9)}, constant=constant)
    printed = report()
    balanced = sum(constant) / 2 - 0.5 > 0.055
    # 0.55 - 0.5 is above 0.05 by rounding
    assert ("in balanced accuracy" in printed.text) == balanced
    assert any(row["measure"].startswith("balanced") for row in printed.rows()) == balanced


# What is never averaged or compared


def test_runs_of_different_code_are_kept_apart_and_a_line_says_so(report, tmp_path):
    for seed, codes in enumerate(
        [("a",), ("a", "a"), ("a", "b"), ("b",)]
    ):  # the third: resumed under other code
        write_way(tmp_path, 3, {seed: (0.6, 0.7)}, codes=codes)
    write_way(tmp_path, 4, dict.fromkeys(range(4), (0.5, 0.7)), codes=["b"])
    printed = report()
    assert {words: printed.cells(words)["seeds"] for words in printed.labels} == {
        "3 uniform sampling, code a": "2",
        "3 uniform sampling, code a b": "1",
        "3 uniform sampling": "1",
        "4 weighted sampling": "4",
    }
    assert "unless said otherwise: code b" in printed.lines
    (said,) = re.findall(
        r"runs of different code are not averaged, and compared by --note alone: (.+)", printed.text
    )
    letters = {words: row[""] for words, row in zip(printed.labels, printed.tables("Ranking"), strict=True)}
    expected = [f"code a: {letters['3 uniform sampling, code a']}"]
    expected += [f"code a b: {letters['3 uniform sampling, code a b']}"]
    expected += [f"code b: {letters['3 uniform sampling']}, {letters['4 weighted sampling']}"]
    assert sorted(said.split("; ")) == sorted(expected)
    assert printed.compared() == [("4 weighted sampling", "3 uniform sampling")]


def test_runs_of_different_precision_are_never_averaged(report, tmp_path):
    write_way(tmp_path, 3, PAIR)
    write_way(tmp_path, 3, {2: (0.9, 0.9)}, precision="bf16")
    printed = report()
    assert printed.cells("3 uniform sampling")["seeds"] == "2"
    assert printed.cells("3 uniform sampling, bf16")["accuracy, %"] == "90.00"


def test_a_line_says_that_runs_are_from_different_processors(report, tmp_path):
    write_way(tmp_path, 3, PAIR, processor="a CPU")
    write_way(tmp_path, 4, PAIR)  # an older program has recorded none
    assert "processors" not in report().text.partition("## Amounts")[0]
    write_way(tmp_path, 4, {2: (0.5, 0.7)}, processor="a GPU")
    printed = report()
    assert "several processors: their seconds are not comparable" in printed.text
    assert printed.cells("4 weighted sampling")["processors"] == "a GPU"
    assert printed.cells("4 weighted sampling")["seeds"] == "3"  # they are averaged all the same


def test_validation_results_are_kept_apart_from_test_results(report, tmp_path):
    write_way(tmp_path, 3, PAIR, constant=(0.5, 0.7))
    write_way(tmp_path, 4, {0: (0.3, 0.4), 1: (0.3, 0.5)}, validation=0.1, constant=(0.6, 0.8))
    printed = report()
    title = "# mine.npz (content 0123456789ab)"
    held_out = f"{title}, scored on validation images (10 % of those for training)\n"
    test, validation = printed.text.split(held_out)
    assert test.startswith(f"{title}\n")
    assert ("3 uniform sampling" in test, "4 weighted sampling" in test) == (True, False)
    assert ("3 uniform sampling |" in validation, "4 weighted sampling |" in validation) == (False, True)
    assert "commonest answer scores 60.00 %," in test
    assert "commonest answer scores 70.00 %," in validation
    assert printed.rows() == []


def test_validation_images_of_one_share_are_not_held_against_those_of_another(report, tmp_path):
    write_way(tmp_path, 3, PAIR, validation=0.1)
    write_way(tmp_path, 4, {0: (0.3, 0.4), 1: (0.3, 0.5)}, validation=0.2)
    printed = report()
    assert printed.rows() == []
    assert "points apart" not in printed.out
    assert (
        printed.text.count("scored on validation images (10 %") == 2
    )  # heading, and what all have in common
    assert printed.text.count("scored on validation images (20 %") == 2


def test_files_of_one_content_are_one_data_set_whatever_their_names(report, tmp_path):
    for seed, name in enumerate(["mine.npz", "copy.npz", "a b.npz"]):
        write_way(tmp_path, 3, {seed: PAIR[seed % 2]}, data=f"{name}#0123456789ab")
    printed = report()
    assert printed.cells("3 uniform sampling")["seeds"] == "3"
    assert printed.out.count(", 2 tasks") == 1
    assert "left out" not in printed.out


def test_files_of_one_name_and_different_content_are_reported_apart(report, tmp_path):
    write_way(tmp_path, 3, PAIR)
    write_way(tmp_path, 4, {0: (0.3, 0.4), 1: (0.3, 0.5)}, data="mine.npz#fedcba987654")
    printed = report()
    for checksum in ("0123456789ab", "fedcba987654"):
        assert printed.out.count(f"all: mine.npz (content {checksum}), 2 tasks") == 1
    assert printed.rows() == []


def test_data_sets_are_reported_each_for_itself(report, tmp_path):
    write_way(tmp_path, 3, {0: [0.95] * 10, 1: [0.96] * 10}, data=0)
    write_way(tmp_path, 4, {0: [0.5] * 20, 1: [0.6] * 20}, data=1)
    printed = report()
    first, second = printed.text.split("# CIFAR-100\n")
    assert first.startswith("# CIFAR-10\n")
    assert "commonest answer scores 90.00 %" in first
    assert "commonest answer scores 20.00 %, balanced 20.00 %" in second
    assert printed.rows() == []
    for words in ("losses weighted by task", "another loss", "all tasks on every image"):
        assert f"- {words}" in first  # which take tasks that share their images
        assert f"- {words}" not in second


def test_generated_images_are_named_as_such_and_left_out_beside_real_ones(report, tmp_path):
    write(tmp_path / "generated" / "3", 3, [0.6] * 10, data=0, synthetic=True)
    assert report(folder="generated").lines[0].startswith("all: synthetic stand-in for CIFAR-10, 10 tasks, ")
    write(tmp_path / "real", 3, [0.7] * 10, data=0)
    printed = report()
    assert f"left out: {tmp_path / 'generated' / '3' / 'history.json'}: generated images" in printed.out
    assert printed.cells("3 uniform sampling")["accuracy, %"] == "70.00"


# Labels


def test_configurations_are_told_apart_by_what_differs(report, tmp_path):
    for options in ({}, {"lr": 0.2}, {"setting": 4, "weights": [1, 1]}, {"setting": 4, "weights": [1, 3]}):
        write_way(tmp_path, **{"setting": 3} | options, scores=PAIR)
    printed = report()
    assert sorted(printed.labels) == [
        "3 uniform sampling",
        "3 uniform sampling, lr 0.2",
        "4 weighted sampling",
        "4 weighted sampling, weights 0.5 0.5",
    ]
    assert "unless said otherwise: weights 0.25 0.75, lr 0.1" in printed.lines


def test_configurations_that_words_do_not_tell_apart_are_numbered(report, tmp_path):
    weights = [[1, 1, 1, 1, 1, 5 + number] for number in range(3)]
    for each in weights:
        shares = [weight / sum(each) for weight in each]
        write_way(tmp_path, 4, {0: [0.5] * 6}, tasks="abcdef", weights=[round(each, 3) for each in shares])
    write_way(tmp_path, 4, {0: [0.5] * 6}, tasks="abcdef", weights=[1, 1, 1, 1, 1, 5.0001])
    assert len(report().labels) == len({*report().labels}) == 4


def test_words_state_the_parameters_of_a_loss_that_are_not_the_default(report, tmp_path):
    losses = {"mean": 0, "dwa": 0, "dwa:temperature=2.0": 1, "dwa:temperature=3.0": 0, "stch": 0}
    losses["famo:lr=0.1,weight_decay=0.001"] = 0
    for loss, seed in losses.items():
        write_way(tmp_path, 5, {seed: (0.6, 0.7)}, loss=loss)
    printed = report()
    others = [
        f"5 summed losses, loss {name}" for name in ("dwa", "dwa:temperature=3.0", "famo:lr=0.1", "stch")
    ]
    assert sorted(printed.labels) == ["5 summed losses", *others]
    assert printed.cells("5 summed losses, loss dwa")["seeds"] == "2"
    assert printed.compared("loss") == [(each, "5 summed losses") for each in others]


def test_setting_3_of_a_version_without_a_loss_has_the_mean(report, tmp_path):
    write_way(tmp_path, 3, {0: (0.6, 0.7)}, loss=None)
    write_way(tmp_path, 3, {1: (0.6, 0.8)}, loss="mean")
    write_way(tmp_path, 3, {0: (0.6, 0.7)}, loss="uw", tasks_per_step="all")
    assert sorted(report().labels) == ["3 uniform sampling", "3 uniform sampling, all tasks a step, loss uw"]


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
    assert printed.cells("0 standard, results 1")["runs"] == "3"
    assert printed.cells("0 standard")["runs"] == "1"
    assert "unless said otherwise: code 5ed33d9c973e" in printed.lines
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
    printed = report()
    reasons = {Path(path).parent.name: why for path, why in printed.left_out.items()}
    assert len([line for line in printed.lines if line.startswith("left out: ")]) == 6
    assert f"left out: {len(contents) + 1 - 5} more, see report.md" in printed.lines
    assert "newer version" in reasons.pop("newer")
    assert "version 1.1" in reasons.pop("other")
    assert reasons.pop("loss").endswith(": epochs[0].loss is None")
    assert reasons.pop("short").endswith(": epochs[1].accuracy is not a list of a share for each of 2 tasks")
    assert set(reasons.values()) == {"is not a history of this program"}


# What else lies under the directory


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
    assert printed.left_out == {"b": "cannot be read: Permission denied"}
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
    assert printed.left_out == {
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
        assert report().left_out == {f"{name}/history.json": "is not a file" for name in names}


def test_a_run_without_a_history_is_named(report, tmp_path):
    write(tmp_path / "done", 3, (0.6, 0.7))
    others = {"model": ["model.pt"], "both": ["log.txt", "model.pt"], "empty": [], "done": ["log.txt"]}
    for name, files in others.items():
        (tmp_path / name).mkdir(exist_ok=True)
        for file in files:
            (tmp_path / name / file).touch()
    assert report().left_out == {
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
    assert report().left_out == {"b/history.json": "cannot be read: No such file or directory"}


def test_no_name_breaks_a_line(report, tmp_path):
    odd = tmp_path / "a\nb 'c' \x1b"
    write(odd / "run", 3, (0.6, 0.7), data="odd\nname.npz#0123456789ab", tasks=("le\u2028ft", "right"))
    (session,) = json.loads((odd / "run" / "history.json").read_text())["sittings"]
    edit(odd / "run", sittings=[session | {"file": "/it's\nan odd\u2028name.npz"}])
    (odd / "fifo").mkdir()
    os.mkfifo(odd / "fifo" / "history.json")
    printed = report(folder=odd.name)
    assert all(character.isprintable() or character == "\n" for character in printed.out)
    assert printed.lines[0].startswith("all: odd\\nname.npz (content 0123456789ab), 2 tasks, ")
    assert r"le\u2028ft" in printed.text
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


def test_with_verbose_the_whole_page_is_printed(small_study, report):
    printed = report("--verbose")
    assert printed.out == printed.page == report().page
    assert printed.out != report().out


def test_that_new_images_would_add_to_intervals_is_said_where_they_do(report, tmp_path):
    write_way(tmp_path, 3, PAIR)
    write_way(tmp_path, 4, PAIR)
    assert "which images are right is not recorded, and new ones would add" in report().out.replace("\n", " ")


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
    (tmp_path / "report.md").mkdir()
    refused = program("--report", "--save_path", tmp_path)
    assert refused.code == 1
    assert "What each choice changes" in refused.out
    assert refused.err.count("\n") == 1
    assert f"cannot write {tmp_path / 'report.md'}" in refused.err


def test_every_file_is_whole_before_anything_is_printed(small_study, report, tmp_path):
    names = ("report.md", "report.csv", "comparisons.csv")
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
    assert "65.0" in finished.stdout
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
        "answers": st.lists(st.lists(st.integers(0, 1), min_size=9, max_size=11), min_size=2, max_size=2),
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
    if answers := history.pop("answers", None):
        history |= {"accuracy": [fmean(each) for each in answers], "right": [*map(packed, answers)]}
    for name in ("tasks_per_step", "loss", "weights"):
        (option,) = (option for option in OPTIONS if option.name == name)
        if setting not in option.settings:
            history.pop(name, None)
    if setting in (0, 2):
        for name in ("accuracy", "constant", "as_trained", "right"):
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
    assert (printed.out == printed.page) == verbose
    assert "nan" not in re.sub(r"\S*/\S*", "", printed.out + printed.page)
    if not verbose:
        assert max(len(line) for line in printed.lines if "/" not in line) <= 100
    sections = re.split(r"\n(?=All: )", printed.text)[1:]
    for section in sections:
        words = re.findall(
            r"^\| [A-Z]+ \| (\d [^|]+?) \|", section.partition("\n## What each")[0], re.MULTILINE
        )
        assert len(words) == len(set(words)) > 0
    letters = [row[""] for row in printed.tables("Ranking")]
    assert len(letters) == len(set(letters))
    listed = {tuple(row.items()) for row in printed.rows()}
    assert len(listed) == len(printed.rows())
    for row in printed.rows():
        value, low, high = numbers(row)
        assert row["low"] == "" or low <= value <= high
        assert (row["low"] == "") == (row["p"] == "") == (row["df"] == "")
        assert {row["letter_a"], row["letter_b"]} <= {*letters}
        conclusive = row["q"] != "" and float(row["q"]) <= 0.05
        assert row["verdict"] == ("inconclusive" if not conclusive else "higher" if value > 0 else "lower")
        assert row["q"] == "" or float(row["q"]) >= float(row["p"])
        assert "1" not in (row["seeds_a"], row["seeds_b"]) or row["low"] == ""
        assert row["code_a"] == row["code_b"]
        assert row["data_a"] == row["data_b"]
        assert row["validation_a"] == row["validation_b"]
