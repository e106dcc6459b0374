"""What this machine allows a private Ray: a folder for its sockets, and open files."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from distmeta.config.places import barrier
from distmeta.errors import ClusterError

SOCKET_BYTES = 107 if sys.platform == "linux" else 103  # longest path of a socket
SOCKET = "/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store"  # below the folder
OPEN_FILES = 65_536  # at most; some systems allow a billion, and programs go through all of them


def ray_folder() -> tuple[Path | None, str]:
    """Where a private Ray keeps its sockets and logs.

    Returns:
        The folder, or None if it is Ray's own choice, and why it is not.

    Raises:
        ClusterError: no folder can be used.
    """
    variables = ("RAY_TMPDIR", "TMPDIR") if sys.platform == "linux" else ("RAY_TMPDIR",)
    given = next((os.environ[name] for name in variables if name in os.environ), "/tmp")
    own = Path(given).absolute() / "ray"
    if not (fault := _fault(own)):
        return None, ""
    for top in ("/tmp", "/var/tmp", "/dev/shm"):
        folder = Path(top, f"ray-{os.getuid()}")
        if not _fault(folder) and (not folder.exists() or folder.stat().st_uid == os.getuid()):
            return folder, fault
    longest = SOCKET_BYTES - len(SOCKET) - len("/ray")
    remedy = f"set RAY_TMPDIR to a folder that you can write to, with a path of at most {longest} letters"
    raise ClusterError("$TMPDIR", f"Ray cannot use it: {fault}", remedy)


def _fault(folder: Path) -> str:
    """Why Ray cannot use a folder; empty if it can."""
    if len(os.fsencode(folder)) + len(SOCKET) > SOCKET_BYTES:
        return f"the path {folder} is too long for a socket"
    return f"{closed} cannot be written to" if (closed := barrier(folder)) else ""


def allow_open_files() -> None:
    """Raises the limit of open files as far as this user may: Ray has connections between all of its processes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
