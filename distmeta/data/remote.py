"""Files at an address such as s3://bucket/folder or https://host/file.csv, through fsspec."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import urlsplit

from distmeta.errors import DataError


def is_remote(path: str) -> bool:
    """Whether it begins with a protocol."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


class RemoteFile(NamedTuple):
    """One file elsewhere. Its path is that on its own system, and its ending tells its kind."""

    where: str
    path: Path
    open: Callable[[], BinaryIO]


def find_remote(address: str) -> list[RemoteFile]:
    """The file at an address, or all files of a folder there.

    Raises:
        DataError: the protocol is not known or its package is missing, or nothing can be read there.
    """
    import fsspec

    with reaching(address):
        system, root = fsspec.core.url_to_fs(address)
        if address.lower().startswith(("http://", "https://")):  # these have no folders
            return [RemoteFile(address, Path(urlsplit(address).path), partial(system.open, address, "rb"))]
        if not system.isdir(root):
            return [RemoteFile(address, Path(root), partial(system.open, root, "rb"))]
        files = sorted(system.find(root))
        return [
            RemoteFile(system.unstrip_protocol(file), Path(file), partial(system.open, file, "rb")) for file in files
        ]


@contextlib.contextmanager
def reaching(address: str) -> Iterator[None]:
    """Names the address in what its file system raises inside.

    Raises:
        DataError: for every exception but one of ours.
    """
    try:
        yield
    except DataError:
        raise
    except ImportError as error:  # fsspec says which package it is
        raise DataError(address, str(error).rstrip("."), "install that package") from error
    except Exception as error:  # each file system has exceptions of its own, often not of OSError
        found = f"cannot be read ({str(error) or type(error).__name__})"
        raise DataError(address, found, "check data.path, the network and your rights there") from error
