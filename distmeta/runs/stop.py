"""Ctrl-C, SIGTERM and a closed terminal: a run gets a few seconds to finish its step, then it is interrupted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_SECONDS = 5.0  # until the current step is abandoned


class Stopped(KeyboardInterrupt):
    """The process was asked to stop; `code` is the exit code of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


class Stopper:
    """Whether the process was asked to stop. Only the main thread gets signals: in other threads it never is."""

    def __init__(self) -> None:
        self.number: int | None = None

    def listen(self) -> None:
        """Sets the signal handlers, again if other code has set its own since the last call."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._asked)
            signal.signal(signal.SIGTERM, self._asked)
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
                signal.signal(signal.SIGHUP, self._asked)
            signal.signal(signal.SIGALRM, self._interrupt)

    def check(self) -> None:
        """Ends the run if it was asked to stop. Call it where a run may stop.

        Raises:
            Stopped: a signal has arrived.
        """
        if self.number is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise Stopped(self.number)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        """The first signal is remembered, the next one interrupts at once."""
        if self.number is not None:
            self.check()
        self.number = number
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.check()


@contextmanager
def stopper() -> Iterator[Stopper]:
    """Listens for signals, and restores the earlier handlers at the end."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    asked = Stopper()
    asked.listen()
    try:
        yield asked
    except KeyboardInterrupt as error:
        if asked.number is None or isinstance(error, Stopped):
            raise
        raise Stopped(asked.number) from error  # while it waits, Ray replaces what is raised by its own
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)
