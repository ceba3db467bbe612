"""The code blocks of docs/ that are commands, tables or outputs. Those in Python have tests of their own."""

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from helpers import SMALL, TOP
from packaging.requirements import Requirement
from PIL import Image

import pictures
from benchmarks import intervals, speed
from studies import make_unlike

DEVELOPMENT = (TOP / "requirements-dev.txt").read_text()

PAGES = {path.name: path.read_text() for path in sorted((TOP / "docs").glob("*.md"))}

BLOCKS = [
    (name, language, block)
    for name, text in PAGES.items()
    for language, block in re.findall(r"^```(\w*)\n(.+?)^```$", text, re.MULTILINE | re.DOTALL)
]

ELSEWHERE = {
    ("extending.md", "python"): "test_extending",
    ("files.md", "python"): "test_load, test_predictions",
    ("clusters.md", ""): "test_studies",
}
"""The tests that run the blocks of a page."""

COMMANDS = [
    pytest.param(block.splitlines(), id=f"{name}-{block.split()[1]}")
    for name, language, block in BLOCKS
    if (name, language) not in ELSEWHERE and re.match("python |pip ", block)
]

OUTPUTS = [
    pytest.param(name, block, id=f"{name}-{number}")
    for number, (name, language, block) in enumerate(BLOCKS)
    if (name, language) not in ELSEWHERE and not re.match("python |pip ", block)
]

BENCHMARKS = [
    (name, " ".join(command.split()))
    for name, text in PAGES.items()
    for command in re.findall(r"`(python\s+benchmarks/(?:speed|intervals)[^`]+)`", text)
]


def test_blocks_in_python_are_on_pages_whose_tests_run_each_of_them():
    of_page = {key: sum(key == (name, language) for name, language, _ in BLOCKS) for key in ELSEWHERE}
    assert all(of_page.values())
    assert (of_page["files.md", "python"], of_page["clusters.md", ""]) == (2, 1)
    for tests in ELSEWHERE.values():
        for name in tests.split(", "):
            assert "docs" in (TOP / "tests" / f"{name}.py").read_text()
    assert {language for name, language, _ in BLOCKS if (name, language) not in ELSEWHERE} == {""}


@pytest.fixture
def folder(tmp_path, monkeypatch, fake_cifar100):
    """Where the commands run: the folder of pictures that they name is there, of two classes."""
    monkeypatch.chdir(tmp_path)
    random = np.random.RandomState(0)
    names = ["train/cat/1", "train/dog/2", "test/cat/3", "test/dog/4", *(f"garden/{i}" for i in range(1, 6))]
    for name in names:
        path = tmp_path / "pictures" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.randint(0, 256, (8, 8, 3)).astype(np.uint8)).save(path)
    return tmp_path


@pytest.mark.parametrize("lines", COMMANDS)
def test_the_commands_of_a_block_run_one_after_the_other(folder, program, capfd, lines):
    if any("torchjd" in line for line in lines):
        pytest.importorskip("torchjd")
    for line in lines:
        words = shlex.split(line)
        if words[0] == "pip":
            named = Requirement(words[2])
            pinned = re.search(rf"^{re.escape(str(named).split('==')[0])}==(\S+)$", DEVELOPMENT, re.MULTILINE)
            assert words[:2] == ["pip", "install"]
            assert named.specifier.contains(pinned[1])
        elif words[1] == "main.py":
            few = ("--batch_size", 2) if ".npz" in line else (*SMALL, "--batch_size", 160)
            trained = program(*words[2:], "--epochs", 1, *few)
            assert (trained.code, "Accuracy: [" in trained.out) == (0, "--setting 0" not in line), trained.err
        else:
            called = {"own_data.py": pictures, "studies/make_unlike.py": make_unlike}[words[1]]
            assert called.main(words[2:]) == 0, capfd.readouterr().err


def test_the_table_of_labels_is_read(folder, capfd):
    (table,) = (block for name, _, block in BLOCKS if block.startswith("file,"))
    (folder / "pictures" / "labels.csv").write_text(table)
    assert pictures.main(["pictures", "made.npz"]) == 0, capfd.readouterr().err
    made, rows = np.load("made.npz"), list(csv.DictReader(table.splitlines()))
    for split in ("train", "test"):
        own = [row for row in rows if row["split"] == split]
        for task, name in enumerate(made["task_names"].tolist()):
            entries = {row[name] for row in rows} - {""}
            answers = sorted(entries, key=int if all(map(str.isdigit, entries)) else None)
            expected = [answers.index(row[name]) if row[name] else -1 for row in own]
            assert made[f"{split}_labels"][:, task].tolist() == expected


@pytest.mark.parametrize(("page", "command"), BENCHMARKS)
def test_the_command_of_a_measurement_is_one_that_the_benchmark_takes(capsys, page, command):
    called = {"speed.py": speed, "intervals.py": intervals}[Path(command.split()[1]).name]
    words = shlex.split(command.replace("...", "mean"))[2:]  # any loss, or any options of a choice
    with pytest.raises(SystemExit) as ended:  # by --help, which comes after all others are read
        called.main([*words, "--help"])
    assert ended.value.code == 0, capsys.readouterr().err


@pytest.mark.parametrize(("page", "block"), OUTPUTS)
def test_every_other_block_is_what_a_command_prints(page, block):
    if page == "speed.md":
        before = PAGES[page].partition(block)[0]
        command = re.findall(r"`(python\s+benchmarks/speed.py[^`]+)`", before)[-1].split()
        settings = re.search(r"--settings((?: \d)+)", " ".join(command))
        timed = settings[1].split() if settings else ["0", "3", "5"]
        assert sorted(set(re.findall(r"^setting (\d)", block, re.MULTILINE))) == timed
        assert f"A and C: {'bf16' if 'bf16' in command else 'fp32'}" in block
    else:
        assert (page, block.split()[0]) in {("report.md", "all:"), ("options.md", "file,split,colour,count")}


def test_the_table_of_files_names_every_file_and_no_other():
    named, folder = set(), ""
    for first in re.findall(
        r"^\| (`[^|]+`) \|", PAGES["extending.md"].partition("## What is where")[2], re.MULTILINE
    ):
        for path in re.findall(r"`([^`]+)`", first):
            folder = path.rpartition("/")[0] if "/" in path else folder
            named.add(path if "/" in path or not folder else f"{folder}/{path}")
    rooms = [TOP, *(TOP / name for name in ("running", "storage", "reporting"))]
    there = {str(path.relative_to(TOP)) for room in rooms for path in room.glob("[!_]*.py")}
    assert {path for path in named if path.endswith(".py")} == there
    assert all((TOP / path).exists() for path in named)
