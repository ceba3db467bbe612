"""Signals that stop the program.

They come from the keyboard, a scheduler or a closed terminal.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
]  # Windows has neither SIGHUP nor SIGUSR1


class Stopped(BaseException):  # not an Exception, which a library might catch
    """A signal asked the program to stop."""

    def __init__(self, number: int, details: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{details}")
        self.number = number


class StopSignals:
    """Raises Stopped at the first signal.

    While signals are deferred, only `check` raises it. Further signals are ignored, as schedulers send
    several within milliseconds; only a second Ctrl-C ends the program at once. SIGHUP, which a closed
    terminal sends, stays ignored where it is already, as under nohup.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._num_ctrl_c = 0
        self._deferred = self._raised = False

    def __enter__(self) -> "StopSignals":
        self._previous = {
            number: signal.signal(number, self._handle)
            for number in SIGNALS
            if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN
        }
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._number and self._raised and kind is not None and issubclass(kind, Exception):
            raise Stopped(self._number)  # a library swallowed it, and failed later because of it

    def _handle(self, number: int, _: FrameType | None) -> None:
        self._num_ctrl_c += number == signal.SIGINT
        if self._num_ctrl_c > 1:
            os.write(2, b"main.py: stopped at once by a second Ctrl-C\n")
            os._exit(128 + number)
        if self._number is not None:
            return
        self._number = number
        if not self._deferred:
            self._raised = True
            raise Stopped(number)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """In this context only `check` raises Stopped."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def check(self) -> None:
        """Raise Stopped if a signal came."""
        if self._number is not None:
            raise Stopped(self._number)
