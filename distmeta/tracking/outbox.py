"""Entries that are not sent yet: in memory, and also on disk while the receiver does not answer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


class Outbox:
    """A queue of JSON entries. It starts with the entries that an earlier process could not send.

    Args:
        path: a file with one entry per line; it exists only while entries cannot be sent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Entry] = []
        if path.exists():
            # Text after the last line break is an entry that was not written to its end.
            lines = path.read_text(encoding="utf-8").split("\n")[:-1]
            self.entries = [json.loads(line) for line in lines]
            self._rewrite()
        self._kept = len(self.entries)  # number of entries on disk

    def take(self, count: int) -> None:
        """Removes the first entries."""
        del self.entries[:count]
        if self._kept:
            self._rewrite()

    def drop(self, kind: str) -> None:
        """Removes all entries of a kind."""
        self.entries = [entry for entry in self.entries if kind not in entry]
        if self._kept:
            self._rewrite()

    def keep(self) -> None:
        """Writes the entries to disk that are not there yet, so that they outlive the process."""
        if self._kept < len(self.entries):
            self._write("a", self.entries[self._kept :])

    def _rewrite(self) -> None:
        if self.entries:
            self._write("w", self.entries)
        else:
            self.path.unlink()
            self._kept = 0

    def _write(self, mode: str, entries: list[Entry]) -> None:
        path = self.path
        if mode == "w":  # to a temporary file, which is then renamed: never half a file
            path = path.with_name(f".{path.name}.{os.getpid()}")
        with path.open(mode, encoding="utf-8") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in entries)
            file.flush()
            os.fsync(file.fileno())
        path.replace(self.path)
        self._kept = len(self.entries)
