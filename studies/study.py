"""Run what is left of a study, that is of a list of runs.

studies/run.sh NAME [PROCESSES] [OPTION ...]

NAME is a list in studies/, or a file NAME.txt anywhere. A line of it is the name of a run, which becomes a
directory, and the options that it has after `main.py --train`, parted by blanks; a line that begins with #
says nothing. What is finished already is not run again, so the command can be stopped and given once more at
any time. When all have ended it prints the report.

PROCESSES runs go on at once, each with an equal share of the processor's cores as threads; where there are
GPUs, each has one of them. Default: as many as GPUs; without one as many as cores, if 2 GB of memory are free
for each.

Options:
  --save_path DIR   where the study is, a directory for each run (runs/NAME)
  --delete_models   delete the model of each run that is finished; its history stays
  anything else     goes to main.py in every run: --data_path DIR, or --epochs 1 to try a list

PYTHON, in the environment, is what starts the program, with its options (the Python that is active).

Exit codes: 0 all is finished, 1 a run has failed, 2 the list or the command means nothing, 130 and 143 it was
stopped by Ctrl-C or SIGTERM, and every run has saved.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from files import LOCK  # noqa: E402
from main import parse  # noqa: E402
from options import OPTIONS, CommandError, Run  # noqa: E402
from running.directory import MODEL, earlier_history, is_done  # noqa: E402
from settings import UserError  # noqa: E402

LOG = "log.txt"
"""What a run has printed, in its directory."""

BYTES_PER_RUN = 2 * 10**9
"""Of memory; a run on CIFAR takes up to 1.5 GB."""


@dataclass(frozen=True)
class Entry:
    """A run of a list.

    Attributes:
        name: that of its directory.
        arguments: the options of the program.
        run: what these mean.
    """

    name: str
    arguments: list[str]
    run: Run

    @property
    def command(self) -> list[str]:
        """The program and its options."""
        return [*python(), str(TOP / "main.py"), *self.arguments]

    @property
    def directory(self) -> Path:
        """Where it saves."""
        return self.run.save_path

    def work(self) -> int:
        """About how many images are left to train on; 0 if it is finished.

        A run whose history cannot be gone on from counts as one that has not begun: run, it says why.
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
    """What starts a Python program."""
    return shlex.split(os.environ.get("PYTHON", "")) or [sys.executable]


def find_list(name: str) -> Path:
    """The file of a list.

    Raises:
        CommandError: there is none.
    """
    path = Path(name) if name.endswith(".txt") else TOP / "studies" / f"{name}.txt"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in (TOP / "studies").glob("*.txt")))
        raise CommandError(f"there is no list {path}; studies/ has {known}")
    return path


def read_list(path: Path, directory: Path, options: Sequence[str] = ()) -> list[Entry]:
    """The runs of a list, checked as the program checks its command line.

    Args:
        path: of the list.
        directory: of the study.
        options: that every run has besides, which count more than those of the list.

    Raises:
        CommandError: there is something wrong with it; the text says in which line.
    """
    entries: dict[str, Entry] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
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
        if name.lower() in entries:  # as some file systems do not tell them apart
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
    """What a command line means.

    Raises:
        CommandError: nothing; the text begins with where it stands.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(said):
            return parse(arguments, OPTIONS)
    except UserError as error:
        problem = str(error)
    except SystemExit:  # as the parser ends the program
        problem = said.getvalue().partition("\n")[0].removeprefix("main.py: error: ")
    raise CommandError(f"{where}: {problem}")


def num_cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_gpus(options: Sequence[str]) -> list[str]:
    """The GPUs to share out, as CUDA names them; none where the options name a device."""
    if any(word.partition("=")[0] == "--device" for word in options):
        return []
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return list(filter(None, os.environ["CUDA_VISIBLE_DEVICES"].split(",")))
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True).stdout
    return [str(number) for number, line in enumerate(re.findall("^GPU", listed, re.MULTILINE))]


def default_processes(gpus: Sequence[str]) -> int:
    """How many runs go on at once."""
    if gpus:
        return len(gpus)
    try:
        free = re.search(r"MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:  # not Linux
        free = None
    return max(1, min(num_cores(), int(free[1]) * 1000 // BYTES_PER_RUN if free else num_cores()))


def duration(seconds: float) -> str:
    """A time in words."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"


class Slot:
    """A place for one run at a time, with a process of its own that starts them, see starter.py.

    Attributes:
        begun: when the run that goes on now has begun, or None.
    """

    def __init__(self, threads: int, gpu: str | None, lock: int) -> None:
        """
        Args:
            threads: number that each run has.
            gpu: that they have, as CUDA names it; default: any.
            lock: file descriptor for the runs to inherit.
        """
        self.begun: float | None = None
        self._environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        if gpu is not None:
            self._environment["CUDA_VISIBLE_DEVICES"] = gpu
        self._lock = lock
        self._starter: asyncio.subprocess.Process | None = None
        self._stopped = False

    async def run(self, entry: Entry) -> tuple[int, str, float]:
        """Run an entry; gives back its exit code, the last line that it printed, and the seconds it took."""
        try:
            entry.directory.mkdir(parents=True, exist_ok=True)
            with open(entry.directory / LOG, "a+", errors="replace") as log:
                print(f"$ {shlex.join(entry.command)}", file=log, flush=True)
                start = log.tell()
                if self._starter is None or self._starter.returncode is not None:
                    self._starter = await self._start(log)
                code, seconds = await self._ask(self._starter, entry)
                log.seek(start)
                lines = log.read().split("\n")
        except OSError as error:
            return 1, f"cannot use {error.filename}: {error.strerror}", 0.0
        said = next((line for line in reversed(lines) if line.strip()), "it has said nothing")
        return code, said, seconds

    async def _start(self, log: TextIO) -> asyncio.subprocess.Process:
        """Start what starts the runs; it ends with its standard input."""
        return await asyncio.create_subprocess_exec(
            *python(),
            str(TOP / "studies" / "starter.py"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=self._environment,
            pass_fds=[self._lock],
        )

    async def _ask(self, starter: asyncio.subprocess.Process, entry: Entry) -> tuple[int, float]:
        """Have an entry run; gives back its exit code and the seconds it took."""
        request = {"argv": entry.arguments, "log": str(entry.directory / LOG)}
        begun = self.begun = time.monotonic()
        with suppress(ConnectionError):
            starter.stdin.write(f"{json.dumps(request)}\n".encode())
            await starter.stdin.drain()
        if self._stopped:  # meanwhile
            starter.terminate()
        answer = await starter.stdout.readline()
        self.begun = None
        code = int(answer or await starter.wait() or 1)
        return (code if code >= 0 else 128 - code), time.monotonic() - begun

    def stop(self) -> None:
        """Have the run that goes on save and end."""
        self._stopped = True
        if self.begun is not None:
            with suppress(ProcessLookupError):
                self._starter.terminate()

    async def close(self) -> None:
        """End the process that starts the runs."""
        if self._starter is not None:
            self._starter.stdin.close()
            await self._starter.wait()


class Crew:
    """Runs entries side by side, and tells how far it is.

    Attributes:
        failed: what has gone wrong, a line for each run.
        stopped: number of the signal that has ended it, or None.
    """

    def __init__(self, entries: Sequence[Entry], processes: int, gpus: Sequence[str], lock: int) -> None:
        """
        Args:
            entries: what to run.
            processes: number of runs at once.
            gpus: to share out among them, as CUDA names them.
            lock: file descriptor for the runs to inherit.
        """
        self.failed: list[str] = []
        self.stopped: int | None = None
        self._left = deque((entry, work) for entry in entries if (work := entry.work()))
        self._threads = max(1, num_cores() // processes)
        self._slots = [
            Slot(self._threads, gpus[number % len(gpus)] if gpus else None, lock)
            for number in range(processes)
        ]
        self._total, self._done = len(entries), len(entries) - len(self._left)
        self._work_left, self._work_done = sum(work for _, work in self._left), 0
        self._seconds = 0.0  # that the work done took

    async def work(self, delete_models: bool) -> None:
        """Run them all, or until a signal comes.

        Args:
            delete_models: whether to delete the models of those that are finished.
        """
        if self._left:
            self._say(f"{self._progress()}: {len(self._slots)} at once, {self._threads} threads each")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, number)
        await asyncio.gather(*(self._work_in(slot, delete_models) for slot in self._slots))

    async def _work_in(self, slot: Slot, delete_models: bool) -> None:
        """Run what is left in a slot, one after the other."""
        while self._left and self.stopped is None:
            entry, work = self._left.popleft()
            code, said, seconds = await slot.run(entry)
            if self.stopped is not None and code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
                continue
            self._work_left -= work
            if code == 0:
                self._done += 1
                self._work_done += work
                self._seconds += seconds
                if delete_models:
                    (entry.directory / MODEL).unlink(missing_ok=True)
                self._say(f"{entry.name} took {duration(seconds)}; {self._progress()}", passing=True)
            else:
                self.failed.append(f"{entry.name}: exit code {code}: {said} ({entry.directory / LOG})")
                self._say(f"failed: {self.failed[-1]}")
        await slot.close()

    def _stop(self, number: int) -> None:
        """Have every run save and end."""
        if self.stopped is None:
            self.stopped = number
            self._say(f"{signal.Signals(number).name}: waiting for {len(self._begun())} runs to save")
        for slot in self._slots:
            slot.stop()

    def _begun(self) -> list[float]:
        """When the runs that go on have begun."""
        return [slot.begun for slot in self._slots if slot.begun is not None]

    def _progress(self) -> str:
        text = f"{self._done} of {self._total} runs are finished"
        if self.failed:
            text += f", {len(self.failed)} failed"
        if self._work_done and self._work_left:
            running = sum(time.monotonic() - begun for begun in self._begun())
            rest = (self._work_left * self._seconds / self._work_done - running) / len(self._slots)
            text += f", about {duration(max(0, rest))} to go"
        return text

    def _say(self, line: str, passing: bool = False) -> None:
        """Print a line to standard error; on a terminal one that is `passing` makes room for the next."""
        with suppress(OSError):
            if sys.stderr.isatty():
                sys.stderr.write(f"\r\033[K{line}" + "\n" * (not passing))
            else:
                sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def reserve(directory: Path) -> int:
    """Keep a study's directory for this process and the runs that it starts; gives back a file descriptor.

    The runs inherit it. So those that outlive this process, because it was killed alone, keep the directory
    until they have ended, and a second start does not come upon them.

    Raises:
        UserError: it cannot be made or written to, or others have it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"another studies/run.sh is at work in {directory}, or runs of one that was killed: wait for "
            "them to end, or give another --save_path"
        ) from None
    except OSError as error:
        raise UserError(f"cannot write to {directory}: {error.strerror}; give another --save_path") from error
    return descriptor


def run_study(
    entries: Sequence[Entry], directory: Path, processes: int | None, delete: bool, gpus: list
) -> int:
    """Run what is left, and report; gives back the exit code."""
    lock = reserve(directory)
    crew = Crew(entries, processes or default_processes(gpus), gpus, lock)
    asyncio.run(crew.work(delete))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    num_done = 0
    for entry in entries:
        if entry.work() == 0:
            num_done += 1
            if delete:
                (entry.directory / MODEL).unlink(missing_ok=True)
    left = f"{num_done} of {len(entries)} runs are finished"
    code = 0
    if crew.stopped is not None:
        print(f"\n{left}, the others saved: the same command goes on", file=sys.stderr)
        code = 128 + crew.stopped
    elif num_done:
        print(f"\n{left}: this is the report on {directory}", file=sys.stderr)
        report = [sys.executable, str(TOP / "main.py"), "--report", "--save_path", str(directory)]
        code = subprocess.run(report).returncode
    if crew.failed:
        print(f"{len(crew.failed)} of {len(entries)} runs failed:", *crew.failed, sep="\n  ", file=sys.stderr)
    return code or int(num_done < len(entries))


def main(argv: Sequence[str]) -> int:
    """Do what the command line says; gives back the exit code."""
    mode, *words = argv
    if not words or {"-h", "--help"} & set(words):
        print(__doc__.strip(), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    name, *words = words
    processes = int(words.pop(0)) if words and words[0].isdigit() and int(words[0]) else None
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--save_path", type=Path)
    parser.add_argument("--delete_models", action="store_true")
    known, options = parser.parse_known_args(words)
    try:
        path = find_list(name)
        directory = known.save_path or Path("runs") / path.stem
        entries = read_list(path, directory, options)
        if mode == "run":
            return run_study(entries, directory, processes, known.delete_models, find_gpus(options))
        for entry in entries:
            if entry.work():
                print(shlex.join([str(entry.directory), *entry.command]))
        return 0
    except UserError as error:
        print(f"studies/run.sh: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, CommandError) else 1


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main(sys.argv[1:]))
