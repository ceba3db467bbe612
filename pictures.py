"""Read a folder of pictures, and write them as a data set of the user's own, FILE.npz.

python own_data.py FOLDER FILE.npz [--image_size N] [--skip_broken] [--overwrite]

NumPy and Pillow are imported where they are used, after the command line has been checked.
"""

import csv
import logging
import os
import posixpath
import shlex
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

from errors import CommandError, UserError, is_out_of_memory
from main import Parser, check_packages, outside_cause
from options import OPTIONS, in_short
from running.stopping import Stopped, StopSignals
from running.streams import flush_streams, in_one_line, open_streams, print_message, print_result
from storage.files import replacing

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

TOP = Path(__file__).resolve().parent

PACKAGES = ("numpy", "PIL", "tqdm")

SPLITS = {"train": "training", "test": "test"}
TABLE = "labels.csv"

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""How the names of pictures end, in any case: those of torchvision's ImageFolder."""

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF", "JPEG2000", "AVIF")
"""The formats that are read, whatever the names; of the others, Pillow reads some by running a program."""

ORIENTATION = 0x0112
"""The EXIF tag that says how a picture is to be turned."""

LONGEST = 16
"""Sides of a picture whose longer one is more times as long are cut to this ratio before resizing."""


@dataclass(frozen=True)
class Pictures:
    """The pictures of a folder and their labels; the pictures themselves have not been read.

    Attributes:
        folder: the folder.
        has_classes: whether each picture is of a class; otherwise it may have a label for each task.
        answers: the names of each task's answers, sorted, by the name of the task; with classes, the only
            task is which class it is.
        files: names of the pictures of each split, relative to the folder.
        labels: for each picture, the number of its answer to each task, or -1 for none.
        ignored: files that are no pictures of a class by their place or name.
        broken: pictures that cannot be read, which have been taken out, each with the reason.
    """

    folder: Path
    has_classes: bool
    answers: dict[str, list[str]]
    files: dict[str, list[str]]
    labels: dict[str, list[tuple[int, ...]]]
    ignored: tuple[str, ...] = ()
    broken: dict[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Check that each task has at least two answers, and each answer pictures in both splits.

        Raises:
            UserError: they have not.
        """
        read = " that can be read" if self.broken else ""
        for task, (name, answers) in enumerate(self.answers.items()):
            of = "of class" if self.has_classes else f"whose {name!r} is"
            if len(answers) < 2:
                few = f"only pictures {of} {answers[0]!r}" if answers else f"no label for {name!r}"
                raise UserError(f"{self.folder} has {few}: there is nothing to tell apart")
            for split, words in SPLITS.items():
                if missing := sorted(set(range(len(answers))) - {row[task] for row in self.labels[split]}):
                    more = f", and {len(missing) - 1} others lack them, too" if len(missing) > 1 else ""
                    raise UserError(
                        f"{self.folder} has no {words} picture{read} {of} {answers[missing[0]]!r}{more}: "
                        "train and test need some of each"
                    )

    def without(self, broken: dict[str, str]) -> "Pictures":
        """The pictures without those that cannot be read."""
        kept = {
            split: [i for i, file in enumerate(files) if file not in broken]
            for split, files in self.files.items()
        }
        return replace(
            self,
            files={split: [self.files[split][i] for i in indices] for split, indices in kept.items()},
            labels={split: [self.labels[split][i] for i in indices] for split, indices in kept.items()},
            broken=broken,
        )


def find(folder: Path) -> Pictures:
    """Find the pictures of a folder and their labels.

    Raises:
        UserError: it holds neither labels.csv nor train/CLASS/ and test/CLASS/, or these are wrong.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give the folder of the pictures")
    found = _of_table(folder) if (folder / TABLE).exists() else _of_folders(folder)
    found.check()
    return found


# Folders of classes


def _of_folders(folder: Path) -> Pictures:
    """Pictures in train/CLASS/ and test/CLASS/; the classes are sorted by name."""
    from own_data import MOST_TASKS

    for split in SPLITS:
        if not (folder / split).is_dir():
            raise UserError(
                f"{folder} has no folder {split}: it must hold train/CLASS/ and test/CLASS/, or {TABLE}"
            )
    with_hidden = {split: _entries(folder / split) for split in SPLITS}
    inside = {
        split: [entry.name for entry in entries if entry.is_dir()] for split, entries in with_hidden.items()
    }
    ignored = [
        f"{split}/{entry.name}"
        for split, entries in with_hidden.items()
        for entry in entries
        if not entry.is_dir()
    ]
    classes = sorted({name for names in inside.values() for name in names})
    if not classes:
        raise UserError(f"{folder / 'train'} holds no folders: each class needs a folder of its pictures")
    if len(classes) > MOST_TASKS:
        raise UserError(f"{folder} has {len(classes)} classes: there can be at most {MOST_TASKS}")
    files: dict[str, list[str]] = {split: [] for split in SPLITS}
    labels: dict[str, list[tuple[int, ...]]] = {split: [] for split in SPLITS}
    for split, names in inside.items():
        for label, name in enumerate(classes):
            for file in _files(folder / split / name) if name in names else ():
                inner = file.relative_to(folder).as_posix()
                if file.suffix.lower() in EXTENSIONS:
                    files[split].append(inner)
                    labels[split].append((label,))
                else:
                    ignored.append(inner)
    names = _as_names(classes, "the class", folder)
    return Pictures(folder, True, {"class": names}, files, labels, tuple(ignored))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by name, without what is hidden."""
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)


def _files(folder: Path) -> Iterator[Path]:
    """The files in a folder at any depth, in the order of torchvision's ImageFolder.

    Links are followed, but none to a folder that has been there already. Hidden ones are left out.
    """
    seen = {os.path.realpath(folder)}
    found = []

    def unreadable(error: OSError) -> NoReturn:
        raise error

    for place, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        found.append((place, sorted(file for file in files if file[0] != ".")))
        inner = [name for name in sorted(folders) if name[0] != "."]
        folders.clear()
        for name in inner:
            real = os.path.realpath(os.path.join(place, name))
            if real not in seen:
                seen.add(real)
                folders.append(name)
    for place, files in sorted(found):
        yield from (Path(place, file) for file in files)


# A table of labels


def _of_table(folder: Path) -> Pictures:
    """Pictures that labels.csv lists, with a label for each task."""
    from own_data import MOST_CLASSES, MOST_TASKS

    path = folder / TABLE
    files: dict[str, list[str]] = {split: [] for split in SPLITS}
    codes: dict[str, list[tuple[int, ...]]] = {split: [] for split in SPLITS}
    seen: dict[str, dict[str, int]] = {}  # by task, the entries in the order in which they were found
    lines: dict[str, int] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # spreadsheets put a mark at the start
            for line, row in _rows(file, path):
                name, split = row.pop("file"), row.pop("split")
                if not name:
                    raise UserError(f"line {line} of {path} names no file")
                if split not in SPLITS:
                    raise UserError(f"line {line} of {path} has the split {split!r}, not train or test")
                first = lines.setdefault(posixpath.normpath(name), line)
                if first != line:
                    raise UserError(f"line {line} of {path} lists {name} again, after line {first}")
                files[split].append(name)
                seen = seen or {task: {"": 0} for task in row}
                codes[split].append(
                    tuple(found.setdefault(row[task], len(found)) for task, found in seen.items())
                )
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not in UTF-8: save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{path} is no table of comma-separated values: {error}") from error
    if not seen:
        raise UserError(f"{path} lists no pictures")
    if len(seen) > MOST_TASKS:
        raise UserError(f"{path} has columns for {len(seen)} tasks: there can be at most {MOST_TASKS}")
    answers: dict[str, list[str]] = {}
    numbers = []  # for each task, the number of the answer of each code
    for task, found in seen.items():
        values = _in_order(set(found) - {""})
        if len(values) > MOST_CLASSES:
            raise UserError(
                f"{path} has {len(values)} answers to {task!r}: there can be at most {MOST_CLASSES}"
            )
        answers[task] = _as_names(values, f"in {task!r} the answer", path)
        of_value = {value: number for number, value in enumerate(values)} | {"": -1}
        numbers.append([of_value[value] for value in found])
    labels = {
        split: [tuple(of[code] for of, code in zip(numbers, row, strict=True)) for row in rows]
        for split, rows in codes.items()
    }
    return Pictures(folder, False, answers, files, labels)


def _rows(file: TextIO, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table that are not empty, each by the names of the columns, and the number of its line.

    Args:
        file: the open table.
        path: where it is, for errors.

    Raises:
        UserError: the columns have wrong names, or a row has another number of entries.
    """
    from own_data import are_names, plain_name

    reader = csv.reader(file, skipinitialspace=True, strict=True)
    first = next(reader, [])
    columns = [plain_name(name) for name in first]
    for name in ("file", "split"):
        if name not in columns:
            raise UserError(
                f"{path} has no column {name!r}: its first line, {in_short(','.join(first))}, must be "
                "file,split, and a name for each task, separated by commas"
            )
    if not are_names(columns):
        raise UserError(f"{path} has columns without a name, or of the same name, or of one not printable")
    if len(columns) == 2:
        raise UserError(f"{path} has no column of labels besides file and split: it needs one for each task")
    for row in reader:
        if not "".join(row).strip():
            continue
        line = reader.line_num
        if len(row) != len(columns):
            raise UserError(
                f"line {line} of {path} has {len(row)} entries, and the first line {len(columns)}"
            )
        given = dict(zip(columns, row, strict=True))
        yield (
            line,
            {name: plain_name(entry) for name, entry in given.items()} | {"file": given["file"].strip()},
        )


def _in_order(values: set[str]) -> list[str]:
    """Values sorted as numbers if all are, or else as text."""

    def number(value: str) -> float:
        if not isfinite(float(value)):
            raise ValueError("it has no place among numbers")
        return float(value)

    with suppress(ValueError):
        return sorted(values, key=lambda value: (number(value), value))
    return sorted(values)


def _as_names(given: list[str], what: str, place: Path) -> list[str]:
    """Names as own_data.py reads them: blanks are single, and none are at the ends.

    Raises:
        UserError: they do not differ like that, or are not printable.
    """
    from own_data import are_names, plain_name

    names = [plain_name(name) for name in given]
    count = Counter(names)
    for original, name in zip(given, names, strict=True):
        if count[name] > 1 or not are_names([name]):
            raise UserError(
                f"{place} has {what} {original!r}, which is not printable, or differs from another in blanks "
                "alone: rename it"
            )
    return names


# Pictures


def read_picture(path: Path, side: int) -> "np.ndarray":
    """Read a picture in colour.

    It is turned as its orientation tag says. Transparent pixels are white. The shorter side is resized with
    antialiasing, and the middle is cut out.

    Args:
        path: the file.
        side: in pixels.

    Returns:
        uint8, side x side x 3.

    Raises:
        Exception: any error that a damaged file leads to.
    """
    import numpy as np
    from PIL import Image

    Image.init()  # registers the formats
    if not path.is_file():
        raise ValueError("there is no such file" if not path.exists() else "it is no file")
    if not path.stat().st_size:
        raise ValueError("it is empty")
    try:
        image: Image.Image = Image.open(path, formats=[each for each in FORMATS if each in Image.OPEN])
    except Image.UnidentifiedImageError:
        raise ValueError("it is no picture, or of a format that is not read") from None
    with image:
        with _silent() if image.format == "TIFF" else nullcontext():
            image.load()
        return np.asarray(_middle(_turned(_in_colour(image), _orientation(image)), side))


@contextmanager
def _silent() -> Iterator[None]:
    """Drop what libraries in C print to standard error."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _orientation(image: "Image.Image") -> int:
    """The orientation tag of a picture; 1, which is upright, where it has none that can be read."""
    with suppress(Exception):
        return image.getexif().get(ORIENTATION, 1)
    return 1


def _turned(image: "Image.Image", orientation: int) -> "Image.Image":
    """Turn a picture as its orientation tag says."""
    from PIL.Image import Transpose

    methods = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(methods[orientation]) if orientation in methods else image


def _in_colour(image: "Image.Image") -> "Image.Image":
    """A picture of any mode in 8 bits of red, green and blue, over white where it is transparent.

    Raises:
        ValueError: its numbers are not of 1, 8 or 16 bits.
    """
    import numpy as np
    from PIL import Image

    clear = image.info.get("transparency")
    if image.mode[0] in "IF":
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError(f"its pixels are numbers of mode {image.mode}, whose range is not known")
        grey = ((values.astype(np.int32) + 128) // 257).astype(np.uint8)  # rounded
        if isinstance(clear, int):
            grey[values == clear] = 255
        return Image.fromarray(grey).convert("RGB")
    if clear is not None or image.mode in ("LA", "PA", "RGBA", "RGBa"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _middle(image: "Image.Image", side: int) -> "Image.Image":
    """Resize the shorter side as torchvision does with antialiasing, and cut out the middle."""
    from PIL.Image import Resampling

    longest = LONGEST * min(image.size)
    if max(image.size) > longest:
        image = _cut(image, min(image.width, longest), min(image.height, longest))
    width, height = (int(side * each / min(image.size)) for each in image.size)
    return _cut(image.resize((width, height), Resampling.BILINEAR), side, side)


def _cut(image: "Image.Image", width: int, height: int) -> "Image.Image":
    """Cut the middle out of a picture, which has at least that size."""
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def read(pictures: Pictures, side: int, skip_broken: bool) -> tuple[Pictures, dict[str, "np.ndarray"]]:
    """Read pictures, one at a time.

    Args:
        pictures: the pictures.
        side: in pixels.
        skip_broken: whether to leave out those that cannot be read.

    Returns:
        the pictures that were read; those of each split as uint8, N x side x side x 3, or N x side x side if
        all are grey.

    Raises:
        UserError: some cannot be read, or no picture is left of a class or an answer.
    """
    import numpy as np
    from tqdm import tqdm

    counts = {split: len(files) for split, files in pictures.files.items()}
    images = {split: np.empty((count, side, side), np.uint8) for split, count in counts.items()}
    is_grey = True
    num_read = dict.fromkeys(counts, 0)
    broken: dict[str, str] = {}
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    with (
        warnings.catch_warnings(),
        tqdm(total=sum(counts.values()), desc="reading", unit="pictures", disable=None) as bar,
    ):
        warnings.simplefilter("ignore")
        for split, files in pictures.files.items():
            for file in files:
                bar.update()
                try:
                    image = read_picture(pictures.folder / file, side)
                except Exception as error:  # any error that a damaged file leads to
                    if is_out_of_memory(error):
                        raise MemoryError from error
                    broken[file] = (error.strerror if isinstance(error, OSError) else None) or str(error)
                    continue
                if is_grey and (image != image[:, :, :1]).any():
                    is_grey = False
                    for each, count in counts.items():
                        grey, images[each] = images[each], np.empty((count, side, side, 3), np.uint8)
                        images[each][: num_read[each]] = grey[: num_read[each], :, :, np.newaxis]
                images[split][num_read[split]] = image[:, :, 0] if is_grey else image
                num_read[split] += 1
    if broken:
        if not skip_broken:
            file, reason = next(iter(broken.items()))
            raise UserError(
                f"{len(broken)} of {sum(counts.values())} pictures cannot be read, the first of them "
                f"{pictures.folder / file} ({reason}): repair or delete them, or use --skip_broken"
            )
        pictures = pictures.without(broken)
        pictures.check()
    return pictures, {split: each[: num_read[split]] for split, each in images.items()}


# The file


def arrays_of(pictures: Pictures, images: dict[str, "np.ndarray"]) -> dict[str, "np.ndarray"]:
    """The arrays of a FILE.npz, by name."""
    import numpy as np

    arrays = {}
    for split in SPLITS:
        labels = np.array(pictures.labels[split])
        arrays[f"{split}_images"] = images[split]
        arrays[f"{split}_labels"] = labels[:, 0] if pictures.has_classes else labels
        arrays[f"{split}_files"] = np.array(pictures.files[split])
    answers = list(pictures.answers.values())
    if pictures.has_classes:  # a task for each class: is it this one or another?
        arrays["class_names"] = np.array(answers[0])
        answers = [["no", "yes"]] * len(answers[0])
    else:
        arrays["task_names"] = np.array(list(pictures.answers))
    most = max(map(len, answers))
    arrays["answer_names"] = np.array([names + [""] * (most - len(names)) for names in answers])
    return arrays


def convert(folder: Path, path: Path, side: int, skip_broken: bool, overwrite: bool) -> None:
    """Write the pictures of a folder into a file, and print the command that trains on it.

    Args:
        folder: holds train/CLASS/ and test/CLASS/, or labels.csv.
        path: the file.
        side: of the images, in pixels.
        skip_broken: whether to leave out pictures that cannot be read.
        overwrite: whether to replace an existing file.

    Raises:
        CommandError: there can be no images of that side.
        UserError: the folder or a picture cannot be read, or the file exists or cannot be written.
    """
    check_packages(PACKAGES)
    import numpy as np

    from own_data import LARGEST_SIDE, read_spec

    if not 1 <= side <= LARGEST_SIDE:
        raise CommandError(f"--image_size {side} is not from 1 to {LARGEST_SIDE}")
    if path.suffix.lower() != ".npz":
        raise UserError(f"{path} does not end in .npz: give the file a name that does")
    if path.is_dir():
        raise UserError(f"{path} is a folder: give another file")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists: give another file, or --overwrite to replace it")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent}: make it, or give another file")
    if not os.access(path.parent, os.W_OK):  # before minutes of reading
        raise UserError(f"nothing can be written into {path.parent}: give another file")
    pictures, images = read(find(folder), side, skip_broken)
    with replacing(path) as file:
        np.savez(file, **arrays_of(pictures, images))  # type: ignore[arg-type]
        file.flush()
        spec = read_spec(Path(file.name))  # so that no file stays that main.py would refuse
    for name, reason in pictures.broken.items():
        print_message(f"left out {name}: {reason}")
    if pictures.ignored:
        print_message(
            f"left out {len(pictures.ignored)} files that lie in no class or do not end in "
            f"{', '.join(EXTENSIONS)}, such as {pictures.ignored[0]}"
        )
    setting = 0 if pictures.has_classes else 5 if spec.shared_inputs else 3
    words = ["python", str(TOP / "main.py"), "--train", "--setting", str(setting), "--data", str(path)]
    smallest = min(spec.training_sets(setting).values())
    if smallest < next(option.default for option in OPTIONS if option.name == "batch_size"):
        words += ["--batch_size", str(smallest)]
    counts = " and ".join(f"{len(pictures.files[split])} {use}" for split, use in SPLITS.items())
    tasks = f"{spec.num_classes} classes" if pictures.has_classes else f"{len(spec.tasks)} tasks"
    kind = "in colour" if spec.channels == 3 else "in grey"
    print_result(
        f"wrote {path}: {counts} pictures {kind}, {side} x {side}, {tasks}; train on it with\n"
        f"{shlex.join(words)}"
    )


class _Parser(Parser):
    """That of main.py, but with errors of this program."""

    def error(self, message: str) -> NoReturn:
        """Exit with the message in one line."""
        sys.exit(_fail(f"error: {message} (--help explains the options)", 2))


def _fail(message: str, code: int) -> int:
    """Print a message in one line to standard error; returns the exit code."""
    with suppress(OSError):
        print(f"own_data.py: {in_one_line(' '.join(message.splitlines()))}", file=sys.stderr)
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    open_streams()
    parser = _Parser(
        prog="own_data.py",
        description="Write a folder of pictures as a data set for main.py --data. It holds train/CLASS and "
        f"test/CLASS, or {TABLE} with the columns file, split (train or test) and one for each task.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder of the pictures")
    parser.add_argument("path", metavar="FILE.npz", type=Path, help="the file to write")
    parser.add_argument("--image_size", metavar="N", type=int, default=32, help="pixels a side (default: 32)")
    parser.add_argument("--skip_broken", action="store_true", help="leave out pictures that cannot be read")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    try:
        args = parser.parse_args(argv)
        with StopSignals():
            convert(args.folder, args.path, args.image_size, args.skip_broken, args.overwrite)
    except CommandError as error:
        parser.error(str(error))
    except UserError as error:
        return _fail(f"error: {error}", 1)
    except Stopped as stopped:
        return _fail(str(stopped), 128 + stopped.number)
    except Exception as error:
        cause = outside_cause(error)
        if cause is None:
            raise
        return _fail(f"error: {cause}", 1)
    finally:
        flush_streams()
    return 0
