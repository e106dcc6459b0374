"""Looks at an SQLite store without MLflow: whether it can be used, and what was deleted in it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shlex
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from distmeta.config.places import barrier, exists
from distmeta.errors import TrackingError
from distmeta.tracking import private

LOCK_SECONDS = 5.0  # for another process that writes
BUSY_SECONDS = 1.0  # the same, while training waits


def artifact_folder(path: Path) -> Path:
    """The folder beside a database; MLflow's default would be the working directory of the first process."""
    return path.parent / "mlartifacts"


def lock_file(path: Path) -> Path:
    """The file that a process locks while it makes or migrates a database."""
    return artifact_folder(path) / f".{path.name}.lock"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[None]:
    """Only one process at a time makes a fresh database: MLflow itself takes no lock, and they would crash."""
    with lock_file(path).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def unlocked(path: Path, wait_seconds: float) -> Iterator[sqlite3.Connection]:
    """A connection that may write.

    Raises:
        OSError: another program keeps the database locked.
    """
    try:
        with private.writing(path, wait_seconds) as connection:
            yield connection
    except sqlite3.OperationalError as error:
        raise OSError(errno.EBUSY, str(error), str(path)) from error


def require_unlocked(path: Path, wait_seconds: float) -> None:
    """Raises an `OSError` if another program keeps a database locked: MLflow would wait for 20 seconds each time."""
    if path.exists():
        with unlocked(path, wait_seconds):
            pass


def check_sqlite(path: Path, uri: str, key: str, experiment: str | None, run_id: str | None) -> None:
    """Checks that a database can be used, and that an experiment and a run in it were not deleted.

    Args:
        path: the database, which need not exist.
        uri: its address, for remedies.
        key: where the address is from, for messages.
        experiment: the name of an experiment.
        run_id: the id of a run.

    Raises:
        TrackingError: it cannot be used.
    """
    if not exists(path.parent):
        closed = barrier(path.parent)
        if closed and not os.access(closed, os.X_OK):
            raise TrackingError(key, f"this user may not look into {closed}", "choose another place")
        raise TrackingError(key, f"the folder {path.parent} does not exist", "create it")
    for target in (path.parent, path, artifact_folder(path), lock_file(path)):
        # SQLite writes its journal beside the file.
        if exists(target) and not os.access(target, os.R_OK | os.W_OK | (os.X_OK if target.is_dir() else 0)):
            raise TrackingError(key, f"{target} is not writable", "choose another place")
    if path.is_dir():
        raise TrackingError(key, f"{path} is a folder", "name a file, such as mlflow.db")
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("rb") as file:
        if file.read(16) != b"SQLite format 3\0":
            raise TrackingError(key, f"{path} is not an SQLite database", "name another file")
    try:
        # Not while another process makes it.
        with opened(path) if lock_file(path).exists() else contextlib.nullcontext():
            seen = private.look(path, experiment, run_id, LOCK_SECONDS)
    except sqlite3.DatabaseError as error:
        locked = "locked" in str(error)
        remedy = "wait until no other program locks it" if locked else "restore it"
        raise TrackingError(key, f"{path} cannot be read ({error})", f"{remedy}, or name another file") from error
    _check_tables(seen, path, uri, key)
    require_active(experiment or "", seen.deleted_experiment, uri)
    if run_id is not None:
        _check_run(seen, run_id, path, uri)


def _check_tables(seen: private.Seen, path: Path, uri: str, key: str) -> None:
    """Refuses tables of another program, and those of another version of MLflow."""
    if seen.tables and "experiments" not in seen.tables:
        found = f"{path} holds tables of another program, such as {min(seen.tables)}"
        raise TrackingError(key, found, "name another file")
    latest, known = private.schemas()
    if seen.schema in known - {latest}:
        remedy = f"copy it, then run `mlflow db upgrade {shlex.quote(uri)}`, or name another file"
        raise TrackingError(key, f"{path} was made by an older MLflow", remedy)
    if seen.schema is not None and seen.schema not in known:
        found = f"{path} was made by a newer MLflow, with tables of version {seen.schema}"
        raise TrackingError(key, found, "name another file, or install that MLflow")


def require_active(experiment: str, deleted: str | None, uri: str) -> None:
    """Raises a `TrackingError` if `deleted` is the id of the experiment: MLflow keeps the name of a deleted one."""
    if deleted is not None:
        restore = f"MLFLOW_TRACKING_URI={shlex.quote(uri)} mlflow experiments restore -x {deleted}"
        remedy = f"choose another name, or restore it with `{restore}`"
        raise TrackingError("tracking.experiment", f"{experiment!r} was deleted in MLflow", remedy)


def _check_run(seen: private.Seen, run_id: str, path: Path, uri: str) -> None:
    where = f"MLflow run {run_id}"
    if seen.run == "deleted":
        restore = f"MLFLOW_TRACKING_URI={shlex.quote(uri)} mlflow runs restore --run-id {run_id}"
        raise TrackingError(where, "was deleted in MLflow", f"restore it with `{restore}`")
    if seen.run is None:
        remedy = "set tracking.uri to its store, or mlflow_run_id in run.json to null to go on in another MLflow run"
        raise TrackingError(where, f"is not in {path}", remedy)
