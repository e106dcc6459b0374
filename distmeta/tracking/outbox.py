"""What is still to be sent: in memory while the receiver answers, also on disk while it does not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


class Outbox:
    """A queue of JSON entries. What an earlier process could not send is there again.

    Args:
        path: a file of one entry a line, which exists only while something could not be sent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Entry] = []
        if path.exists():
            # What comes after the last line break was cut off while it was written.
            lines = path.read_text(encoding="utf-8").split("\n")[:-1]
            self.entries = [json.loads(line) for line in lines]
            self._rewrite()
        self._kept = len(self.entries)  # of them on disk

    def take(self, count: int) -> None:
        """Takes the first entries off."""
        del self.entries[:count]
        if self._kept:
            self._rewrite()

    def drop(self, kind: str) -> None:
        """Takes all entries of a kind off."""
        self.entries = [entry for entry in self.entries if kind not in entry]
        if self._kept:
            self._rewrite()

    def keep(self) -> None:
        """Puts on disk what is not there yet, so that it outlives the process."""
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
        if mode == "w":  # aside, then renamed: never half of it
            path = path.with_name(f".{path.name}.{os.getpid()}")
        with path.open(mode, encoding="utf-8") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in entries)
            file.flush()
            os.fsync(file.fileno())
        path.replace(self.path)
        self._kept = len(self.entries)
