"""Files that are always whole, the old one or the new one, and directories that one run has to itself."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from settings import UserError

LOCK = ".lock"
"""Name of the file by which a directory is kept; it stays there, as deleting it could part two that wait."""


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
    made = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
        lock = FileLock(directory / LOCK)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise UserError(
            f"another training is writing to {directory}: wait for it to end, or give another --save_path"
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot write to --save_path {directory}: {error.strerror or error}; give another directory"
        ) from error
    try:
        yield
    finally:
        lock.release()
        if made and [path.name for path in directory.iterdir()] == [LOCK]:  # nothing came of it
            with suppress(OSError):
                (directory / LOCK).unlink()
                directory.rmdir()


@contextmanager
def waiting_turn(directory: Path) -> Iterator[None]:
    """Have a directory to this process alone, after waiting for any other that has it.

    Where nothing can be written, there is nothing to wait for either.
    """
    lock = FileLock(directory / LOCK)
    try:
        lock.acquire()
    except OSError:
        yield
        return
    try:
        yield
    finally:
        lock.release()


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
