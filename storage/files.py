"""Atomic file writes, and room on the disk."""

import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from errors import UserError

MODEL, HISTORY = FILES = ("model.pt", "history.json")
"""The files of a run, in its directory."""

EVENTS = "events.out.tfevents.*"
"""Names of the event files of --tensorboard, several of which a run may have."""

ABANDONED = 3600.0
"""Seconds without a write after which a temporary file counts as left by a killed process."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` when the block ends.

    If the block fails, the old file stays. The content goes to a temporary file in the same directory, which
    is flushed to the disk and renamed. A crash at any moment leaves the old file or the new one, whole, even
    if two processes write the same file. The new file has the permissions of the old one. A link stays, and
    the file that it leads to is replaced.

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


@contextmanager
def made(directory: Path, option: str) -> Iterator[None]:
    """Make a directory that may be missing, and those above it.

    If the block fails, those that were made and are empty are deleted again.

    Args:
        directory: the directory.
        option: the option that gives it, for the error.

    Raises:
        UserError: it cannot be made or written to.
    """
    place = Path(os.path.realpath(directory))
    missing = [each for each in (place, *place.parents) if not each.exists()]
    try:
        try:
            place.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=place).close()
        except OSError as error:
            raise UserError(
                f"cannot write to {directory} of {option}: {error.strerror or error}; give another path"
            ) from error
        yield
    except BaseException:
        for each in missing:
            with suppress(OSError):
                each.rmdir()
        raise


def _delete_abandoned(target: Path) -> None:
    """Delete temporary files that killed processes left."""
    with suppress(OSError):
        for path in target.parent.iterdir():
            if path.name.startswith(f".{target.name}.") and path.suffix == ".tmp":
                with suppress(OSError):
                    if time.time() - path.stat().st_mtime > ABANDONED:
                        path.unlink()


def event_files(directory: Path) -> list[Path]:
    """The event files in the directory of a run."""
    return sorted(directory.glob(EVENTS))


def remove(path: Path) -> None:
    """Delete a file if it exists.

    A link stays: the file that it leads to is deleted.

    Raises:
        UserError: it cannot be deleted.
    """
    try:
        Path(os.path.realpath(path)).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot delete {path}: {error.strerror or error}") from error


def check_room(path: Path, num_bytes: int) -> None:
    """Check that the disk has room for a file.

    If the file is a link, this is the disk that it leads to.

    Raises:
        UserError: it has not.
    """
    directory = Path(os.path.realpath(path)).parent
    free = shutil.disk_usage(directory).free
    if free < num_bytes:
        raise UserError(
            f"the model takes {num_bytes / 1e6:.1f} MB and {directory} has {free / 1e6:.1f} MB left: "
            f"make room, give another --save_path, or leave --save_model out"
        )
