"""Read and check a data set of the user's own, FILE.npz.

Nothing in it is ever executed. As a program, this makes such a file from a folder of pictures.
"""

import os
import sys
from signal import SIG_DFL, SIGINT, signal

if __name__ == "__main__":  # before NumPy, which may be missing
    signal(SIGINT, SIG_DFL)  # Ctrl-C ends the program silently until StopSignals takes over
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # python -P does not add it
    from pictures import main

    sys.exit(main())

import difflib
import hashlib
import math
import struct
import zipfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from numpy.lib.npyio import NpzFile

from errors import UserError, is_out_of_memory
from tasks import DataSpec

IMAGES, LABELS = ("train_images", "test_images"), ("train_labels", "test_labels")
USES = {"train_labels": "training", "test_labels": "test"}
REQUIRED = IMAGES + LABELS
FILES = ("train_files", "test_files")
OPTIONAL = ("tasks", "class_names", "task_names", "answer_names", *FILES)

EPOCHS = 20
LARGEST_SIDE = 1024
MOST_CLASSES = 100_000
MOST_TASKS = 1000
"""Largest number of tasks without a table."""

T = TypeVar("T")


class _WrongError(Exception):
    """The content of a file is wrong; the text says how."""


def read_spec(path: Path) -> DataSpec:
    """Read the definition of a data set from a file.

    It reads labels and tasks, but no images.

    Raises:
        UserError: there is no such file, or it is not a valid data set.
    """
    return _open(path, lambda archive: _read_spec(archive, path))


def read_images(path: Path, checksum: str) -> dict[str, np.ndarray]:
    """Read the images and labels of a file.

    Args:
        path: a file that read_spec has described.
        checksum: the checksum that read_spec found.

    Returns:
        `train_images` and `test_images`, uint8, N x C x H x W; `train_labels` and `test_labels`, int64, N:
        the class of each image, or -1 for an image without any label.

    Raises:
        UserError: the file is damaged, or has changed.
    """

    def read(archive: NpzFile) -> dict[str, np.ndarray]:
        if _checksum(archive) != checksum:
            raise _WrongError("has changed since the program started")
        labels = {name: _labels(archive, name) for name in LABELS}
        if labels[LABELS[0]].ndim == 2:
            labels = _number_rows(labels)[1]
        images = {name: _array(archive, name) for name in IMAGES}
        channels_last = {
            name: each if each.ndim == 4 else each[:, :, :, np.newaxis] for name, each in images.items()
        }
        return labels | {name: each.transpose(0, 3, 1, 2) for name, each in channels_last.items()}

    return _open(path, read)


def held_out_images(num_images: int, count: int) -> np.ndarray:
    """Indices of the held-out images of a file without classes: int64, in shuffled order."""
    return np.random.RandomState(0).permutation(num_images)[:count]  # the same in every version of NumPy


def _open(path: Path, read: Callable[[NpzFile], T]) -> T:
    """Read from a file.

    Everything that is wrong with it becomes a UserError.
    """
    try:
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, NpzFile):
                raise _WrongError("is a single array, not an archive of several: make it with numpy.savez")
            _check_members(_members(archive), file)
            return read(archive)
    except FileNotFoundError:
        raise UserError(
            f"there is no file {path}: give --data the path of an .npz file, or a number"
        ) from None
    except _WrongError as error:
        raise UserError(f"{path} {error}") from None
    except Exception as error:  # disk, or any error that a damaged file leads to
        if is_out_of_memory(error):
            raise MemoryError from error
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        raise UserError(f"{path} is damaged or no .npz file: make it with numpy.savez") from error


def _members(archive: NpzFile) -> zipfile.ZipFile:
    """The files in an open archive."""
    if archive.zip is None:
        raise ValueError("the archive is closed")
    return archive.zip


def _check_members(archive: zipfile.ZipFile, file: IO[bytes]) -> None:
    """Check that an archive holds only arrays of known names, each once."""
    # A damaged length hides members from zipfile, but the end of the file has their number.
    file.seek(-12 - len(archive.comment), os.SEEK_END)
    (count,) = struct.unpack("<H", file.read(2))
    if count not in (len(archive.infolist()), 0xFFFF):  # 0xFFFF: the number is elsewhere
        raise _WrongError(f"is damaged: {len(archive.infolist())} of its {count} arrays can be found")
    known = REQUIRED + OPTIONAL
    seen = set()
    for member in archive.namelist():
        name = member.removesuffix(".npy")
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            meant = f"rename it to {nearest[0]}, or leave it out" if nearest else "rename it, or leave it out"
            raise _WrongError(f"holds {member!r}, which is none of the arrays {', '.join(known)}: {meant}")
        if name in seen:
            raise _WrongError(f"holds {name} twice: leave one out")
        if member == name:
            raise _WrongError(f"holds {name} as a file that is no .npy array: make it with numpy.savez")
        seen.add(name)


def _checksum(archive: NpzFile) -> str:
    """Checksum of the arrays, whether or not they are compressed."""
    parts = sorted((entry.filename, entry.file_size, entry.CRC) for entry in _members(archive).infolist())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


@contextmanager
def _naming(name: str) -> Generator[None]:
    """Name the array in errors that damaged bytes lead to."""
    try:
        yield
    except Exception as error:
        of_disk = isinstance(error, OSError) and error.errno is not None
        if of_disk or is_out_of_memory(error) or isinstance(error, _WrongError):
            raise
        reason = " ".join(str(error).split())
        raise _WrongError(f"is damaged: {name} cannot be read ({reason})") from error


def read_header(archive: NpzFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Read the shape and type of an array, not its content.

    Raises:
        Exception: it is damaged, or its size does not match.
    """
    with _naming(name), _members(archive).open(f"{name}.npy") as file:
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
        size = file.tell() + math.prod(shape) * dtype.itemsize
    # The checksum of a member is verified at its end, so nothing may follow the array.
    if not dtype.hasobject and size != _members(archive).getinfo(f"{name}.npy").file_size:
        raise _WrongError(f"is damaged: {name} is not as large as it says")
    return shape, dtype


def _array(archive: NpzFile, name: str) -> np.ndarray:
    with _naming(name):
        return archive[name]


def _plain(archive: NpzFile, name: str, kinds: str, wanted: str) -> np.ndarray:
    """Read an array whose type is one of `kinds`.

    An array of objects is never read.
    """
    dtype = read_header(archive, name)[1]
    if dtype.kind not in kinds:
        raise _WrongError(f"has {name} of type {dtype}: it must be {wanted}")
    return _array(archive, name)


def _labels(archive: NpzFile, name: str) -> np.ndarray:
    labels = _plain(archive, name, "iu", "whole numbers")
    if labels.ndim not in (1, 2) or not labels.size:
        raise _WrongError(
            f"has {name} of shape {labels.shape}: it must be {_shapes_of_labels(archive, name)}"
        )
    if labels.min() < 1 - labels.ndim:
        none = ", and -1 stands for none" if labels.ndim == 2 else ""
        raise _WrongError(f"has the label {labels.min()} in {name}: labels are numbered from 0{none}")
    if labels.max() >= MOST_CLASSES:
        what = "classes" if labels.ndim == 1 else "answers to a task"
        raise _WrongError(
            f"has the label {labels.max()} in {name}: there can be at most {MOST_CLASSES} {what}"
        )
    return labels.astype(np.int64)


def _shapes_of_labels(archive: NpzFile, name: str) -> str:
    """The shapes that labels can have beside the images of a file, in words."""
    count = read_header(archive, IMAGES[LABELS.index(name)])[0][0] or "N"
    return f"({count},), a label per image, or ({count}, T), a label per image and task"


def _image_shape(archive: NpzFile) -> dict[str, tuple[int, ...]]:
    """Shapes of the training and test images, checked."""
    shapes = {}
    for name in IMAGES:
        shape, dtype = read_header(archive, name)
        if dtype != np.uint8:
            raise _WrongError(f"has {name} of type {dtype}: it must be uint8, from 0 to 255")
        if len(shape) not in (3, 4) or shape[1] != shape[2] or (len(shape) == 4 and shape[3] not in (1, 3)):
            raise _WrongError(
                f"has {name} of shape {shape}: it must be N x H x W or N x H x W x C, square, with C 1 or 3"
            )
        if not 1 <= shape[1] <= LARGEST_SIDE:
            raise _WrongError(f"has images of {shape[1]} pixels a side: they must have 1 to {LARGEST_SIDE}")
        shapes[name] = shape
    train, test = shapes.values()
    if (*train[1:], 1)[:3] != (*test[1:], 1)[:3]:
        raise _WrongError(
            f"has train_images of shape {train} and test_images of shape {test}: they must agree"
        )
    return shapes


def _read_spec(archive: NpzFile, path: Path) -> DataSpec:
    missing = [name for name in REQUIRED if name not in archive.files]
    if missing:
        raise _WrongError(f"lacks {', '.join(missing)}: it must hold {', '.join(REQUIRED)}")
    shapes = _image_shape(archive)
    labels = {name: _labels(archive, name) for name in LABELS}
    for images, label in zip(IMAGES, LABELS, strict=True):
        if shapes[images][0] != len(labels[label]):
            raise _WrongError(
                f"has {shapes[images][0]} {images} and {label} of shape {labels[label].shape}: it must be "
                f"{_shapes_of_labels(archive, label)}"
            )
    train, test = (labels[name].shape for name in LABELS)
    if train[1:] != test[1:]:
        raise _WrongError(
            f"has train_labels of shape {train} and test_labels of shape {test}: they must be ({train[0]},) "
            f"and ({test[0]},), a label per image, or ({train[0]}, T) and ({test[0]}, T), a label per image "
            "and task"
        )
    has_classes = len(train) == 1
    question, tasks, classes = (_by_class if has_classes else _by_row)(archive, labels)
    class_names = _names(archive, "class_names") or ()
    named_answers = _answer_names(archive, tasks)
    for name, images in zip(FILES, IMAGES, strict=True):
        _check_files(archive, name, shapes[images][0])
    num_classes = len(next(iter(tasks.values())))
    used = {name: each[each >= 0] for name, each in classes.items()}
    train_counts, test_counts = (
        tuple(np.bincount(each, minlength=num_classes).tolist()) for each in used.values()
    )
    side, channels = shapes["train_images"][1], (*shapes["train_images"], 1)[3]
    return DataSpec(
        name=" ".join(path.name.split()),
        question=question,
        channels=channels,
        image_size=side,
        default_image_size=side,
        epochs=EPOCHS,
        mean=(),
        std=(),
        tasks=tasks,
        train_counts=train_counts,
        test_counts=test_counts,
        class_names=tuple(class_names),
        named_answers=named_answers,
        train_rows=() if has_classes else tuple(used["train_labels"].tolist()),
        path=path,
        checksum=_checksum(archive),
    )


Definition = tuple[str, dict[str, tuple[int, ...]], dict[str, np.ndarray]]
"""What the tasks ask, their table, and the class of each image, -1 for an image without any label."""


def _by_class(archive: NpzFile, labels: dict[str, np.ndarray]) -> Definition:
    """Tasks of a file with one label per image, its class."""
    table = _plain(archive, "tasks", "iu", "whole numbers") if "tasks" in archive.files else None
    class_names = _names(archive, "class_names")
    num_classes = _num_classes(table, class_names, labels)
    for name, each in labels.items():
        if each.max() >= num_classes:
            raise _WrongError(
                f"has the label {each.max()} in {name}, but its classes are 0 to {num_classes - 1}"
            )
        counts = np.bincount(each, minlength=num_classes).tolist()
        if 0 in counts:
            raise _WrongError(f"has no {USES[name]} image of class {counts.index(0)}: each class needs some")
    if class_names is None:
        class_names = [f"class {c}" for c in range(num_classes)]
    if table is None:
        if "task_names" in archive.files:
            raise _WrongError("has task_names and no tasks: give both, or class_names alone")
        if not 2 <= num_classes <= MOST_TASKS:
            few = "a single class: there is nothing to tell apart"
            many = f"{num_classes} classes, too many for a task each: give tasks"
            raise _WrongError(f"has {few if num_classes == 1 else many}")
        table, names = np.eye(num_classes, dtype=np.int64), class_names
        question = "one per class: is it this class or another?"
    else:
        names = _names(archive, "task_names") or [f"task {t}" for t in range(len(table))]
        question = "as given by its table"
    _check_table(table, names)
    return question, _rows_by_name(names, table), labels


def _by_row(archive: NpzFile, labels: dict[str, np.ndarray]) -> Definition:
    """Tasks of a file with a row of labels per image, one label per task."""
    for name in ("tasks", "class_names"):
        if name in archive.files:
            raise _WrongError(f"has {name}, which does not go with labels for each task: leave it out")
    num_tasks = labels["train_labels"].shape[1]
    if num_tasks > MOST_TASKS:
        raise _WrongError(f"has labels for {num_tasks} tasks: there can be at most {MOST_TASKS}")
    names = _names(archive, "task_names") or [f"task {t}" for t in range(num_tasks)]
    if len(names) != num_tasks:
        raise _WrongError(f"has {len(names)} task_names, and labels for {num_tasks} tasks")
    if max(each.max() for each in labels.values()) < 0:
        raise _WrongError("has no labels: all of train_labels and test_labels are -1")
    for task, name in enumerate(names):
        columns = {split: each[:, task] for split, each in labels.items()}
        num_answers = int(max(column.max() for column in columns.values())) + 1
        if num_answers < 2:
            few = "a single answer" if num_answers else "no label"
            raise _WrongError(f"gives {name} {few}: there is nothing to tell apart")
        for split, column in columns.items():
            counts = np.bincount(column[column >= 0], minlength=num_answers).tolist()
            if 0 in counts:
                raise _WrongError(
                    f"has no {USES[split]} image with answer {counts.index(0)} of {name}: each answer from "
                    f"0 to {num_answers - 1} needs some"
                )
    rows, classes = _number_rows(labels)
    return "as given by its labels", _rows_by_name(names, rows.T), classes


def _number_rows(labels: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Number the distinct rows of labels, each of which is a class.

    Returns:
        the rows in lexicographic order, classes x tasks, without the row of -1 alone; the number of each
        image's row, which is -1 for that row.
    """
    together = np.concatenate(list(labels.values()))
    order = np.lexsort(together.T[::-1])  # several times as fast as numpy.unique
    ordered = together[order]
    is_first = np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1))
    rows, numbers = ordered[is_first], np.empty_like(order)
    numbers[order] = is_first.cumsum() - 1
    if rows[0].max() < 0:
        rows, numbers = rows[1:], numbers - 1
    parts = np.split(numbers, [len(labels["train_labels"])])
    return rows, dict(zip(labels, parts, strict=True))


def _rows_by_name(names: list[str], table: np.ndarray) -> dict[str, tuple[int, ...]]:
    return {name: tuple(row) for name, row in zip(names, table.tolist(), strict=True)}


def _names(archive: NpzFile, name: str) -> list[str] | None:
    if name not in archive.files:
        return None
    array = _plain(archive, name, "U", "text")
    names = [plain_name(each) for each in array.ravel().tolist()]
    if array.ndim != 1 or not names or not are_names(names):
        raise _WrongError(f"has {name} that are no list of different, printable names")
    return names


def plain_name(text: str) -> str:
    """A name with its blanks made single, and with none at its ends."""
    return " ".join(text.split())


def are_names(names: Sequence[str]) -> bool:
    """Whether names are different, printable and not empty."""
    return len(set(names)) == len(names) and all(each and each.isprintable() for each in names)


def _answer_names(archive: NpzFile, tasks: Mapping[str, tuple[int, ...]]) -> tuple[tuple[str, ...], ...]:
    """The names of each task's answers, or empty where it has none; empty if the file has none."""
    if "answer_names" not in archive.files:
        return ()
    array = _plain(archive, "answer_names", "U", "text")
    counts = [max(row) + 1 for row in tasks.values()]
    if array.shape != (len(counts), max(counts)):
        raise _WrongError(
            f"has answer_names of shape {array.shape}: it must be {(len(counts), max(counts))}, tasks x the "
            "largest number of answers, empty where a task has fewer"
        )
    named = []
    for task, count, row in zip(tasks, counts, array.tolist(), strict=True):
        names = [plain_name(each) for each in row]
        if any(names) and (any(names[count:]) or not are_names(names[:count])):
            raise _WrongError(
                f"has answer_names of {task} that are not {count} different, printable names, empty beyond"
            )
        named.append(tuple(names[:count]) if any(names) else ())
    return tuple(named)


def _check_files(archive: NpzFile, name: str, num_images: int) -> None:
    """Check the names of the files that images are from, if there are any."""
    if name in archive.files:
        shape = _plain(archive, name, "U", "text").shape
        if shape != (num_images,):
            raise _WrongError(
                f"has {name} of shape {shape}: it must be a name for each of {num_images} images"
            )


def _num_classes(
    table: np.ndarray | None, class_names: list[str] | None, labels: Mapping[str, np.ndarray]
) -> int:
    if table is not None and (table.ndim != 2 or 0 in table.shape):
        raise _WrongError(f"has tasks of shape {table.shape}: it must be tasks x classes")
    if table is None:
        return (
            int(max(each.max() for each in labels.values())) + 1 if class_names is None else len(class_names)
        )
    if class_names is not None and len(class_names) != table.shape[1]:
        raise _WrongError(f"has {len(class_names)} class_names, and tasks for {table.shape[1]} classes")
    return table.shape[1]


def _check_table(table: np.ndarray, names: list[str]) -> None:
    """Check that tasks number their classes from 0 without gaps.

    Every task must have at least two classes.
    """
    if len(names) != len(table):
        raise _WrongError(f"has {len(names)} task_names and {len(table)} tasks")
    for name, row in zip(names, table, strict=True):
        numbers = sorted({int(number) for number in row} - {-1})
        if len(numbers) < 2:
            few = "a single class" if numbers else "no class"
            raise _WrongError(f"gives {name} {few}: there is nothing to tell apart")
        if numbers != list(range(len(numbers))):
            raise _WrongError(
                f"numbers the classes of {name} {numbers}: it must be 0, 1, ... without a gap, or -1"
            )
