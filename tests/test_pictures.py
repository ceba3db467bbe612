"""A folder of pictures as a data set of the user's own: what is read, and what is refused in one line."""

import errno
import io
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TOP
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

import own_data
import pictures
from data import load
from own_data import read_spec

RANDOM = np.random.RandomState(0)


def noise(width: int = 12, height: int = 9, channels: int = 3) -> np.ndarray:
    """Random pixels, uint8."""
    return RANDOM.randint(0, 256, (height, width, channels)).astype(np.uint8)


def save(path: Path, image: Image.Image | np.ndarray | None = None, **options: object) -> Path:
    """Save a picture, random if nothing else is said."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = noise() if image is None else image
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)
    return path


def snapshot(directory: Path) -> dict[Path, bytes | None]:
    """All that is in a directory, at any depth."""
    return {path: path.read_bytes() if path.is_file() else None for path in directory.rglob("*")}


@pytest.fixture
def made(capfd):
    """Run the program on the command line that is given: exit code, standard output and standard error."""

    def made(*argv: object) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            code = pictures.main([str(argument) for argument in argv])
        except SystemExit as stop:
            code = stop.code
        return code, *capfd.readouterr()

    return made


@pytest.fixture
def refused(made):
    """Make sure that a command line ends in one line and changes nothing; gives back the line."""

    def refused(*argv: object, code: int = 1) -> str:
        places = {Path(argument).parent for argument in argv if isinstance(argument, Path)}
        before = [snapshot(place) for place in places]
        got, out, err = made(*argv)
        assert (got, out, err.count("\n")) == (code, "", 1)
        assert err.startswith("own_data.py: ")
        assert [snapshot(place) for place in places] == before
        return err

    return refused


@pytest.fixture
def folder(tmp_path):
    """A folder of two classes with two pictures each to train and one to test."""
    for name in ("train/cat/1.png", "train/cat/2.png", "test/cat/3.png"):
        save(tmp_path / "folder" / name)
        save(tmp_path / "folder" / name.replace("cat", "dog"))
    return tmp_path / "folder"


NAMES = [f"my picture {i}.png" for i in range(9)]
COLOURS = ["red", "dark  blue", "red", "dark blue", "red", "dark blue", " red", "dark blue", "red"]
COUNTS = ["10", "9", "2", "10", "9", "2", "10", "9", "2"]
ROWS = [
    [name, "train" if i < 6 else "test", colour, count]
    for i, (name, colour, count) in enumerate(zip(NAMES, COLOURS, COUNTS, strict=True))
]


@pytest.fixture
def table(tmp_path):
    """A folder of nine pictures, and labels.csv for two attributes."""
    for name in NAMES:
        save(tmp_path / "folder" / name)
    return written(tmp_path / "folder", [["file", "split", "colour", "count"], *ROWS])


def written(folder: Path, rows: list[list[str]]) -> Path:
    (folder / "labels.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    return folder


# Pixels


def weights(before: int, after: int) -> np.ndarray:
    """The share of each old pixel in each new one, after x before, where a triangle is the filter."""
    scale = before / after
    width = max(scale, 1)
    far = [[abs(old + 0.5 - (new + 0.5) * scale) / width for old in range(before)] for new in range(after)]
    shares = np.clip(1 - np.array(far), 0, None)
    return shares / shares.sum(axis=1, keepdims=True)


def resized(pixels: np.ndarray, side: int) -> np.ndarray:
    """The shorter side resized and the middle cut out, with nothing rounded but the sizes."""
    sizes = [int(side * size / min(pixels.shape[:2])) for size in pixels.shape[:2]]
    rows, columns = (weights(*each) for each in zip(pixels.shape[:2], sizes, strict=True))
    top, left = (round((size - side) / 2) for size in sizes)
    whole = np.einsum("ih,hwc,jw->ijc", rows, pixels, columns)
    return whole[top : top + side, left : left + side]


def assert_reads(path: Path, pixels: np.ndarray, side: int = 8) -> None:
    """Make sure that a picture is read as pixels of red, green and blue, but for rounding."""
    got = pictures.read_picture(path, side)
    assert (got.shape, got.dtype) == ((side, side, 3), np.uint8)
    assert abs(got - resized(np.asarray(pixels, dtype=float), side)).max() <= 1.6


@pytest.mark.parametrize("size", [(12, 12), (40, 23), (23, 40), (8, 8), (8, 9), (5, 3), (1, 1), (100, 31)])
def test_the_shorter_side_is_resized_with_antialiasing_and_the_middle_cut_out(tmp_path, size):
    pixels = noise(*size)
    assert_reads(save(tmp_path / "a.png", pixels), pixels)


def test_of_a_long_strip_the_middle_is_read(tmp_path, monkeypatch):
    sizes, resize = [], Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda *args: sizes.extend(args[1]) or resize(*args))
    pixels = np.zeros((5, 1001, 3), dtype=np.uint8)
    pixels[:, 490:511] = 200
    assert (pictures.read_picture(save(tmp_path / "a.png", pixels), 20) == 200).all()
    assert (pictures.read_picture(save(tmp_path / "b.png", pixels.transpose(1, 0, 2)), 20) == 200).all()
    assert max(sizes) <= 20 * 16  # and so takes little memory


def over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[:, :, None] / 255
    return share * pixels + (1 - share) * 255


GREY = noise(channels=1)[:, :, 0]
DEEP = RANDOM.randint(0, 65536, (9, 12)).astype(np.uint16)
BITS = GREY > 100
RGB = noise()
ALPHA = noise(channels=1)[:, :, 0]
INKS = noise(channels=4)
PALETTE = noise(5, 1)[0]
INDICES = RANDOM.randint(0, 5, (9, 12)).astype(np.uint8)


def in_three(grey: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(grey)] * 3, axis=2)


def with_palette() -> Image.Image:
    image = Image.fromarray(INDICES)
    image.putpalette(PALETTE.ravel().tolist())
    return image


MODES = {
    "RGB.png": (RGB, RGB, {}),
    "RGB.bmp": (RGB, RGB, {}),
    "RGB.ppm": (RGB, RGB, {}),
    "RGB.webp": (RGB, RGB, {"lossless": True}),
    "RGB.gif": (Image.fromarray(in_three(BITS * np.uint8(255))), in_three(BITS * 255.0), {}),
    "grey.png": (GREY, in_three(GREY), {}),
    "1 bit.tif": (Image.fromarray(BITS), in_three(BITS * 255.0), {}),
    "1 bit.png": (Image.fromarray(BITS), in_three(BITS * 255.0), {}),
    "16 bits.png": (DEEP, in_three(DEEP / 257), {}),
    "16 bits.tif": (DEEP, in_three(DEEP / 257), {}),
    "16 bits.pgm": (DEEP, in_three(DEEP / 257), {}),
    "32 bits.tif": (DEEP.astype(np.int32), in_three(DEEP / 257), {}),
    "palette.png": (with_palette(), PALETTE[INDICES], {}),
    "alpha.png": (np.dstack([RGB, ALPHA]), over_white(RGB, ALPHA), {}),
    "alpha.webp": (
        np.dstack([RGB, ALPHA]), over_white(RGB, ALPHA), {"lossless": True, "exact": True},
    ),
    "grey and alpha.png": (
        Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]),
        over_white(in_three(GREY), ALPHA),
        {},
    ),
    "a clear colour of a palette.png": (
        with_palette(), over_white(PALETTE[INDICES], 255.0 * (INDICES != 3)), {"transparency": 3},
    ),
    "half clear colours of a palette.png": (
        with_palette(),
        over_white(PALETTE[INDICES], np.array([255, 128, 0, 7, 255])[INDICES]),
        {"transparency": bytes([255, 128, 0, 7])},
    ),
    "a clear grey.png": (
        GREY, over_white(in_three(GREY), 255.0 * (GREY[4, 5] != GREY)), {"transparency": int(GREY[4, 5])},
    ),
    "a clear grey of 16 bits.png": (
        DEEP,
        over_white(in_three(DEEP / 257), 255.0 * (DEEP[4, 5] != DEEP)),
        {"transparency": int(DEEP[4, 5])},
    ),
    "a clear colour.png": (
        RGB,
        over_white(RGB, 255.0 * (RGB[4, 5] != RGB).any(axis=2)),
        {"transparency": tuple(RGB[4, 5].tolist())},
    ),
    "CMYK.tif": (
        Image.fromarray(INKS, "CMYK"), (255.0 - INKS[:, :, :3]) * (255.0 - INKS[:, :, 3:]) / 255, {},
    ),
}  # fmt: skip
"""By name of the file: a picture, its pixels in red, green and blue, and options of saving."""


@pytest.mark.parametrize("name", MODES)
def test_a_picture_is_read_rightly_whatever_its_mode(tmp_path, name):
    image, pixels, options = MODES[name]
    assert_reads(save(tmp_path / name, image, **options), pixels)


def test_16_bits_are_rounded_to_8(tmp_path):
    values = np.array([0, 128, 129, 457, 32767, 65407, 65535], dtype=np.uint16)
    for value in values:
        path = save(tmp_path / "a.png", np.full((3, 3), value))
        assert (pictures.read_picture(path, 3) == round(value / 257)).all()


def test_a_jpeg_of_four_inks_is_read_as_it_looks(tmp_path):
    flat = np.full((16, 16, 4), (0, 100, 200, 50), dtype=np.uint8)
    path = save(tmp_path / "a.jpg", Image.fromarray(flat, "CMYK"), quality=100)
    expected = np.array([205, 205 * 155 / 255, 205 * 55 / 255])
    assert abs(pictures.read_picture(path, 8) - expected).max() <= 3


CHANGES = {1: "", 2: "x", 3: "xy", 4: "y", 5: "t", 6: "tx", 7: "txy", 8: "ty"}
"""By orientation, what makes a picture upright: transpose, then flip left and right (x), up and down (y)."""


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_orientation_tags_are_obeyed(tmp_path, suffix):
    for orientation, changes in CHANGES.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        tagged = noise()
        path = save(tmp_path / f"{orientation}.{suffix}", tagged, exif=exif, lossless=True)
        if suffix == "jpg":  # which is never lossless; Pillow itself does not turn it
            with Image.open(path) as image:
                tagged = np.asarray(image)
        upright = tagged.transpose(1, 0, 2) if "t" in changes else tagged
        upright = upright[:, ::-1] if "x" in changes else upright
        assert_reads(path, upright[::-1] if "y" in changes else upright)


@pytest.mark.parametrize(
    ("kinds", "channels"),
    [("ggg", ()), ("gGg", ()), ("ggc", (3,)), ("cgg", (3,)), ("gGcG", (3,))],
    ids=["grey", "grey in three channels", "colour at last", "colour at first", "all kinds"],
)
def test_images_are_in_colour_unless_every_picture_is_grey(made, tmp_path, kinds, channels):
    kind = {"g": GREY, "G": in_three(GREY), "c": RGB}
    for split in ("train", "test"):
        for number, each in enumerate(kinds):
            for name in ("cat", "dog"):
                save(tmp_path / "folder" / split / name / f"{number}.png", kind[each])
    assert made(tmp_path / "folder", tmp_path / "own.npz")[0] == 0
    arrays = np.load(tmp_path / "own.npz")
    for split in ("train", "test"):
        images = arrays[f"{split}_images"]
        assert images.shape == (2 * len(kinds), 32, 32, *channels)
        for image, file in zip(images, arrays[f"{split}_files"], strict=True):
            expected = pictures.read_picture(tmp_path / "folder" / str(file), 32)
            assert np.array_equal(image if channels else in_three(image), expected)


# Folders of classes


def test_a_folder_is_read_as_torchvision_reads_it(made, folder, tmp_path):
    for name in (
        "cat/in/side/X.JPG",
        "dog/in/1.png",
        "dog/in b/1.png",
        "cat/a.tiff",
        "dog/Z.jpeg",
        "dog/in/a/1.png",
        "a bird/1.webp",
        "a bird/b.BMP",
    ):
        for split in ("train", "test"):
            save(folder / split / name)
            (folder / split / "cat" / "notes.txt").touch()
    code, _, err = made(folder, tmp_path / "own.npz", "--image_size", "10")
    assert (code, "left out 2 files" in err, "cat/notes.txt" in err) == (0, True, True)
    assert pictures.EXTENSIONS == IMG_EXTENSIONS
    arrays, spec = np.load(tmp_path / "own.npz"), read_spec(tmp_path / "own.npz")
    data = load(spec, tmp_path, 10, torch.device("cpu"))
    for name, split in (("train", data.train), ("test", data.test)):
        theirs = ImageFolder(folder / name)
        assert list(spec.class_names) == list(spec.tasks) == theirs.classes
        files, labels = zip(*theirs.samples, strict=True)
        assert [str(folder / file) for file in arrays[f"{name}_files"]] == list(files)
        assert split.labels.tolist() == list(labels)
        for image, file in zip(split.images, files, strict=True):
            assert np.array_equal(image.permute(1, 2, 0), pictures.read_picture(Path(file), 10))
    assert set(spec.answer_names.values()) == {("no", "yes")}


def test_what_is_hidden_is_left_out_and_links_are_followed_once(made, folder, tmp_path):
    expected = {f"{name}" for name in folder.rglob("*.png")}
    save(folder / "train" / ".ipynb_checkpoints" / "1.png")
    for split in ("train", "test"):
        save(folder / split / "cat" / ".ipynb_checkpoints" / "1.png")
        (folder / split / ".DS_Store").touch()
        (folder / split / "cat" / "._1.jpg").touch()
        (folder / split / "cat" / "Thumbs.db").touch()
    away = save(tmp_path / "away" / "far.png")
    (folder / "train" / "dog" / "more").symlink_to(away.parent)
    (folder / "train" / "dog" / "link.png").symlink_to(away)
    (folder / "train" / "dog" / "round").symlink_to(folder / "train" / "dog")
    (folder / "test" / "bird").symlink_to(away.parent)
    (folder / "train" / "bird").symlink_to(away.parent)
    assert made(folder, tmp_path / "own.npz")[0] == 0
    arrays = np.load(tmp_path / "own.npz")
    found = [str(folder / file) for split in ("train", "test") for file in arrays[f"{split}_files"]]
    more = {"train/dog/more/far.png", "train/dog/link.png", "train/bird/far.png", "test/bird/far.png"}
    assert set(found) == expected | {str(folder / name) for name in more}
    assert len(found) == len(set(found))


def removed(folder: Path, *names: str) -> None:
    for name in names:
        shutil.rmtree(folder / name)


def renamed(folder: Path, name: str) -> None:
    """Give the dogs another name."""
    for split in ("train", "test"):
        (folder / split / "dog").rename(folder / split / name)


def without_pictures(folder: Path) -> None:
    removed(folder, "test/cat")
    (folder / "test" / "cat").mkdir()
    (folder / "test" / "cat" / "a.txt").touch()


def with_many_classes(folder: Path) -> None:
    for number in range(8):
        (folder / "train" / str(number)).mkdir()


FOLDERS = {
    "no such folder": (lambda folder: folder.rename(folder.parent / "other"), "no folder"),
    "no test": (lambda folder: (folder / "test").rename(folder / "val"), "no folder test"),
    "no test pictures": (lambda folder: removed(folder, "test/dog"), "no test picture of class 'dog'"),
    "no training pictures": (lambda folder: removed(folder, "train/dog"), "no training picture of"),
    "other files": (without_pictures, "no test picture of class 'cat'"),
    "an empty class": (lambda folder: (folder / "train" / "bird").mkdir(), "'bird'"),
    "no classes": (
        lambda folder: removed(folder, "train/cat", "train/dog", "test/cat", "test/dog"), "each class",
    ),
    "one class": (lambda folder: removed(folder, "train/dog", "test/dog"), "nothing to tell apart"),
    "a name that is not printable": (lambda folder: renamed(folder, "d\x1bg"), "printable"),
    "names that differ in blanks": (lambda folder: renamed(folder, "cat "), "blanks"),
    "too many classes": (with_many_classes, "10 classes: there can be at most 9"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "says"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_without_what_it_needs_is_refused_in_a_line(
    refused, folder, tmp_path, monkeypatch, change, says
):
    monkeypatch.setattr(own_data, "MOST_TASKS", 9)
    change(folder)
    assert says in refused(folder, tmp_path / "own.npz")


def test_a_folder_that_cannot_be_read_is_not_taken_for_empty(folder, tmp_path, monkeypatch, capsys):
    scandir = os.scandir

    def forbidding(path: str) -> object:
        if str(path).endswith("inside"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    save(folder / "train" / "cat" / "inside" / "1.png")
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", forbidding)
        code = pictures.main([str(folder), str(tmp_path / "own.npz")])
    assert (code, (tmp_path / "own.npz").exists()) == (1, False)
    assert re.fullmatch("own_data.py: error: .*inside: Permission denied.*\n", capsys.readouterr().err)


# A table of labels


PLAIN = "file,split,colour,count\n" + "".join(",".join(row) + "\n" for row in ROWS)
WAYS = {
    "plainly": PLAIN,
    "by a spreadsheet": "\ufeff" + PLAIN.replace("\n", "\r\n"),
    "quoted": re.sub(r"[^,\n]+", r'"\g<0>"', PLAIN),
    "quoted after blanks": re.sub(r"(?<=,)[^,\n]+", r' "\g<0>"', PLAIN),
    "with blanks": PLAIN.replace(",", " , "),
    "with empty lines": PLAIN.replace("\n", "\n\n,,,\n"),
    "by other paths": PLAIN.replace("my picture", "./my picture"),
    "in another order": "split,colour, file,count\n" + "".join(f"{b},{c},{a},{d}\n" for a, b, c, d in ROWS),
}


@pytest.mark.parametrize("text", WAYS.values(), ids=WAYS)
def test_a_table_gives_labels_and_names_however_it_is_written(made, table, tmp_path, text):
    (table / "labels.csv").write_bytes(text.encode())
    code, _, err = made(table, tmp_path / "own.npz")
    assert (code, err) == (0, "")
    arrays, spec = np.load(tmp_path / "own.npz"), read_spec(tmp_path / "own.npz")
    assert spec.answer_names == {"colour": ("dark blue", "red"), "count": ("2", "9", "10")}
    data = load(spec, tmp_path, 32, torch.device("cpu"))
    for name, split, rows in (("train", data.train, ROWS[:6]), ("test", data.test, ROWS[6:])):
        assert [os.path.normpath(file) for file in arrays[f"{name}_files"]] == [row[0] for row in rows]
        for label, image, (file, _, colour, count) in zip(split.labels, split.images, rows, strict=True):
            numbers = data.tasks[:, label].tolist()
            names = [each[n] for each, n in zip(spec.answer_names.values(), numbers, strict=True)]
            assert names == [" ".join(colour.split()), count]
            assert np.array_equal(image.permute(1, 2, 0), pictures.read_picture(table / file, 32))


@pytest.mark.parametrize(
    ("values", "in_order"),
    [
        (("10", "9", "-1"), ("-1", "9", "10")),
        (("1e2", "0.5", "20"), ("0.5", "20", "1e2")),
        (("10", "9", "x"), ("10", "9", "x")),
        (("10", "9", "nan"), ("10", "9", "nan")),
        (("b", "B", "a"), ("B", "a", "b")),
    ],
)
def test_answers_are_sorted_as_numbers_if_all_are(made, table, tmp_path, values, in_order):
    written(table, [["file", "split", "x"], *([*row[:2], values[i % 3]] for i, row in enumerate(ROWS))])
    assert made(table, tmp_path / "own.npz")[0] == 0
    assert read_spec(tmp_path / "own.npz").answer_names == {"x": in_order}


def test_what_is_empty_is_no_label(made, table, tmp_path):
    rows = [row[:] for row in ROWS]
    rows[1][2] = rows[8][2] = rows[3][3] = rows[4][2] = rows[4][3] = ""
    written(table, [["file", "split", "colour", "count"], *rows])
    assert made(table, tmp_path / "own.npz")[0] == 0
    arrays = np.load(tmp_path / "own.npz")
    given = np.array([[cell != "" for cell in row[2:]] for row in rows])
    assert np.array_equal(np.concatenate([arrays["train_labels"], arrays["test_labels"]]) >= 0, given)


TABLES = {
    "empty": ("", "'file'"),
    "semicolons": (PLAIN.replace(",", ";"), "'file'"),
    "no split": (PLAIN.replace("split", "part"), "'split'"),
    "no labels": ("file,split\na.png,train\n", "labels"),
    "no pictures": ("file,split,colour\n", "no pictures"),
    "two columns of a name": (PLAIN.replace("count", "colour"), "columns"),
    "a column without a name": (PLAIN.replace("count", ""), "columns"),
    "another split": (PLAIN.replace("test", "valid"), "line 8 of"),
    "a split in capitals": (PLAIN.replace("test", "Test"), "'Test'"),
    "a file listed twice": (PLAIN + PLAIN.splitlines()[3] + "\n", "again, after line 4"),
    "a file listed by two paths": (PLAIN + f"x/../{NAMES[0]},test,red,2\n", "again, after line 2"),
    "too few entries": (PLAIN + "a.png,train,red\n", "line 11"),
    "too many entries": (PLAIN + "a.png,train,red,2,3\n", "line 11"),
    "no file": (PLAIN + ",train,red,2\n", "line 11"),
    "a missing file": (PLAIN + "a.png,train,red,2\n", "1 of 10 pictures cannot be read, the first of them"),
    "one answer": (re.sub("dark +blue", "red", PLAIN), "nothing to tell apart"),
    "no answer": (re.sub("dark +blue|red", "", PLAIN), "no label for 'colour'"),
    "an answer in training alone": (PLAIN + "a.png,train,green,2\n", "no test picture whose 'colour' is"),
    "an answer that cannot be printed": (PLAIN.replace("red", "r\x1bd"), "printable"),
    "an open quote": (PLAIN + '"a.png,train,red,2\n', "comma-separated"),
    "another encoding": ((PLAIN + "ü.png,train,red,2\n").encode("latin-1"), "UTF-8"),
    "two bytes a letter": (PLAIN.encode("utf-16"), "UTF-8"),
    "too many tasks": ("file,split,0,1,2,3,4,5,6,7,8,9\na.png,train" + ",1" * 10, "10 tasks"),
    "too many answers": (
        PLAIN + "".join(f"{number}.png,train,red,{number}\n" for number in range(11, 18)), "10 answers",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "says"), TABLES.values(), ids=TABLES)
def test_a_wrong_table_is_refused_in_a_line(refused, table, tmp_path, monkeypatch, text, says):
    monkeypatch.setattr(own_data, "MOST_TASKS", 9)
    monkeypatch.setattr(own_data, "MOST_CLASSES", 9)
    (table / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert says in refused(table, tmp_path / "own.npz")


# Pictures that cannot be read


def encoded(format: str, image: np.ndarray | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(60, 60) if image is None else image).save(file, format, **options)
    return file.getvalue()


def spoilt(whole: bytes) -> bytes:
    return whole[:1000] + b"\xff" * 2000 + whole[3000:]


def huge() -> bytes:
    """A picture that says that it has 65,535 x 65,535 pixels."""
    whole = encoded("PNG", GREY)
    header = b"IHDR" + struct.pack(">II", 65535, 65535) + whole[24:29]
    return whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]


BROKEN = {
    "empty.jpg": b"",
    "text.png": b"text",
    "truncated.jpg": encoded("JPEG")[:-1000],
    "truncated.png": encoded("PNG")[:-1000],
    "truncated.bmp": encoded("BMP")[:-1000],
    "spoilt.tif": spoilt(encoded("TIFF", compression="tiff_lzw")),
    "floats.tif": encoded("TIFF", RANDOM.rand(9, 9).astype(np.float32)),
    "huge numbers.tif": encoded("TIFF", np.full((9, 9), 65536, dtype=np.int32)),
    "program.jpg": encoded("EPS"),
    "another format.png": encoded("PCX"),
    "huge.png": huge(),
}
"""By name, what is no picture, half of one, or one that is not read."""


def test_pictures_that_cannot_be_read_are_counted_and_left_out_if_wanted(made, refused, folder, tmp_path):
    assert made(folder, tmp_path / "own.npz", "--overwrite")[0] == 0
    for number, (name, content) in enumerate(BROKEN.items()):
        path = folder / "train" / "cat" / name
        path.write_bytes(content)
        line = refused(folder, tmp_path / "other.npz")
        assert f"{number + 1} of {number + 7} pictures" in line
        first = min(list(BROKEN)[: number + 1])
        assert str(folder / "train" / "cat" / first) in line
    (folder / "test" / "dog" / "gone.png").symlink_to("nowhere")
    os.mkfifo(folder / "test" / "dog" / "pipe.png")
    code, _, err = made(folder, tmp_path / "other.npz", "--skip_broken")
    assert code == 0
    names = {f"train/cat/{name}" for name in BROKEN} | {"test/dog/gone.png", "test/dog/pipe.png"}
    assert {line.removeprefix("left out ").partition(": ")[0] for line in err.splitlines()} == names
    assert (tmp_path / "other.npz").read_bytes() == (tmp_path / "own.npz").read_bytes()


def test_what_pillow_warns_of_is_not_said(made, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12 * 9 - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        code, _, err = made(folder, tmp_path / "own.npz", "--image_size", 8)
    assert (code, err) == (0, "")


def test_a_class_is_not_left_without_pictures_that_can_be_read(refused, folder, tmp_path):
    (folder / "test" / "cat" / "3.png").write_bytes(b"")
    assert "no test picture that can be read of class 'cat'" in refused(
        folder, tmp_path / "own.npz", "--skip_broken"
    )


def test_a_damaged_orientation_tag_does_not_hide_a_picture(tmp_path):
    path = save(tmp_path / "a.png", RGB, exif=b"Exif\0\0no such thing")
    assert_reads(path, RGB)


# The file and the command line


def test_a_file_is_replaced_only_if_that_is_wanted_and_all_is_well(made, refused, folder, tmp_path):
    path = tmp_path / "own.npz"
    path.write_text("old")
    assert "--overwrite" in refused(folder, path)
    (folder / "train" / "cat" / "a.png").touch()
    refused(folder, path, "--overwrite")
    (folder / "train" / "cat" / "a.png").unlink()
    assert made(folder, path, "--overwrite")[0] == 0
    assert read_spec(path).num_classes == 2


@pytest.mark.parametrize("name", ["own", "own.txt", "none/own.npz", "folder.npz"])
def test_a_file_that_cannot_be_one_is_refused(refused, folder, tmp_path, name):
    (tmp_path / "folder.npz").mkdir()
    assert name.partition("/")[0] in refused(folder, tmp_path / name, "--overwrite")


@pytest.mark.parametrize(
    "more", [("--image_size", 0), ("--image_size", 1025), ("--image_size", "x"), ("--image",), ("more",)]
)
def test_a_wrong_command_line_has_exit_code_2(refused, folder, tmp_path, more):
    refused(folder, tmp_path / "own.npz", *more, code=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_a_line(refused, folder, tmp_path, monkeypatch, number):
    monkeypatch.setattr(np, "savez", lambda file, **_: file.write(b"half") and os.kill(os.getpid(), number))
    line = refused(folder, tmp_path / "own.npz", code=128 + number)
    assert line == f"own_data.py: stopped by {number.name}\n"


def test_memory_that_is_short_is_not_taken_for_a_broken_picture(refused, folder, tmp_path, monkeypatch):
    def short(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(pictures, "read_picture", short)
    assert "not enough memory" in refused(folder, tmp_path / "own.npz", "--skip_broken")


def test_the_command_that_is_printed_trains(made, program, folder, table, tmp_path):
    rows = [row[:] for row in ROWS]
    rows[1][2] = ""
    for name, lacking in (("folders", False), ("table", False), ("some labels", True)):
        if name == "folders":
            (table / "labels.csv").rename(tmp_path / "labels.csv")
        else:
            written(table, [["file", "split", "colour", "count"], *(rows if lacking else ROWS)])
        path = tmp_path / f"{name} 'own'.npz"
        code, out, err = made(folder, path, "--image_size", 8)
        assert (code, err) == (0, "")
        words = shlex.split(out.splitlines()[-1])
        assert words[:2] == ["python", str(TOP / "main.py")]
        trained = program(*words[2:], "--epochs", 1)
        assert (trained.code, trained.accuracy[:9]) == (0, "Accuracy:")
        assert words[words.index("--setting") + 1] == {"folders": "0", "table": "5"}.get(name, "3")


def test_the_commands_of_the_docs_are_what_the_script_prints(folder, tmp_path):
    page = (TOP / "docs" / "options.md").read_text().partition("\n### Pictures in folders\n")[2]
    first, second = re.search(r"^```\n(.+?)^```$", page, re.MULTILINE | re.DOTALL)[1].splitlines()
    words = shlex.split(first)
    assert words[:2] == ["python", "own_data.py"]
    folder.rename(tmp_path / words[2])
    made = subprocess.run(
        [sys.executable, TOP / "own_data.py", *words[2:]], cwd=tmp_path, capture_output=True, text=True
    )
    assert (made.returncode, made.stderr) == (0, "")
    printed = shlex.split(made.stdout.splitlines()[-1])
    assert (
        shlex.split(second)[2:] == printed[2:-2]
    )  # but for the batch, which is small as the pictures are few
