"""The figure of the published studies: which comparison is drawn where, and with which sign."""

import csv

import pytest

from results.answer import GROUPS, STUDIES, Effect, Way, draw, effects, loss_effects, read, way

ROWS = [row for group in GROUPS for row in group.rows]


def comparison(question: str, first: str, second: str, **how: str) -> dict[str, str]:
    """A row of comparisons.csv, in which the first side is higher."""
    numbers = {"difference": "2.0000", "low": "1.0000", "high": "4.0000", "verdict": "higher"}
    sides = {"data_set": "CIFAR-100", "question": question, "first": first, "second": second}
    return sides | {"measure": "accuracy", "seeds": "3"} | numbers | how


@pytest.mark.parametrize(
    ("label", "means"),
    [
        ("1 standard by task", Way(1)),
        ("3 uniform draws, epochs 1, tasks_per_step 16", Way(3, 16)),
        ("3 uniform draws, tasks_per_step 4, own statistics", Way(3, 4, own=True)),
        ("3 uniform draws, tasks_per_step 1, lr 0.03, momentum 0.9, schedule cosine", Way(3, recipe=True)),
        ("3 uniform draws, tasks_per_step 1, lr 0.1, momentum 0.0, schedule constant", Way(3)),
        ("5 summed losses, loss mean, lr 0.5", Way(5, rate=0.5)),
    ],
)
def test_a_label_is_read_as_the_way_it_stands_for(label, means):
    assert way(label) == means


def test_an_effect_is_that_of_the_choice_whichever_side_it_stands_on():
    row = next(row for row in ROWS if row.choice == Way(3, 4) and row.reference == Way(3))
    one, four = "3 uniform draws, tasks_per_step 1", "3 uniform draws, tasks_per_step 4"
    assert effects(row, [comparison("tasks a step", four, one)]) == {"CIFAR-100": Effect(2, 1, 4, True)}
    assert effects(row, [comparison("tasks a step", one, four)]) == {"CIFAR-100": Effect(-2, -4, -1, True)}
    untold = comparison("tasks a step", one, four, low="-1", verdict="cannot be told")
    assert effects(row, [untold]) == {"CIFAR-100": Effect(-2, -4, 1, False)}
    others = [
        comparison("draws", four, one),
        comparison("tasks a step", four, one, measure="balanced_accuracy"),
        comparison("tasks a step", four.replace("4", "16"), one),
        comparison("tasks a step", f"{four}, momentum 0.9", f"{one}, momentum 0.9"),
    ]
    assert effects(row, others) == {}


def test_losses_are_held_against_the_mean():
    mean = "5 summed losses, loss mean"
    rows = [
        comparison("loss", mean, "5 summed losses, loss uw"),
        comparison("loss", mean, "5 summed losses, loss dwa, lr 0.1", difference="-1", low="-3", high="1"),
        comparison("loss", mean, "5 summed losses, loss famo", low="", high=""),  # of a single seed
    ]
    found = loss_effects(rows)
    assert list(found) == ["dwa", "uw"]
    assert found["dwa"][:3] == (1, -1, 3)
    assert found["uw"] == Effect(-2, -4, -1, True)


def test_no_two_rows_of_the_figure_are_the_same():
    assert len({(row.question, row.choice, row.reference) for row in ROWS}) == len(ROWS)
    assert all(len({row.words for row in group.rows}) == len(group.rows) for group in GROUPS)
    assert len({group.heading for group in GROUPS}) == len(GROUPS)


def test_what_there_is_of_the_studies_is_read_and_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    one, four = "3 uniform draws, tasks_per_step 1", "3 uniform draws, tasks_per_step 4"
    rows = [
        comparison("tasks a step", four, one),
        comparison("loss", "5 summed losses, loss mean", "5 summed losses, loss uw"),
    ]
    (tmp_path / STUDIES[0]).mkdir()
    with open(tmp_path / STUDIES[0] / "comparisons.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert read(tmp_path) == rows
    draw(rows, tmp_path / "first.png")
    draw(rows, tmp_path / "second.png")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    draw(rows[:1], tmp_path / "other.png")
    assert (tmp_path / "first.png").read_bytes() != (tmp_path / "other.png").read_bytes()
