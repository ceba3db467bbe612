"""Locks on directories: one run each, one download at a time."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # the name of a module

LOCK = ".lock"
"""Name of the lock file; it stays, as deleting it could let in two processes that wait."""


def lock_of(directory: Path) -> BaseFileLock:
    """The lock of a directory, not acquired yet.

    It is a flock, or a marker file on file systems without flock. A flock is released when its process ends,
    however that happens. A marker file of a killed process stays, but some versions of filelock take it over
    on the same machine.

    Raises:
        OSError: nothing can be written to the directory.
    """
    with tempfile.TemporaryFile(dir=directory) as probe:  # nobody else can have locked it
        try:
            if fcntl is not None:
                fcntl.flock(probe, fcntl.LOCK_EX)
        except OSError:
            return SoftFileLock(directory / LOCK)
    return FileLock(directory / LOCK)


@contextmanager
def reserved(directory: Path, taken: str = "another training is writing to") -> Iterator[None]:
    """Lock a directory, creating it if it is missing.

    Args:
        directory: directory to lock; one that was created and is empty at the end is deleted.
        taken: what another process that has locked it does, for the error.

    Raises:
        UserError: it cannot be created or written to, or another process has locked it.
    """
    try:
        made = not directory.exists()
        Path(os.path.realpath(directory)).mkdir(parents=True, exist_ok=True)
        lock = lock_of(directory)
        lock.acquire(timeout=0.2)  # time to try again once the marker of a killed process is removed
    except Timeout as error:
        raise UserError(
            f"{taken} {directory}: wait for it to end, or give another --save_path; "
            f"if there is none on any machine, delete {directory / LOCK}"
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot write to --save_path {directory}: {error.strerror or error}; give another directory"
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # before the release, after which the directory may be another's
            if made and [path.name for path in directory.iterdir()] == [LOCK]:  # nothing came of it
                (directory / LOCK).unlink()
                Path(os.path.realpath(directory)).rmdir()
        lock.release()


@contextmanager
def waiting_turn(directory: Path) -> Iterator[None]:
    """Lock a directory, waiting if necessary.

    If another process has locked it, a line says so. A directory that cannot be written to is not locked.
    """
    lock = None
    with suppress(OSError, NotImplementedError):  # NotImplementedError: a file system without locks
        lock = lock_of(directory)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            with suppress(OSError):  # printing failed
                print(
                    f"waiting for another process that reads or downloads into {directory} "
                    f"(if there is none, delete {directory / LOCK})",
                    file=sys.stderr,
                )
            lock.acquire()
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
