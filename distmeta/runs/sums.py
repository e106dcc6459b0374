"""Hashes of a folder's files, as the tool sha256sum writes and reads them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from distmeta.errors import CheckpointError

SUMS = "SHA256SUMS"


def write_sums(folder: Path) -> None:
    """Writes the hashes of all files beside them, and makes them survive a power cut."""
    lines = (f"{digest}  {name}\n" for name, digest in _sums(folder).items())
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        sync(path)


def check_sums(folder: Path, remedy: str) -> None:
    """Raises a `CheckpointError` that names the file which is not what was written."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        written = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        found = _sums(folder)
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(str(folder), f"cannot be read ({error})", remedy) from error
    altered = [name for name in sorted({*written, *found}) if written.get(name) != found.get(name)]
    if altered:
        raise CheckpointError(str(folder / altered[0]), "was altered or cut short", remedy)


def sync(path: Path) -> None:
    """Makes a file or a folder's entries survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sums(folder: Path) -> dict[str, str]:
    """The hash of each file but that of the hashes."""
    sums = {}
    for path in sorted(folder.iterdir()):
        if path.name != SUMS:
            with path.open("rb") as file:
                sums[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums
