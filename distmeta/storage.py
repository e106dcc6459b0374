"""Files that outlive a process: the number of their format, and hashes of a folder in the form of sha256sum."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distmeta.errors import CheckpointError

SUMS = "SHA256SUMS"
KEY = "format"


def parse_object(text: str) -> dict[str, Any]:
    """What a file of JSON holds.

    Raises:
        ValueError: it is not JSON, or not an object.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("it holds no object of keys")
    return content


def require_format(content: Mapping[str, Any], path: Path, *known: int, remedy: str = "start a new run") -> None:
    """Refuses a file of another format.

    Args:
        content: the file's content. Without a number it is of format 1, which had none.
        path: the file, for the message.
        known: the formats that can be read.
        remedy: the alternative to using the version of distmeta that wrote the file.

    Raises:
        CheckpointError: the format is not among `known`.
    """
    if (found := content.get(KEY, 1)) not in known:
        reads = " and ".join(map(str, known))
        what = f"is of format {found}, and this version of distmeta reads format {reads}"
        raise CheckpointError(str(path), what, f"use the version that wrote it, or {remedy}")


def write_sums(folder: Path) -> None:
    """Writes the hashes of a folder's own files beside them, and makes them survive a power cut."""
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


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder to write into. In the end it takes the place of `folder`, with hashes; after an error it is gone."""
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        aside.mkdir(parents=True)
        yield aside
        write_sums(aside)
        if folder.exists():
            folder.rename(aside.with_suffix(".old"))
        aside.rename(folder)
        sync(folder.parent)
    finally:
        for left in folder.parent.iterdir() if folder.parent.is_dir() else ():
            if left.name.startswith(f".{folder.name}."):
                shutil.rmtree(left, ignore_errors=True)


def sync(path: Path) -> None:
    """Makes a file or a folder's entries survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lines(folder: Path) -> list[str]:
    """A line of hash and name for each file except the file of hashes. Folders are left out."""
    lines = []
    for path in sorted(folder.iterdir()):
        if path.name != SUMS and not path.is_dir():
            with path.open("rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}")
    return lines
