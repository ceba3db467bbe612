"""The figure of the published studies: which comparison is drawn where, and with which sign."""

import csv
from pathlib import Path

import pytest
from helpers import TOP

from results.answer import (
    ALL,
    FOUR,
    FOUR_MOMENTUM,
    GROUPS,
    ONE,
    PLAIN,
    SIXTEEN,
    STUDIES,
    UNEQUAL_LOSSES,
    Comparison,
    Effect,
    Row,
    configuration,
    draw,
    effects,
    read,
)

ROWS = [row for rows in GROUPS.values() for row in rows]
COMMON = {"lr": "0.1", "momentum": "0.0"}
EFFECT = Effect(2, 1, 4, True)


def study(path: Path, *comparisons: dict[str, str], **common: str) -> Path:
    """Write what answer.py reads of a study: comparisons, and options that its runs share."""
    numbers = {"difference": "2.0000", "low": "1.0000", "high": "4.0000", "verdict": "higher"}
    rest = {"data_set": "CIFAR-100", "measure": "accuracy", "seeds": "3"}
    tables = {
        "comparisons.csv": [rest | numbers | each for each in comparisons],
        "report.csv": [COMMON | {"setting": setting} | common for setting in ("1", "3")],
    }
    path.mkdir()
    for name, rows in tables.items():
        with open(path / name, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    ("label", "common", "means"),
    [
        ("1 standard by task", COMMON, PLAIN),
        ("1 standard by task", COMMON | {"tasks_per_step": "1"}, PLAIN),  # which is no option of setting 1
        ("3 uniform draws, epochs 1, tasks_per_step 16", COMMON, SIXTEEN),
        ("3 uniform draws, tasks_per_step 4, lr 0.03, momentum 0.9, schedule cosine", {}, FOUR_MOMENTUM),
        ("3 uniform draws, lr 0.1, momentum 0.0", {"tasks_per_step": "1"}, ONE),
        ("5 summed losses, loss mean, lr 0.5", COMMON, ALL._replace(lr="0.5")),
        ("6 weighted losses, epochs 10", COMMON, UNEQUAL_LOSSES),
    ],
)
def test_a_label_is_read_as_the_configuration_it_stands_for(label, common, means):
    assert configuration(label, common) == means


@pytest.mark.parametrize(
    ("label", "common", "missing"),
    [
        ("3 uniform draws", COMMON, "tasks_per_step"),
        ("1 standard by task, momentum 0.9", {}, "lr"),
        ("5 summed losses, epochs 10", COMMON, "loss"),
    ],
)
def test_a_label_that_leaves_an_option_open_is_refused(label, common, missing):
    with pytest.raises(SystemExit, match=rf"no {missing} in '{label}'"):
        configuration(label, common)


def test_an_option_that_the_runs_of_a_report_differ_in_is_not_taken_from_them(tmp_path):
    comparison = {"question": "heads", "first": "1 standard by task", "second": "3 uniform draws"}
    assert read(study(tmp_path / "one", comparison, tasks_per_step="4"))[0][1:] == (PLAIN, FOUR, EFFECT)
    path = study(tmp_path / "two", comparison, tasks_per_step="4")
    with open(path / "report.csv", "a") as file:
        file.write("0.1,0.0,3,1\n")
    with pytest.raises(SystemExit, match="no tasks_per_step in '3 uniform draws'"):
        read(path)


def test_an_effect_is_that_of_the_choice_whichever_side_it_stands_on():
    row = Row("four instead of one", FOUR, ONE)
    one_way = Comparison("CIFAR-100", FOUR, ONE, EFFECT)
    other_way = Comparison("Omniglot", ONE, FOUR, EFFECT)
    another = Comparison("CIFAR-10", SIXTEEN, ONE, EFFECT)
    found = effects(row, [one_way, other_way, another])
    assert found == {"CIFAR-100": EFFECT, "Omniglot": Effect(-2, -4, -1, True)}


def test_two_comparisons_for_one_point_are_refused():
    row = Row("four instead of one", FOUR, ONE)
    twice = [Comparison("CIFAR-100", *sides, EFFECT) for sides in ((FOUR, ONE), (ONE, FOUR))]
    with pytest.raises(SystemExit, match="two comparisons for 'four instead of one' on CIFAR-100"):
        effects(row, twice)


def test_what_is_withdrawn_is_not_read(tmp_path):
    one, four = (f"3 uniform draws, tasks_per_step {number}" for number in (1, 4))
    steps = {"question": "tasks a step", "first": one, "second": four}
    single = {"question": "single-task", "first": one, "second": "2 single task"}
    loss = {"question": "loss", "first": "5 summed losses, loss mean", "second": "5 summed losses, loss uw"}
    path = study(
        tmp_path / "study",
        steps,
        single,
        {**single, "data_set": "Omniglot"},
        {**single, "first": f"{one}, per-task statistics"},
        {**steps, "first": f"{one}, per-task statistics", "second": f"{four}, per-task statistics"},
        {**steps, "measure": "delta_m"},
        loss,
    )
    found = [(each.data_set, each.first.setting, each.second.setting) for each in read(path)]
    assert found == [("CIFAR-100", 3, 3), ("CIFAR-100", 3, 2)]


def test_every_comparison_of_the_studies_is_drawn_once():
    comparisons = [each for name in STUDIES for each in read(TOP / "results" / name)]
    drawn = [(name, {row.choice, row.reference}) for row in ROWS for name in effects(row, comparisons)]
    assert len(drawn) == len(comparisons)
    assert all((each.data_set, {each.first, each.second}) in drawn for each in comparisons)


def test_no_two_rows_of_the_figure_are_the_same():
    assert len({frozenset((row.choice, row.reference)) for row in ROWS}) == len(ROWS)
    assert all(len({row.words for row in rows}) == len(rows) for rows in GROUPS.values())


def test_the_figure_shows_the_comparisons_and_is_the_same_each_time(tmp_path):
    pytest.importorskip("matplotlib")
    comparisons = [Comparison("CIFAR-100", FOUR, ONE, EFFECT), Comparison("Omniglot", ONE, FOUR, EFFECT)]
    for name, shown in (("first", comparisons), ("second", comparisons), ("fewer", comparisons[:1])):
        draw(shown, tmp_path / name)
    images = {path.name.partition(".")[0]: path.read_bytes() for path in tmp_path.iterdir()}
    assert images["first"] == images["second"] != images["fewer"]
