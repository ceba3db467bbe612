"""A data set of the user's own, FILE.npz.

Unequal classes are scored rightly, and bad files end in one line.
"""

import csv
import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction as Share
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from helpers import one_line, result_of
from torch import nn

from data import load
from errors import UserError
from models import Dimensions
from own_data import read_images, read_spec
from tasks import DATA_SETS

TABLE = ((0, 1, -1), (-1, 1, 0), (1, 0, 2), (1, 0, 1))
"""Three classes in four tasks, two of which leave a class out."""

SHARED = ((0, 1, 2), (1, 0, 1))
"""Two tasks that have every image."""

UNEVEN = ((0, 1, -1, -1), (-1, 0, 1, -1), (0, 0, 1, -1))
"""Four classes in tasks of different sizes; the last class is in none."""


def content(
    train: Sequence[int] = (6, 4, 3),
    test: Sequence[int] = (3, 2, 1),
    side: int = 8,
    channels: int = 3,
    **arrays: object,
) -> dict[str, np.ndarray]:
    """The arrays of a file of random images, with some numbers of images of each class, shuffled.

    Args:
        channels: of the images; 0 for images of no channel axis.
        arrays: more of them, or other ones.
    """
    random = np.random.RandomState(0)
    made = {}
    for split, counts in (("train", train), ("test", test)):
        labels = random.permutation(np.repeat(np.arange(len(counts)), counts))
        shape = (len(labels), side, side) + ((channels,) if channels else ())
        made[f"{split}_images"] = random.randint(0, 256, shape).astype(np.uint8)
        made[f"{split}_labels"] = labels
    return made | {name: np.array(array) for name, array in arrays.items()}


def written(path: Path, arrays: dict, save=np.savez) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, **arrays)
    return path


def flat(values: Sequence[int], side: int = 2) -> np.ndarray:
    """Colour images that are of one value each."""
    return np.array(values, dtype=np.uint8)[:, None, None, None].repeat(side, 1).repeat(side, 2).repeat(3, 3)


def history_of(path: Path) -> dict:
    return json.loads((path / "history.json").read_text())


def snapshot(directory: Path) -> dict[Path, bytes | None]:
    """All that is in a directory, at any depth."""
    return {path: path.read_bytes() if path.is_file() else None for path in directory.rglob("*")}


class Reading(nn.Module):
    """An encoder that undoes the normalisation, gives the value of a pixel, and notes what it is shown."""

    def __init__(self, train_images: np.ndarray) -> None:
        super().__init__()
        self.mean, self.std = train_images[..., 0].mean(), train_images[..., 0].std()
        self.shown = {True: set(), False: set()}
        self.sides = set()

    def forward(self, images):
        values = (images[:, 0, 0, 0] * self.std + self.mean).round().long()
        self.shown[self.training] |= set(values.tolist())
        self.sides.add(images.shape[-1])
        return values


class Answering(nn.Module):
    """A head that answers with an entry of its row, or with the first that is possible where that is -1."""

    def __init__(self, row: Sequence[int], size: int) -> None:
        super().__init__()
        self.row, self.size = torch.tensor(row), size
        self.useless = nn.Parameter(torch.zeros(1))

    def forward(self, values):
        chosen = nn.functional.one_hot(self.row[values] + 1, self.size + 1)[:, 1:]
        return chosen - 0.01 * torch.arange(self.size) + 0 * self.useless


class Reader(nn.Module):
    """A network that cannot learn: each head answers with the entry of its row that the pixels say."""

    def __init__(self, train_images: np.ndarray, rows: Sequence[Sequence[int]] = ()) -> None:
        super().__init__()
        self.encoder, self.heads, self._rows = Reading(train_images), nn.ModuleList(), rows

    def made(self, dimensions: Dimensions) -> "Reader":
        """Itself, with heads, so that a test keeps hold of the network that it hands to the program."""
        sizes = dimensions.num_classes
        rows = self._rows or [[0] * 256] * len(sizes)
        self.heads = nn.ModuleList(map(Answering, rows, sizes))
        return self


# Training and evaluating


@pytest.mark.parametrize(
    ("channels", "tasks", "setting"),
    [(0, None, setting) for setting in range(7)]
    + [(3, TABLE, setting) for setting in range(5)]
    + [(3, SHARED, setting) for setting in (5, 6)]
    + [(1, TABLE, 3), (3, None, 3)],
)
def test_every_setting_trains_saves_and_evaluates_to_the_same_accuracies(
    program, tmp_path, no_network, channels, tasks, setting
):
    arrays = content(channels=channels) | ({} if tasks is None else {"tasks": np.array(tasks)})
    path = written(tmp_path / "mine.npz", arrays)
    options = ("--data", path, "--setting", setting, "--save_path", tmp_path / "run")
    options += ("--batch_size", 3, "--data_path", tmp_path / "data")
    options += ("--task", 1) if setting == 2 else ()
    trained = program("--train", "--epochs", 1, "--save_model", "--save_history", *options)
    assert trained.code == 0
    assert trained.accuracy.startswith("Accuracy: ")
    assert program("--eval", *options).accuracy == trained.accuracy
    accuracy = history_of(tmp_path / "run")["epochs"][-1]["accuracy"]
    assert trained.accuracy == f"Accuracy: {accuracy[0] if setting in (0, 2) else accuracy}"
    assert len(accuracy) == (1 if setting in (0, 2) else len(tasks or range(3)))
    assert {file.name for file in tmp_path.iterdir()} == {"mine.npz", "run"}


@pytest.mark.parametrize("mode", ["--train", "--eval"])
@pytest.mark.parametrize("setting", [5, 6])
def test_settings_5_and_6_are_refused_where_a_task_lacks_images(program, tmp_path, mode, setting):
    path = written(tmp_path / "mine.npz", content(tasks=TABLE))
    refused = program(mode, "--data", path, "--setting", setting, "--save_path", tmp_path / "run")
    assert refused.code == 2
    assert one_line(refused)
    assert "every image" in refused.err
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("channels", [0, 1, 3])
def test_images_and_labels_are_those_of_the_file_normalised_by_the_training_images(tmp_path, channels):
    arrays = content(channels=channels, side=5)
    arrays["train_images"] //= 2  # other than the test images
    path = written(tmp_path / "mine.npz", arrays)
    loaded = load(read_spec(path), Path(), 5, torch.device("cpu"))
    given = {name: arrays[f"{name}_images"].reshape(-1, 5, 5, channels or 1) for name in ("train", "test")}
    pixels = given["train"] / 255
    assert loaded.spec.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)))
    assert loaded.spec.std == pytest.approx(pixels.std(axis=(0, 1, 2)))
    for name, split in (("train", loaded.train), ("test", loaded.test)):
        assert np.array_equal(split.images.permute(0, 2, 3, 1), given[name])
        assert split.labels.tolist() == arrays[f"{name}_labels"].tolist()
        expected = (given[name] / 255 - pixels.mean(axis=(0, 1, 2))) / pixels.std(axis=(0, 1, 2))
        batch = split.batch(torch.arange(len(split)))[0].permute(0, 2, 3, 1)
        assert batch.numpy() == pytest.approx(expected, abs=1e-5)


def test_images_keep_their_size_and_epochs_are_20_unless_something_else_is_said(program, tmp_path):
    arrays = content(side=7)
    path = written(tmp_path / "mine.npz", arrays)
    for name, options, side, epochs in (("a", (), 7, 20), ("b", ("--image_size", 4, "--epochs", 2), 4, 2)):
        reader = Reader(arrays["train_images"])
        options += ("--data", path, "--batch_size", 5, "--save_model", "--save_history")
        assert program("--train", *options, "--save_path", tmp_path / name, network=reader.made).code == 0
        assert reader.encoder.sides == {side}
        assert len(history_of(tmp_path / name)["epochs"]) == epochs
        reader.encoder.sides.clear()
        assert (
            program("--eval", "--data", path, "--save_path", tmp_path / name, network=reader.made).code == 0
        )
        assert reader.encoder.sides == {side}


@pytest.mark.parametrize("name", ["mine.npz", "none.npz"])
def test_synthetic_does_not_go_with_a_file(program, tmp_path, name):
    written(tmp_path / "mine.npz", content())
    options = ("--data", tmp_path / name, "--synthetic", "--save_path", tmp_path / "run")
    for mode in ("--train", "--eval"):
        refused = program(mode, *options)
        assert refused.code == 2
        assert one_line(refused)
        assert "--synthetic" in refused.err
    assert not (tmp_path / "run").exists()


# Unequal classes, by hand: the network takes 6, 3 and 2 test images for what their pixels say, these classes

TAKEN_FOR = ((0, 0, 0, 0, 1, 2), (1, 1, 0), (2, 0))

ALL_CLASSES = [(Share(7, 11), (Share(4, 6) + Share(2, 3) + Share(1, 2)) / 3, Share(6, 11), 3)]
IS_IT_CLASS = [
    (Share(4 + 3, 11), (Share(4, 6) + Share(3, 5)) / 2, Share(6, 11), 2),
    (Share(2 + 7, 11), (Share(2, 3) + Share(7, 8)) / 2, Share(8, 11), 2),
    (Share(1 + 8, 11), (Share(1, 2) + Share(8, 9)) / 2, Share(9, 11), 2),
]
OF_TABLE = [
    (Share(5 + 2, 9), (Share(5, 6) + Share(2, 3)) / 2, Share(6, 9), 2),
    (Share(2 + 2, 5), (Share(2, 3) + Share(2, 2)) / 2, Share(3, 5), 2),  # what it takes for class 0 is a 0
    ALL_CLASSES[0],
    (Share(7 + 2, 11), (Share(7, 8) + Share(2, 3)) / 2, Share(8, 11), 2),
]
BY_CLASS = [*OF_TABLE]
BY_CLASS[1] = (Share(3 + 1, 5), (Share(3, 3) + Share(1, 2)) / 2, Share(3, 5), 2)  # and here it is class 1


def taken_for() -> dict[str, np.ndarray]:
    """A file with the test images above."""
    labels = [label for label, values in enumerate(TAKEN_FOR) for _ in values]
    return {
        "train_images": flat([0, 1, 2, 0, 1, 2, 0, 0, 1]),
        "train_labels": np.array([0, 1, 2, 0, 1, 2, 0, 0, 1]),
        "test_images": flat(sum(TAKEN_FOR, ())),
        "test_labels": np.array(labels),
    }


def trained_by_hand(
    program, path: Path, tasks: tuple | None, setting: int, save_path: Path, *options
) -> object:
    """Train with a network that takes images for what their pixels say."""
    rows = np.eye(3, dtype=np.int64).tolist() if tasks is None else tasks
    if setting in (0, 1):
        rows = [[0, 1, 2]]
    elif setting == 2:
        task = options[options.index("--task") + 1]
        rows = rows[task : task + 1]
    command = ("--train", "--data", path, "--setting", setting, "--save_history", "--save_path", save_path)
    reader = Reader(np.load(path)["train_images"], rows)
    return program(*command, "--epochs", 1, "--batch_size", 2, *options, network=reader.made)


@pytest.mark.parametrize(
    ("tasks", "setting", "expected"),
    [
        (None, 0, ALL_CLASSES),
        (None, 1, IS_IT_CLASS),
        (None, 2, IS_IT_CLASS[1:2]),
        *((None, setting, IS_IT_CLASS) for setting in (3, 4, 5, 6)),
        (TABLE, 0, ALL_CLASSES),
        (TABLE, 1, BY_CLASS),
        (TABLE, 2, OF_TABLE[1:2]),
        (TABLE, 3, OF_TABLE),
        (TABLE, 4, OF_TABLE),
    ],
)
def test_every_score_of_unequal_classes_is_what_a_hand_works_out(program, tmp_path, tasks, setting, expected):
    arrays = taken_for() | ({} if tasks is None else {"tasks": np.array(tasks)})
    path = written(tmp_path / "mine.npz", arrays)
    task = ("--task", 1) if setting == 2 else ()
    trained = trained_by_hand(program, path, tasks, setting, tmp_path, *task)
    accuracy, balanced, constant, answers = zip(*expected, strict=True)
    history = history_of(tmp_path)
    assert history["epochs"][0]["accuracy"] == pytest.approx([float(share) for share in accuracy])
    assert history["epochs"][0]["balanced_accuracy"] == pytest.approx([float(share) for share in balanced])
    assert history["constant_accuracy"] == pytest.approx([float(share) for share in constant])
    assert history["num_answers"] == list(answers)
    assert f"scores {fmean(map(float, constant)):.4f}" in trained.err


def test_a_report_on_unequal_classes_says_what_a_hand_works_out(program, report, tmp_path):
    names = ["left", "right", "both", "some"]
    path = written(tmp_path / "mine.npz", taken_for() | {"tasks": TABLE, "task_names": names})
    for setting in (0, 1, 3):
        trained_by_hand(program, path, TABLE, setting, tmp_path / "runs" / str(setting))
    for task in range(4):
        trained_by_hand(program, path, TABLE, 2, tmp_path / "runs" / f"2-{task}", "--task", task)
    reported = report(folder="runs")
    checksum = history_of(tmp_path / "runs" / "3")["options"]["data"].rpartition("#")[2]
    assert reported.lines[0].startswith(f"all: mine.npz (content {checksum}), 4 tasks, ")
    constant = fmean(float(commonest) for _, _, commonest, _ in OF_TABLE)
    even = fmean(1 / answers for *_, answers in OF_TABLE)
    assert f"commonest answer scores {100 * constant:.2f} %, balanced {100 * even:.2f} %\n" in reported.text
    assert "delta_m, gains and losses are in balanced accuracy" in reported.text
    single = [float(row[1]) for row in OF_TABLE]
    for label, expected in (
        ("0 standard", ALL_CLASSES),
        ("1 standard by task", BY_CLASS),
        ("2 single task", OF_TABLE),
        ("3 uniform sampling", OF_TABLE),
    ):
        cells = reported.cells(label)
        accuracy = [float(share) for share, *_ in expected]
        balanced = [float(share) for _, share, *_ in expected]
        assert cells["runs"] == ("4" if label[0] == "2" else "1")
        assert cells["accuracy, %"] == f"{100 * fmean(accuracy):.2f}"
        assert cells["balanced, %"] == f"{100 * fmean(balanced):.2f}"
        if label[0] != "0":
            assert cells["worst task"] == f"both {100 * min(accuracy):.1f}"
            assert cells["best task"] == f"some {100 * max(accuracy):.1f}"
        if label[0] in "13":
            changes = [100 * (shared - alone) / alone for shared, alone in zip(balanced, single, strict=True)]
            assert float(cells["delta_m, %"]) == pytest.approx(fmean(changes), abs=0.006)
    with open(tmp_path / "runs" / "report.csv", newline="") as file:
        rows = {(row["setting"], row["task"]): row for row in csv.DictReader(file)}
    assert len(rows) == 1 + 3 * 4
    for setting, expected in (("1", BY_CLASS), ("2", OF_TABLE), ("3", OF_TABLE)):
        for name, (accuracy, balanced, *_) in zip(names, expected, strict=True):
            assert float(rows[setting, name]["accuracy"]) == pytest.approx(float(accuracy))
            assert float(rows[setting, name]["balanced_accuracy"]) == pytest.approx(float(balanced))


def test_a_task_may_be_called_all_classes(program, report, tmp_path):
    names = ["all classes", "right", "both", "some"]
    path = written(tmp_path / "mine.npz", taken_for() | {"tasks": TABLE, "task_names": names})
    trained_by_hand(program, path, TABLE, 0, tmp_path / "runs" / "0")
    trained_by_hand(program, path, TABLE, 2, tmp_path / "runs" / "2", "--task", 0)
    reported = report(folder="runs")
    assert reported.left_out == {}
    assert "no seed has all tasks, but at most 1 of 4" in reported.out


def test_tasks_have_the_names_that_the_file_gives(program, tmp_path):
    names = ["blue whale", "cat", "dog"]
    for tasks, expected in (
        ({}, names),
        ({"tasks": SHARED, "task_names": ["which", "sea"]}, ["which", "sea"]),
    ):
        path = written(tmp_path / "mine.npz", content(class_names=names, **tasks))
        saved = ("--save_history", "--overwrite", "--save_path", tmp_path / "run")
        reader = Reader(content()["train_images"])
        options = ("--data", path, "--setting", 3, "--epochs", 1, "--batch_size", 2)
        assert program("--train", *options, *saved, network=reader.made).code == 0
        history = history_of(tmp_path / "run")
        assert history["tasks"] == history["data_set"]["tasks"] == expected


def test_answers_have_the_names_that_the_file_gives_or_their_numbers(tmp_path):
    def names(**arrays: object) -> dict[str, tuple[str, ...]]:
        return read_spec(written(tmp_path / "mine.npz", content(**arrays))).answer_names

    assert names() == {f"class {c}": ("0", "1") for c in range(3)}
    assert list(names(tasks=TABLE).values()) == [("0", "1"), ("0", "1"), ("0", "1", "2"), ("0", "1")]
    given = [["no", "yes", ""], ["left", "very  right ", ""], ["a", "b", "c"], ["", "", ""]]
    assert list(names(tasks=TABLE, answer_names=given).values()) == [
        ("no", "yes"),
        ("left", "very right"),
        ("a", "b", "c"),
        ("0", "1"),
    ]
    assert read_spec(tmp_path / "mine.npz").class_names == ()
    names(class_names=["x", "y", "z"])
    assert read_spec(tmp_path / "mine.npz").class_names == ("x", "y", "z")


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("stand_in", [False, True])
def test_the_answers_of_the_published_data_sets_have_names(number, stand_in):
    spec = DATA_SETS[number].stand_in if stand_in else DATA_SETS[number]
    assert list(spec.answer_names) == list(spec.tasks)
    for task, names in spec.answer_names.items():
        assert len(names) == len(set(names)) == max(spec.tasks[task]) + 1
        if number == 0:
            assert names == ("no", "yes")
        elif number == 1:
            assert list(names) == [spec.class_names[c] for c, n in enumerate(spec.tasks[task]) if n >= 0]
        else:
            assert names == tuple(map(str, range(len(names))))
    assert len(spec.class_names) == (0 if number == 2 else spec.num_classes)


# Steps, batches and what is held out of classes of 7, 5, 2 and 4 images, each of a value of its own

SIZES = (7, 5, 2, 4)
OF_CLASS = [set(range(sum(SIZES[:label]), sum(SIZES[: label + 1]))) for label in range(4)]


def numbered(**arrays: object) -> dict[str, np.ndarray]:
    """A file whose training images are of the values above, and whose test images are of those from 200."""
    return {
        "train_images": flat(range(sum(SIZES))),
        "train_labels": np.repeat(range(4), SIZES),
        "test_images": flat(range(200, 208)),
        "test_labels": np.arange(8) % 4,
    } | {name: np.array(array) for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("tasks", "options", "steps", "classes"),
    [
        (UNEVEN, ("--setting", 0), 18 // 3, (0, 1, 2, 3)),
        (UNEVEN, ("--setting", 1), 18 // 3, (0, 1, 2, 3)),
        (UNEVEN, ("--setting", 2, "--task", 0), 12 // 3, (0, 1)),
        (UNEVEN, ("--setting", 2, "--task", 1), 7 // 3, (1, 2)),
        (UNEVEN, ("--setting", 3), 12 // 3 + 7 // 3 + 14 // 3, (0, 1, 2)),
        (UNEVEN, ("--setting", 4), 12 // 3 + 7 // 3 + 14 // 3, (0, 1, 2)),
        (None, ("--setting", 2, "--task", 3), 18 // 3, (0, 1, 2, 3)),
        (None, ("--setting", 3), 4 * (18 // 3), (0, 1, 2, 3)),
        (None, ("--setting", 5), 18 // 3, (0, 1, 2, 3)),
        (None, ("--setting", 6), 18 // 3, (0, 1, 2, 3)),
        (UNEVEN, ("--setting", 3, "--validation", 0.3), 8 // 3 + 4 // 3 + 9 // 3, (0, 1, 2)),
    ],
)
def test_an_epoch_has_a_step_for_each_full_batch_of_each_task_and_shows_its_classes_alone(
    program, tmp_path, tasks, options, steps, classes
):
    arrays = numbered() if tasks is None else numbered(tasks=tasks)
    path = written(tmp_path / "mine.npz", arrays)
    reader = Reader(arrays["train_images"])
    options += ("--data", path, "--batch_size", 3, "--epochs", 4, "--save_history", "--save_path", tmp_path)
    assert program("--train", *options, network=reader.made).code == 0
    assert {(epoch["steps"], epoch["images"]) for epoch in history_of(tmp_path)["epochs"]} == {
        (steps, 3 * steps)
    }
    assert {label for label in range(4) if OF_CLASS[label] & reader.encoder.shown[True]} == set(classes)


@pytest.mark.parametrize(
    ("options", "largest"),
    [
        (("--setting", 0), 18),
        (("--setting", 2, "--task", 0), 12),
        (("--setting", 2, "--task", 1), 7),
        (("--setting", 3), 7),
        (("--setting", 4), 7),
        (("--setting", 4, "--weights", 1, 0, 1), 12),
        (("--setting", 0, "--validation", 0.3), 12),
        (("--setting", 3, "--validation", 0.3), 4),
    ],
)
def test_a_batch_larger_than_the_smallest_task_is_refused_with_the_number_that_would_do(
    program, tmp_path, options, largest
):
    arrays = numbered(tasks=UNEVEN)
    path = written(tmp_path / "mine.npz", arrays)
    options = ("--train", "--data", path, *options, "--epochs", 1, "--save_path", tmp_path / "run")
    for size in ((), ("--batch_size", largest + 1)):
        refused = program(*options, *size, "--save_history")
        assert refused.code == 2
        assert one_line(refused)
        assert re.findall(r"at most (\d+)", refused.err) == [str(largest)]
        assert not (tmp_path / "run").exists()
    taken = program(*options, "--batch_size", largest, network=Reader(arrays["train_images"]).made)
    assert taken.code == 0


@pytest.mark.parametrize(("share", "held"), [(0.4, (3, 2, 1, 2)), (0.01, (1, 1, 1, 1)), (0.99, (6, 4, 1, 3))])
def test_a_share_of_each_class_is_held_out_of_training_and_scored_whatever_the_seed(
    program, tmp_path, share, held
):
    arrays = numbered()
    path = written(tmp_path / "mine.npz", arrays)
    options = ("--data", path, "--epochs", 6, "--batch_size", 2, "--validation", share)
    scored = []
    for setting, seed in ((0, 0), (0, 1), (3, 1)):
        reader = Reader(arrays["train_images"])
        saved = ("--save_history", "--overwrite", "--save_path", tmp_path)
        trained = program(
            "--train", "--setting", setting, "--seed", seed, *options, *saved, network=reader.made
        )
        assert trained.code == 0
        scored.append(reader.encoder.shown[False])
        assert reader.encoder.shown[True] == set(range(18)) - scored[-1]
        assert f"{18 - sum(held)} training and {sum(held)} validation images" in trained.err
    assert scored[0] == scored[1] == scored[2]
    assert tuple(len(values & scored[0]) for values in OF_CLASS) == held
    history = history_of(tmp_path)  # of a task per class
    assert history["data_set"]["scored_on"] == "validation"
    constant = [max(count, sum(held) - count) / sum(held) for count in held]
    assert history["constant_accuracy"] == pytest.approx(constant)


def test_an_evaluation_scores_what_its_model_was_scored_on_or_the_test_images(program, tmp_path):
    arrays = numbered()
    path = written(tmp_path / "mine.npz", arrays)
    options = ("--data", path, "--save_path", tmp_path)
    recipe = ("--epochs", 1, "--batch_size", 2, "--validation", 0.3, "--save_model")
    trained = Reader(arrays["train_images"])
    assert program("--train", *options, *recipe, network=trained.made).code == 0
    for more, expected in (((), trained.encoder.shown[False]), (("--validation", 0), set(range(200, 208)))):
        reader = Reader(arrays["train_images"])
        assert program("--eval", *options, *more, network=reader.made).code == 0
        assert reader.encoder.shown == {True: set(), False: expected}


@pytest.mark.parametrize(("train", "code"), [((6, 4, 1), 2), ((6, 4, 2), 0)])
def test_a_class_with_a_single_training_image_cannot_be_parted(program, tmp_path, train, code):
    arrays = content(train=train)
    path = written(tmp_path / "mine.npz", arrays)
    options = ("--data", path, "--epochs", 1, "--batch_size", 2)
    reader = Reader(arrays["train_images"])
    assert program("--train", *options, network=reader.made).code == 0
    parted = program("--train", *options, "--validation", 0.3, network=reader.made)
    assert parted.code == code
    if code:
        assert one_line(parted)
        assert "--validation" in parted.err


# Files that are none, lack something or contradict themselves


def bytes_of(arrays: dict) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def bare(array: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def zip_of(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, entry in entries.items():
            archive.writestr(name, entry)
    return buffer.getvalue()


def flipped(arrays: dict, name: str) -> bytes:
    """A file with a wrong bit close to the end of an array."""
    whole = bytearray(bytes_of(arrays))
    last = arrays[name].tobytes()[-50:]
    whole[whole.find(last) + len(last) - 1] ^= 1
    return bytes(whole)


def shortened(arrays: dict, name: str) -> bytes:
    """A file whose archive is whole, but with an array that is shorter than it says."""
    entries = {f"{each}.npy": bare(array) for each, array in arrays.items()}
    return zip_of(entries | {f"{name}.npy": entries[f"{name}.npy"][:-3]})


def lengthened(arrays: dict, name: str) -> bytes:
    """A file whose archive is whole, but with bytes after an array."""
    entries = {f"{each}.npy": bare(array) for each, array in arrays.items()}
    return zip_of(entries | {f"{name}.npy": entries[f"{name}.npy"] + b"more"})


def claiming(arrays: dict, name: str, count: int) -> bytes:
    """The arrays in an archive in which one says in its header that it has another number of entries."""
    entries = {f"{each}.npy": bare(array) for each, array in arrays.items()}
    true = f"({len(arrays[name])},)".encode()
    entry = entries[f"{name}.npy"]
    padded = f"({count},)".encode()
    assert true in entry
    entry = entry.replace(true, padded).replace(b" " * (len(padded) - len(true)), b"", 1)
    return zip_of(entries | {f"{name}.npy": entry})


GOOD, LARGE = content(), content(side=64)


def both(change: Callable) -> dict[str, np.ndarray]:
    """The good images, changed."""
    return {name: change(GOOD[name]) for name in ("train_images", "test_images")}


WHOLE = bytes_of(GOOD)
COUNTS = {"train_images": 13, "test_images": 6, "train_labels": 13, "test_labels": 6}
FILES = {"train_files": 13, "test_files": 6}

BAD = {
    "empty": (b"", "npz"),
    "text": (b"train_images, train_labels\n", "npz"),
    "pickle": (pickle.dumps(GOOD), "npz"),
    "half": (WHOLE[: len(WHOLE) // 2], "npz"),
    "without the end": (WHOLE[:-30], "npz"),
    "without the start": (WHOLE[200:], "npz"),
    "zip of text": (zip_of({"train_images.txt": b"text"}), "'train_images.txt', which is none of the arrays"),
    "zip of text by the names of arrays": (zip_of({f"{name}.npy": b"text" for name in GOOD}), "npz"),
    "zip of files by the names of arrays": (zip_of(dict.fromkeys(GOOD, b"text")), "npz"),
    "empty zip": (zip_of({}), "lacks train_images"),
    "bare array": (bare(GOOD["train_images"]), "single array"),
    **{f"flipped {name}": (flipped(LARGE, name), f"damaged: {name}") for name in LARGE},
    **{f"short {name}": (shortened(GOOD, name), f"damaged: {name}") for name in GOOD},
    **{f"longer {name}": (lengthened(GOOD, name), f"damaged: {name}") for name in GOOD},
    **{f"without {name}": ({name: None}, f"lacks {name}") for name in GOOD},
    **{
        f"float {name}": ({name: GOOD[name].astype(np.float32)}, f"{name} of type float32")
        for name in GOOD
    },
    **{f"bool {name}": ({name: GOOD[name] > 0}, f"{name} of type bool") for name in GOOD},
    "int64 images": ({"train_images": GOOD["train_images"].astype(np.int64)}, "train_images of type int64"),
    **{f"{name} of text": ({name: GOOD[name].astype(str)}, f"{name} of type") for name in GOOD},
    "not square": (both(lambda images: images[:, 1:]), "train_images of shape (13, 7, 8, 3): it must be"),
    "test images not square": ({"test_images": GOOD["test_images"][:, 1:]}, "test_images of shape"),
    **{
        f"{channels} channels": (both(lambda images, n=channels: images[..., [0, 1, 2, 0][:n]]), "C 1 or 3")
        for channels in (0, 2, 4)
    },
    "5 dimensions": (both(lambda images: images[..., None]), "train_images of shape (13, 8, 8, 3, 1)"),
    "2 dimensions": (both(lambda images: images[..., 0, 0]), "train_images of shape (13, 8)"),
    "channels first": (both(lambda images: images.transpose(0, 3, 1, 2)), "train_images of shape"),
    "no pixels": (both(lambda images: images[:, :0, :0]), "0 pixels"),
    "other sizes": ({"test_images": GOOD["test_images"][:, 1:, 1:]}, "test_images of shape"),
    "other channels": ({"test_images": GOOD["test_images"][..., :1]}, "test_images of shape"),
    **{f"one too few {name}": ({name: GOOD[name][1:]}, str(count - 1)) for name, count in COUNTS.items()},
    "no images": ({name: GOOD[name][:0] for name in GOOD}, "labels of shape (0,): it must be (N,)"),
    "labels of 2 dimensions": ({"train_labels": GOOD["train_labels"][:, None]}, "train_labels of shape"),
    "one label": ({"test_labels": np.array(1)}, "test_labels of shape"),
    **{
        f"negative {name}": ({name: GOOD[name] - 1}, f"the label -1 in {name}")
        for name in ("train_labels", "test_labels")
    },
    "labels from 1": ({name: GOOD[name] + 1 for name in ("train_labels", "test_labels")}, "class 0"),
    **{
        f"{name} beyond the table": (
            {"tasks": TABLE, name: np.where(GOOD[name] == 1, 3, GOOD[name])}, f"the label 3 in {name}",
        )
        for name in ("train_labels", "test_labels")
    },
    "labels beyond the names": ({"class_names": ["a", "b"]}, "the label 2"),
    "a huge label": ({"test_labels": np.array([0, 1, 2, 0, 1, 2**62])}, str(2**62)),
    "a class without training images": (
        {"train_labels": np.where(GOOD["train_labels"] == 1, 0, GOOD["train_labels"])},
        "no training image of class 1",
    ),
    "a class without test images": (
        {"test_labels": np.where(GOOD["test_labels"] == 1, 0, GOOD["test_labels"])},
        "no test image of class 1",
    ),
    "a class of the table without images": ({"tasks": np.eye(4, dtype=int)}, "image of class 3"),
    "a class of the names without images": ({"class_names": list("abcd")}, "image of class 3"),
    "too few columns": ({"tasks": [(0, 1), (1, 0)]}, "2"),
    "a row": ({"tasks": [0, 1, 2]}, "tasks of shape"),
    "3 dimensions": ({"tasks": [[[0, 1, 2]]]}, "tasks of shape"),
    "no task": ({"tasks": np.zeros((0, 3), dtype=int)}, "tasks of shape"),
    "float table": ({"tasks": np.array(TABLE, dtype=float)}, "tasks of type float64"),
    "a gap": ({"tasks": [(0, 1, 2), (0, 2, -1)]}, "task 1"),
    "numbers from 1": ({"tasks": [(0, 1, 2), (1, 2, 3)]}, "task 1"),
    "another negative number": ({"tasks": [(0, 1, 2), (0, 1, -2)]}, "task 1"),
    "a task with one class": ({"tasks": [(0, 1, 2), (-1, 0, -1)]}, "task 1"),
    "a task with one answer": ({"tasks": [(0, 1, 2), (0, 0, 0)], "task_names": ["a", "odd"]}, "odd"),
    "a task without classes": ({"tasks": [(0, 1, 2), (-1, -1, -1)]}, "task 1"),
    "too few task names": ({"tasks": SHARED, "task_names": ["a"]}, "1 task_names"),
    "too many task names": ({"tasks": SHARED, "task_names": ["a", "b", "c"]}, "3 task_names"),
    "equal task names": ({"tasks": SHARED, "task_names": ["a", "a"]}, "task_names"),
    "an empty task name": ({"tasks": SHARED, "task_names": ["a", " "]}, "task_names"),
    "task names that are numbers": ({"tasks": SHARED, "task_names": [1, 2]}, "task_names of type"),
    "a single task name": ({"tasks": SHARED, "task_names": "ab"}, "task_names"),
    "equal class names": ({"class_names": ["a", "b", "a"]}, "class_names"),
    "class names that are no table's": ({"tasks": SHARED, "class_names": ["a", "b"]}, "2 class_names"),
    "class names that are numbers": ({"class_names": [1, 2, 3]}, "class_names of type"),
    "text that is not printable": ({"class_names": ["a", "b", "\x1b[31m"]}, "class_names"),
    "answer names of a row": ({"answer_names": ["no", "yes"]}, "answer_names of shape (2,)"),
    "answer names of too few tasks": ({"answer_names": [["no", "yes"]] * 2}, "answer_names of shape (2, 2)"),
    "answer names of too many answers": (
        {"answer_names": [["no", "yes", ""]] * 3}, "answer_names of shape (3, 3): it must be (3, 2)",
    ),
    "answer names that are numbers": ({"answer_names": [[0, 1]] * 3}, "answer_names of type"),
    "answer names of too few answers": ({"answer_names": [["no", "yes"], ["no", ""], ["", ""]]}, "class 1"),
    "an answer name beyond": (
        {"tasks": [(0, 1, 2), (1, 0, 1)], "answer_names": [list("abc")] * 2}, "answer_names of task 1",
    ),
    "equal answer names": ({"answer_names": [["no", "yes"], ["no", " no"], ["", ""]]}, "class 1"),
    "an answer name that is not printable": ({"answer_names": [["no", "y\x1b"]] * 3}, "class 0"),
    **{f"one too few {name}": ({name: ["a.png"] * (count - 1)}, name) for name, count in FILES.items()},
    **{f"{name} of numbers": ({name: np.arange(count)}, name) for name, count in FILES.items()},
    **{f"two columns of {name}": ({name: [["a", "b"]] * count}, name) for name, count in FILES.items()},
    "names of no tasks": ({"task_names": ["a", "b", "c"]}, "task_names and no tasks"),
    "one class": (
        {name: np.zeros_like(GOOD[name]) for name in ("train_labels", "test_labels")}, "single class"
    ),
    "more than it holds": (claiming(GOOD, "train_labels", 10**11), "train_labels is not as large"),
    "one colour": ({"train_images": np.full_like(GOOD["train_images"], 7)}, "colour"),
}  # fmt: skip
"""Bytes, or other arrays than the good ones, None for none; and a part of what is said."""


def assert_refused(program, path: Path, says: str) -> None:
    """Whatever is to be done with a file, it ends in one line, and nothing is written."""
    options = ("--data", path, "--save_path", path.parent / "run", "--batch_size", 2, "--epochs", 1)
    before = snapshot(path.parent)
    for mode in (("--train", "--save_model", "--save_history"), ("--train", "--resume"), ("--eval",)):
        refused = program(*mode, *options)
        assert refused.code == 1
        assert one_line(refused)
        assert refused.err.startswith("main.py: error: ")
        if "there is no model" not in refused.err:  # which an evaluation finds before it reads images
            assert path.name in refused.err
            assert says in refused.err
        assert snapshot(path.parent) == before


@pytest.mark.parametrize(("change", "says"), BAD.values(), ids=BAD)
def test_a_bad_file_is_told_in_a_line_and_nothing_is_written(program, tmp_path, change, says):
    path = tmp_path / "bad.npz"
    if isinstance(change, bytes):
        path.write_bytes(change)
    else:
        arrays = {name: array for name, array in (GOOD | change).items() if array is not None}
        written(path, arrays)
    assert_refused(program, path, says)


@pytest.mark.parametrize("is_directory", [False, True], ids=["missing", "directory"])
def test_what_is_no_file_is_told_in_a_line(program, tmp_path, is_directory):
    path = tmp_path / "none.npz"
    if is_directory:
        path.mkdir()
    assert_refused(program, path, str(path))


def test_a_file_that_changes_before_its_images_are_read_is_refused(tmp_path):
    spec = read_spec(written(tmp_path / "mine.npz", GOOD))
    written(tmp_path / "mine.npz", GOOD | both(lambda images: 255 - images))
    with pytest.raises(UserError, match=r"mine\.npz has changed"):
        load(spec, Path(), 8, torch.device("cpu"))


class Harm:
    """Makes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", [*GOOD, "tasks", "class_names", "task_names", "answer_names", *FILES])
def test_an_array_of_objects_is_refused_and_none_is_unpickled(program, tmp_path, name):
    harm = tmp_path / "harm"
    arrays = GOOD | {"tasks": SHARED, "class_names": list("abc"), "task_names": list("ab")}
    arrays |= {"answer_names": [list("xyz"), ["n", "y", ""]]}
    arrays |= {each: ["a.png"] * count for each, count in FILES.items()}
    arrays[name] = np.full(np.shape(arrays[name]), Harm(harm), dtype=object)
    path = written(tmp_path / "bad.npz", arrays)
    assert_refused(program, path, name)
    assert not harm.exists()
    np.load(path, allow_pickle=True)[name]
    assert harm.exists()  # so it would have been seen


@pytest.mark.parametrize("pack", [pickle.dumps, bare], ids=["pickle", "bare array"])
def test_a_file_of_objects_is_refused_and_none_is_unpickled(program, tmp_path, pack):
    harm = tmp_path / "harm"
    path = tmp_path / "bad.npz"
    path.write_bytes(pack(np.array([Harm(harm)])))
    assert_refused(program, path, "npz")
    assert not harm.exists()
    np.load(path, allow_pickle=True)
    assert harm.exists()


def test_what_else_a_file_holds_is_refused_and_not_unpickled(program, tmp_path):
    path = written(tmp_path / "bad.npz", GOOD | {"notes": np.array([Harm(tmp_path / "harm")])})
    assert_refused(program, path, "notes")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("task", "tasks"),
        ("labels_train", None),
        ("train_lables", "train_labels"),
        ("Test_images", "test_images"),
        ("names_of_tasks", None),
        ("task_name", "task_names"),
        ("class_name", "class_names"),
        ("answers_names", "answer_names"),
        ("train_file", "train_files"),
    ],
)
def test_an_array_of_an_unknown_name_is_refused_with_the_name_that_is_meant(program, tmp_path, name, meant):
    path = written(tmp_path / "bad.npz", GOOD | {name: np.array(TABLE)})
    assert_refused(program, path, f"'{name}.npy'")
    with pytest.raises(UserError) as refused:
        read_spec(path)
    assert re.findall(r"rename it to (\w+)", str(refused.value)) == [meant] * (meant is not None)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["train_labels", "train_labels.npy", "tasks.npy"])
def test_a_member_that_stands_twice_is_refused(program, tmp_path, name):
    path = written(tmp_path / "bad.npz", GOOD | {"tasks": np.array(TABLE)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, bare(GOOD["train_labels"][::-1]))
    assert_refused(program, path, f"{name.removesuffix('.npy')} twice")


@pytest.mark.parametrize("name", ["tasks", "README.txt", "tasks.npy/", "folder/tasks.npy"])
def test_a_member_that_is_no_array_is_refused(program, tmp_path, name):
    path = written(tmp_path / "bad.npz", GOOD)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, bare(np.array(TABLE)))
    assert_refused(program, path, name)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_one_wrong_bit_is_refused_or_changes_nothing(tmp_path, save):
    arrays = content(side=2) | {"tasks": np.array(TABLE), "class_names": np.array(list("abc"))}
    arrays |= {"answer_names": np.array([list("xy ")] * 2 + [list("xyz"), list("xy ")])}
    path = written(tmp_path / "mine.npz", arrays, save)
    whole, spec = path.read_bytes(), read_spec(path)
    images = read_images(spec.path, spec.checksum)
    places = np.random.default_rng(0).integers(0, 8 * len(whole), 300).tolist()
    for entry in re.finditer(b"PK\x01\x02", whole):  # where each says how long it is itself
        places += range(8 * (entry.start() + 28), 8 * (entry.start() + 34))
    refused = 0
    for place in places:
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            got = read_spec(path)
            got_images = read_images(got.path, got.checksum)
        except UserError:
            refused += 1
            continue
        assert replace(got, checksum=spec.checksum) == spec
        assert all(np.array_equal(got_images[name], image) for name, image in images.items())
    assert 300 < refused < len(places)


def test_memory_that_is_short_is_not_taken_for_a_damaged_file(tmp_path, monkeypatch):
    path = written(tmp_path / "mine.npz", GOOD)

    def short(*_, **__):
        raise MemoryError("Unable to allocate 2 GiB")

    monkeypatch.setattr(np.lib.format, "read_array", short)
    with pytest.raises(MemoryError):
        read_spec(path)


def test_classes_may_share_a_number_within_a_task(tmp_path):
    spec = read_spec(written(tmp_path / "mine.npz", content(tasks=[(0, 1, 1), (1, 0, 1)])))
    assert list(spec.tasks.values()) == [(0, 1, 1), (1, 0, 1)]


# Which files are the same

RECIPE = ("--batch_size", 5, "--save_model", "--save_history")

COPIES = {"another name": ("another name.npz", np.savez), "compressed": ("mine.npz", np.savez_compressed)}


@pytest.mark.parametrize(("name", "save"), COPIES.values(), ids=COPIES)
def test_the_same_content_goes_on_whatever_its_name_and_compression(program, tmp_path, name, save):
    path = written(tmp_path / "mine.npz", GOOD)
    copy = written(tmp_path / "copy" / name, GOOD, save)
    program("--train", "--data", path, "--epochs", 2, *RECIPE, "--save_path", tmp_path / "straight")
    options = (*RECIPE, "--resume", "--save_path", tmp_path / "parted")
    program("--train", "--data", path, "--epochs", 1, *options)
    resumed = program("--train", "--data", copy, "--epochs", 2, *options)
    assert resumed.code == 0
    (weights, straight), (others, parted) = result_of(tmp_path / "straight"), result_of(tmp_path / "parted")
    assert weights == others
    assert straight["epochs"] == parted["epochs"]
    again = program("--train", "--data", path, "--epochs", 2, *options)
    assert (again.code, again.accuracy) == (0, resumed.accuracy)
    evaluated = program("--eval", "--data", copy, "--save_path", tmp_path / "straight")
    assert evaluated.accuracy == resumed.accuracy


def changed(name: str) -> dict:
    """The good arrays with one entry of one changed."""
    array = GOOD[name].copy()
    if array.ndim > 1:
        array[-1, -1, -1, -1] ^= 1
    else:
        first, second = 0, int((array != array[0]).argmax())
        array[[first, second]] = array[[second, first]]
    return GOOD | {name: array}


OTHERS = {
    **{f"other {name}": changed(name) for name in GOOD},
    "a table": GOOD | {"tasks": np.eye(3, dtype=int)},
    "names": GOOD | {"class_names": ["a", "b", "c"]},
    "answers' names": GOOD | {"answer_names": [["no", "yes"]] * 3},
    "pictures' names": GOOD | {"test_files": list("abcdef")},
}


def test_another_content_under_the_same_name_is_refused(program, tmp_path):
    path = written(tmp_path / "mine.npz", GOOD)
    saved = ("--save_path", tmp_path / "run")
    reader = Reader(GOOD["train_images"])
    train = ("--train", *RECIPE, *saved)
    assert program(*train, "--data", path, "--epochs", 1, network=reader.made).code == 0
    for number, arrays in enumerate(OTHERS.values()):
        other = written(tmp_path / str(number) / "mine.npz", arrays)
        before = snapshot(tmp_path / "run")
        for command in (
            (*train, "--resume", "--epochs", 1),
            (*train, "--resume", "--epochs", 2),
            ("--eval", *saved),
        ):
            refused = program(*command, "--data", other, network=reader.made)
            assert refused.code == 1
            assert one_line(refused)
            assert "mine.npz" in refused.err
            assert snapshot(tmp_path / "run") == before
    (tmp_path / "run" / "history.json").unlink()  # the model alone tells, too
    refused = program(*train, "--data", other, "--resume", "--epochs", 2, network=reader.made)
    assert refused.code == 1
    assert one_line(refused)
    assert program(*train, "--data", path, "--resume", "--epochs", 2, network=reader.made).code == 0


def test_a_report_takes_files_of_the_same_content_for_one_data_set(program, report, tmp_path):
    reader = Reader(GOOD["train_images"])
    recorded = {}
    for seed, (name, save) in enumerate([("mine.npz", np.savez), *COPIES.values()]):
        path = written(tmp_path / str(seed) / name, GOOD, save)
        saved = ("--save_history", "--save_path", tmp_path / "runs" / str(seed))
        options = ("--data", path, "--setting", 3, "--epochs", 1, "--batch_size", 2, "--seed", seed)
        assert program("--train", *options, *saved, network=reader.made).code == 0
        recorded[str(seed)] = history_of(tmp_path / "runs" / str(seed))["options"]["data"]
        assert name in recorded[str(seed)]
    checksums = {data.rpartition("#")[2] for data in recorded.values()}
    assert len(checksums) == 1
    reported = report(folder="runs")
    assert reported.cells("3 uniform sampling")["seeds"] == "3"
    assert reported.left_out == {}
    with open(tmp_path / "runs" / "report.csv", newline="") as file:
        assert {row["seed"]: row["data"] for row in csv.DictReader(file)} == recorded


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_report_keeps_files_of_one_name_and_different_content_apart(program, report, tmp_path, other):
    reader = Reader(GOOD["train_images"])
    titles = []
    for name, setting, arrays in (("a", 0, GOOD), ("b", 1, other)):
        path = written(tmp_path / name / "mine.npz", arrays)
        saved = ("--save_history", "--save_path", tmp_path / "runs" / name)
        options = ("--data", path, "--setting", setting, "--epochs", 1, "--batch_size", 5)
        assert program("--train", *options, *saved, network=reader.made).code == 0
        checksum = history_of(tmp_path / "runs" / name)["options"]["data"].rpartition("#")[2]
        titles.append(f"all: mine.npz (content {checksum}), ")
    sections = re.split(
        r"^(all: mine\.npz \(content \w+\), )", report(folder="runs").out, flags=re.MULTILINE
    )[1:]
    for title, section in zip(sections[::2], sections[1::2], strict=True):
        words = "0 standard" if title == titles[0] else "1 standard by task"
        assert re.findall(r"^[AB]  (\d [a-z ]+?)(?=  | \()", section, re.MULTILINE) == [words]
    assert sorted(sections[::2]) == sorted(titles)
    assert titles[0] != titles[1]


def test_a_channel_may_be_constant_where_others_are_not(tmp_path):
    images = content(channels=3)["train_images"].copy()
    images[..., 2] = 9
    data = load(
        read_spec(written(tmp_path / "own.npz", content(channels=3) | {"train_images": images})),
        tmp_path,
        8,
        torch.device("cpu"),
    )
    inputs, _ = data.train.batch(torch.arange(len(data.train)))
    assert inputs.isfinite().all()
    assert inputs[:, 0].std() > 0.5


def test_a_task_that_is_called_as_all_classes_together_are_keeps_its_constant_answer(
    program, report, tmp_path
):
    path = written(tmp_path / "own.npz", content() | {"class_names": ["all classes", "b", "c"]})
    options = ("--train", "--data", path, "--batch_size", 4, "--epochs", 1, "--save_history", "--save_path")
    for setting in (3, 0):
        program(*options, tmp_path / "runs" / str(setting), "--setting", setting)
        constant = re.search(r"answer scores (\d+\.\d+) %", report(folder="runs").text)[1]
        tasks = history_of(tmp_path / "runs" / "3")["constant_accuracy"]
        assert float(constant) == pytest.approx(100 * fmean(tasks), abs=0.01)
