"""Start runs as forks of a server with imported libraries.

A run behaves like `python main.py ...`: it reads the program's files when it starts, so a change of the
program holds for the next run. The server is that of multiprocessing. It blocks the signals that ask a run to
stop, so it survives those that a terminal or a scheduler sends to the whole process group.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing import resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from running.stopping import SIGNALS

TOP = Path(__file__).resolve().parents[1]

CONTEXT: ForkServerContext | SpawnContext = (
    multiprocessing.get_context("forkserver")
    if sys.platform == "linux"
    else multiprocessing.get_context("spawn")  # libraries may not survive a fork, so each run imports them
)


def start(arguments: Sequence[str], log: Path, variables: Mapping[str, str]) -> BaseProcess:
    """Start a run, and the server if none is alive.

    A new server has this process's environment. It reads what decides the number of threads, so set it in
    `os.environ` before the first run.

    Args:
        arguments: command line of main.py.
        log: existing file to append its output to.
        variables: environment variables, in addition to those of the server.

    Raises:
        OSError: no process can be started.
    """
    directory = os.getcwd()
    CONTEXT.set_forkserver_preload(["studies.libraries"])
    process = CONTEXT.Process(target=run, args=(arguments, directory, log, variables))
    os.chdir(TOP)  # the server looks for modules here first, as the program does
    try:
        start_tracker()  # comes first, as it unblocks signals
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # inherited; a run unblocks them
        try:
            process.start()
        except (EOFError, ConnectionError):  # the server is dying, and will be replaced once it has ended
            time.sleep(1)
            process.start()
    except EOFError:
        raise OSError("the server that starts the runs was killed") from None
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.chdir(directory)
    return process


def start_tracker() -> None:
    """Start multiprocessing's tracker of semaphores, without its warnings.

    It would warn of the semaphores of killed runs.
    """
    given = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore"
    try:
        resource_tracker.ensure_running()
    finally:
        del os.environ["PYTHONWARNINGS"]
        if given is not None:
            os.environ["PYTHONWARNINGS"] = given


def run(arguments: Sequence[str], directory: str, log: Path, variables: Mapping[str, str]) -> None:
    """Become `python main.py ARGUMENTS >>LOG 2>&1`.

    Args:
        arguments: command line of main.py.
        directory: working directory.
        log: existing file to append to.
        variables: environment variables to set.
    """
    os.chdir(directory)
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    os.environ.update(variables)
    gc.freeze()  # otherwise each collection would look through the libraries' objects again
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    sys.argv = [str(TOP / "main.py"), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")
