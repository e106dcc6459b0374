"""Numbers of formats: every file that outlives a process says which it is of."""

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
        content: of the file; without a number it is of format 1, from before there were numbers.
        path: of the file, for the message.
        known: the formats that can be read.
        remedy: what to do instead of using the version of distmeta that wrote it.

    Raises:
        CheckpointError: the format is none of them.
    """
    if (found := content.get(KEY, 1)) not in known:
        reads = " and ".join(map(str, known))
        what = f"is of format {found}, and this version of distmeta reads format {reads}"
        raise CheckpointError(str(path), what, f"use the version that wrote it, or {remedy}")
