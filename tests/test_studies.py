"""Studies: lists of runs, read and refused; what a failing, a stopped and a finished run lead to."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers import TOP, result_of, write_data

from main import main
from studies import study

LISTS = sorted((TOP / "studies").glob("*.txt"))


def start(path: Path, *words: str) -> subprocess.Popen:
    """studies/run.sh on a list, saving beside it."""
    command = [TOP / "studies" / "run.sh", path, *words, "--save_path", path.parent / "study"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def options(tmp_path):
    """Of a small run."""
    data = write_data(tmp_path / "own.npz", [16, 16])
    return f"--setting 2 --task 0 --data {data} --batch_size 8 --epochs 2"


def test_a_run_that_fails_changes_no_other_and_what_is_finished_is_not_run_again(tmp_path, options, capsys):
    path, directory = tmp_path / "list.txt", tmp_path / "study"
    path.write_text(f"# a comment\n\nbefore {options}\nbad {options}\nafter {options}\n")
    (directory / "bad").mkdir(parents=True)
    (directory / "bad" / "history.json").write_text("none")
    first = start(path, "1", "--delete_models", "--seed", "3")
    _, err = first.communicate()
    assert first.returncode == 1
    assert "bad: exit code 1: main.py: error: " in err.splitlines()[-1]
    assert "1 of 3 runs failed" in err.splitlines()[-2]
    assert (directory / "bad" / "history.json").read_text() == "none"
    before, after = (json.loads((directory / n / "history.json").read_text()) for n in ("before", "after"))
    assert before["finished"]
    assert after["finished"]
    assert before["options"]["seed"] == 3
    assert [e["loss"] for e in before["epochs"]] == [e["loss"] for e in after["epochs"]]
    assert not list(directory.rglob("model.pt"))
    saving = ["--save_model", "--save_history", "--save_path", str(tmp_path / "alone")]
    assert main(["--train", *options.split(), "--seed", "3", *saving]) == 0
    alone = result_of(tmp_path / "alone")[1]["epochs"]  # of the program, started as it is
    assert before["epochs"][0]["loss"] == pytest.approx(alone[0]["loss"], rel=1e-3)

    path.write_text(f"before {options}\nafter {options}\n")
    stats = {
        file: file.stat().st_mtime_ns for name in ("before", "after") for file in (directory / name).iterdir()
    }
    second = start(path, "--seed", "3")
    out, err = second.communicate()
    assert second.returncode == 0, err
    assert "2 single task" in out  # the report
    assert {file: file.stat().st_mtime_ns for file in stats} == stats

    for seed, left in (("3", 0), ("4", 2)):  # with other options it is another study, and nothing is finished
        capsys.readouterr()
        words = [str(path), "--save_path", str(directory), "--seed", seed]
        assert study.main(["commands", *words]) == 0
        assert len(capsys.readouterr().out.splitlines()) == left


def test_a_study_that_is_stopped_has_saved_and_is_refused_to_a_second_start(tmp_path, options):
    path, run = tmp_path / "list.txt", tmp_path / "study" / "run"
    path.write_text(f"run {options} --epochs 1000000\n")
    first = start(path)
    while not (run / "history.json").exists():
        assert first.poll() is None, first.communicate()
        time.sleep(0.02)
    second = start(path)
    _, err = second.communicate()
    assert second.returncode == 1
    assert err.startswith("studies/run.sh: error: another studies/run.sh is at work")
    assert err.count("\n") == 1
    first.send_signal(signal.SIGTERM)
    _, err = first.communicate()
    assert first.returncode == 143
    assert err.splitlines()[-1] == "0 of 1 runs are finished, the others saved: the same command goes on"
    history = result_of(run)[1]
    assert not history["finished"]
    assert len(history["epochs"]) > 0
    assert "stopped by SIGTERM" in (run / study.LOG).read_text()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "has no run"),
        ("a --setting 3\nb --setting 3 --epocs 2", "line 2 (b): unrecognized arguments: --epocs 2"),
        ("a --setting 2", "line 1 (a): --setting 2 needs --task"),
        ("a --setting 3\n\nA --setting 4", "line 3 (A): there is a run of this name already"),
        ("../a --setting 3", "line 1 (../a)"),
        ("--setting 3", "line 1 (--setting)"),
        ("a --data 'my file.npz'", "quotes"),
        ("a --save_path elsewhere", "--save_path"),
        ("a --save_path=elsewhere", "--save_path"),
        ("a --overwrite", "--overwrite"),
        ("a --report", "--report"),
        ("a --help", "line 1 (a)"),
        ("a --data missing.npz", "missing.npz"),
    ],
)
def test_a_malformed_list_is_refused_in_one_line_before_anything_starts(tmp_path, capsys, content, says):
    path = tmp_path / "list.txt"
    path.write_text(content)
    assert study.main(["run", str(path), "--save_path", str(tmp_path / "study")]) == 2
    refused = capsys.readouterr()
    assert says in refused.err
    assert refused.err.count("\n") == 1
    assert refused.out == ""
    assert os.listdir(tmp_path) == ["list.txt"]


def test_an_unknown_list_is_answered_with_those_that_there_are(capsys):
    assert study.main(["run", "cifra100"]) == 2
    said = capsys.readouterr().err
    assert all(path.stem in said for path in LISTS)


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_no_two_runs_of_a_list_are_the_same(tmp_path, path):
    entries = study.read_list(path, tmp_path)
    options = {str(entry.run.changed(save_path=None).recorded) for entry in entries}
    assert len(options) == len(entries)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "omniglot"])
def test_ways_that_take_as_many_steps_count_as_as_much_work(name, tmp_path):
    of_seed = [e for e in study.read_list(study.find_list(name), tmp_path) if e.run.seed == 0]
    work = {entry.name: entry.work() for entry in of_seed if entry.run.setting != 2}
    work["2-seed0"] = sum(entry.work() for entry in of_seed if entry.run.setting == 2)
    assert len(set(work.values())) == 1, work
