"""Printing: results to standard output, messages to standard error."""

import errno
import os
import re
import stat
import sys
from contextlib import suppress
from typing import TextIO

from errors import UserError


class OutputError(UserError):
    """Standard output cannot be written to.

    Attributes:
        hung_up: whether it is a terminal that has been closed.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written to: {error.strerror or error}")
        self.hung_up = error.errno == errno.EIO and stat.S_ISCHR(os.fstat(1).st_mode)


def open_streams() -> None:
    """Open closed standard streams to the null device."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # otherwise the next file opened would become one
        pass
    os.close(number)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # some terminals lack letters


def flush_streams() -> None:
    """Drop what the standard streams could not write.

    Otherwise Python would try again as it ends.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def in_one_line(text: str) -> str:
    """A text with line breaks and other control characters escaped."""
    return re.sub("[\0-\x1f\x7f-\x9f\u2028\u2029]", lambda found: repr(found[0])[1:-1], text)


def print_message(message: str) -> None:
    """Print a message in one line to standard error.

    It stands above a progress bar if there is one.
    """
    with suppress(OSError):  # training continues if nobody can read it
        _write(in_one_line(message), sys.stderr)


def print_result(result: str) -> None:
    """Print a result to standard output at once.

    It stands above a progress bar if there is one.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        _write(result, sys.stdout)
        sys.stdout.flush()
    except OSError as error:
        raise OutputError(error) from error


def _write(text: str, stream: TextIO) -> None:
    """Print a text, above a progress bar if there is one."""
    if "tqdm" in sys.modules:  # otherwise there is no progress bar
        sys.modules["tqdm"].tqdm.write(text, file=stream)
    else:
        print(text, file=stream)
