"""Folders of this machine: which of them this user can reach and write to, and what stands in for a home."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from distmeta.config.base import expand
from distmeta.errors import ConfigError


def exists(path: str | Path) -> bool:
    """Whether a file or folder is there for this user: one in a folder that may not be entered is not.

    `Path.exists` raises an error there.
    """
    return os.path.exists(path)  # noqa: PTH110


def barrier(folder: Path) -> Path | None:
    """What keeps this user from writing into a folder, which need not exist: the folder, or one above it."""
    folder = folder.absolute()
    nearest = next(place for place in (folder, *folder.parents) if exists(place))
    return None if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK) else nearest


def moved(path: Path, around: Iterable[Path]) -> Path:
    """Where a file or folder is now: where it was, or else at the same place below one of the folders `around`.

    The first one that holds it counts. If none does, the path stays.
    """
    if exists(path):
        return path
    places = (top.joinpath(*path.parts[first:]) for top in around for first in range(1, len(path.parts)))
    return next((place for place in places if exists(place)), path)


def stand_in() -> Path:
    """This user's own folder in the temporary one. It stands in for a home that is missing or cannot be written to.

    Raises:
        ConfigError: there is no temporary folder, or this one belongs to another user.
    """
    remedy = "set HOME to a folder that you can write to"
    try:
        folder = Path(tempfile.gettempdir(), f"distmeta-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError("HOME", f"no home folder, and no temporary one ({error.strerror})", remedy) from error
    # A name in the temporary folder can be guessed: another user may have made it.
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ConfigError("HOME", f"no home folder, and {folder} belongs to another user", remedy)
    return folder


def provide_home(note: Callable[[str], None]) -> None:
    """Sets HOME if this user has none, as in `docker run --user`: libraries ask for a home when they are imported.

    `note` gets a remark on what was set.
    """
    try:
        expand("~")
    except ValueError:
        home = os.environ["HOME"] = str(stand_in())
        note(f"note: this user has no home folder; {home} stands in for it (set HOME to choose another)")
