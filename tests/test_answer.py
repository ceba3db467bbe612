"""The figure of the published studies.

Which comparison is drawn where, and with which sign.
"""

from pathlib import Path

import pytest
from helpers import TOP
from made_up import write_way

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
EFFECT = Effect(2, 1, 4, True)


def repeat(path: Path, setting: int, level: float, **options: object) -> None:
    """Write the histories of two seeds, with other scores as trained."""
    scores = {seed: [level + 0.01 * seed] * (14 if options.get("data") == 2 else 2) for seed in (0, 1)}
    as_trained = [0.1 * setting] * len(scores[0])
    write_way(path, setting, scores, as_trained=as_trained, **options)


@pytest.mark.parametrize(
    ("setting", "options", "means"),
    [
        (1, {}, PLAIN),
        (3, {"tasks_per_step": 16}, SIXTEEN),
        (3, {"tasks_per_step": 4, "lr": 0.03, "momentum": 0.9, "schedule": "cosine"}, FOUR_MOMENTUM),
        (3, {"tasks_per_step": 1, "epochs": 1}, ONE),
        (5, {"lr": 0.5}, ALL._replace(lr=0.5)),
        (6, {}, UNEQUAL_LOSSES),
    ],
)
def test_the_options_of_a_side_are_its_configuration(report, tmp_path, setting, options, means):
    repeat(tmp_path, setting, 0.5, **options)
    repeat(tmp_path, setting, 0.6, **options, weight_decay=0.01)
    (row,) = report().means("recipe")
    assert configuration(row, "a") == configuration(row, "b") == means


def test_a_study_is_read_as_differences_of_mean_accuracy_in_points(report, tmp_path):
    repeat(tmp_path, 1, 0.5)
    repeat(tmp_path, 3, 0.4, tasks_per_step=4)
    report()
    ((title, *sides, effect),) = read(tmp_path)
    assert (title, *sides) == ("mine.npz (content 0123456789ab)", PLAIN, FOUR)
    assert effect.mean == 10  # not that of the scores as trained, -20


def test_what_is_withdrawn_is_not_read(report, tmp_path):
    for number in (1, 4):
        repeat(tmp_path / "any", 3, 0.4, tasks_per_step=number)
    repeat(tmp_path / "any", 2, 0.5)
    for loss in ("mean", "uw"):
        repeat(tmp_path / "any", 5, 0.5, loss=loss, epochs=3)
    report(folder="any")
    found = [(each.first.setting, each.second.setting) for each in read(tmp_path / "any")]
    assert found == [(3, 2), (3, 2), (3, 3)]
    repeat(tmp_path / "omniglot", 3, 0.4, data=2)
    repeat(tmp_path / "omniglot", 2, 0.5, data=2)
    report(folder="omniglot")
    assert read(tmp_path / "omniglot") == []


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
