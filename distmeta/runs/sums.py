"""Hashes of a folder's files, in the format of the tool sha256sum."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from distmeta.errors import CheckpointError

SUMS = "SHA256SUMS"


def write_sums(folder: Path) -> None:
    """Writes the hashes of all files beside them, and makes them survive a power cut."""
    (folder / SUMS).write_text("\n".join([*_lines(folder), ""]), encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        sync(path)


def check_sums(folder: Path, remedy: str) -> None:
    """Raises a `CheckpointError` that names the altered file."""
    try:
        written, found = (folder / SUMS).read_text(encoding="utf-8").split("\n"), [*_lines(folder), ""]
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(str(folder), f"cannot be read ({error})", remedy) from error
    if sorted(written) != sorted(found):
        altered = next((line.partition("  ")[2] for line in found if line not in written), SUMS)
        raise CheckpointError(str(folder / altered), "was altered or cut short", remedy)


def sync(path: Path) -> None:
    """Makes a file or a folder's entries survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lines(folder: Path) -> list[str]:
    """A line of hash and name for each file except the file of hashes."""
    lines = []
    for path in sorted(folder.iterdir()):
        if path.name != SUMS:
            with path.open("rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}")
    return lines
