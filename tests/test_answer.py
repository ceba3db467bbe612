"""The tables and the figure of the published studies.

Which comparison stands where, and with which sign.
"""

import csv
from collections import Counter
from pathlib import Path

import pytest
from helpers import TOP
from made_up import write_way

from reporting.estimates import Estimate
from reporting.screen import percent
from results import answer
from results.answer import FOUR, GROUPS, LOOKS, ONE, PLAIN, SINGLE, Effect, Row, compared, disagree, short

ROWS = [row for rows in GROUPS.values() for row in rows]
MINE = "mine.npz (content 0123456789ab)"
EFFECT = Effect(2, 1, 4, True)


@pytest.fixture(autouse=True)
def _data_set(monkeypatch):
    """A data set of the tables is the one of the made-up histories."""
    monkeypatch.setattr(answer, "LOOKS", {MINE: {}, **LOOKS})


def repeat(path: Path, setting: int, level: float, trained: float = 0.5, **options: object) -> None:
    """Write the histories of two seeds, with other scores as trained."""
    number = {1: 20, 2: 50}.get(options.get("data"), 2)
    for seed in (0, 1):
        again = [trained + 0.01 * seed] * number
        write_way(path, setting, {seed: [level + 0.02 * seed] * number}, as_trained=again, **options)


def test_a_row_is_the_difference_of_its_configurations_tested_either_way(report, tmp_path):
    repeat(tmp_path / "any", 1, 0.5, trained=0.9)
    repeat(tmp_path / "any", 3, 0.4, trained=0.7, tasks_per_step=4)
    report(folder="any")
    for sides, sign in (((PLAIN, FOUR), 1), ((FOUR, PLAIN), -1)):
        found = compared(Row("any", *sides, ("any",)), tmp_path)[MINE]
        assert {test: each.mean for test, each in found.items()} == pytest.approx(
            {"usual": 10 * sign, "as trained": 20 * sign}
        )
        assert all(each.low < each.mean < each.high for each in found.values())


def test_a_row_of_one_configuration_is_the_difference_of_its_two_tests(report, tmp_path):
    repeat(tmp_path / "any", 3, 0.395, trained=0.7)
    repeat(tmp_path / "any", 3, 0.4, trained=0.9, tasks_per_step=4)
    report(folder="any")
    (each,) = compared(Row("any", ONE, ONE, ("any",)), tmp_path)[MINE].values()
    assert each.mean == pytest.approx(30)  # as trained, minus as usual


def test_a_recipe_is_chosen_on_held_out_images_and_compared_on_test_images_once(report, tmp_path):
    for setting, best in ((2, 0.1), (3, 0.1), (1, 0.2)):
        for rate in (0.1, 0.2):
            level = 0.6 if rate == best else 0.5
            repeat(tmp_path / "any", setting, level, lr=rate, validation=0.1)
        repeat(tmp_path / "any", setting, setting / 10, lr=best)
    report(folder="any")
    for sides, mean in (((ONE, SINGLE), 10), ((PLAIN, ONE), -20), ((PLAIN, SINGLE), -10)):
        found = compared(Row("any", *sides, ("any",)), tmp_path)
        assert {name: each["usual"].mean for name, each in found.items()} == pytest.approx({MINE: mean})
    tests = Counter(each["test"] for each in answer.read(tmp_path / "any"))
    assert tests == dict.fromkeys((answer.USUAL, answer.AS_TRAINED, answer.BOTH), 3)


def test_a_row_is_sought_in_its_own_studies(report, tmp_path):
    for folder, level in (("one", 0.4), ("other", 0.3)):
        repeat(tmp_path / folder, 3, 0.5, tasks_per_step=4)
        repeat(tmp_path / folder, 3, level)
        report(folder=folder)
    for studies, mean in ((("one",), 10), (("other",), 20)):
        found = compared(Row("any", FOUR, ONE, studies), tmp_path)
        assert found[MINE]["usual"].mean == pytest.approx(mean)
    with pytest.raises(SystemExit, match="two comparisons for 'any' on mine"):
        compared(Row("any", FOUR, ONE, ("one", "other")), tmp_path)


def test_two_comparisons_in_a_study_that_a_row_does_not_tell_apart_are_refused(report, tmp_path):
    for rate in (0.1, 0.2):
        for number in (1, 4):
            repeat(tmp_path / "any", 3, 0.4, tasks_per_step=number, lr=rate)
    report(folder="any")
    with pytest.raises(SystemExit, match="two comparisons for 'any' on mine"):
        compared(Row("any", FOUR, ONE, ("any",)), tmp_path)
    rate = {"lr": 0.2}
    assert compared(Row("any", FOUR | rate, ONE | rate, ("any",)), tmp_path)


def test_what_is_withdrawn_is_not_read(report, tmp_path):
    for number in (1, 4):
        repeat(tmp_path / "any", 3, 0.4, tasks_per_step=number)
    repeat(tmp_path / "any", 2, 0.5)
    for loss in ("mean", "uw"):
        repeat(tmp_path / "any", 5, 0.5, loss=loss, epochs=3)
    report(folder="any")
    questions = {each["question"] for each in answer.read(tmp_path / "any")}
    assert questions == {"single-task", "tasks a step", "test"}


@pytest.mark.parametrize(
    ("usual", "said"),
    [
        (None, "+2.0 [+1.0, +4.0]*"),
        (Effect(1.04, 0.5, 2, True), "+2.0 [+1.0, +4.0]*"),
        (Effect(3, 0, 6, False), "+2.0 [+1.0, +4.0]*; usual +3.0"),
        (Effect(4.1, 3, 5, True), "+2.0 [+1.0, +4.0]*; usual +4.1*"),
        (Effect(-2, -3, -1, True), "+2.0 [+1.0, +4.0]*; usual -2.0*"),
    ],
)
def test_the_usual_test_is_named_where_it_disagrees(usual, said):
    effects = {"as trained": EFFECT} | ({"usual": usual} if usual else {})
    assert short(effects) == said
    assert disagree(effects) == ("usual" in said)


def test_an_effect_is_swapped_and_written_with_its_signs():
    assert EFFECT.swapped() == Effect(-2, -4, -1, True)
    assert Effect(0.04, -0.04, 1.25, False).written(1) == "0.0 [0.0, +1.2]"


@pytest.mark.parametrize("noise", [-1e-12, 0, 1e-12])
def test_a_half_is_rounded_alike_whatever_noise_a_sum_has_left(noise):
    assert Effect(0.35 + noise, -0.35 + noise, 1.25 + noise, True).written(1) == "+0.4 [-0.4, +1.2]*"
    accuracy = 0.9485 + noise
    mean = Estimate(accuracy, accuracy - 0.0035, accuracy + 0.0035, 0, 2, (3,), (0.001,), images=False)
    assert percent(mean, 1) == "94.8 ± 0.4"


def test_the_tables_hold_what_is_there_and_no_more(report, tmp_path, monkeypatch):
    repeat(tmp_path / "any", 3, 0.4, trained=0.5)
    repeat(tmp_path / "any", 3, 0.5, trained=0.6, tasks_per_step=4)
    report(folder="any")
    rows = (Row("four", FOUR, ONE, ("any",)), Row("single", FOUR, SINGLE, ("any",)))
    monkeypatch.setattr(answer, "FIRST_SCREEN", rows)
    monkeypatch.setattr(answer, "GROUPS", {"More tasks": rows})
    titles, _, four, single = answer.first_screen(tmp_path)
    assert titles == f"| choice | {MINE}, as trained |"
    assert four.startswith("| four | +10.0 [")
    assert single == "| single | |"
    titles, _, four, single = answer.table("More tasks", tmp_path)
    assert titles == f"| More tasks | {MINE}, as trained | {MINE}, as usual |"
    assert four.startswith("| four | +10.00 [")
    assert single == "| single | | |"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([{"usual": EFFECT}], ", as usual"),
        ([{"usual": EFFECT, "as trained": EFFECT}, {"both": EFFECT}], ", as trained"),
        ([{"usual": EFFECT}, {"as trained": EFFECT}], ", as trained or as usual"),
        ([{"both": EFFECT}], ""),
    ],
)
def test_a_data_set_is_called_by_its_name_and_by_the_tests_that_are_shown(found, said):
    others = [{"Omniglot": {"usual": EFFECT}}, {}]
    assert answer.titles([{MINE: each} for each in found] + others) == {
        MINE: MINE + said,
        "Omniglot": "Omniglot, as usual",
    }


def test_every_comparison_of_the_studies_stands_in_one_row():
    def either_way(study: str, test: str, effect: Effect) -> tuple:
        return study, test, max(effect, effect.swapped())

    shown = Counter(
        either_way(study, test, effect)
        for row in ROWS
        for study in row.studies
        for effects in compared(row._replace(studies=(study,))).values()
        for test, effect in effects.items()
    )
    studies = {study for row in ROWS for study in row.studies}
    assert shown == Counter(
        either_way(study, each["test"], answer.effect(each))
        for study in studies
        for each in answer.read(TOP / "results" / study)
    )
    assert max(shown.values()) == 1
    assert all(len({row.words for row in rows}) == len(rows) for rows in GROUPS.values())


@pytest.mark.parametrize("row", answer.FIRST_SCREEN, ids=lambda row: row.words)
def test_a_row_of_the_first_screen_is_one_of_the_answer_in_full(row):
    assert compared(row) in [compared(each) for each in ROWS]


def test_the_figure_shows_the_comparisons_and_is_the_same_each_time(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(answer, "FIRST_SCREEN", [Row("four", FOUR, ONE, ("any",))])
    sides = {"setting_a": 3, "setting_b": 3, "tasks_per_step_a": 4, "tasks_per_step_b": 1}
    sides |= {"letter_a": "A", "letter_b": "B", "validation_a": 0.0}
    what = {"question": "tasks a step", "measure": "mean_accuracy", "data_set": "CIFAR-100"}
    effect = {"difference": 2, "low": 1, "high": 3, "verdict": "higher"}
    images = {}
    for name, test, more in (
        ("first", "usual", {}),
        ("second", "usual", {}),
        ("other", "usual", {"high": 4}),
        ("inconclusive", "usual", {"verdict": "inconclusive"}),
        ("as trained", "as trained", {}),
    ):
        (tmp_path / name / "any").mkdir(parents=True)
        row = sides | what | effect | {"test": test} | more
        with open(tmp_path / name / "any" / "comparisons.csv", "w", newline="") as file:
            csv.writer(file).writerows([row.keys(), row.values()])
        answer.draw(tmp_path / "answer.png", tmp_path / name)
        images[name] = (tmp_path / "answer.png").read_bytes()
    assert images["first"] == images["second"]
    assert len({*images.values()}) == 4


@pytest.mark.parametrize(
    ("mean", "said"), [(20.04, "+20.0 [+19.0, +21.0]* →"), (-20, "← -20.0 [-21.0, -19.0]*")]
)
def test_a_difference_far_away_is_written_at_its_side_and_leaves_room_for_the_others(mean, said):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    far = Effect(mean, mean - 1, mean + 1, True)
    answer.draw_effects(axes, {"CIFAR-100": EFFECT, "Omniglot": far}, 0)
    assert [text.get_text() for text in axes.texts] == [said]
    assert max(map(abs, axes.get_xlim())) < 5
