"""The published studies: their reports, and the answer in the README, are what their histories say."""

import csv
import re
import shutil
from pathlib import Path

import pytest
from helpers import TOP

from benchmarks import differences
from main import main

STUDIES = sorted(path.parent for path in (TOP / "results").glob("*/report.txt"))


def answer() -> str:
    """The section of the README that answers the question."""
    return (TOP / "README.md").read_text().partition("## The answer\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_the_report_of_a_study_is_written_again_from_its_histories(study, tmp_path, monkeypatch, capsys):
    copy = Path("results") / study.name  # as in the command that README gives
    for history in study.rglob("history.json"):
        (tmp_path / copy / history.relative_to(study)).parent.mkdir(parents=True)
        shutil.copy(history, tmp_path / copy / history.relative_to(study))
    monkeypatch.chdir(tmp_path)
    assert main(["--report", "--save_path", str(copy)]) == 0
    assert capsys.readouterr().out == (study / "report.txt").read_text()
    for name in ("report.txt", "report.csv", "comparisons.csv"):
        assert (copy / name).read_bytes() == (study / name).read_bytes(), name


def test_every_interval_of_the_answer_is_that_of_a_comparison():
    compared = set()
    for path in (TOP / "results").rglob("comparisons.csv"):
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                if row["measure"] != "accuracy":  # of the mean over tasks, which the answer is about
                    continue
                numbers = [float(row[name]) for name in ("difference", "low", "high") if row[name]]
                for sign in (1, -1):  # whichever side comes first
                    mean, *ends = [sign * number for number in numbers]
                    compared.add(tuple(f"{number:.1f}" for number in (mean, *sorted(ends))))
    said = re.findall(r"(-?\d+\.\d) \[(-?\d+\.\d), (-?\d+\.\d)\]", answer())
    assert said
    assert not set(said) - compared


def test_every_accuracy_of_the_answer_is_in_a_report():
    reported = "".join((study / "report.txt").read_text() for study in STUDIES)
    said = set(re.findall(r"\b0\.\d{4}\b", answer()))
    assert said
    assert said <= set(re.findall(r"\b0\.\d{4}\b", reported))


def test_the_effect_of_every_difference_from_the_original_is_what_its_runs_say(tmp_path, no_network, capsys):
    section = (TOP / "README.md").read_text().partition("\n## Where the experiments are from\n")[2]
    number = r"(-?\d+\.\d+)"
    said = re.findall(
        rf"{number} \[{number}, {number}\][^`]*`python benchmarks/differences.py (\w+) (--epochs \d+) ",
        section,
    )
    assert {name for *_, name, _ in said} == set(differences.DIFFERENCES)
    runs = shutil.copytree(TOP / "results" / "differences", tmp_path / "runs")
    for *effect, name, epochs in said:  # without a network nothing can be trained, only printed again
        differences.measure(name, [*epochs.split(), "--data_path", str(tmp_path / "none")], runs)
        printed = re.search(r"scores (\S+) \[(\S+), (\S+)\]", capsys.readouterr().out).groups()
        assert effect == [
            f"{float(value):.{len(shown.partition('.')[2])}f}"
            for value, shown in zip(printed, effect, strict=True)
        ]
