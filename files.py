"""Files that are always whole, the old one or the new one, and directories that one run has to itself."""

import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from settings import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"
"""Name of the file by which a directory is kept; it stays there, as deleting it could part two that wait."""

ABANDONED = 3600.0
"""Seconds without a write after which a temporary file counts as left behind by a process that was killed."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of `path` once the block has ended without error.

    What is written goes to a temporary file of its own in the same directory, which is flushed to the disk
    and then renamed, so that a crash at any moment leaves the old file or the new one, whole, whoever else
    writes the same file. The new file has the permissions of the old one. A link stays: the file that it
    leads to is replaced.

    Raises:
        UserError: it cannot be written (no such directory, no permission, disk full).
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    _delete_abandoned(target)
    try:
        try:
            with open(temporary, "xb") as file:
                with suppress(OSError):  # no old file
                    temporary.chmod(stat.S_IMODE(target.stat().st_mode))
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        leads = f", which leads to {target}" if path.is_symlink() else ""
        raise UserError(
            f"cannot write {path}{leads}: {error.strerror or error}; what was there before is unchanged"
        ) from error


def _delete_abandoned(target: Path) -> None:
    """Delete temporary files of a file that killed processes have left behind."""
    with suppress(OSError):
        for path in target.parent.iterdir():
            if path.name.startswith(f".{target.name}.") and path.suffix == ".tmp":
                with suppress(OSError):
                    if time.time() - path.stat().st_mtime > ABANDONED:
                        path.unlink()


def remove(path: Path) -> None:
    """Delete a file if it exists. A link stays: the file that it leads to is deleted.

    Raises:
        UserError: it cannot be deleted.
    """
    try:
        Path(os.path.realpath(path)).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot delete {path}: {error.strerror or error}") from error


def lock_of(directory: Path) -> BaseFileLock:
    """Lock of a directory, not acquired yet: flock, or a marker file on file systems without flock.

    The end of a process frees a flock in any case. A marker file of a killed process stays; some versions of
    filelock take it over on the same machine.

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
    """Lock a directory, made if missing, or refuse.

    Args:
        directory: to lock; one that was made and has nothing in it at the end is deleted.
        taken: what another process that has locked it does, for the refusal.

    Raises:
        UserError: it cannot be made or written to, or another process has locked it.
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
    """Lock a directory; where another process has locked it, say so once and wait.

    Where nothing can be written, there is nothing to wait for either.
    """
    lock = None
    with suppress(OSError, NotImplementedError):  # the latter from file systems without locks
        lock = lock_of(directory)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            with suppress(OSError):  # of printing
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


def check_room(path: Path, num_bytes: int) -> None:
    """Make sure that there is room for a file beside what is there, where it leads to if it is a link.

    Raises:
        UserError: there is not.
    """
    directory = Path(os.path.realpath(path)).parent
    free = shutil.disk_usage(directory).free
    if free < num_bytes:
        raise UserError(
            f"the model takes {num_bytes / 1e6:.1f} MB and {directory} has {free / 1e6:.1f} MB left: "
            f"make room, give another --save_path, or leave --save_model out"
        )
