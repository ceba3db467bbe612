"""The files of a run, each always whole: the old one or the new one, never a part of one."""

import json
import os
import pickle
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from settings import UserError

try:
    import fcntl
except ImportError:  # on Windows, where nothing keeps two runs apart
    fcntl = None

FORMAT = 1
"""Of model.pt; goes up when an older program could no longer read it."""

DATA_OPTIONS = ("data", "task", "synthetic", "image_size")
"""The options that decide, with the setting, what a model can be evaluated on."""

TRAINING_OPTIONS = ("setting", *DATA_OPTIONS, "seed", "batch_size", "lr", "weights")
"""The options that decide, with the number of epochs, what a training gives."""

ZIP, PICKLE = b"PK\x03\x04", b"\x80"
"""How the files of torch.save begin, and how bare pickles do."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of `path` once the block has ended without error.

    What is written goes to a temporary file in the same directory, which is flushed to the disk and
    then renamed, so that a crash at any moment leaves the old file or the new one.

    Raises:
        UserError: it cannot be written (no such directory, no permission, disk full).
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; what was there before is unchanged"
        ) from error


def save_model(path: Path, options: dict, network: dict[str, Tensor], training: dict) -> None:
    """Write model.pt.

    Args:
        options: what the model was trained as: numbers, strings, lists and None only.
        network: state dict, on any device.
        training: what it takes to go on: numbers, strings, lists and tensors on the CPU.

    Raises:
        UserError: it cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in network.items()}
    content = {"format": FORMAT, "options": options, "model": plain, "training": training}
    with replacing(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # how torch reports that the file could not be written
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def read_model(path: Path) -> dict:
    """Read model.pt: `options`, `model` and `training` as they were saved, with the tensors on the CPU.

    Raises:
        UserError: there is no such file, it is no model of this program, or one of a newer version.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(4)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about files that are refused below
                content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no model {path}; train one with --train --save_model") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # torch.load raises what the bytes happen to lead it to
        if not start:
            what = "is empty; train the model again"
        elif isinstance(error, pickle.UnpicklingError) and start.startswith((ZIP, PICKLE)):
            what = "holds more than tensors, maybe code (none was run), and is not a model of this program"
        elif start == ZIP:
            what = "is damaged; train the model again"
        else:
            what = "is not a model file; give another --save_path"
        raise UserError(f"{path} {what}") from error
    ours = isinstance(content, dict) and {"format", "options", "model", "training"} <= content.keys()
    if ours and content["format"] != FORMAT:
        raise UserError(
            f"{path} has the newer format {content['format']}, {FORMAT} is read here: update the program"
        )
    if (
        not ours
        or not isinstance(content["options"], dict)
        or not content["options"].keys() >= {*TRAINING_OPTIONS}
    ):
        raise UserError(f"{path} is not a model of this program; give another --save_path")
    return content


@contextmanager
def reserved(directory: Path) -> Iterator[None]:
    """Keep a directory, made if missing, for this process; the end of the process frees it in any case.

    Raises:
        UserError: it cannot be made or written to, or another process has reserved it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise UserError(
            f"cannot write to --save_path {directory}: {error.strerror or error}; give another directory"
        ) from error
    try:
        if fcntl is not None:
            _lock(descriptor, directory)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"another training is writing to {directory}: wait for it to end, or give another --save_path"
        ) from error


def check_room(directory: Path, num_bytes: int) -> None:
    """Make sure that a directory has room for a file beside what is there.

    Raises:
        UserError: it has not.
    """
    free = shutil.disk_usage(directory).free
    if free < num_bytes:
        raise UserError(
            f"the model takes {num_bytes / 1e6:.1f} MB and {directory} has {free / 1e6:.1f} MB left: "
            f"make room, give another --save_path, or leave --save_model out"
        )


def save_history(path: Path, history: dict) -> None:
    """Write history.json."""
    with replacing(path) as file:
        file.write(json.dumps(history, indent=1).encode() + b"\n")
