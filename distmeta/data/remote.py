"""Files at an address such as s3://bucket/folder or https://host/file.csv, through fsspec."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast
from urllib.parse import urlsplit

from distmeta.errors import DataError


class RemoteFile(NamedTuple):
    """One file elsewhere. Its path is that on its own system, and its ending tells its kind."""

    where: str
    path: Path
    connect: Callable[[], BinaryIO]

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """A temporary copy: readers of tables jump to and fro, and what fails in reading is then the file's fault.

        Raises:
            DataError: it cannot be reached.
        """
        with tempfile.TemporaryFile() as copy:
            with _reaching(self.where), self.connect() as file:
                shutil.copyfileobj(file, copy)
            copy.seek(0)
            yield cast(BinaryIO, copy)


def find_remote(address: str) -> list[RemoteFile]:
    """The file at an address, or all files of a folder there.

    Raises:
        DataError: the protocol is not known or its package is missing, or nothing can be read there.
    """
    import fsspec

    with _reaching(address):
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
def _reaching(address: str) -> Iterator[None]:
    """Names the address in what its file system raises inside.

    Raises:
        DataError: for every exception.
    """
    try:
        yield
    except ImportError as error:  # fsspec says which package it is
        raise DataError(address, str(error).rstrip("."), "install that package") from error
    except Exception as error:  # each file system has exceptions of its own, often not of OSError
        cause = "no such file" if isinstance(error, FileNotFoundError) else str(error) or type(error).__name__
        found = f"cannot be read ({cause})"
        raise DataError(address, found, "check data.path, the network and your rights there") from error
