"""Run what is left of a study, or print its commands."""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NoReturn

from errors import CommandError, UserError
from main import parse
from options import OPTIONS, Run
from running.directory import earlier_history, is_done
from running.machine import free_memory, num_cores
from running.stopping import SIGNALS
from storage.files import MODEL
from storage.locks import reserved
from studies.starter import TOP, start

HELP = """\
Run what is left of a study, that is, of a list of runs.

studies/run.sh NAME [PROCESSES] [OPTION ...]

NAME is a list in studies/, or a file NAME.txt anywhere. A line of it is the name of a run, which becomes a
directory, and the options that it has after `main.py --train`, separated by blanks. Lines starting with # are
comments. Finished runs are not run again, so the command can be stopped and given again at any time. When all
have ended it prints the report.

PROCESSES runs go on at once, each with an equal share of the processor's cores as threads; where there are
GPUs, each has one of them. Default: as many as GPUs; without one as many as cores, if 2 GB of memory are free
for each. Limits of a container count, and so does CUDA_VISIBLE_DEVICES.

Options:
  --save_path DIR   where the study is, a directory for each run (runs/NAME)
  --delete_models   delete the model of each run that is finished; its history stays
  --commands        run nothing: print a line for each run that is left, its directory and its command
  anything else     goes to main.py in every run: --data_path DIR, or --epochs 1 to try a list

PYTHON, in the environment, starts everything: the path of a Python, or a command with options. Default:
python, or else python3.

Exit codes: 0 all is finished, 1 a run or the report has failed, 2 invalid list or command. Stopped, after
every run has saved: 129 by a closed terminal (SIGHUP, which nohup ignores), 130 by Ctrl-C, 138 by SIGUSR1,
143 by SIGTERM."""

LOG = "log.txt"
"""Output of a run, in its directory."""

BYTES_PER_RUN = 2 * 10**9
"""Memory; a run on CIFAR takes up to 1.5 GB."""

BINDINGS = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
"""Variables that bind threads to cores; with them, runs side by side would share the same cores."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that set the number of threads; the second overrules the first."""

LOST = 255
"""What multiprocessing returns as the exit code of a run whose server was killed."""


@dataclass(frozen=True)
class Entry:
    """A run of a list.

    Attributes:
        name: name of the run and of its directory.
        arguments: command line of main.py.
        run: the parsed arguments.
    """

    name: str
    arguments: list[str]
    run: Run

    @property
    def command(self) -> list[str]:
        """Command that starts it."""
        return [*python(), str(TOP / "main.py"), *self.arguments]

    @property
    def directory(self) -> Path:
        """Where it saves, `--save_path`."""
        return self.run.save_path

    def work(self) -> int:
        """Number of images left to train on, roughly.

        It is 0 if the run is finished. A run that cannot resume counts as not started: once run, it reports
        why.
        """
        try:
            history = earlier_history(self.run)
        except UserError:
            history = None
        if history and is_done(self.run, history):
            return 0
        epochs = self.run.epochs - (len(history.epochs) if history else 0)
        return max(1, epochs) * sum(self.run.spec.training_sets(self.run.setting, self.run.task).values())


def python() -> list[str]:
    """Command that starts Python: PYTHON, or else this interpreter.

    Raises:
        CommandError: PYTHON cannot be split into words.
    """
    given = os.environ.get("PYTHON", "")
    if os.path.isfile(given):
        return [given]
    try:
        words = shlex.split(given) or [sys.executable]
    except ValueError as error:
        raise CommandError(f"PYTHON is {given}, which is no command: {error}") from None
    return [os.path.expanduser(words[0]), *words[1:]]


def read_path(text: str) -> Path:
    """Path of an argument, with `~` expanded: shells leave it in `--save_path=~/DIR`.

    Raises:
        argparse.ArgumentTypeError: it is empty.
    """
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(os.path.expanduser(text))


def find_list(name: str) -> Path:
    """Path of a list.

    Raises:
        CommandError: there is no such list.
    """
    path = Path(os.path.expanduser(name)) if name.endswith(".txt") else TOP / "studies" / f"{name}.txt"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in (TOP / "studies").glob("*.txt")))
        raise CommandError(f"there is no list {path}; studies/ has {known}")
    return path


def read_list(path: Path, directory: Path, options: Sequence[str] = ()) -> list[Entry]:
    """Read a list and check its runs as main.py would.

    Args:
        path: where the list is.
        directory: directory of the study.
        options: further options of every run; they override those of the list.

    Raises:
        CommandError: the list is invalid; the text names the line.
    """
    entries: dict[str, Entry] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read {path}: {error}") from None
    for number, line in enumerate(lines, 1):
        name, *own = line.split() or ["#"]
        if name.startswith("#"):
            continue
        where = f"{path}, line {number} ({name})"
        if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise CommandError(
                f"{where}: a name has letters, digits and ._- and begins with one of the former"
            )
        if name.lower() in entries:  # some file systems ignore case
            raise CommandError(f"{where}: there is a run of this name already")
        if set(line) & set("\"'\\"):
            raise CommandError(f"{where}: options are parted by blanks; quotes have no meaning here")
        if any(word.partition("=")[0] == "--save_path" for word in own):
            raise CommandError(f"{where}: the name says where a run is saved: leave --save_path out")
        saving = ["--resume", "--save_history", "--save_path", str(directory / name)]
        arguments = ["--train", *own, *options, *saving]
        entries[name.lower()] = Entry(name, arguments, parsed(arguments, where))
    if not entries:
        raise CommandError(f"{path} has no run in it")
    return list(entries.values())


def parsed(arguments: list[str], where: str) -> Run:
    """Parse the command line of a run.

    Raises:
        CommandError: it is invalid; the text begins with `where`.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(said):
            return parse(arguments, OPTIONS)
    except UserError as error:
        problem = str(error)
    except OSError as error:
        problem = in_words(error)
    except SystemExit:  # from argparse
        problem = said.getvalue().partition("\n")[0].removeprefix("main.py: error: ")
    raise CommandError(f"{where}: {problem}")


def find_gpus(options: Sequence[str]) -> list[str]:
    """GPUs to share out, as CUDA names them.

    There are none if the options name a device.
    """
    if any(word.partition("=")[0] == "--device" for word in options):
        return []
    listed = _listed_gpus()
    numbers = [str(number) for number, _ in enumerate(re.findall("^GPU", listed, re.MULTILINE))]
    if "CUDA_VISIBLE_DEVICES" not in os.environ:
        return numbers

    def exists(name: str) -> bool:
        known = not listed or name in numbers or f"(UUID: {name}" in listed
        return known and re.fullmatch("[0-9]+|(GPU|MIG)-.+", name) is not None

    # As CUDA reads it: up to the first that does not exist, and none if one is repeated.
    words = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    visible = list(itertools.takewhile(exists, (word.strip() for word in words)))
    return visible if len(set(visible)) == len(visible) else []


def _listed_gpus() -> str:
    """Output of `nvidia-smi --list-gpus`; empty if it fails.

    It has a line for each GPU.
    """
    command = ["nvidia-smi", "--list-gpus"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)
        return listed.stdout.strip()
    except subprocess.TimeoutExpired:
        say("nvidia-smi does not answer and is ignored: CUDA_VISIBLE_DEVICES says which GPUs to use")
        return ""
    except OSError:  # no such program
        return ""


def default_processes(gpus: Sequence[str]) -> int:
    """Number of runs at once."""
    return len(gpus) or max(1, int(min(num_cores(), free_memory() / BYTES_PER_RUN)))


def in_words(error: OSError) -> str:
    """An error of the system, in words."""
    reason = error.strerror or str(error)
    return f"cannot use {error.filename}: {reason}" if error.filename else reason


def killed_by(number: int) -> str:
    """How a process ended that a signal killed, in words."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number == signal.SIGKILL:
        return f"killed by {name}, most often because memory ran out: try fewer PROCESSES"
    return f"killed by {name}"


def duration(seconds: float) -> str:
    """Seconds in words."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"


class Crew:
    """Runs entries side by side, and reports progress.

    Attributes:
        done: number of finished runs.
        failed: what went wrong, a line for each run.
        stopped: number of the signal that ended it, or None.
    """

    def __init__(
        self, entries: Sequence[Entry], processes: int, gpus: Sequence[str], delete_models: bool = False
    ) -> None:
        """
        Args:
            entries: runs of the study.
            processes: number of runs at once.
            gpus: GPUs to share out among the runs, as CUDA names them.
            delete_models: whether to delete the models of finished runs.
        """
        self.failed: list[str] = []
        self.stopped: int | None = None
        self._left = deque((entry, work) for entry in entries if (work := entry.work()))
        left = {entry.name for entry, _ in self._left}
        self._finished = [entry for entry in entries if entry.name not in left]
        self._total, self.done = len(entries), len(self._finished)
        self._slots = min(processes, len(self._left))
        self._processes, self._gpus, self._delete_models = processes, gpus, delete_models
        self._running: dict[BaseProcess, float] = {}  # when each was started
        self._work_left, self._work_done = sum(work for _, work in self._left), 0
        self._seconds = 0.0  # how long the finished work took

    async def work(self) -> None:
        """Run them all, or until a signal comes."""
        if self._delete_models:
            for entry in self._finished:
                self.delete_model(entry)
        threads = max(1, num_cores() // self._processes)
        os.environ.update(dict.fromkeys(THREADS, str(threads)))
        if self._processes > 1:
            for name in BINDINGS:
                os.environ.pop(name, None)
        if self._left:
            say(f"{self._progress()}: {self._slots} at once, {threads} threads each")
        loop = asyncio.get_running_loop()
        for number in stop_signals():
            loop.add_signal_handler(number, self._stop, number)
        await asyncio.gather(*map(self._work_in, range(self._slots)))

    async def _work_in(self, slot: int) -> None:
        """Run what is left in a slot, one after the other."""
        gpu = {"CUDA_VISIBLE_DEVICES": self._gpus[slot % len(self._gpus)]} if self._gpus else {}
        while self._left and self.stopped is None:
            entry, work = self._left.popleft()
            code, said, seconds = await self._run(entry, gpu)
            if self.stopped is not None and code - 128 in SIGNALS:
                continue
            self._work_left -= work
            if code == 0:
                self.done += 1
                self._work_done += work
                self._seconds += seconds
                if self._delete_models:
                    self.delete_model(entry)
                say(f"{entry.name} took {duration(seconds)}; {self._progress()}", passing=True)
            else:
                self._fail(f"{entry.name}: exit code {code}: {said} ({entry.directory / LOG})")

    async def _run(self, entry: Entry, variables: Mapping[str, str]) -> tuple[int, str, float]:
        """Run an entry.

        Returns:
            its exit code; the last line that it printed; the seconds that it took.
        """
        begun = time.monotonic()
        try:
            entry.directory.mkdir(parents=True, exist_ok=True)
            with open(entry.directory / LOG, "a+", errors="replace") as log:
                print(f"$ {shlex.join(entry.command)}", file=log, flush=True)
                end = log.tell()
                process = start(entry.arguments, entry.directory / LOG, variables)
                self._running[process] = begun
                code = await exit_code(process)
                del self._running[process]
                log.seek(end)
                lines = log.read().split("\n")
        except OSError as error:
            return 1, in_words(error), 0.0
        seconds = time.monotonic() - begun
        if code < 0:
            return 128 - code, killed_by(-code), seconds
        if code == LOST and process.pid is not None:
            with suppress(ProcessLookupError):  # it has ended, with that code
                os.kill(process.pid, signal.SIGTERM)  # otherwise it would continue unattended
                return code, "the server that starts the runs was killed; this run saves and ends", seconds
        said = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
        return code, said, seconds

    def delete_model(self, entry: Entry) -> None:
        """Delete the model of a run, if it has one."""
        try:
            (entry.directory / MODEL).unlink(missing_ok=True)
        except OSError as error:
            self._fail(f"{entry.name}: its model stays: {in_words(error)}")

    def _fail(self, problem: str) -> None:
        self.failed.append(problem)
        say(f"failed: {problem}")

    def _stop(self, number: int) -> None:
        """Have every run save and end."""
        if self.stopped is None:
            self.stopped = number
            say(f"{signal.Signals(number).name}: waiting for {len(self._running)} runs to save")
        for process in self._running:
            process.terminate()

    def _progress(self) -> str:
        text = f"{self.done} of {self._total} runs are finished"
        if self.failed:
            text += f", {len(self.failed)} failed"
        if self._work_done and self._work_left:
            running = sum(time.monotonic() - begun for begun in self._running.values())
            rest = (self._work_left * self._seconds / self._work_done - running) / self._slots
            text += f", about {duration(max(0, rest))} to go"
        return text


def stop_signals() -> list[signal.Signals]:
    """Signals that stop a study.

    SIGHUP is not among them where it is ignored, as under nohup.
    """
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in SIGNALS if number != signal.SIGHUP or not ignored]


async def exit_code(process: BaseProcess) -> int:
    """Wait for a process; returns its exit code.

    The code is negative after a signal, and LOST if unknown.
    """
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(process.sentinel, ended.set)
    await ended.wait()
    loop.remove_reader(process.sentinel)
    process.join()
    return LOST if process.exitcode is None else process.exitcode


def say(line: str, passing: bool = False) -> None:
    """Print a line to standard error.

    On a terminal the next line replaces one that is `passing`.
    """
    with suppress(OSError):  # a study continues when nobody reads its messages
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{line}" + "\n" * (not passing))
        else:
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def run_study(
    entries: Sequence[Entry], directory: Path, processes: int | None, delete: bool, gpus: Sequence[str]
) -> int:
    """Run what is left and print the report; returns the exit code."""
    with reserved(directory, "another studies/run.sh is at work in"):
        crew = Crew(entries, processes or default_processes(gpus), gpus, delete)
        asyncio.run(crew.work())
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    left = f"{crew.done} of {len(entries)} runs are finished"
    code = 0
    if crew.stopped is not None:
        say(f"\n{left}, the others saved: the same command goes on")
        code = 128 + crew.stopped
    elif crew.done:
        say(f"\n{left}: this is the report on {directory}")
        code = report_on(directory)
    if crew.failed:
        say("\n  ".join([f"{len(crew.failed)} of {len(entries)} runs failed:", *crew.failed]))
    return code or int(crew.done < len(entries) or bool(crew.failed))


def report_on(directory: Path) -> int:
    """Print the report on a study; returns its exit code."""
    command = [*python(), str(TOP / "main.py"), "--report", "--save_path", str(directory)]
    try:
        code = subprocess.run(command).returncode
    except OSError as error:
        say(f"there is no report: {in_words(error)}")
        return 1
    if code < 0:
        say(f"the report was {killed_by(-code)}")
    return code if code >= 0 else 128 - code


class Parser(argparse.ArgumentParser):
    """Raises CommandError instead of ending the program."""

    def error(self, message: str) -> NoReturn:
        """Reject the command line."""
        raise CommandError(f"{message} (--help explains the options)")


def execute(argv: Sequence[str]) -> int:
    """Execute the command line; returns the exit code.

    Raises:
        UserError: it is invalid, or the study cannot be run.
        OSError: a file or the output cannot be used.
    """
    name, *words = argv
    processes = None
    if words and not words[0].startswith("-"):
        word = words.pop(0)
        if not re.fullmatch("[1-9][0-9]{0,4}", word):
            raise CommandError(f"PROCESSES is a whole number from 1 to 99999, not {word!r}")
        processes = int(word)
    parser = Parser(prog="studies/run.sh", allow_abbrev=False, add_help=False)
    parser.add_argument("--save_path", type=read_path)
    parser.add_argument("--delete_models", action="store_true")
    parser.add_argument("--commands", action="store_true")
    known, options = parser.parse_known_args(words)
    path = find_list(name)
    directory = known.save_path or Path("runs") / path.stem
    entries = read_list(path, directory, options)
    if not known.commands:
        gpus = find_gpus(options)
        return run_study(entries, directory, processes, known.delete_models, gpus)
    lines = [shlex.join([str(entry.directory), *entry.command]) for entry in entries if entry.work()]
    for line in lines:
        if "\n" in line:
            raise CommandError(f"--commands needs paths without line breaks, not {line!r}")
    give("".join(f"{line}\n" for line in lines))
    return 0


def give(text: str) -> None:
    """Print to standard output, paths byte for byte.

    Raises:
        UserError: it cannot be written.
    """
    try:
        sys.stdout.buffer.write(os.fsencode(text))
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # otherwise Python would try again as it ends
        raise UserError(f"standard output cannot be written to: {error.strerror}") from None


def main(argv: Sequence[str]) -> int:
    """Execute the command line; returns the exit code.

    Prints one line if it is invalid.
    """
    if not argv:
        say(HELP)
        return 2
    try:
        if {"-h", "--help"} & set(argv):
            give(f"{HELP}\n")
            return 0
        return execute(argv)
    except UserError as error:
        problem, code = str(error), 2 if isinstance(error, CommandError) else 1
    except OSError as error:
        problem, code = in_words(error), 1
    say(f"studies/run.sh: error: {' '.join(problem.split())}")
    return code
