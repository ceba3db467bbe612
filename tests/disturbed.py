"""Trainings in processes of their own that are disturbed: killed, stopped, without room or a terminal.

They stand in a module of their own, which the server of processes has loaded.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from helpers import NARROW, PROCESSES, write_data

RECIPE = ("--momentum", "0.9", "--weight_decay", "0.01", "--schedule", "cosine")

VARIANTS = {
    "2": ("--setting", "2", "--task", "1", "--validation", "0.25", "--keep", "best", *RECIPE),
    "3": ("--setting", "3"),
    "4": ("--setting", "4", "--tasks_per_step", "4", *RECIPE),
    "5": ("--setting", "5", "--momentum", "0.5"),
}
"""Runs of 2 epochs, by name; an epoch has 4 steps in setting 5, 3 in 2, 12 in 3 and 4."""


def child(
    argv: list[str], output: str, disturbance: tuple | None, file_size: int | None, before: Callable | None
) -> None:
    import main

    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # even if the tests are run by nohup
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    if before is not None:
        before()
    counted = [0]
    if disturbance is not None:  # counting takes as long as all else
        disturb(*disturbance, counted)
    code = main.main(argv, network=NARROW, save_interval=0)  # so that there are many moments of writing
    sys.setprofile(None)
    Path(f"{output}.moments").write_text(str(counted[0]))
    os._exit(code)


def disturb(inside: str | None, moment: int, numbers: tuple[int, ...], counted: list[int]) -> None:
    """Have this process send itself signals at a moment that does not depend on how fast it is.

    Args:
        inside: name of the function within which moments are counted; None for everywhere.
        moment: after how many calls and returns of functions; 0 for never.
        numbers: the signals.
        counted: how many there have been.
    """
    depth = 1 if inside is None else 0

    def count(frame, event: str, _) -> None:
        nonlocal depth
        if frame.f_code.co_name == inside and event in ("call", "return"):
            depth += 1 if event == "call" else -1
        if depth > 0:
            counted[0] += 1
            if counted[0] == moment:
                sys.setprofile(None)
                for number in numbers:
                    os.kill(os.getpid(), number)

    sys.setprofile(count)


class Training:
    """A training in a process of its own that saves into a directory."""

    def __init__(
        self,
        path: Path,
        variant: str,
        *options: str,
        disturbance: tuple | None = None,
        file_size: int | None = None,
        before: Callable | None = None,
    ) -> None:
        self._output = path.parent / f"{path.name}.output"
        data = path.parent / "own.npz"
        if not data.exists():
            write_data(data, [16, 8, 8])
        argv = ["--train", "--data", str(data), "--batch_size", "8", "--epochs", "2", *VARIANTS[variant]]
        argv += ["--resume", "--save_history", "--save_path", str(path), *options]
        process = PROCESSES.Process(
            target=child, args=(argv, str(self._output), disturbance, file_size, before)
        )
        process.start()
        process.join()
        self.code = process.exitcode  # or minus the signal that ended it

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def moments(self) -> int:
        """How many moments were counted, in a disturbed training that came to its end."""
        return int(Path(f"{self._output}.moments").read_text())


def ignore_hang_ups() -> None:
    """What nohup does."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def close_terminal() -> None:
    """Have both outputs on a terminal that is no longer there."""
    terminal, end = os.openpty()
    os.dup2(end, 1)
    os.dup2(end, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.close(terminal)


def let_nobody_read() -> None:
    """Have both outputs lead into a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.close(reader)


def close_streams() -> None:
    """Start without streams, as `>&- 2>&-` has it."""
    sys.stdout = sys.stderr = None
    os.close(1)
    os.close(2)


def fill_output() -> None:
    """Have standard output lead where there is no room."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
