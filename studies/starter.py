"""Starts the runs of a study with the libraries loaded, which takes seconds, once for all of them.

It reads a run a line from standard input, as JSON, and answers with its exit code. A run is a process of its
own, forked from this one, and reads the program's files then: it is what `python main.py ...` would be, and a
change of the program holds for the next run. SIGTERM goes on to the run. The other signals to stop, as of
a terminal, reach it themselves, and this process lives on to answer; one that is ignored stays ignored.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]

LIBRARIES = ("torch", "torch._dynamo", "torchvision.datasets")
"""What takes long to import; the second is imported by PyTorch's optimisers."""

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Those that ask a run, and a study, to save and end."""


def obeyed() -> list[signal.Signals]:
    """The signals to stop, without SIGHUP where it is ignored, as nohup has it."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in SIGNALS if number != signal.SIGHUP or not ignored]


def run(argv: Sequence[str], log: str) -> None:
    """Be the program.

    Args:
        argv: its command line.
        log: file that what it prints is added to.
    """
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    for number in obeyed():
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    sys.argv = [str(TOP / "main.py"), *argv]
    sys.path.insert(0, str(TOP))
    runpy.run_path(sys.argv[0], run_name="__main__")


def main() -> None:
    """Start the runs that standard input names, one after the other."""
    process: multiprocessing.Process | None = None
    stopped = False

    def stop(number: int, _: object) -> None:
        nonlocal stopped
        if number != signal.SIGTERM:
            return
        stopped = True
        if process is not None:
            process.terminate()

    for number in obeyed():
        signal.signal(number, stop)
    for name in LIBRARIES:
        with suppress(Exception):  # a run that needs it says what is wrong
            import_module(name)
    gc.collect()
    gc.freeze()  # or the runs would look through the libraries' objects again and again
    # Elsewhere libraries may not bear to be forked, and each run loads them.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    for line in sys.stdin:
        request = json.loads(line)
        started = context.Process(target=run, kwargs=request)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the run answers them itself
        process, code = None, 1
        try:
            started.start()
            process = started
        except OSError as error:  # too many processes, or too little memory
            with open(request["log"], "a") as log:
                log.write(f"cannot start a process: {error.strerror}\n")
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if process is not None:
            if stopped:
                process.terminate()
            process.join()
            code = process.exitcode
        try:
            print(code, flush=True)
        except BrokenPipeError:  # who asked has been killed
            os._exit(1)


if __name__ == "__main__":
    main()
