"""What does not fit into memory, as a user's error."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from distmeta.errors import ModelError


@contextlib.contextmanager
def allocating(where: str) -> Iterator[None]:
    """Names the section `where` if torch is refused memory inside.

    Raises:
        ModelError: with the bytes that were asked for at once.
    """
    try:
        yield
    except RuntimeError as error:
        size = re.search(r"allocate memory: you tried to allocate (\d+) bytes", str(error))
        if size is None:
            raise
        found = f"{int(size[1]):,} bytes at once are more than this machine gives"
        raise ModelError(where, found, "give its options smaller sizes") from error
