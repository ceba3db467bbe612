"""Signals that ask the program to stop: from the keyboard, a scheduler or a terminal that is closed."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
]  # Windows has neither SIGHUP nor SIGUSR1


class Stopped(BaseException):  # no Exception, so that nothing takes it for an error and goes on
    """A signal has asked the program to stop."""

    def __init__(self, number: int, details: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{details}")
        self.number = number


class StopSignals:
    """Turns the first signal to stop into Stopped: at once, or where the program can be left.

    While it is being answered, others are ignored, as schedulers send several within milliseconds. Only a
    second Ctrl-C ends the program on the spot, whatever it is doing. SIGHUP, which comes when the terminal
    is closed, stays ignored where it is, as by nohup.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._interrupts = 0
        self._deferred = self._interrupted = False

    def __enter__(self) -> "StopSignals":
        self._previous = {
            number: signal.signal(number, self._handle)
            for number in SIGNALS
            if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN
        }
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._interrupted and kind is not None and issubclass(kind, Exception):
            raise Stopped(self._number)  # a library has swallowed it, and failed for it later

    def _handle(self, number: int, _: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            os.write(2, b"main.py: stopped at once by a second Ctrl-C\n")
            os._exit(128 + number)
        if self._number is not None:
            return
        self._number = number
        if not self._deferred:
            self._interrupted = True
            raise Stopped(number)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """While this lasts, a signal is noted and raised by `check` alone."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def check(self) -> None:
        """Raise Stopped if there has been a signal."""
        if self._number is not None:
            raise Stopped(self._number)
