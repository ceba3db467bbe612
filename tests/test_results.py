"""The published studies: reports and answers match the histories.

The answers are those in README and docs.
"""

import csv
import json
import re
import shutil
from collections.abc import Iterable
from math import isnan
from statistics import fmean

import pytest
from helpers import TOP

from benchmarks import differences
from main import main
from results import answer

STUDIES = sorted(path.parent for path in (TOP / "results").rglob("report.md"))
README = (TOP / "README.md").read_text()
BEFORE_SET_UP = README.partition("\n## Set up\n")[0]
ANSWER, DIFFERENCES, CHANGES = re.split(
    r"\n## (?:Where the experiments are from|What was withdrawn, and what became of it)\n",
    (TOP / "docs/answer.md").read_text(),
)

AMOUNTS = {"k1": "one task a step", "k4": "four tasks a step", "kall": "all tasks a step"}
REPEATED = {
    "3-seed0": f"batches of 128, {AMOUNTS['k1']}, together",
    "3-k4-seed0": f"batches of 128, {AMOUNTS['k4']}, together",
}
MIXED = {
    f"{way}-{amount}-seed0": f"batches of 120, {words}, {'by group' if way == 'group' else way}"
    for way in ("together", "apart", "group")
    for amount, words in AMOUNTS.items()
    if (way, amount) != ("apart", "k1")
}
"""The runs in both precisions, and what docs/answer.md calls them."""


@pytest.mark.released
@pytest.mark.parametrize("study", STUDIES, ids=lambda study: str(study.relative_to(TOP / "results")))
def test_the_report_of_a_study_is_written_again_from_its_histories(study, no_figure, tmp_path, monkeypatch):
    copy = study.relative_to(TOP)  # as in the command that docs/answer.md gives
    for history in study.rglob("history.json"):
        (tmp_path / copy / history.relative_to(study)).parent.mkdir(parents=True)
        shutil.copy(history, tmp_path / copy / history.relative_to(study))
    monkeypatch.chdir(tmp_path)
    assert main(["--report", "--save_path", str(copy)]) == 0
    for name in ("report.md", "report.csv", "comparisons.csv"):
        assert (copy / name).read_bytes() == (study / name).read_bytes(), name


def test_a_difference_is_rounded_alike_in_a_report_and_in_the_answer():
    compared = 0
    for study in STUDIES:
        reported = (study / "report.md").read_text().replace("\\", "")
        effects = [effect for effect in map(answer.effect, answer.read(study)) if not isnan(effect.low)]
        assert not [each for each in effects if each.written(2).rstrip("*") not in reported], study
        compared += len(effects)
    assert compared > 50


def tables(text: str) -> set[str]:
    """The tables of a page that have intervals."""
    found = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    return {each for each in found if re.search(r"\d \[", each)}


def printed(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def test_the_table_of_the_readme_is_the_one_that_is_printed():
    assert tables(BEFORE_SET_UP) == {printed(answer.first_screen())}


def test_the_readme_says_differences_and_accuracies_in_its_table_alone():
    text = [line for line in BEFORE_SET_UP.splitlines() if not line.startswith("|")]
    assert not re.findall(r"\d\.\d", "\n".join(text))


def test_the_answer_in_the_readme_is_short():
    lines = [line for line in BEFORE_SET_UP.splitlines() if not line.startswith("![")]
    assert len(re.findall(r"\d+(?:[.,]\d+)*", "\n".join(lines))) <= 110
    assert len(" ".join(line for line in lines if not line.startswith("|")).split()) <= 250
    assert len(BEFORE_SET_UP.partition("\n## The answer\n")[2].strip().splitlines()) <= 30
    assert len(README.splitlines()) <= 150


def test_no_line_of_code_or_output_in_the_readme_is_longer_than_100_columns():
    blocks = re.findall(r"^```\w*\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    assert blocks
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 100


def test_the_tables_of_the_answer_in_full_are_those_that_are_printed():
    *groups, first = (printed(answer.table(heading)) for heading in answer.GROUPS)
    assert tables(ANSWER) == {*groups}
    assert first in tables(CHANGES)
    effects = re.findall(r"\d\](\*?)", "".join(groups))
    said = f"Of {len(effects)} differences {effects.count('*')} are conclusive"
    assert said in " ".join(ANSWER.split())


def test_every_interval_of_the_answer_in_full_is_that_of_a_comparison():
    compared = set()
    for path in (TOP / "results").rglob("comparisons.csv"):
        for effect in map(answer.effect, answer.read(path.parent)):
            compared |= {effect.written(2), effect.swapped().written(2)}  # whichever side comes first
    for page in (ANSWER, CHANGES):
        said = re.findall(r"[+-]?\d+\.\d+ \[.*?\]\*?", page)
        assert said
        assert set(said) <= compared


def rows_of(study: str) -> list[dict[str, str]]:
    """The rows of a study's report.csv, one per run and task."""
    with open(TOP / "results" / study / "report.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_baselines_of_few_steps_carry_what_the_answer_says():
    gains: dict[int, float] = {}
    for row in rows_of("omniglot"):
        if row["setting"] == "2":
            gain = float(row["as_trained_accuracy"]) - float(row["accuracy"])
            gains[int(row["steps"])] = gains.get(int(row["steps"]), 0) + 100 * gain / (50 * 3)
    said = (
        "The ten alphabets with 20 or 40 steps carry {:.1f} of the baselines' {:.2f} points, "
        "the two with 20 steps alone {:.1f}."
    )
    assert said.format(gains[20] + gains[40], sum(gains.values()), gains[20]) in " ".join(ANSWER.split())


def test_the_runs_that_were_repeated_in_the_other_precision_are_those_of_their_study():
    copies = {f"{run}-bf16": f"mixing/{run}" for run in MIXED} | {run: f"cifar100/{run}" for run in REPEATED}
    for copy, original in copies.items():
        here, there = (TOP / "results" / run / "history.json" for run in (f"precision/{copy}", original))
        assert here.read_bytes() == there.read_bytes()
    repeated = {f"{run}{precision}" for run in {*MIXED, *REPEATED} for precision in ("", "-bf16")}
    assert {path.parent.name for path in (TOP / "results/precision").rglob("history.json")} == repeated


def test_the_runs_in_both_precisions_score_as_the_answer_says():
    for run, words in (REPEATED | MIXED).items():
        cells = ["", "", "", ""]
        for place, precision in enumerate(("", "-bf16")):
            rows = [row for row in rows_of("precision") if f"/{run}{precision}/" in row["history"]]
            for test, accuracy in enumerate(("accuracy", "as_trained_accuracy")):
                if all(row[accuracy] for row in rows):
                    cells[2 * test + place] = f"{fmean(float(row[accuracy]) for row in rows):.4f}"
        assert f"| {words} | {' | '.join(cells)} |\n".replace("  ", " ") in ANSWER


def test_every_accuracy_of_the_answer_in_full_is_in_a_report():
    reported = "".join((study / "report.md").read_text() for study in STUDIES)
    said = set(re.findall(r"\b0\.\d{4}\b", ANSWER))
    assert said
    shown = set(re.findall(r"\b\d+\.\d\d\b", reported))
    assert {f"{100 * float(accuracy):.2f}" for accuracy in said} <= shown


def test_the_tuned_runs_have_the_rates_that_scored_highest_on_held_out_images():
    held_out: dict[tuple[str, str, float], list[tuple[float, float]]] = {}
    tested: dict[tuple[str, str], set[float]] = {}
    for row in rows_of("tuned"):
        way, rate = (row["setting"], row["tasks_per_step"]), float(row["lr"])
        if row["scored_on"] == "validation":
            scores = float(row["accuracy"]), float(row["as_trained_accuracy"])
            held_out.setdefault((*way, rate), []).append(scores)
        else:
            tested.setdefault(way, set()).add(rate)
    means = {key: tuple(map(fmean, zip(*scores, strict=True))) for key, scores in held_out.items()}
    heading = re.search(r"^\| on held-out images.*", ANSWER, flags=re.MULTILINE).group()
    rates = [float(rate) for rate in re.findall(r"[\d.]+", heading)]
    for words, *way in (
        ("plain classifier", "1", ""),
        ("single-task baselines", "2", ""),
        ("one task a step", "3", "1"),
        ("four tasks a step", "3", "4"),
    ):
        tried = {rate: means[key] for rate in rates if (key := (*way, rate)) in means}
        best = {max(tried, key=lambda rate: tried[rate][test]) for test in (0, 1)}
        assert tested[tuple(way)] == best
        assert len(best) == 1
        cells = [", ".join(f"{score:.4f}" for score in tried.get(rate, ())) for rate in rates]
        written = [f"**{cell}**" if rate in best else cell for rate, cell in zip(rates, cells, strict=True)]
        assert f"| {words} | {' | '.join(written)} |\n".replace("|  |", "| |") in ANSWER
    assert {(*way, rate) for way in tested for rate in rates} >= {*means}


def test_rates_for_each_task_would_have_gained_the_baselines_what_the_answer_says():
    def gain(accuracy: str) -> float:
        """Points that a rate for each task gains over one for all, on the images that choose it."""
        scores: dict[str, dict[str, float]] = {}
        for row in rows_of("tuned"):
            if row["setting"] == "2" and row["scored_on"] == "validation":
                scores.setdefault(row["task"], {})[row["lr"]] = float(row[accuracy])
        return 100 * fmean(max(by_rate.values()) - by_rate["0.1"] for by_rate in scores.values())

    said = "such rates would have gained {:.1f} points as usual and {:.1f} as trained"
    assert said.format(gain("accuracy"), gain("as_trained_accuracy")) in " ".join(ANSWER.split())


def test_the_networks_have_as_many_parameters_as_the_answer_says():
    def sizes(run: str) -> tuple[float, float]:
        """Millions of parameters of a run's encoder, and of all its heads."""
        counts = json.loads((TOP / "results" / run / "history.json").read_text())["parameters"]
        return counts["encoder"] / 1e6, counts["heads"] / 1e6

    multi = [sizes(f"{run}-seed0") for run in ("cifar100/3", "omniglot/3", "first/cifar10/5")]
    plain = [sizes(f"{study}/1-seed0") for study in ("cifar100", "omniglot", "first/cifar10")]
    assert [encoder for encoder, _ in plain] == [encoder for encoder, _ in multi]
    for words, numbers in (
        ("encoder", [encoder for encoder, _ in multi]),
        ("plain classifier", map(sum, plain)),
        ("network with a head per task", map(sum, multi)),
    ):
        assert f"| {words} | " + " | ".join(f"{number:.2f}" for number in numbers) + " |\n" in ANSWER
    encoder, heads = sizes("sharing/3-seed0")
    assert sizes("sharing/1-seed0") == (encoder, heads)
    text = " ".join(ANSWER.split())
    assert f"encoder has {encoder:.2f} million parameters, the heads {heads:.2f} million" in text
    of_heads = [100 * heads / (encoder + heads) for encoder, heads in multi]
    said = "The heads hold {:.1f} % of the parameters of a CIFAR-100 network and {:.1f} % of Omniglot's"
    assert said.format(*of_heads) in text
    shared = 100 * encoder / (encoder + heads), 100 - of_heads[0]
    assert "whether {:.1f} % of its parameters are shared or {:.1f} %".format(*shared) in text


def test_the_effect_of_every_difference_from_the_original_is_what_its_runs_say(tmp_path, no_network, capsys):
    number = r"([+-]?\d+\.\d+)"
    said = re.findall(
        rf"{number} \[{number}, {number}\][^`]*`python benchmarks/differences.py (\w+) (--epochs \d+) ",
        DIFFERENCES,
    )
    assert {name for *_, name, _ in said} == set(differences.DIFFERENCES)
    runs = shutil.copytree(TOP / "results" / "differences", tmp_path / "runs")
    for *effect, name, epochs in said:  # without a network nothing can be trained, only printed again
        differences.measure(name, [*epochs.split(), "--data_path", str(tmp_path / "none")], runs)
        printed = re.search(r"scores (\S+) \[(\S+), (\S+)\]", capsys.readouterr().out).groups()
        assert effect == [
            f"{float(value):+.{len(shown.partition('.')[2])}f}"
            for value, shown in zip(printed, effect, strict=True)
        ]


def test_the_screen_in_the_docs_is_the_one_that_is_printed(no_figure, tmp_path, capsys):
    shutil.copytree(TOP / "results" / "cifar100", tmp_path / "runs")
    assert main(["--report", "--save_path", str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr().out.partition("\nIn ")[0]
    assert f"```\n{printed}```\n" in (TOP / "docs/report.md").read_text()
    assert len(printed.splitlines()) <= 60
    assert max(map(len, printed.splitlines())) <= 100
