"""stdout and stderr whose reader may go away: a closed terminal, or `head` at the other end of a pipe."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from distmeta.errors import REFUSALS

FULL = (errno.ENOSPC, errno.EDQUOT)


class Outlet:
    """A text stream. What its reader no longer takes is given up; the process goes on.

    If it is a file and the disk is full, one that holds results ends the process in one line with exit code 2.
    """

    def __init__(self, stream: Any, holds_results: bool) -> None:
        self._stream, self._holds_results = stream, holds_results

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes, if anybody reads."""
        with self._given_up():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Sends what was written, if anybody reads."""
        with self._given_up():
            self._stream.flush()

    @contextlib.contextmanager
    def _given_up(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # Also for what is still in the buffer, which Python sends when it exits, and for what libraries write.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            if self._holds_results and error.errno in FULL:
                print(f"distmeta: standard output: {error.strerror}; {REFUSALS[error.errno]}", file=sys.stderr)
                raise SystemExit(2) from error


@contextlib.contextmanager
def outlets() -> Iterator[None]:
    """Inside, stdout and stderr are an `Outlet` each."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file that is opened would get this number, and what libraries print
            os.open(os.devnull, os.O_RDWR)
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (stream and Outlet(stream, stream is kept[0]) for stream in kept)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream:
                stream.flush()
        sys.stdout, sys.stderr = kept


def clean_stdout() -> contextlib.redirect_stdout[TextIO]:
    """Sends to stderr what libraries print on stdout, such as Ray's messages: stdout is only for results."""
    return contextlib.redirect_stdout(sys.stderr)
