"""The table of options.

Words of the command line, values in files, and what is compared of them.
"""

import json
from pathlib import Path

import pytest
from helpers import SMALL, error_line, one_line, write_data
from made_up import PAIR, Report, by_hand, numbers, options_of, write_way

from options import OPTIONS, POSITIVE, Option, read_options
from settings import SETTINGS

TRAIN = ("--train", "--setting", 0, "--data", 0, "--epochs", 1, *SMALL)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--save_path", ""), "empty path"),
        (("--save_path", "  "), "empty path"),
        (("--data_path", ""), "empty path"),
        (("--save_path", "~nobody-of-this-name/runs"), "~nobody-of-this-name"),
        (("--epochs", "٣"), "'٣' is not a whole number"),
        (("--epochs", "²"), "'²' is not a whole number"),
        (("--epochs", "1_0"), "'1_0' is not a whole number"),
        (("--lr", "1_0.5"), "'1_0.5' is not a positive"),
        (("--note", "a\x00b"), "cannot be printed"),
    ],
)
def test_a_word_that_only_looks_like_a_value_is_refused(program, options, says):
    refused = program(*TRAIN, *options)
    assert refused.code == 2
    assert says in refused.err
    assert one_line(refused)


def test_a_path_may_begin_with_the_home_directory(program, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert program(*TRAIN, "--save_path=~/runs", "--save_history").code == 0
    assert (tmp_path / "runs" / "history.json").is_file()


def test_an_evaluation_accepts_a_training_line_whatever_setting_scores(program, tmp_path):
    pytest.importorskip("torchjd")
    line = ("--data", 0, "--epochs", 1, *SMALL, "--loss", "uw", "--save_path", tmp_path)
    trained = program("--train", "--setting", 5, *line, "--save_model")
    assert trained.code == 0
    assert program("--eval", "--setting", 3, *line).accuracy == trained.accuracy
    refused = program("--train", "--setting", 3, *line)
    assert refused.code == 2
    assert "--loss uw combines the losses of all tasks" in refused.err
    assert "add --tasks_per_step all" in refused.err


@pytest.mark.parametrize(("setting", "option"), [(5, ("--loss", "uw")), (3, ("--tasks_per_step", 2))])
def test_a_training_of_one_task_refuses_what_would_change_nothing(program, tmp_path, setting, option):
    data = write_data(tmp_path / "own.npz", [16, 16], tasks=[[0, 1]])
    line = ("--setting", setting, "--data", data, "--batch_size", 8, "--epochs", 1)
    refused = program("--train", *line, *option)
    assert refused.code == 2
    assert option[0] in refused.err
    assert one_line(refused)
    assert program("--train", *line, "--save_model", "--save_path", tmp_path).code == 0
    assert program("--eval", *line, *option, "--save_path", tmp_path).code == 0


# Values in files

VALUES = (None, True, "", "x", -1, 0, 2.5, float("nan"), float("inf"), 10**400, [], {}, [[1]])


@pytest.mark.parametrize("setting", [0, 2, 4, 5])
def test_a_value_in_a_file_is_one_that_a_run_could_have_recorded(setting):
    options = options_of(setting, task=0 if setting == 2 else None, data=0)
    read_options(options, OPTIONS)
    for option in OPTIONS[1:]:
        for value in VALUES:
            try:
                read_options(options | {option.name: value}, OPTIONS)
            except ValueError as error:
                said = str(error)
            else:
                said = "accepted"
            if said != "accepted":
                assert f"options.{option.name}" in said
            elif value is None:
                some_settings = len(option.settings) < len(SETTINGS)  # in version 2.1 it may have been fewer
                assert some_settings or not option.goes_with(options) or option.default is None
                assert not (option.required and option.goes_with(options))
            elif option.read is None:
                assert isinstance(value, bool)
            else:
                assert option.goes_with(options)
                given = [option.read(str(word)) for word in (value if option.many else [value])]
                assert given == [type(each)(value) for each in given]


def test_an_option_that_this_program_does_not_know_is_not_passed_over():
    with pytest.raises(ValueError, match="'trim', which this program does not know"):
        read_options(options_of(3) | {"trim": 0.5}, OPTIONS)


# An option that is off by default, and notes

TRIM = (*OPTIONS, Option("trim", "how to train", "length", POSITIVE, None, metavar="L", decides="training"))


def trimmed(program, path: Path) -> Report:
    """Report with that option."""
    reported = program("--report", "--save_path", path, table=TRIM)
    assert reported.code == 0
    return Report(reported.out, path)


def test_an_option_that_is_off_by_default_must_agree_like_any_other(program, no_figure, tmp_path):
    write_way(tmp_path, 3, PAIR, trim=None)
    write_way(tmp_path, 4, PAIR, trim=0.5)
    printed = trimmed(program, tmp_path)
    assert printed.labels == ["3 uniform sampling", "4 weighted sampling, trim 0.5"]
    assert printed.compared() == []
    write_way(tmp_path, 4, PAIR, trim=None)
    assert trimmed(program, tmp_path).compared("draws") == [("4 weighted sampling", "3 uniform sampling")]


@pytest.mark.parametrize(
    ("values", "reference"), [((1.5, None, 0.5, 1.0), ""), ((1.5, 1.0, 0.5), "1.5")], ids=["default", "none"]
)
def test_an_option_of_ones_own_is_compared_with_its_default_or_what_most_have(
    program, no_figure, tmp_path, values, reference
):
    scores = {value: {seed: [s + (value or 0) / 10 for s in each] for seed, each in PAIR.items()}
              for value in values}  # fmt: skip
    for value in values:
        write_way(tmp_path, 3, scores[value], trim=value)
    fourth = {seed: [s + 0.2 for s in each] for seed, each in PAIR.items()}
    write_way(tmp_path, 4, fourth, trim=1.5)
    printed = trimmed(program, tmp_path)
    usual = None if reference == "" else float(reference)
    rows = {row["trim_a"]: row for row in printed.means("trim")}
    assert sorted(rows) == sorted(str(value) for value in values if value != usual)
    for value in values:
        if value != usual:
            row = rows[str(value)]
            assert row["trim_b"] == reference
            expected = by_hand([scores[value], scores[usual]], [*scores.values(), fourth])
            assert numbers(row) == pytest.approx(expected, abs=6e-5)
    said = "no trim" if usual is None else "1.5"
    assert f"trim 0.5 instead of {said}" in printed.out


def test_runs_of_different_notes_are_compared_even_if_their_code_differs(report, tmp_path):
    better = {seed: [score + 0.1 for score in scores] for seed, scores in PAIR.items()}
    write_way(tmp_path, 3, PAIR)
    write_way(tmp_path, 3, better, note="wider", codes=("edited",))
    printed = report()
    assert printed.compared() == [('3 uniform sampling, "wider", code edited', "3 uniform sampling")]
    (row,) = printed.rows()
    assert (row["question"], row["note_a"], row["note_b"]) == ("note", "wider", "")
    assert numbers(row) == pytest.approx(by_hand([better, PAIR], [better, PAIR]), abs=6e-5)
    assert float(row["difference"]) == pytest.approx(10)
    assert any(line.startswith('"wider" instead of no note') for line in printed.lines)


def test_a_note_is_compared_with_runs_of_its_own_code_if_there_are_any(report, tmp_path):
    for code, points in (("a", 0), ("b", 0.05)):
        write_way(
            tmp_path, 3, {seed: [s + points for s in scores] for seed, scores in PAIR.items()}, codes=(code,)
        )
    write_way(tmp_path, 3, PAIR, note="wider", codes=("b",))
    (row,) = report().means("note")
    assert (row["code_a"], row["code_b"]) == ("b", "b")
    assert float(row["difference"]) == pytest.approx(-5)


def test_each_note_is_compared_with_none_or_else_with_what_most_have(report, tmp_path):
    for number, note in enumerate(("wider", "deeper", "narrower")):
        write_way(tmp_path / "noted", 3, PAIR, note=note, codes=(f"edited{number}",))
    write_way(tmp_path / "noted", 4, PAIR, note="deeper")
    pairs = {(row["note_a"], row["note_b"]) for row in report(folder="noted").means("note")}
    assert pairs == {("wider", "deeper"), ("narrower", "deeper")}
    write_way(tmp_path / "noted", 3, PAIR)
    pairs = {(row["note_a"], row["note_b"]) for row in report(folder="noted").means("note")}
    assert pairs == {("wider", ""), ("deeper", ""), ("narrower", "")}


def test_runs_of_different_notes_are_not_compared_if_they_differ_in_an_option_too(report, tmp_path):
    write_way(tmp_path, 3, PAIR)
    write_way(tmp_path, 3, PAIR, note="wider", lr=0.2)
    assert report().compared() == []


def test_runs_of_one_note_and_different_code_are_not_compared(report, tmp_path):
    write_way(tmp_path, 3, PAIR, note="wider")
    write_way(tmp_path, 3, PAIR, note="wider", codes=("edited",))
    assert report().compared() == []


def test_a_note_is_recorded_and_insisted_on(program, tmp_path):
    line = (*TRAIN, "--resume", "--save_history", "--save_path", tmp_path)
    assert program(*line, "--note", "two  words ").code == 0
    assert json.loads((tmp_path / "history.json").read_text())["options"]["note"] == "two words"
    assert program(*line, "--note", "two words").code == 0
    assert "--note two words, not --note ''" in error_line(program(*line))
