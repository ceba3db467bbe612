"""A data set of the user's own whose images have several labels each, one per task."""

import csv
import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TOP, UNSCORED, make, one_line, result_of, write_data, write_labels

from data import DataSet, load
from errors import UserError
from own_data import read_spec
from studies import make_unlike
from tasks import CIFAR100_SUPERCLASSES

NUM_TASKS = 10
SIZES = 2 + np.arange(NUM_TASKS) % 3
"""Number of answers of each of ten tasks."""


def attributes(count: int, missing: float, seed: int) -> np.ndarray:
    """Labels for ten tasks; the first four images have all of them, so that every answer is there."""
    random = np.random.RandomState(seed)
    labels = random.randint(0, SIZES, (count, NUM_TASKS))
    labels[random.uniform(size=labels.shape) < missing] = -1
    labels[:4] = np.arange(4)[:, None] % SIZES
    return labels


def in_two_ways(labels: np.ndarray) -> np.ndarray:
    """The labels, but a third of the images lacks those of three tasks."""
    return np.where((np.arange(len(labels))[:, None] % 3 == 2) & (np.arange(NUM_TASKS) < 3), -1, labels)


SOME = (attributes(80, 0.3, 0), attributes(24, 0.3, 1))
"""Labels of training and of test images; some are missing."""

ALL = (attributes(80, 0, 2), attributes(24, 0, 3))
"""Labels of training and of test images; none is missing."""

TWO_WAYS = (in_two_ways(ALL[0]), in_two_ways(ALL[1]))
"""Labels that are missing for the same tasks, or not at all."""


def loaded(path: Path, **changes: object) -> DataSet:
    return load(replace(read_spec(path), **changes), Path(), 8, torch.device("cpu"))


def history_of(path: Path) -> dict:
    return json.loads((path / "history.json").read_text())


# Training and evaluating


@pytest.mark.parametrize(
    ("labels", "options"),
    [
        (SOME, ("--setting", 3)),
        (SOME, ("--setting", 3, "--tasks_per_step", 4)),
        (ALL, ("--setting", 5)),
        (SOME, ("--setting", 2, "--task", 7, *UNSCORED)),
        (SOME, ("--setting", 3, "--tasks_per_step", "all", "--loss", "uw", *UNSCORED)),
        (SOME, ("--setting", 4, *UNSCORED)),
        (SOME, ("--setting", 4, "--validation", 0.4, *UNSCORED)),
        *((ALL, ("--setting", 5, "--loss", loss, *UNSCORED)) for loss in ("uw", "pcgrad")),
        (ALL, ("--setting", 6, *UNSCORED)),
    ],
)
def test_training_resumes_to_the_same_bits_and_evaluates_to_the_same_accuracies(
    program, tmp_path, no_network, labels, options
):
    path = write_labels(tmp_path / "mine.npz", *labels)
    options += ("--data", path, "--batch_size", 20, "--data_path", tmp_path / "data")
    saved = ("--save_model", "--save_history", "--save_path")
    straight = program("--train", *options, "--epochs", 2, *saved, tmp_path / "straight")
    assert straight.code == 0
    assert straight.accuracy.startswith("Accuracy: ")
    for epochs in (1, 2):
        parted = program("--train", *options, "--epochs", epochs, "--resume", *saved, tmp_path / "parted")
    assert parted.accuracy == straight.accuracy
    assert result_of(tmp_path / "parted") == result_of(tmp_path / "straight")
    assert program("--eval", *options, "--save_path", tmp_path / "parted").accuracy == straight.accuracy
    history = history_of(tmp_path / "straight")
    assert history["num_answers"] == (SIZES[[7]] if 2 in options[:2] else SIZES).tolist()
    assert {file.name for file in tmp_path.iterdir()} == {"mine.npz", "straight", "parted"}


def test_a_report_names_the_tasks_as_the_file_does(program, no_figure, tmp_path):
    names = [f"attribute {task}" for task in range(NUM_TASKS)]
    path = write_labels(tmp_path / "mine.npz", *ALL, task_names=names)
    for setting in (3, 5):
        options = ("--data", path, "--setting", setting, "--batch_size", 8, "--epochs", 1, "--save_history")
        assert program("--train", *options, "--save_path", tmp_path / "runs" / str(setting)).code == 0
    assert history_of(tmp_path / "runs" / "5")["tasks"] == names
    reported = program("--report", "--save_path", tmp_path / "runs")
    assert reported.code == 0
    assert "5 summed losses" in reported.out
    page = (tmp_path / "runs" / "report.md").read_text()
    assert all(f"| {name} | " in page for name in names)
    with open(tmp_path / "runs" / "report.csv", newline="") as file:
        rows = [(row["setting"], row["task"]) for row in csv.DictReader(file)]
    assert rows == [(setting, name) for setting in ("3", "5") for name in names]


@pytest.mark.parametrize("mode", ["--train", "--eval"])
@pytest.mark.parametrize(
    ("labels", "setting", "says"),
    [
        (ALL, (), "classes"),
        (ALL, ("--setting", 0), "classes"),
        (SOME, ("--setting", 1), "classes"),
        (SOME, ("--setting", 5), "missing labels"),
        (SOME, ("--setting", 6), "missing labels"),
        ((ALL[0], TWO_WAYS[1]), ("--setting", 5), "missing labels"),
    ],
)
def test_settings_that_need_classes_or_every_label_are_refused_in_a_line(
    program, tmp_path, mode, labels, setting, says
):
    path = write_labels(tmp_path / "mine.npz", *labels)
    refused = program(mode, "--data", path, *setting, "--batch_size", 8, "--save_path", tmp_path / "run")
    assert refused.code == 2
    assert one_line(refused)
    assert says in refused.err
    assert list(tmp_path.iterdir()) == [path]


# What a file is read as


@pytest.mark.parametrize("labels", [SOME, ALL, TWO_WAYS])
def test_a_task_has_the_images_with_a_label_for_it_and_their_labels_in_order(tmp_path, labels):
    path = write_labels(tmp_path / "mine.npz", *labels)
    data = loaded(path)
    for name, split, given in zip(("train", "test"), (data.train, data.test), labels, strict=True):
        images = np.load(path)[f"{name}_images"]
        assert np.array_equal(split.images.permute(0, 2, 3, 1), images)
        assert np.array_equal(data.tasks[:, split.labels].T, given)
    for task in range(NUM_TASKS):
        assert data.images_of(task).tolist() == (labels[0][:, task] >= 0).nonzero()[0].tolist()
        assert data.spec.num_training_images(f"task {task}") == (labels[0][:, task] >= 0).sum()
    assert data.spec.shared_inputs == (labels is ALL)


@pytest.mark.parametrize("labels", [SOME, ALL, TWO_WAYS])
def test_scores_are_those_of_a_slow_loop_over_images_and_tasks(tmp_path, labels):
    data = loaded(write_labels(tmp_path / "mine.npz", *labels))
    agent = make(3, data, batch_size=8)
    agent.train_steps(6)
    scores = agent.evaluate()
    agent.model.eval()
    right, asked = np.zeros((2, NUM_TASKS, max(SIZES)))
    for image, row in enumerate(labels[1].tolist()):
        features = agent.model.encoder(data.test.batch(torch.tensor([image]))[0])
        for task, label in enumerate(row):
            if label >= 0:
                right[task, label] += int(agent.model.heads[task](features).argmax()) == label
                asked[task, label] += 1
    assert scores.accuracy == pytest.approx(right.sum(axis=1) / asked.sum(axis=1))
    recall = [(right[task] / asked[task].clip(1)).sum() / SIZES[task] for task in range(NUM_TASKS)]
    assert scores.balanced_accuracy == pytest.approx(recall)
    assert agent.scorer.constant_accuracy == pytest.approx(asked.max(axis=1) / asked.sum(axis=1))


def test_images_in_tasks_in_many_ways_are_encoded_together_and_those_in_none_are_not(tmp_path):
    table = [(0, 1, -1, -1, 0, 1, -1), (-1, -1, 0, 1, 1, 0, -1)]  # the last class is in no task
    data = loaded(write_data(tmp_path / "mine.npz", [4] * 7, size=8, tasks=table))
    agent, encoded = make(3, data, batch_size=8), []
    agent.model.encoder.register_forward_hook(lambda _, inputs, __: encoded.append(inputs[0]))
    agent.evaluate()
    (images,) = encoded
    assert torch.equal(images, data.test.batch((data.test.labels < 6).nonzero().flatten())[0])


@pytest.mark.parametrize("setting", [3, 5])
def test_labels_per_task_train_as_the_same_labels_by_a_table_of_classes(program, tmp_path, setting):
    table = np.array([(0, 1, 2, 1), (1, 0, 1, 0), (0, 0, 1, 1)])
    if setting == 3:
        table[2, 1] = table[0, 3] = -1
    classes = {f"{split}_labels": np.arange(count) * 7 % 4 for split, count in (("train", 30), ("test", 12))}
    rows = [table.T[labels] for labels in classes.values()]
    results = []
    for name, arrays in (("rows", {}), ("classes", classes | {"tasks": table})):
        path = write_labels(tmp_path / f"{name}.npz", *rows, **arrays)
        options = ("--data", path, "--setting", setting, "--batch_size", 8, "--epochs", 2)
        saved = ("--save_model", "--save_history", "--save_path", tmp_path / name)
        assert program("--train", *options, *saved).code == 0
        results.append(result_of(tmp_path / name))
    (weights, history), (same_weights, same_history) = results
    assert weights == same_weights
    assert history["epochs"] == same_history["epochs"]


def test_images_without_any_label_are_unused_and_counted_in_a_line(program, tmp_path):
    labels = [each.copy() for each in SOME]
    labels[0][[5, 11, 79]] = labels[1][[4, 6]] = -1
    path = write_labels(tmp_path / "mine.npz", *labels)
    data = loaded(path)
    used = [(each >= 0).any(axis=1) for each in labels]
    assert [len(data.train), len(data.test)] == [77, 22]
    for name, split, each, here in zip(("train", "test"), (data.train, data.test), labels, used, strict=True):
        assert np.array_equal(split.images.permute(0, 2, 3, 1), np.load(path)[f"{name}_images"][here])
        assert np.array_equal(data.tasks[:, split.labels].T, each[here])
    trained = program("--train", "--data", path, "--setting", 3, "--batch_size", 8, "--epochs", 1)
    assert trained.code == 0
    assert trained.err.count("3 training and 2 test images have no label and are unused\n") == 1
    assert "77 training and 22 test images" in trained.err


def test_where_every_image_has_a_label_nothing_is_said_of_unused_ones(program, tmp_path):
    path = write_labels(tmp_path / "mine.npz", *SOME)
    trained = program("--train", "--data", path, "--setting", 3, "--batch_size", 8, "--epochs", 1)
    assert "unused" not in trained.err


# What is held out


@pytest.mark.parametrize(("share", "count"), [(0.4, 16), (0.3125, 13), (0.26, 10)])
def test_a_share_of_all_images_is_held_out_by_a_shuffle_that_never_changes(tmp_path, share, count):
    random = np.random.RandomState(7)
    labels = random.randint(0, 2, (2, 40, NUM_TASKS))
    path = write_labels(tmp_path / "mine.npz", *labels)
    data, images = loaded(path, validation=share), np.load(path)["train_images"]
    held_out = np.zeros(40, dtype=bool)
    held_out[np.random.RandomState(0).permutation(40)[:count]] = True
    for split, chosen in ((data.train, ~held_out), (data.test, held_out)):
        assert np.array_equal(split.images.permute(0, 2, 3, 1), images[chosen])
        assert np.array_equal(data.tasks[:, split.labels].T, labels[0][chosen])


def test_which_images_are_held_out_depends_on_neither_the_labels_nor_the_setting(program, tmp_path):
    scored = []
    for labels, setting, seed in ((ALL, 3, 0), (TWO_WAYS, 4, 1), (ALL, 5, 2)):
        path = write_labels(tmp_path / "mine.npz", *labels)
        scored.append(loaded(path, validation=0.4).test.images)
        options = ("--data", path, "--setting", setting, "--seed", seed)
        trained = program("--train", *options, "--validation", 0.4, "--batch_size", 4, "--epochs", 1)
        assert "48 training and 32 validation images" in trained.err
    assert all(torch.equal(scored[0], each) for each in scored)


@pytest.mark.parametrize(("share", "held"), [(0.01, 1), (0.99, 7)])
def test_at_least_one_image_is_held_out_and_not_all(tmp_path, share, held):
    path = write_labels(tmp_path / "mine.npz", np.arange(8)[:, None] % 2, np.arange(2)[:, None])
    spec = replace(read_spec(path), validation=share)
    assert (sum(spec.held_out), spec.num_training_images()) == (held, 8 - held)


@pytest.mark.parametrize(
    ("share", "label", "rare", "says"),
    [
        (0.25, "held out", 1, "leaves no training image with answer 1 of odd"),
        (0.25, "kept", 1, "holds out no image with answer 1 of odd"),
        (0.25, "kept", 0, "holds out no image with answer 0 of odd"),
        (0.25, "both", 1, None),
    ],
)
def test_a_task_that_would_lose_an_answer_is_refused_in_a_line(program, tmp_path, share, label, rare, says):
    order = np.random.RandomState(0).permutation(24)
    where = {"held out": order[:3], "kept": order[6:9], "both": order[4:8]}[label]
    labels = np.full((24, 2), 1 - rare)
    labels[where, 1] = rare
    labels[:, 0] = np.isin(np.arange(24), order[3:15])
    path = write_labels(tmp_path / "mine.npz", labels, [(0, 1), (1, 0)], task_names=["even", "odd"])
    options = ("--data", path, "--setting", 3, "--validation", share, "--batch_size", 4, "--epochs", 1)
    trained = program("--train", *options, "--save_path", tmp_path / "run")
    if says is None:
        assert trained.code == 0
        return
    assert trained.code == 2
    assert one_line(trained)
    assert says in trained.err


@pytest.mark.parametrize("validation", [0, 0.4])
def test_a_batch_larger_than_what_a_task_has_left_is_refused(program, tmp_path, validation):
    path = write_labels(tmp_path / "mine.npz", *SOME)
    kept = np.random.RandomState(0).permutation(80)[int(validation * 80) :]
    largest = (SOME[0][kept] >= 0).sum(axis=0).min()
    options = ("--train", "--data", path, "--setting", 3, "--epochs", 1, "--validation", validation)
    refused = program(*options, "--batch_size", largest + 1)
    assert (refused.code, re.findall(r"at most (\d+)", refused.err)) == (2, [str(largest)])
    assert one_line(refused)
    assert program(*options, "--batch_size", largest).code == 0


# Wrong files

TRAIN, TEST = np.array([(0, 0), (1, 0), (0, 1), (1, 1), (0, -1)]), np.array([(1, 1), (0, 0), (-1, 1)])


def without(labels: np.ndarray, task: int, answer: int) -> np.ndarray:
    """The labels, and none where a task has an answer."""
    labels = labels.copy()
    labels[labels[:, task] == answer, task] = -1
    return labels


BAD = {
    "rows and numbers": (
        {"test_labels": TEST[:, 0] * 0},
        "test_labels of shape (3,): they must be (5,) and (3,), a label per image, or (5, T) and (3, T)",
    ),
    "numbers and rows": ({"train_labels": TRAIN[:, 0]}, "train_labels of shape (5,) and"),
    "another number of columns": ({"test_labels": TEST[:, :1]}, "test_labels of shape (3, 1): they must be"),
    "no columns": (
        {"train_labels": TRAIN[:, :0], "test_labels": TEST[:, :0]}, "train_labels of shape (5, 0)"
    ),
    "3 dimensions": ({"train_labels": TRAIN[..., None]}, "shape (5, 2, 1): it must be (5,), a label"),
    "float labels": ({"train_labels": TRAIN / 2}, "train_labels of type float64"),
    "a row too few": ({"train_labels": TRAIN[1:]}, "and train_labels of shape (4, 2): it must be (5,), a"),
    "a table": ({"tasks": [(0, 1), (1, 0)]}, "has tasks, which does not go with labels for each task"),
    "names of classes": ({"class_names": ["a", "b"]}, "has class_names, which does not go"),
    "too few names": ({"task_names": ["a"]}, "1 task_names, and labels for 2 tasks"),
    "too many names": ({"task_names": ["a", "b", "c"]}, "3 task_names, and labels for 2 tasks"),
    "equal names": ({"task_names": ["a", "a"]}, "task_names"),
    "below -1": ({"train_labels": TRAIN - (TRAIN < 0)}, "the label -2 in train_labels"),
    "a huge answer": ({"test_labels": TEST + (TEST > 0) * 2**62}, f"the label {2**62 + 1} in test_labels"),
    "no labels at all": ({"train_labels": TRAIN * 0 - 1, "test_labels": TEST * 0 - 1}, "has no labels"),
    "a task without labels": (
        {"train_labels": TRAIN * (1, 0) - (0, 1), "test_labels": TEST * (1, 0) - (0, 1)},
        "gives task 1 no label",
    ),
    "one answer": (
        {"train_labels": without(TRAIN, 1, 1), "test_labels": without(TEST, 1, 1)},
        "gives task 1 a single answer",
    ),
    "answers from 1": (
        {"train_labels": TRAIN + (TRAIN >= 0), "test_labels": TEST + (TEST >= 0)},
        "no training image with answer 0 of task 0",
    ),
    "a gap": (
        {"train_labels": TRAIN + (TRAIN == 1), "test_labels": TEST + (TEST == 1), "task_names": ["a", "b"]},
        "no training image with answer 1 of a",
    ),
    "an answer without training images": (
        {"train_labels": without(TRAIN, 1, 0)}, "no training image with answer 0 of task 1",
    ),
    "an answer without test images": (
        {"test_labels": without(TEST, 0, 1)}, "no test image with answer 1 of task 0",
    ),
    "no training labels": ({"train_labels": TRAIN * 0 - 1}, "no training image with answer 0 of task 0"),
    "too many tasks": (
        {name: each[:, [0] * 1001] for name, each in (("train_labels", TRAIN), ("test_labels", TEST))},
        "labels for 1001 tasks: there can be at most 1000",
    ),
}  # fmt: skip
"""Arrays in place of the good ones, or beside them, and a part of what is said."""


@pytest.mark.parametrize(("change", "says"), BAD.values(), ids=BAD)
def test_a_wrong_file_is_told_in_a_line_and_nothing_is_written(program, tmp_path, change, says):
    path = write_labels(tmp_path / "bad.npz", TRAIN, TEST, **change)
    for mode in ("--train", "--eval"):
        options = ("--data", path, "--setting", 3, "--batch_size", 2, "--save_path", tmp_path / "run")
        refused = program(mode, *options)
        assert refused.code == 1
        assert one_line(refused)
        assert path.name in refused.err
        assert says in refused.err
        assert list(tmp_path.iterdir()) == [path]


def test_the_good_file_that_the_wrong_ones_are_made_from_is_taken(tmp_path):
    spec = read_spec(write_labels(tmp_path / "good.npz", TRAIN, TEST))
    assert spec.tasks == {"task 0": (-1, 0, 0, 0, 1, 1), "task 1": (1, -1, 0, 1, 0, 1)}
    assert (spec.train_counts, spec.test_counts) == ((0, 1, 1, 1, 1, 1), (1, 0, 1, 0, 0, 1))


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.uint8, ">i4"])
def test_labels_may_be_of_any_whole_type(tmp_path, kind):
    spec = read_spec(write_labels(tmp_path / "mine.npz", *ALL))
    other = read_spec(write_labels(tmp_path / "mine.npz", *(each.astype(kind) for each in ALL)))
    assert replace(other, checksum=spec.checksum) == spec


# CIFAR-100 as two tasks on the same images


def test_cifar100_becomes_two_tasks_which_the_printed_command_trains(program, capfd, tmp_path, fake_cifar100):
    path = tmp_path / "unlike tasks.npz"
    assert make_unlike.main([str(tmp_path), str(path)]) == 0
    _, main, *words = shlex.split(capfd.readouterr().out.splitlines()[-1])
    assert Path(main).samefile(TOP / "main.py")
    data = loaded(path)
    assert list(data.spec.tasks) == ["class", "superclass"]
    superclasses = list(CIFAR100_SUPERCLASSES.values())
    for split, (images, labels) in zip((data.train, data.test), fake_cifar100, strict=True):
        assert torch.equal(split.images, images)
        of_class, of_superclass = data.tasks[:, split.labels]
        assert torch.equal(of_class, labels)
        assert all(
            label in superclasses[number]
            for label, number in zip(labels.tolist(), of_superclass.tolist(), strict=True)
        )
    trained = program(*words, "--epochs", 1, "--save_path", tmp_path)
    assert trained.code == 0
    assert len(json.loads(trained.accuracy.removeprefix("Accuracy: "))) == 2


def test_a_file_that_exists_is_replaced_only_if_asked_for(capfd, tmp_path, fake_cifar100):
    path = tmp_path / "unlike.npz"
    path.write_text("mine")
    assert make_unlike.main([str(tmp_path), str(path)]) == 1
    refused = capfd.readouterr()
    assert (refused.out, refused.err.count("\n"), "--overwrite" in refused.err) == ("", 1, True)
    assert path.read_text() == "mine"
    assert make_unlike.main([str(tmp_path), str(path), "--overwrite"]) == 0
    assert read_spec(path).num_classes == 100


@pytest.mark.parametrize("broken", ["reading", "writing", "name", "directory"])
def test_whatever_fails_in_making_it_is_told_in_a_line_and_leaves_nothing(
    monkeypatch, capfd, tmp_path, fake_cifar100, broken
):
    def fail(*_, **__):
        raise UserError("CIFAR-100 is damaged") if broken == "reading" else OSError(28, "No space left")

    if broken == "reading":
        monkeypatch.setattr("data.cifar100", fail)
    elif broken == "writing":
        monkeypatch.setattr(np, "savez", fail)
    name = {"name": "unlike.txt", "directory": "none/unlike.npz"}.get(broken, "unlike.npz")
    assert make_unlike.main([str(tmp_path), str(tmp_path / name)]) == 1
    failed = capfd.readouterr()
    assert (failed.out, failed.err.count("\n")) == ("", 1)
    assert failed.err.startswith("make_unlike.py: error: ")
    assert list(tmp_path.iterdir()) == []


def test_the_script_runs_from_any_folder(tmp_path):
    (tmp_path / "unlike.npz").touch()
    script = TOP / "studies" / "make_unlike.py"
    for arguments, code, lines in ((["data", "unlike.npz"], 1, 1), (["data"], 2, None)):
        ended = subprocess.run(
            [sys.executable, script, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (ended.returncode, ended.stdout, "Traceback" in ended.stderr) == (code, "", False)
        assert lines in (None, ended.stderr.count("\n"))
