"""What this machine allows a private Ray: a folder for its sockets, open files, processes and memory."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from pathlib import Path

from distmeta.config.places import barrier
from distmeta.errors import ClusterError

SHARED_MEMORY = Path("/dev/shm")
SOCKET_BYTES = 107 if sys.platform == "linux" else 103  # longest path of a socket
SOCKET = "/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store"  # below the folder
# Measured with a private Ray: the open files of its largest process, and the threads of all processes.
FILES, FILES_PER_WORKER = 64, 4
THREADS, THREADS_PER_WORKER = 200, 24
MEMORY, SMALLEST_STORE = 4 * 2**30, 2**27  # bytes of addresses of a process beside the store, and of the store
STORE_SHARE = 0.3  # of the machine's memory, by Ray's default
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


def raise_limits() -> None:
    """Raises the limits of open files, processes and memory as far as this user may: Ray needs many of them."""
    for limit, most in (
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_NPROC, None),
        (resource.RLIMIT_AS, None),
    ):
        soft, hard = resource.getrlimit(limit)
        wanted = most if most and not 0 <= hard < most else hard
        if soft != resource.RLIM_INFINITY and (wanted == resource.RLIM_INFINITY or soft < wanted):
            resource.setrlimit(limit, (wanted, hard))


def require_limits(workers: int) -> None:
    """Raises a `ClusterError` if this user may never have what a private Ray with so many workers needs.

    With less, Ray waits for half a minute for its own processes, or for ever.
    """
    remedy = "raise the hard limit, ask for fewer workers, or set cluster.backend=inprocess"
    for option, limit, what, needed in (
        ("-n", resource.RLIMIT_NOFILE, "open files", FILES + FILES_PER_WORKER * workers),
        ("-u", resource.RLIMIT_NPROC, "processes and threads", THREADS + THREADS_PER_WORKER * workers),
        ("-v", resource.RLIMIT_AS, "KiB of memory", (MEMORY + 2 * SMALLEST_STORE) // 1024),
    ):
        hard = resource.getrlimit(limit)[1]
        allowed = hard // 1024 if option == "-v" and hard != resource.RLIM_INFINITY else hard
        if limit == resource.RLIMIT_NPROC and os.geteuid() == 0:  # it does not count for root
            continue
        if hard != resource.RLIM_INFINITY and allowed < needed:
            found = f"a private Ray with {workers} workers needs about {needed} {what}, and {allowed} are allowed"
            raise ClusterError(f"ulimit {option}", found, remedy)


def store_bytes() -> int | None:
    """How much memory Ray's store of objects may have, if a limit leaves less than Ray would take; else None."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    room = max(SMALLEST_STORE, (limit - MEMORY) // 2)  # a process maps it, and another part of that size
    default = int(STORE_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return room if room < default else None


def store_folder() -> str | None:
    """Where Ray's store of objects is, if this user cannot write to the shared memory; None: there."""
    return tempfile.gettempdir() if barrier(SHARED_MEMORY) else None
