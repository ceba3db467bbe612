"""Every number of a report against the same number worked out by hand from small histories."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reporting.statistics import t_quantile
from settings import DATA_SETS

NAMES = list(DATA_SETS[0].tasks)

# As format 1 has them; what later formats add is put on top.
OPTIONS = {
    "setting": 3,
    "data": 0,
    "task": None,
    "seed": 0,
    "epochs": 2,
    "batch_size": 128,
    "lr": 0.1,
    "image_size": 32,
    "weights": None,
    "synthetic": False,
    "version": "1.1.0",
}


def write(path: Path, accuracy: list[float], done: int | None = None, **options) -> None:
    """A history of format 1 whose last epoch has these accuracies; balanced ones are lower by 0.1."""
    options = OPTIONS | options
    names = {0: ["all classes"], 2: [list(DATA_SETS[options["data"]].tasks)[options["task"] or 0]]}
    epochs = options["epochs"] if done is None else done
    records = []
    for epoch in range(1, epochs + 1):
        now = accuracy if epoch == options["epochs"] else [0.5 * value for value in accuracy]
        balanced = [max(0, value - 0.1) for value in now]
        record = {"epoch": epoch, "accuracy": now, "balanced_accuracy": balanced, "loss": 1 / epoch}
        records.append(record | {"seconds": 1.0, "images_per_second": 1.0})
    tasks = names.get(options["setting"], list(DATA_SETS[options["data"]].tasks))
    path.mkdir(parents=True)
    (path / "history.json").write_text(json.dumps({"options": options, "tasks": tasks, "epochs": records}))


def write_2(
    path: Path, accuracy: list[float], codes: tuple = ("a",), title: str = "CIFAR-10", **options
) -> None:
    """The same in format 2.

    Args:
        codes: of the sittings.
        title: of the data set; it has CIFAR-10's tasks.
    """
    write(path, accuracy, **{"validation": 0.0} | options)
    history = json.loads((path / "history.json").read_text())
    history |= {
        "format": 2,
        "data_set": {
            "title": title,
            "scored_on": "validation" if history["options"]["validation"] else "test",
            "tasks": NAMES,
        },
        "sittings": [{"epoch": 0, "step": 0, "environment": {}, "code": code} for code in codes],
        "constant_accuracy": [0.9] * len(history["tasks"]),
        "num_answers": [2] * len(history["tasks"]),
        "parameters": {"encoder": 10, "heads": 20},
        "finished": True,
    }
    (path / "history.json").write_text(json.dumps(history))


def write_baseline(path: Path, seeds: dict[int, list[float]], missing: tuple = (), **options) -> None:
    for seed, accuracy in seeds.items():
        for task, value in enumerate(accuracy):
            if (seed, task) not in missing:
                write(path / f"single-{seed}-{task}", [value], setting=2, task=task, seed=seed, **options)


def cells(out: str, label: str) -> list[str]:
    """The columns of a group's line in the table."""
    (line,) = (line for line in out.splitlines() if re.match(rf"{label}  ", line))
    return re.split(r" {2,}", line)


def ten(start: float, step: float) -> list[float]:
    return [round(start + step * task, 4) for task in range(10)]


def test_every_column_is_what_a_hand_works_out(run, tmp_path):
    first, second = ten(0.5, 0.02), ten(0.52, 0.03)
    write(tmp_path / "a", first, seed=0)
    write(tmp_path / "deep" / "er" / "b", second, seed=1)
    base = {0: ten(0.4, 0.02), 1: ten(0.5, 0.01)}
    write_baseline(tmp_path / "base", base)
    reported = run("--report", "--save_path", tmp_path)
    assert reported.code == 0
    _, runs, accuracy, balanced, worst, best, delta = cells(reported.out, "3 uniform draws")

    means = [np.mean(first), np.mean(second)]  # 0.59 and 0.655
    assert runs == "2"
    assert accuracy == f"{0.6225:.4f} ± {abs(means[0] - means[1]) / np.sqrt(2):.4f}"
    assert balanced == f"{0.5225:.4f}"
    assert worst == f"airplane {(0.5 + 0.52) / 2:.3f}"
    assert best == f"truck {(0.68 + 0.79) / 2:.3f}"
    single = [(a + b) / 2 for a, b in zip(*base.values(), strict=True)]
    changes = [
        sum(100 * (got - alone) / alone for got, alone in zip(accuracies, single, strict=True)) / 10
        for accuracies in (first, second)
    ]
    mean, half = sum(changes) / 2, 12.706 * abs(changes[0] - changes[1]) / 2
    got = [float(number) for number in re.findall(r"[+-]\d+\.\d+", delta)]
    assert got == pytest.approx([mean, mean - half, mean + half], abs=0.03)

    _, runs, accuracy, *_, delta = cells(reported.out, "2 single task")
    assert runs == "20"
    assert accuracy == f"{(0.49 + 0.545) / 2:.4f} ± {0.055 / np.sqrt(2):.4f}"
    assert delta == "0 by definition"
    assert "scores 0.9000" in reported.out
    assert reported.out.splitlines()[0] == "CIFAR-10: 10 tasks"


def test_gains_and_losses_are_counted_and_listed_if_asked_for(run, tmp_path):
    accuracy = [0.6] * 3 + [0.5] * 2 + [0.4] * 5
    write(tmp_path / "a", accuracy)
    write_baseline(tmp_path, {0: [0.5] * 10})
    reported = run("--report", "--save_path", tmp_path)
    assert "3 uniform draws: 3 of 10 tasks gain and 5 lose" in reported.out
    assert "airplane +20.00 %" not in reported.out
    listed = run("--report", "--save_path", tmp_path, "--verbose").out
    for name, change in zip(NAMES, [20] * 3 + [0] * 2 + [-20] * 5, strict=True):
        assert f"    {name} {change:+.2f} %" in listed.splitlines()


def test_one_seed_has_no_spread_and_no_interval(run, tmp_path):
    write(tmp_path / "a", [0.6] * 10)
    write_baseline(tmp_path, {0: [0.5] * 10})
    reported = run("--report", "--save_path", tmp_path)
    _, _, accuracy, *_, delta = cells(reported.out, "3 uniform draws")
    assert accuracy == "0.6000 ± -"
    assert delta == "+20.00 [-]"
    assert "single seed" in reported.out


def test_a_baseline_without_one_task_gives_no_change_and_says_so(run, tmp_path):
    write(tmp_path / "a", [0.6] * 10)
    write_baseline(tmp_path, {0: [0.5] * 10}, missing=((0, 4),))
    reported = run("--report", "--save_path", tmp_path)
    assert cells(reported.out, "3 uniform draws")[-1] == "-"
    assert cells(reported.out, "2 single task")[-1] == "-"
    assert "seed 0 lacks 1 of 10 tasks" in reported.out
    assert "gain" not in reported.out


def test_a_seed_that_lacks_a_task_is_left_out_of_the_means_and_of_the_baseline(run, tmp_path):
    write(tmp_path / "a", [0.6] * 10)
    write_baseline(tmp_path, {0: [0.5] * 10, 1: [0.4] * 10}, missing=((1, 4),))
    reported = run("--report", "--save_path", tmp_path)
    assert cells(reported.out, "3 uniform draws")[-1] == "+20.00 [-]"
    assert cells(reported.out, "2 single task")[1:3] == ["10", "0.5000 ± -"]
    assert "seed 1 lacks 1 of 10 tasks and is left out of the means" in reported.out


def test_without_a_baseline_there_is_no_change(run, tmp_path):
    write(tmp_path / "a", [0.6] * 10)
    assert cells(run("--report", "--save_path", tmp_path).out, "3 uniform draws")[-1] == "-"


def test_runs_with_other_numbers_of_epochs_are_groups_of_their_own(run, tmp_path):
    write(tmp_path / "a", [0.6] * 10, epochs=2)
    write(tmp_path / "b", [0.7] * 10, epochs=3)
    write_baseline(tmp_path, {0: [0.5] * 10}, epochs=3)
    reported = run("--report", "--save_path", tmp_path)
    assert cells(reported.out, "3 uniform draws, epochs 2")[1:3] == ["1", "0.6000 ± -"]
    assert cells(reported.out, "3 uniform draws, epochs 2")[-1] == "-"
    assert cells(reported.out, "3 uniform draws, epochs 3")[-1] == "+40.00 [-]"


def test_groups_are_told_apart_by_what_differs(run, tmp_path):
    for i, options in enumerate([{}, {"lr": 0.2}, {"setting": 4, "weights": [1] * 10}]):
        write(tmp_path / str(i), [0.6] * 10, **options)
    write(tmp_path / "more", [0.6] * 10, setting=4, weights=list(range(10)))
    out = run("--report", "--save_path", tmp_path).out
    labels = [line.split("  ")[0] for line in out.splitlines() if re.match(r"\d \w+ draws.*±", line)]
    assert labels == [
        "3 uniform draws, lr 0.1",
        "3 uniform draws, lr 0.2",
        "4 weighted draws, lr 0.1, weights 1",
        "4 weighted draws, lr 0.1, weights 2",
    ]
    explained = {" ".join(f"{i / 45:.4g}" for i in range(10)), " ".join(["0.1"] * 10)}
    assert set(re.findall(r"^weights [12] of setting 4: (.+)$", out, re.MULTILINE)) == explained


def test_runs_in_another_precision_are_a_group_of_their_own(run, tmp_path):
    write(tmp_path / "older", [0.5] * 10)  # of a version that had fp32 only
    write(tmp_path / "fp32", [0.7] * 10, seed=1, precision="fp32")
    write(tmp_path / "bf16", [0.8] * 10, precision="bf16")
    out = run("--report", "--save_path", tmp_path).out
    assert cells(out, "3 uniform draws, precision fp32")[1:3] == ["2", f"0.6000 ± {0.1 * 2**0.5:.4f}"]
    assert cells(out, "3 uniform draws, precision bf16")[1:3] == ["1", "0.8000 ± -"]


def test_runs_of_different_code_are_groups_of_their_own_and_no_baseline_of_each_other(run, tmp_path):
    write_2(tmp_path / "0", [0.5] * 10, seed=0)
    write_2(tmp_path / "1", [0.7] * 10, seed=1)
    write_2(tmp_path / "2", [0.9] * 10, seed=2, codes=("a", "b"))  # resumed under other code
    write_2(tmp_path / "3", [0.8] * 10, seed=3, codes=("b",))
    write_2(tmp_path / "4", [0.6] * 10, seed=4, codes=("a", "a"))  # resumed under the same
    for task in range(10):
        write_2(tmp_path / "single" / str(task), [0.5], setting=2, task=task, codes=("b",))
    out = run("--report", "--save_path", tmp_path).out
    assert cells(out, "3 uniform draws, code a")[1:3] == ["3", "0.6000 ± 0.1000"]
    assert cells(out, "3 uniform draws, code a b")[1:3] == ["1", "0.9000 ± -"]
    assert cells(out, "3 uniform draws, code a")[-1] == "-"
    assert cells(out, "3 uniform draws, code b")[-1] == "+60.00 [-]"


def test_runs_of_format_1_and_2_are_read_side_by_side(run, tmp_path):
    write(tmp_path / "old", [0.5] * 10)
    write_2(tmp_path / "new", [0.6] * 10)
    out = run("--report", "--save_path", tmp_path).out
    assert cells(out, "3 uniform draws, code version 1.1.0")[1:3] == ["1", "0.5000 ± -"]
    assert cells(out, "3 uniform draws, code a")[1:3] == ["1", "0.6000 ± -"]


def test_validation_results_stand_apart_from_test_results(run, tmp_path):
    write_2(tmp_path / "a", [0.6] * 10)
    write_2(tmp_path / "b", [0.7] * 10, seed=1, validation=0.1)
    out = run("--report", "--save_path", tmp_path).out
    test, validation = out.split("CIFAR-10, scored on validation images: 10 tasks")
    assert "0.6000" in test
    assert "0.7000" not in test
    assert "0.7000" in validation.split("accuracy: mean over tasks")[0]


def test_a_baseline_of_another_recipe_is_none(run, tmp_path):
    write_2(tmp_path / "a", [0.6] * 10, momentum=0.9)
    write_2(tmp_path / "b", [0.6] * 10, setting=5, loss="mean")
    for task in range(10):
        write_2(tmp_path / "single" / str(task), [0.5], setting=2, task=task)
    out = run("--report", "--save_path", tmp_path).out
    assert cells(out, "3 uniform draws, momentum 0.9")[-1] == "-"
    assert (
        cells(out, "5 summed losses, momentum 0.0")[-1] == "+20.00 [-]"
    )  # a loss does not go with setting 2


def test_a_run_that_has_not_come_to_its_end_is_left_out(run, tmp_path):
    for name, change in (("a", {}), ("b", {"finished": False})):
        write_2(tmp_path / name, [0.6] * 10)
        path = tmp_path / name / "history.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    reported = run("--report", "--save_path", tmp_path).out
    assert f"left out: {tmp_path / 'b' / 'history.json'}: unfinished" in reported


@pytest.mark.parametrize(
    "change",
    [
        {"format": 3}, {"format": "2"}, {"sittings": [{}]}, {"data_set": {}}, {"constant_accuracy": [0.9]},
        {"num_answers": [0] * 10}, {"parameters": {"encoder": -1}}, {"finished": 1}, {"tasks": NAMES[1:]},
        {"tasks": ["nobody", *NAMES[1:]]},
        {"options": OPTIONS | {"data": 7, "validation": 0.0}}, {"options": OPTIONS | {"setting": 9}},
    ],
    ids=str,
)  # fmt: skip
def test_a_history_with_a_wrong_entry_is_left_out(run, tmp_path, change):
    for name in "ab":
        write_2(tmp_path / name, [0.6] * 10)
    path = tmp_path / "b" / "history.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    reported = run("--report", "--save_path", tmp_path)
    assert reported.code == 0
    assert f"left out: {path}: " in reported.out
    assert cells(reported.out, "3 uniform draws")[1] == "1"


def test_weights_that_say_the_same_are_one_group(run, tmp_path):
    for seed, weights in enumerate(([1] * 10, [1.0] * 10, [2.5] * 10)):
        write(tmp_path / str(seed), [0.6] * 10, setting=4, weights=weights, seed=seed)
    assert cells(run("--report", "--save_path", tmp_path).out, "4 weighted draws")[1] == "3"


@pytest.mark.parametrize(("gap", "verdict"), [(0.2, "larger than"), (0.01, "within")])
def test_the_statement_names_the_best_the_difference_and_the_spread(run, tmp_path, gap, verdict):
    for seed, offset in enumerate((-0.02, 0.02)):
        write(tmp_path / f"a{seed}", [0.5 + offset] * 10, seed=seed)
        write(tmp_path / f"b{seed}", [0.5 + gap + offset] * 10, seed=seed, setting=5)
        write(tmp_path / f"c{seed}", [0.99], seed=seed, setting=0)  # all classes: no rival
    (line,) = (x for x in run("--report", "--save_path", tmp_path).out.splitlines() if x.startswith("Best"))
    assert line == (
        f"Best: 5 summed losses, with a mean accuracy over tasks of {0.5 + gap:.4f}, {gap:.4f} above the "
        f"next, 3 uniform draws. That is {verdict} the spread between seeds (standard deviation 0.0283)."
    )


def test_what_is_left_out_is_said_with_its_reason(run, tmp_path):
    write(tmp_path / "good", [0.6] * 10)
    write(tmp_path / "unfinished", [0.9] * 10, seed=1, done=1)
    write(tmp_path / "generated", [0.9] * 10, seed=2, synthetic=True)
    write(tmp_path / "twice", [0.9] * 10)
    for name, content in (
        ("empty", ""),
        ("text", "no json"),
        ("list", "[]"),
        ("other", '{"options": {}}'),
        ("deep", "[" * 100_000),
        ("half", json.dumps({"options": OPTIONS | {"setting": 2.5}, "tasks": NAMES, "epochs": []})),
        ("none", json.dumps({"options": OPTIONS | {"epochs": 0}, "tasks": NAMES, "epochs": []})),
        ("unweighted", json.dumps({"options": OPTIONS | {"setting": 4}, "tasks": NAMES, "epochs": []})),
        ("loss", (tmp_path / "good" / "history.json").read_text().replace('"loss"', '"lost"')),
        ("short", (tmp_path / "good" / "history.json").read_text().replace("0.6, ", "", 1)),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "history.json").write_text(content)
    reported = run("--report", "--save_path", tmp_path)
    assert reported.code == 0
    assert cells(reported.out, "3 uniform draws")[1:3] == ["1", "0.6000 ± -"]
    left_out = {
        Path(path).parent.name: why
        for path, why in re.findall(r"^left out: (.+?): (.+)$", reported.out, re.MULTILINE)
    }
    assert "1 of 2 epochs" in left_out.pop("unfinished")
    assert "generated" in left_out.pop("generated")
    assert "same options and seed" in left_out.pop("twice")
    assert len(left_out) == 10
    assert set(left_out.values()) == {"is not a history of this program"}


def test_generated_images_alone_are_reported_as_such(run, tmp_path):
    write(tmp_path / "a", [0.6] * 10, synthetic=True)
    out = run("--report", "--save_path", tmp_path).out
    assert out.startswith("synthetic stand-in for CIFAR-10")


def test_data_sets_are_compared_each_for_itself(run, tmp_path):
    write(tmp_path / "a", [0.6] * 10)
    write(tmp_path / "b", [0.7] * 20, data=1)
    out = run("--report", "--save_path", tmp_path).out
    assert (
        out.index("CIFAR-10: 10 tasks")
        < out.index("0.6000")
        < out.index("CIFAR-100: 20 tasks")
        < out.index("0.7000")
    )
    assert "scores 0.2000" in out


@pytest.mark.parametrize("content", [None, "broken"])
def test_nothing_to_report_is_one_line(run, tmp_path, content):
    if content:
        (tmp_path / "history.json").write_text(content)
    refused = run("--report", "--save_path", tmp_path)
    assert refused.code == 1
    assert refused.err.count("\n") == 1
    assert refused.err.startswith("main.py: error: ")
    assert not (tmp_path / "report.csv").exists()


def test_the_rows_hold_every_run_and_task_with_every_option(run, tmp_path):
    write(tmp_path / "a", ten(0.5, 0.02), seed=3)
    write(tmp_path / "b", [0.25], setting=2, task=6, weights=None)
    run("--report", "--save_path", tmp_path)
    with open(tmp_path / "report.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 11
    for row, name, accuracy in zip(rows, NAMES, ten(0.5, 0.02), strict=False):
        assert (row["task"], float(row["accuracy"])) == (name, accuracy)
        assert float(row["balanced_accuracy"]) == pytest.approx(accuracy - 0.1)
        assert {key: row[key] for key in ("data_set", "setting", "seed", "lr")} == {
            "data_set": "CIFAR-10", "setting": "3", "seed": "3", "lr": "0.1"
        }  # fmt: skip
    assert (rows[-1]["task"], rows[-1]["task_option"], rows[-1]["accuracy"]) == ("frog", "6", "0.25")
    assert OPTIONS.keys() - {"task"} <= rows[0].keys()


def test_the_figure_is_drawn_with_and_without_a_baseline(run, tmp_path):
    pytest.importorskip("matplotlib")
    for seed in (0, 1):
        write(tmp_path / f"a{seed}", ten(0.5, 0.02), seed=seed)
    write(tmp_path / "b", [0.7] * 20, data=1)
    write_baseline(tmp_path, {0: [0.5] * 10})
    reported = run("--report", "--save_path", tmp_path)
    assert reported.code == 0
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path / "report.png") in reported.err


def test_names_that_cannot_be_printed_or_written_do_not_end_the_report(tmp_path):
    write(tmp_path / os.fsdecode(b"\xff"), [0.6] * 10)
    command = [sys.executable, "main.py", "--report", "--save_path", tmp_path]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "MPLBACKEND": "none such"}
    finished = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "0.6000" in finished.stdout
    assert (tmp_path / "report.csv").read_text().count("CIFAR-10,") == 10


def test_without_matplotlib_the_table_is_printed_and_a_line_says_what_to_install(tmp_path):
    write(tmp_path / "a", [0.6] * 10)
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        f"import main; sys.exit(main.main(['--report', '--save_path', {str(tmp_path)!r}]))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "0.6000" in finished.stdout
    assert "pip install matplotlib" in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert not (tmp_path / "report.png").exists()


def test_a_report_does_not_wait_for_torch(tmp_path):
    write(tmp_path / "a", [0.6] * 10)
    code = f"import sys, main; main.main(['--report', '--save_path', {str(tmp_path)!r}])\n"
    code += "print('torch' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("freedom", "published"),
    [
        (1, 12.706),
        (2, 4.303),
        (3, 3.182),
        (4, 2.776),
        (5, 2.571),
        (9, 2.262),
        (10, 2.228),
        (30, 2.042),
        (1000, 1.962),
    ],
)
def test_the_quantiles_of_the_t_distribution_are_the_published_ones(freedom, published):
    assert t_quantile(freedom) == pytest.approx(published, abs=0.0006)
