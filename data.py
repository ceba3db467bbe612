"""Load data sets into memory as tensors.

A data set has images and labels for training and for testing, and a table with the number of each class
within each task. Data sets differ only in how their files are read; the rest follows from the table.
"""

import contextlib
import math
import pickle
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from errors import UserError, is_out_of_memory
from own_data import held_out_images, read_header, read_images
from running.streams import print_message
from settings import look_up
from storage.files import replacing
from storage.locks import waiting_turn
from tasks import CIFAR100_SUPERCLASSES, OMNIGLOT_ALPHABETS, DataSpec

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

OMNIGLOT_SIDE = 105
OMNIGLOT_DRAWINGS = 20
UNPACK_AGAIN = "delete the folder omniglot-py and run again to download and unpack Omniglot again"


class Split:
    """Training or test images with their labels, on one device.

    Attributes:
        images: uint8, N x C x H x W, values 0 to 255, in channels-last layout.
        labels: int64, N, class ids of the whole data set.
    """

    def __init__(self, images: Tensor, labels: Tensor, spec: DataSpec) -> None:
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.labels = labels
        self._scale, self._shift = scale_and_shift(self.images, spec.mean, spec.std)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return a batch: normalised images and their labels.

        Args:
            indices: int64, B, on the device of the images.

        Returns:
            float32, B x C x H x W, in channels-last layout: (pixel / 255 - mean) / std; int64, B.
        """
        rows = self.images.permute(0, 2, 3, 1)
        images = rows.index_select(0, indices).permute(0, 3, 1, 2).float()
        return images.mul_(self._scale).add_(self._shift), self.labels[indices]


def scale_and_shift(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """What to multiply pixels by and then to add, so that they are normalised.

    Both are expanded to the size of an image, which is several times as fast as broadcasting per channel.

    Args:
        images: N x C x H x W, at least one, in the layout of the result.
        mean: mean of the pixels scaled to [0, 1], per channel.
        std: their standard deviation, likewise.

    Returns:
        two tensors, float32, 1 x C x H x W.
    """
    pixels = torch.ones_like(images[:1], dtype=torch.float32)
    means, stds = (torch.tensor(each, device=images.device).view(-1, 1, 1) for each in (mean, std))
    return pixels / (255 * stds), pixels * (-means / stds)


@dataclass(frozen=True)
class DataSet:
    """A data set in memory.

    Attributes:
        spec: definition of the data set, with mean and standard deviation.
        train: the images to train on.
        test: the images to score: the test images, or held-out training images.
        tasks: int64, T x classes, on the CPU: the number of each class within each task, or -1.
        test_indices: int64, N, on the CPU, ascending: which of the data set's test images each image of
            `test` is, or which of its training images where these are held out.
    """

    spec: DataSpec
    train: Split
    test: Split
    tasks: Tensor
    test_indices: Tensor

    @property
    def device(self) -> torch.device:
        """The device of the images."""
        return self.train.images.device

    def images_of(self, task: int) -> np.ndarray:
        """Indices of a task's training images: int64, ascending."""
        return (self.tasks[task][self.train.labels.cpu()] >= 0).nonzero().flatten().numpy()


def augmented(images: Tensor, key: tuple[int, ...]) -> Tensor:
    """Crop images at random places of their padded selves, and mirror half of them if they have colour.

    The padding is 1/8 of a side, at least a pixel, of the mean colour.

    Args:
        images: float32, B x C x H x W, normalised.
        key: non-negative integers that seed the places.

    Returns:
        float32, B x C x H x W, in channels-last layout.
    """
    random = np.random.default_rng(key)
    count, channels, side, _ = images.shape
    margin = max(1, side // 8)
    rows, columns = random.integers(0, 2 * margin + 1, (2, count, 1)) + np.arange(side)
    if channels == 3:
        mirrored = random.integers(0, 2, count).astype(bool)
        columns[mirrored] = columns[mirrored, ::-1]
    padded = F.pad(images, (margin,) * 4).permute(0, 2, 3, 1)
    places = (np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :])
    return padded[tuple(torch.from_numpy(each).to(images.device) for each in places)].permute(0, 3, 1, 2)


def load(
    spec: DataSpec,
    data_path: Path,
    image_size: int,
    device: torch.device,
    task: int | None = None,
    on_test: bool = False,
) -> DataSet:
    """Load a data set onto a device, downloading it if necessary.

    Args:
        spec: the data set.
        data_path: directory of the downloaded files; not used by synthetic data.
        image_size: side that the images are resized to.
        device: where to put the images.
        task: number of the only task whose images are kept; default: keep all images.
        on_test: whether to score the test images although some training images are held out.

    Raises:
        UserError: the files can be neither read nor downloaded, or have the wrong content.
    """
    numbers: list[Tensor] | None = None
    if spec.synthetic:
        splits = synthetic(spec)
    elif spec.path is not None:
        splits, numbers = own(spec.path, spec.checksum)
    else:
        splits = look_up(globals(), spec.reader, "data.py", "DATA_SETS of tasks.py")(data_path)
    check(splits, spec)
    if spec.path is not None:
        mean, std = measured(splits[0][0])
        if max(std) == 0:
            raise UserError(
                f"{spec.path} has training images that are all of one colour: there is nothing to learn"
            )
        spec = replace(spec, mean=mean, std=tuple(each or 1.0 for each in std))  # a channel may be constant
    numbers = numbers or [torch.arange(len(labels)) for _, labels in splits]
    numbered = [(*labelled, each) for labelled, each in zip(splits, numbers, strict=True)]
    if spec.validation:
        if spec.has_classes:
            kept, held_out = hold_out(numbered[0], spec.held_out)
        else:
            kept, held_out = _part(numbered[0], held_out_images(len(numbered[0][1]), sum(spec.held_out)))
        numbered = [kept, numbered[1] if on_test else held_out]
    tasks = torch.tensor(list(spec.tasks.values()))
    if task is not None:
        numbered = [of_task(each, tasks[task]) for each in numbered]
    train, test = (
        Split(resize(images, image_size).to(device), labels.to(device), spec)
        for images, labels, _ in numbered
    )
    return DataSet(spec, train, test, tasks, numbered[1][2])


def measured(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of images, per channel.

    The images are uint8, N x C x H x W. The results are those of pixels scaled to [0, 1].
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = [
        sum(part[:, channel].flatten().bincount(minlength=256) for part in images.split(1000))
        for channel in range(images.shape[1])
    ]
    means = [float(values @ count.double() / count.sum()) for count in counts]
    stds = [
        float(((values - mean) ** 2 @ count.double() / count.sum()).sqrt())
        for mean, count in zip(means, counts, strict=True)
    ]
    return tuple(means), tuple(stds)


Labelled = tuple[Tensor, Tensor]
"""Images, uint8, N x C x H x W, and their labels, int64, N, on the CPU."""


Rows = TypeVar("Rows", bound=tuple[Tensor, ...])
"""Images, their labels, and maybe more with an entry for each image."""


def hold_out(labelled: Rows, counts: Sequence[int]) -> tuple[Rows, Rows]:
    """Hold out a number of labelled images of each class.

    The choice depends only on the labels and the numbers.

    Returns:
        the images to train on; the held-out ones.
    """
    chosen = []
    for label, count in enumerate(counts):
        of_class = (labelled[1] == label).nonzero().flatten()
        order = np.random.RandomState(label).permutation(len(of_class))  # the same in every version of NumPy
        chosen.append(of_class[order[:count]].numpy())
    return _part(labelled, np.concatenate(chosen))


def _part(labelled: Rows, chosen: np.ndarray) -> tuple[Rows, Rows]:
    """Split labelled images into the others and the chosen ones, each in order.

    Args:
        labelled: the images.
        chosen: int64, indices of images.
    """
    held_out = torch.zeros(len(labelled[1]), dtype=torch.bool)
    held_out[torch.from_numpy(chosen)] = True
    return _those(labelled, ~held_out), _those(labelled, held_out)


def _those(labelled: Rows, wanted: Tensor) -> Rows:
    """The labelled images that a tensor, bool, N, says are wanted."""
    return tuple(each[wanted] for each in labelled)  # type: ignore[return-value]  # of as many tensors


def of_task(labelled: Rows, numbers: Tensor) -> Rows:
    """Keep the images of one task, in order.

    Args:
        labelled: the images of all tasks.
        numbers: int64, the number of each class within the task, or -1.
    """
    members = numbers[labelled[1]] >= 0
    return labelled if members.all() else _those(labelled, members)


def resize(images: Tensor, size: int) -> Tensor:
    """Resize images by averaging areas.

    The images are uint8, N x C x H x W, the results uint8, N x C x size x size, rounded.
    """
    if images.shape[-2:] == (size, size):
        return images
    resized = images.new_empty(*images.shape[:2], size, size)
    for before, after in zip(images.split(1000), resized.split(1000), strict=True):
        after.copy_(F.interpolate(before.float(), size=(size, size), mode="area").round_())
    return resized


Splits = tuple[Labelled, Labelled]
"""The training images, then the test images."""


def check(splits: Splits, spec: DataSpec) -> None:
    """Check what a reader returned against the definition of its data set.

    Raises:
        UserError: images or labels have the wrong type or shape, or a class the wrong number of images.
    """
    all_counts = (spec.train_counts, spec.test_counts)
    for use, (images, labels), counts in zip(("training", "testing"), splits, all_counts, strict=True):
        if problem := _problem(images, labels, counts, spec):
            raise UserError(
                f"the reader of {spec.title} returns for {use} {problem}: correct it, or the data set's entry"
            )


def _problem(images: Tensor, labels: Tensor, counts: Sequence[int], spec: DataSpec) -> str | None:
    """What is wrong with images and labels, or None.

    There should be `counts` images of each class.
    """

    def kind(values: object) -> tuple[object, tuple[int, ...]]:
        return getattr(values, "dtype", type(values).__name__), tuple(getattr(values, "shape", ()))

    shape = (spec.channels, spec.image_size, spec.image_size)
    dtype, found = kind(images)
    if (dtype, found) != (torch.uint8, (len(images), *shape)):
        wanted = " x ".join(map(str, ("N", *shape)))
        return f"images of type {dtype} and shape {found}, not torch.uint8 and {wanted}"
    dtype, found = kind(labels)
    if (dtype, found) != (torch.int64, (len(images),)):
        return f"labels of type {dtype} and shape {found}, not torch.int64 and {(len(images),)}"
    last = spec.num_classes - 1
    beyond = labels[(labels < 0) | (labels > last)]
    if len(beyond):
        from_1 = " (they seem to count from 1: subtract 1)" if labels.min() == 1 else ""
        return f"labels from {labels.min()} to {labels.max()}, not 0 to {last}{from_1}"
    per_class = labels.bincount(minlength=spec.num_classes).tolist()
    for label, (count, expected) in enumerate(zip(per_class, counts, strict=True)):
        if count != expected:
            return f"{count} images of class {label}, not {expected}"
    return None


def own(path: Path, checksum: str) -> tuple[Splits, list[Tensor]]:
    """Read a FILE.npz that has been described by own_data.read_spec.

    Images without any label are left out.

    Returns:
        the images that are left; their numbers in the file: int64, of the training images, then of the
        others.
    """
    arrays = {name: torch.from_numpy(array) for name, array in read_images(path, checksum).items()}
    train, test = ((arrays[f"{name}_images"], arrays[f"{name}_labels"]) for name in ("train", "test"))
    used = [labels >= 0 for _, labels in (train, test)]
    numbers = [each.nonzero().flatten() for each in used]
    unused = [int((~each).sum()) for each in used]
    if not any(unused):
        return (train, test), numbers
    print_message(f"{path}: {unused[0]} training and {unused[1]} test images have no label and are unused")
    return (_those(train, used[0]), _those(test, used[1])), numbers


def synthetic(spec: DataSpec) -> Splits:
    """Generate the stand-in of a data set.

    Every class has a coarse pattern of random colours. An image is the pattern of its class, shifted by a few
    pixels, mixed with a pattern of its own and noise. The arithmetic is in integers, with a generator whose
    stream never changes, so the images are the same on every machine.
    """
    random = np.random.RandomState(2**31 - 1)
    size, cell = spec.image_size, 8

    def patterns(count: int) -> np.ndarray:
        coarse = random.randint(0, 256, (count, spec.channels, size // cell, size // cell))
        return coarse.astype(np.int16).repeat(cell, axis=2).repeat(cell, axis=3)

    class_patterns, shifts = patterns(spec.num_classes), range(-3, 4)
    shifted = np.array(
        [[np.roll(class_patterns, (down, right), axis=(2, 3)) for right in shifts] for down in shifts]
    )

    def split(counts: tuple[int, ...]) -> Labelled:
        labels = np.arange(spec.num_classes).repeat(counts)
        down, right = random.randint(-3, 4, (len(labels), 2)).T
        images = shifted[down + 3, right + 3, labels]
        images *= 2
        noise = random.randint(0, 2**32, images.shape, dtype=np.uint32)  # of which 8 bits count
        images += 2 * noise.astype(np.uint8).astype(np.int16)
        images += 3 * patterns(len(labels))
        images //= 7
        return torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels)

    return split(spec.train_counts), split(spec.test_counts)


@contextlib.contextmanager
def _reading(
    name: str, data_path: Path, urls: dict[Path, str], checksums: dict[Path, str | None]
) -> Generator[None]:
    """Let one process at a time download.

    Failures become one line with the remedy.

    Args:
        name: name of the data set.
        data_path: directory of the data sets, created if missing.
        urls: address of each archive.
        checksums: MD5 of each file, None where it is not known.

    Raises:
        UserError: reading or downloading failed.
    """
    from torchvision.datasets.utils import check_integrity

    try:
        with contextlib.suppress(OSError):  # a read-only directory may have all files
            data_path.mkdir(parents=True, exist_ok=True)
        # Some versions of torchvision print to standard output.
        with contextlib.redirect_stdout(sys.stderr), waiting_turn(data_path):
            yield
    except UserError:
        raise
    except Exception as error:  # network, disk, or any error that damaged files lead to
        if is_out_of_memory(error):
            raise MemoryError from error
        what = "its files cannot be read"
        with contextlib.suppress(OSError):  # the files cannot even be looked at
            there = [path for path in checksums if path.exists()]
            damaged = [path for path in there if not check_integrity(path, checksums[path])]
            missing = [path for path in checksums if path not in there and path not in urls]
            if damaged:
                what = f"{damaged[0]} is damaged"
            elif missing:
                what = f"{missing[0]} is missing"
        by_hand = " and ".join(f"{url} as {path}" for path, url in urls.items())
        raise UserError(
            f"cannot load {name}: {what} and downloading did not help "
            f"({type(error).__name__}: {' '.join(str(error).split())}); without a network, put {by_hand} by "
            f"hand, or use --synthetic, which needs no files"
        ) from error


def _cifar(name: str, data_set: "type[CIFAR10]", data_path: Path) -> Splits:
    """Read CIFAR-10 or CIFAR-100 with torchvision's class for it."""
    folder, archive = data_path / data_set.base_folder, data_path / data_set.filename
    checksums = {archive: data_set.tgz_md5}
    checksums |= {folder / file: md5 for file, md5 in data_set.train_list + data_set.test_list}

    def split(train: bool) -> Labelled:
        read = data_set(data_path, train=train, download=True)
        return torch.from_numpy(read.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(read.targets)

    with _reading(name, data_path, {archive: data_set.url}, checksums):
        return split(train=True), split(train=False)


def cifar10(data_path: Path) -> Splits:
    """Read CIFAR-10 (Krizhevsky 2009)."""
    from torchvision.datasets import CIFAR10  # slow to import

    return _cifar("CIFAR-10", CIFAR10, data_path)


def cifar100(data_path: Path) -> Splits:
    """Read CIFAR-100 (Krizhevsky 2009).

    Raises:
        UserError: the files cannot be loaded, or their superclasses are not those of the tasks.
    """
    from torchvision.datasets import CIFAR100

    splits = _cifar("CIFAR-100", CIFAR100, data_path)
    folder = data_path / CIFAR100.base_folder
    with open(folder / "test", "rb") as file:
        entry = pickle.load(file, encoding="latin1")  # verified by torchvision, which drops the coarse labels
    superclasses = list(CIFAR100_SUPERCLASSES.values())
    for fine, coarse in set(zip(entry["fine_labels"], entry["coarse_labels"], strict=True)):
        if fine not in superclasses[coarse]:
            raise UserError(
                f"{folder} puts class {fine} into superclass {coarse}, where it does not belong; "
                f"delete it and run again to download CIFAR-100 again"
            )
    return splits


def omniglot(data_path: Path, parts: dict[str, dict[str, int]] = OMNIGLOT_ALPHABETS) -> Splits:
    """Read Omniglot (Lake, Salakhutdinov and Tenenbaum 2015).

    The drawings are decoded once and cached in a file for later runs.

    Args:
        data_path: directory of the data sets.
        parts: the alphabets of each part in order, each with its number of characters.
    """
    folder = data_path / "omniglot-py"
    kept = folder / "drawings.npz"
    num_characters = sum(sum(alphabets.values()) for alphabets in parts.values())
    drawings = _kept_drawings(kept, num_characters)
    if drawings is None:
        from torchvision.datasets import Omniglot

        archives = {part: folder / f"{part}.zip" for part in parts}
        urls = {path: f"{Omniglot.download_url_prefix}/{path.name}" for path in archives.values()}
        checksums = {path: Omniglot.zips_md5[part] for part, path in archives.items()}
        checksums |= {folder / part: None for part in parts}
        with _reading("Omniglot", data_path, urls, checksums):
            drawings = _kept_drawings(kept, num_characters, say=True)  # another process may have written it
            if drawings is None:
                for part in parts:
                    Omniglot(data_path, background=part == "images_background", download=True)
                drawings = read_drawings(folder, parts)
                try:
                    with replacing(kept) as file:
                        np.savez(file, drawings=np.packbits(drawings))
                except UserError as error:
                    print(f"the next run will decode the drawings again: {error}", file=sys.stderr)
    images = torch.from_numpy(drawings).mul_(255)
    labels = torch.arange(num_characters)[:, None].expand(-1, OMNIGLOT_DRAWINGS)

    def split(which: slice) -> Labelled:
        return images[:, which].flatten(0, 1).unsqueeze(1), labels[:, which].flatten()

    return split(slice(0, 16)), split(slice(16, None))


def _kept_drawings(kept: Path, num_characters: int, say: bool = False) -> np.ndarray | None:
    """Cached drawings of Omniglot, or None if there are none.

    They are as `read_drawings` returns them.

    Args:
        kept: the cache file.
        num_characters: number of characters that the file must hold.
        say: whether to print a message if the file is damaged.
    """
    shape = (num_characters, OMNIGLOT_DRAWINGS, OMNIGLOT_SIDE, OMNIGLOT_SIDE)
    try:
        with np.load(kept) as archive:
            if read_header(archive, "drawings") != (((math.prod(shape) + 7) // 8,), np.uint8):
                raise ValueError("it holds something else")
            return np.unpackbits(archive["drawings"], count=math.prod(shape)).reshape(shape)
    except FileNotFoundError:
        return None
    except Exception as error:  # disk, or any error that a damaged file leads to
        if is_out_of_memory(error):
            raise MemoryError from error
        if say:
            print(f"{kept} is damaged and is made again: {error}", file=sys.stderr)
        return None


def read_drawings(folder: Path, parts: dict[str, dict[str, int]]) -> np.ndarray:
    """Decode the drawings of Omniglot.

    Their order is the same on every file system.

    Args:
        folder: directory of the parts.
        parts: the alphabets of each part in order, each with its number of characters.

    Returns:
        uint8, characters x 20 x 105 x 105: 0 where there is ink, 1 elsewhere. Alphabets are in the order
        given, characters in name order within their alphabet, drawings in name order.

    Raises:
        UserError: an alphabet, a character or a drawing is missing, or a drawing cannot be read.
    """
    num_characters = sum(sum(alphabets.values()) for alphabets in parts.values())
    drawings = np.empty((num_characters, OMNIGLOT_DRAWINGS, OMNIGLOT_SIDE, OMNIGLOT_SIDE), dtype=np.uint8)
    targets = iter(drawings)
    with tqdm(total=num_characters, desc="decoding Omniglot", unit="characters", disable=None) as bar:
        for part, alphabets in parts.items():
            for alphabet, size in alphabets.items():
                for character in _entries(folder / part / alphabet, size, "characters"):
                    paths = _entries(character, OMNIGLOT_DRAWINGS, "drawings")
                    for target, path in zip(next(targets), paths, strict=True):
                        target[:] = _read_drawing(path)
                    bar.update()
    return drawings


def _read_drawing(path: Path) -> np.ndarray:
    """Decode one drawing of Omniglot.

    Raises:
        UserError: it cannot be read, or has another size.
    """
    from PIL import Image  # a dependency of torchvision

    try:
        with Image.open(path) as image:
            if image.size != (OMNIGLOT_SIDE, OMNIGLOT_SIDE):
                raise ValueError(f"it has {image.size[0]} x {image.size[1]} pixels")
            return np.asarray(image.convert("1"))
    except Exception as error:  # any error that a damaged file leads to
        if is_out_of_memory(error):
            raise MemoryError from error
        raise UserError(f"cannot read the drawing {path}: {error}; {UNPACK_AGAIN}") from error


def _entries(folder: Path, count: int, noun: str) -> list[Path]:
    """Entries of a folder of Omniglot in name order.

    Raises:
        UserError: there are not `count` of them.
    """
    entries = sorted(path for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []
    if len(entries) != count:
        raise UserError(f"{folder} should hold {count} {noun} and holds {len(entries)}; {UNPACK_AGAIN}")
    return entries
