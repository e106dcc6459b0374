"""Ctrl-C and SIGTERM: a run that is asked to stop gets a moment to finish its step, then is interrupted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_SECONDS = 5.0  # until the step that is going on is abandoned


class Stopped(KeyboardInterrupt):
    """The process was asked to stop; `code` is the exit code that says so to a shell."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


class Stopper:
    """Whether the process was asked to stop. Signals reach the main thread alone: elsewhere it never is."""

    def __init__(self) -> None:
        self.number: int | None = None

    def listen(self) -> None:
        """Takes the signals over, also from who has taken them since the last call."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._asked)
            signal.signal(signal.SIGTERM, self._asked)
            signal.signal(signal.SIGALRM, self._interrupt)

    def check(self) -> None:
        """To be called where it is a good moment to stop.

        Raises:
            Stopped: there was a signal.
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
    """Listens, and hands the signals back in the end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    asked = Stopper()
    asked.listen()
    try:
        yield asked
    except KeyboardInterrupt as error:
        if asked.number is None or isinstance(error, Stopped):
            raise
        raise Stopped(asked.number) from error  # Ray turns what is raised while it waits into one of its own
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)
