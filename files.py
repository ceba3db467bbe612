"""Files that are always whole, the old one or the new one, and directories that one run has to itself."""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from settings import UserError

try:
    import fcntl
except ImportError:  # on Windows, where nothing keeps two runs apart
    fcntl = None

HISTORY = "history.json"


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of `path` once the block has ended without error.

    What is written goes to a temporary file in the same directory, which is flushed to the disk and
    then renamed, so that a crash at any moment leaves the old file or the new one. Two processes must
    not do this to the same file at once.

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
    except OSError as error:
        raise UserError(
            f"cannot write to --save_path {directory}: {error.strerror or error}; give another directory"
        ) from error
    with _locked(directory, wait=False):
        yield


@contextmanager
def waiting_turn(directory: Path) -> Iterator[None]:
    """Have a directory that exists to this process alone, after waiting for any other that has it."""
    with _locked(directory, wait=True):
        yield


@contextmanager
def _locked(directory: Path, wait: bool) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise UserError(
                f"another training is writing to {directory}: wait for it to end, or give another --save_path"
            ) from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)


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


def are_records(epochs: object, num_tasks: int) -> bool:
    """Whether something read from a file is a list of records of epochs 1, 2, ... with a score per task."""

    def is_record(number: int, record: object) -> bool:
        return (
            isinstance(record, dict)
            and record.get("epoch") == number
            and is_number(record.get("loss"))
            and all(
                isinstance(scores := record.get(key), list)
                and len(scores) == num_tasks
                and all(is_number(score) and 0 <= score <= 1 for score in scores)
                for key in ("accuracy", "balanced_accuracy")
            )
        )

    return isinstance(epochs, list) and all(is_record(i, record) for i, record in enumerate(epochs, 1))


def is_number(value: object) -> bool:
    """Whether something read from a file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
