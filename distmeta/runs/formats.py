"""Format numbers: every file that outlives a process holds the number of its format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distmeta.errors import CheckpointError

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
