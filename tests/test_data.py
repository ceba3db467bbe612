"""Reading the data sets, resizing, normalising, holding images out."""

import errno
import fcntl
import io
import os
import pickle
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
import torchvision.datasets.cifar
import torchvision.datasets.omniglot
from helpers import make, train_epochs
from PIL import Image
from test_settings import SUPERCLASSES

import data
from data import Split, _reading, hold_out, load, measured, omniglot, read_drawings, resize, synthetic
from errors import UserError
from storage.locks import waiting_turn
from tasks import DATA_SETS

CPU = torch.device("cpu")

CIFAR100 = replace(DATA_SETS[1], train_counts=(2,) * 100, test_counts=(2,) * 100)
"""As the tests write it."""


@pytest.fixture
def any_checksum(monkeypatch):
    """Let torchvision take files that a test has made for the published ones."""
    for module in (torchvision.datasets.cifar, torchvision.datasets.omniglot):
        monkeypatch.setattr(module, "check_integrity", lambda *_: True)


def write_pickle(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))


def write_cifar100(root: Path, coarse_of: dict[int, int]) -> np.ndarray:
    """CIFAR-100 with two images per class, laid out as published; gives back the training images."""
    fine = list(range(100)) * 2
    images = np.random.RandomState(0).randint(0, 256, (200, 3072)).astype(np.uint8)
    for split in ("train", "test"):
        coarse = [coarse_of[label] for label in fine]
        entry = {"data": images, "fine_labels": fine, "coarse_labels": coarse}
        write_pickle(root / "cifar-100-python" / split, entry)
    write_pickle(root / "cifar-100-python" / "meta", {"fine_label_names": [], "coarse_label_names": []})
    return images


def published_coarse_labels() -> dict[int, int]:
    names = sorted(sum(SUPERCLASSES, []))
    return {names.index(name): coarse for coarse, group in enumerate(SUPERCLASSES) for name in group}


def test_cifar100_is_read_as_it_lies_in_the_files(tmp_path, any_checksum):
    written = write_cifar100(tmp_path, published_coarse_labels())
    loaded = load(CIFAR100, tmp_path, 32, CPU)
    assert loaded.train.images.dtype == torch.uint8
    assert np.array_equal(loaded.train.images.numpy().reshape(200, 3072), written)
    assert loaded.train.labels.tolist() == list(range(100)) * 2


def test_the_superclasses_are_the_coarse_labels_in_the_files(tmp_path, any_checksum):
    write_cifar100(tmp_path, published_coarse_labels())
    loaded = load(CIFAR100, tmp_path, 32, CPU)
    entry = pickle.loads((tmp_path / "cifar-100-python" / "test").read_bytes())
    for task in range(20):
        in_task = loaded.tasks[task][loaded.test.labels] >= 0
        assert in_task.tolist() == [coarse == task for coarse in entry["coarse_labels"]]


def test_files_that_disagree_with_the_superclasses_are_refused(tmp_path, any_checksum):
    coarse_of = published_coarse_labels()
    coarse_of[17] = (coarse_of[17] + 1) % 20
    write_cifar100(tmp_path, coarse_of)
    with pytest.raises(UserError, match="class 17"):
        load(CIFAR100, tmp_path, 32, CPU)


def test_cifar10_is_read_as_it_lies_in_the_files(tmp_path, any_checksum):
    folder = tmp_path / "cifar-10-batches-py"
    random = np.random.RandomState(0)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        images = random.randint(0, 256, (10, 3072)).astype(np.uint8)
        write_pickle(folder / name, {"data": images, "labels": random.permutation(10).tolist()})
    write_pickle(folder / "batches.meta", {"label_names": []})
    loaded = load(replace(DATA_SETS[0], train_counts=(5,) * 10, test_counts=(1,) * 10), tmp_path, 32, CPU)
    third = pickle.loads((folder / "data_batch_3").read_bytes())
    assert np.array_equal(loaded.train.images[20:30].numpy().reshape(10, 3072), third["data"])
    assert loaded.train.labels[20:30].tolist() == third["labels"]
    assert len(loaded.test) == 10


ALPHABETS = {"images_background": {"Beta": 2, "Zeta": 3}, "images_evaluation": {"Alpha": 2}}
"""A small Omniglot. Its evaluation alphabet sorts before the others, whom it must come after."""


def write_omniglot(folder: Path) -> None:
    """Drawings of one inked row each: the row is the number of the character, the column the drawing."""
    number = 0
    for part, alphabets in ALPHABETS.items():
        for alphabet, size in alphabets.items():
            for character in range(1, size + 1):
                directory = folder / part / alphabet / f"character{character:02}"
                directory.mkdir(parents=True)
                for drawing in range(20):
                    pixels = np.ones((105, 105), dtype=bool)
                    pixels[number, drawing] = False
                    Image.fromarray(pixels).save(directory / f"{number:04}_{drawing + 1:02}.png")
                number += 1


@pytest.fixture
def omniglot_folder(tmp_path, any_checksum) -> Path:
    folder = tmp_path / "omniglot-py"
    write_omniglot(folder)
    return folder


def where_inked(drawings: np.ndarray) -> list[list[tuple[int, int]]]:
    return [[tuple(np.argwhere(drawing == 0)[0].tolist()) for drawing in character] for character in drawings]


@pytest.mark.parametrize("order", [sorted, lambda names: sorted(names, reverse=True)], ids=["up", "down"])
def test_omniglot_does_not_depend_on_the_order_of_a_directory_listing(omniglot_folder, monkeypatch, order):
    listdir, scandir = os.listdir, os.scandir
    monkeypatch.setattr(os, "listdir", lambda path=".": order(listdir(path)))
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(order(iterdir(path))))
    monkeypatch.setattr(os, "scandir", scandir)
    drawings = read_drawings(omniglot_folder, ALPHABETS)
    assert where_inked(drawings) == [[(character, i) for i in range(20)] for character in range(7)]


def test_the_first_16_drawings_of_a_character_train_and_the_last_4_test(omniglot_folder):
    (train_images, train_labels), (test_images, test_labels) = omniglot(omniglot_folder.parent, ALPHABETS)
    for images, labels, drawings in (
        (train_images, train_labels, range(16)),
        (test_images, test_labels, range(16, 20)),
    ):
        assert images.shape == (7 * len(drawings), 1, 105, 105)
        inked = [tuple((image[0] == 0).nonzero()[0].tolist()) for image in images]
        assert inked == [(character, drawing) for character in range(7) for drawing in drawings]
        assert labels.tolist() == [character for character in range(7) for _ in drawings]
        assert set(images.unique().tolist()) == {0, 255}


def test_the_second_start_needs_no_drawings(omniglot_folder):
    first = omniglot(omniglot_folder.parent, ALPHABETS)
    for drawing in omniglot_folder.rglob("*.png"):
        drawing.unlink()
    second = omniglot(omniglot_folder.parent, ALPHABETS)
    for before, after in zip(first, second, strict=True):
        assert torch.equal(before[0], after[0])
        assert torch.equal(before[1], after[1])


def truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip_in_the_middle(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


def other_array(_: bytes) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, drawings=np.zeros(3, dtype=np.uint8))
    return buffer.getvalue()


def bare_array(_: bytes) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3, dtype=np.uint8))
    return buffer.getvalue()


def promise_more(content: bytes) -> bytes:
    """With a header that says that there are more bytes than any memory has."""
    true = len(np.load(io.BytesIO(content))["drawings"])
    return content.replace(f"({true},), }}".encode() + b" " * 9, f"({true}000000000,), }}".encode())


@pytest.mark.parametrize(
    "damage",
    [truncate, flip_in_the_middle, other_array, bare_array, promise_more, lambda _: b"", lambda _: b"text"],
)
def test_damaged_kept_drawings_are_made_anew(omniglot_folder, damage, capsys):
    first = omniglot(omniglot_folder.parent, ALPHABETS)
    kept = omniglot_folder / "drawings.npz"
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    second = omniglot(omniglot_folder.parent, ALPHABETS)
    assert torch.equal(first[0][0], second[0][0])
    assert "damaged" in capsys.readouterr().err
    omniglot(omniglot_folder.parent, ALPHABETS)
    assert "damaged" not in capsys.readouterr().err


def remove_alphabet(folder: Path) -> str:
    for path in sorted((folder / "images_background" / "Zeta").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (folder / "images_background" / "Zeta").rmdir()
    return "Zeta"


def remove_drawing(folder: Path) -> str:
    (folder / "images_background" / "Beta" / "character02" / "0001_07.png").unlink()
    return "character02"


def spoil_drawing(folder: Path) -> str:
    (folder / "images_evaluation" / "Alpha" / "character01" / "0005_03.png").write_bytes(b"no image")
    return "0005_03.png"


def cut_drawing(folder: Path) -> str:
    path = folder / "images_evaluation" / "Alpha" / "character01" / "0005_03.png"
    path.write_bytes(path.read_bytes()[:60])
    return "0005_03.png"


def shrink_drawing(folder: Path) -> str:
    path = folder / "images_evaluation" / "Alpha" / "character01" / "0005_03.png"
    Image.fromarray(np.ones((10, 10), dtype=bool)).save(path)
    return "0005_03.png"


def shrink_drawing_to_a_row(folder: Path) -> str:
    path = folder / "images_evaluation" / "Alpha" / "character01" / "0005_03.png"
    Image.fromarray(np.ones((1, 105), dtype=bool)).save(path)  # which NumPy would repeat
    return "0005_03.png"


@pytest.mark.parametrize(
    "harm",
    [remove_alphabet, remove_drawing, spoil_drawing, cut_drawing, shrink_drawing, shrink_drawing_to_a_row],
)
def test_what_is_wrong_with_omniglot_is_named(omniglot_folder, harm):
    named = harm(omniglot_folder)
    with pytest.raises(UserError, match=named):
        omniglot(omniglot_folder.parent, ALPHABETS)
    assert not (omniglot_folder / "drawings.npz").exists()


SMALL_ENTRY = replace(
    DATA_SETS[0],
    name="Small",
    reader="small",
    image_size=4,
    tasks={"which": (0, 1, 2)},
    train_counts=(3, 2, 4),
    test_counts=(1, 1, 2),
)


def as_returned(**other: object) -> tuple:
    """What a reader of the small entry should return, or something else in place of parts of it."""
    made = {}
    for use, counts in (("train", SMALL_ENTRY.train_counts), ("test", SMALL_ENTRY.test_counts)):
        made[f"{use}_labels"] = torch.arange(3).repeat_interleave(torch.tensor(counts))
        made[f"{use}_images"] = torch.zeros(sum(counts), 3, 4, 4, dtype=torch.uint8)
    made |= other
    return tuple((made[f"{use}_images"], made[f"{use}_labels"]) for use in ("train", "test"))


RIGHT = as_returned()
(IMAGES, LABELS), (TEST_IMAGES, TEST_LABELS) = RIGHT


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"train_images": IMAGES[1:], "train_labels": LABELS[1:]}, "for training 2 images of class 0, not 3"),
        ({"test_labels": torch.tensor([0, 0, 1, 2])}, "for testing 2 images of class 0, not 1"),
        ({"train_images": IMAGES[:0], "train_labels": LABELS[:0]}, "for training 0 images of class 0, not 3"),
        ({"train_images": IMAGES[1:]}, "labels of type torch.int64 and shape (9,), not torch.int64 and (8,)"),
        (
            {"train_labels": LABELS + 1},
            "for training labels from 1 to 3, not 0 to 2 (they seem to count from 1",
        ),
        ({"test_labels": TEST_LABELS - 1}, "for testing labels from -1 to 1, not 0 to 2"),
        ({"train_labels": LABELS.int()}, "labels of type torch.int32"),
        ({"train_labels": LABELS[:, None]}, "labels of type torch.int64 and shape (9, 1)"),
        ({"train_labels": LABELS.tolist()}, "labels of type list"),
        ({"train_images": IMAGES.float()}, "images of type torch.float32"),
        ({"train_images": IMAGES.numpy()}, "images of type uint8"),
        ({"train_images": IMAGES[:, :1]}, "shape (9, 1, 4, 4), not torch.uint8 and N x 3 x 4 x 4"),
        ({"train_images": IMAGES.permute(0, 2, 3, 1)}, "shape (9, 4, 4, 3), not torch.uint8"),
        ({"train_images": IMAGES[:, 0]}, "shape (9, 4, 4), not torch.uint8"),
        ({"test_images": TEST_IMAGES[..., 1:]}, "shape (4, 3, 4, 3), not torch.uint8"),
    ],
)
def test_what_a_reader_returns_is_held_against_the_entry_of_its_data_set(monkeypatch, other, says):
    monkeypatch.setattr(data, "small", lambda data_path: RIGHT, raising=False)
    assert len(load(SMALL_ENTRY, Path(), 4, CPU).train) == 9
    monkeypatch.setattr(data, "small", lambda data_path: as_returned(**other))
    with pytest.raises(UserError) as refused:
        load(SMALL_ENTRY, Path(), 4, CPU)
    assert str(refused.value).startswith("the reader of Small returns ")
    assert says in str(refused.value)


def test_a_data_set_without_a_reader_is_told_in_a_line_that_names_both_tables():
    with pytest.raises(UserError, match=r"^DATA_SETS of tasks\.py names 'small', and data\.py has nothing"):
        load(SMALL_ENTRY, Path(), 4, CPU)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 2 GiB"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        torch.OutOfMemoryError("CUDA out of memory."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_too_little_memory_is_never_taken_for_damaged_files(tmp_path, omniglot_folder, monkeypatch, error):
    def short(*_, **__):
        raise error

    with pytest.raises(MemoryError), _reading("CIFAR-10", tmp_path, {}, {}):
        short()
    with monkeypatch.context() as patched:
        patched.setattr(Image, "open", short)
        with pytest.raises(MemoryError):
            read_drawings(omniglot_folder, ALPHABETS)
    omniglot(tmp_path, ALPHABETS)
    monkeypatch.setattr(np, "unpackbits", short)
    with pytest.raises(MemoryError):
        omniglot(tmp_path, ALPHABETS)


def test_what_another_process_has_decoded_while_this_one_waited_is_taken(omniglot_folder, monkeypatch):
    kept, aside = omniglot_folder / "drawings.npz", omniglot_folder / "aside"
    first = omniglot(omniglot_folder.parent, ALPHABETS)
    kept.rename(aside)
    for drawing in omniglot_folder.rglob("*.png"):
        drawing.unlink()
    got = []
    with open(omniglot_folder.parent / ".lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def read() -> None:
            got.append(omniglot(omniglot_folder.parent, ALPHABETS))

        thread = threading.Thread(target=read, daemon=True)
        printed = io.StringIO()
        monkeypatch.setattr(sys, "stderr", printed)
        thread.start()
        deadline = time.monotonic() + 60
        while "waiting for another process" not in printed.getvalue():
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        aside.rename(kept)
        fcntl.flock(other, fcntl.LOCK_UN)
        thread.join()
    assert torch.equal(got[0][0][0], first[0][0])
    assert printed.getvalue().count("\n") == 1
    assert str(omniglot_folder.parent / ".lock") in printed.getvalue()


def test_a_directory_that_nobody_holds_is_locked_without_a_word(tmp_path, capsys):
    with waiting_turn(tmp_path), open(tmp_path / ".lock") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with waiting_turn(tmp_path):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "error", [NotImplementedError("no flock"), OSError(errno.ENOLCK, "No locks available")]
)
def test_a_file_system_without_locks_is_gone_on_with(tmp_path, monkeypatch, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with waiting_turn(tmp_path):
        entered = True
    assert entered


def test_a_size_that_divides_evenly_averages_blocks():
    images = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4)
    assert resize(images, 2).tolist() == [[[[2, 4], [10, 12]]]]  # 2.5 and 4.5 round to even


@pytest.mark.parametrize("size", [1, 7, 32, 50])
def test_resizing_keeps_flat_images_flat_and_the_type(size):
    images = torch.full((3, 2, 32, 32), 200, dtype=torch.uint8)
    resized = resize(images, size)
    assert resized.shape == (3, 2, size, size)
    assert resized.dtype == torch.uint8
    assert (resized == 200).all()


@pytest.mark.parametrize("spec", DATA_SETS, ids=lambda spec: spec.name)
def test_a_batch_is_scaled_to_one_and_normalised_per_channel(spec):
    images = torch.randint(0, 256, (5, spec.channels, 4, 4), dtype=torch.uint8)
    labels = torch.arange(5)
    inputs, got = Split(images, labels, spec).batch(torch.tensor([3, 0]))
    assert got.tolist() == [3, 0]
    for channel in range(spec.channels):
        expected = (images[[3, 0], channel].double() / 255 - spec.mean[channel]) / spec.std[channel]
        torch.testing.assert_close(inputs[:, channel].double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("spec", [spec.stand_in for spec in DATA_SETS], ids=lambda spec: spec.name)
def test_generated_images_are_the_same_whatever_was_drawn_before(spec):
    first = synthetic(spec)
    np.random.seed(5)
    torch.manual_seed(5)
    second = synthetic(spec)
    for before, after in zip(first, second, strict=True):
        assert torch.equal(before[0], after[0])
        assert torch.equal(before[1], after[1])
    (train, labels), (test, _) = first
    assert train.dtype == torch.uint8
    assert train.shape[1] == spec.channels
    assert labels.bincount().tolist() == list(spec.train_counts)
    flat = {image.numpy().tobytes() for image in train}
    assert not any(image.numpy().tobytes() in flat for image in test)


def test_generated_pixels_have_about_the_recorded_mean_and_deviation():
    for spec in (spec.stand_in for spec in DATA_SETS):
        pixels = synthetic(spec)[0][0].double() / 255
        for channel in range(spec.channels):
            assert pixels[:, channel].mean() == pytest.approx(spec.mean[channel], abs=0.02)
            assert pixels[:, channel].std() == pytest.approx(spec.std[channel], abs=0.02)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_mean_and_deviation_of_images_are_those_of_their_pixels(channels):
    images = torch.randint(0, 200, (1100, channels, 5, 5), dtype=torch.uint8)
    mean, std = measured(images)
    pixels = images.double() / 255
    assert mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist())
    assert std == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist())


def test_what_is_held_out_is_parted_class_by_class_and_the_same_each_time():
    labels = torch.tensor([1, 0, 1, 2, 1, 0, 1, 1, 2])
    images = torch.arange(9, dtype=torch.uint8).view(9, 1, 1, 1)
    (kept, kept_labels), (held, held_labels) = hold_out((images, labels), (1, 2, 0))
    assert held_labels.bincount(minlength=3).tolist() == [1, 2, 0]
    assert sorted([*kept.flatten().tolist(), *held.flatten().tolist()]) == list(range(9))
    for part, part_labels in ((kept, kept_labels), (held, held_labels)):
        assert torch.equal(labels[part.flatten().long()], part_labels)
    torch.manual_seed(9)
    np.random.seed(9)
    assert torch.equal(hold_out((images, labels), (1, 2, 0))[1][0], held)
    assert set(hold_out((images, labels), (1, 3, 0))[1][0].flatten().tolist()) > set(held.flatten().tolist())


def test_the_images_of_a_task_are_the_training_images_whose_class_is_in_it(cifar100):
    for task in (0, 7):
        expected = [i for i, label in enumerate(cifar100.train.labels) if cifar100.tasks[task][label] != -1]
        assert cifar100.images_of(task).tolist() == expected


def test_data_sets_in_a_directory_that_cannot_be_written_are_read(tmp_path, any_checksum, monkeypatch):
    write_cifar100(tmp_path, published_coarse_labels())

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)  # as root may write anywhere
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert len(load(CIFAR100, tmp_path, 32, CPU).train) == 200
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize(
    ("spec", "validation"), [(DATA_SETS[1].stand_in, 0.25), (DATA_SETS[0].stand_in, 0.0)]
)
def test_a_single_task_is_trained_and_scored_alike_with_and_without_the_images_of_the_others(
    spec, validation
):
    spec = replace(spec, validation=validation)
    whole, alone = (load(spec, Path(), 8, CPU, task) for task in (None, 3))
    members = torch.from_numpy(whole.images_of(3))
    assert torch.equal(alone.train.images, whole.train.images[members])
    assert len(alone.test) == sum(whole.tasks[3][label] >= 0 for label in whole.test.labels.tolist())
    agents = [make(2, data, task=3, batch_size=16) for data in (whole, alone)]
    losses = [train_epochs(agent, 2) for agent in agents]
    assert losses[0] == losses[1]
    assert agents[0].epochs[-1]["accuracy"] == agents[1].epochs[-1]["accuracy"]
    for one, other in zip(*(agent.model.state_dict().values() for agent in agents), strict=True):
        assert torch.equal(one, other)
