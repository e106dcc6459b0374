"""Opens an MLflow store and looks up runs. Uses only `MlflowClient`, with no global state."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from distmeta.config.places import moved
from distmeta.errors import TrackingError
from distmeta.tracking import sqlite
from distmeta.tracking.private import ERRORS, KIND, LOGGERS, move_artifacts
from distmeta.tracking.sqlite import artifact_folder, opened, require_active, require_unlocked, unlocked
from distmeta.tracking.uri import check_store, database, key_of, mask

RUN_DIR_TAG = "distmeta.run_dir"
OUTAGES = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
RETRY_SECONDS = 15.0  # while MLflow is away, between two tries


def _quiet() -> None:
    """Turns off MLflow's telemetry and output; must be called before MLflow is imported."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # A server that is away is tried again later: training does not wait for it.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    import mlflow  # noqa: F401 - sets the levels of its loggers

    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger(ERRORS).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def user_errors(uri: str) -> Iterator[None]:
    """Turns MLflow's refusal to open a store or look up a run into a user's error."""
    _quiet()
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        found = mask(str(error).splitlines()[0])
        raise TrackingError(f"MLflow at {mask(uri)}", found, f"check {key_of(uri)} and the run") from error


def outages() -> tuple[type[Exception], ...]:
    """The exceptions raised when MLflow or its artifact store does not answer, or cannot be written to now.

    Other faults raise them too.
    """
    from mlflow.exceptions import MlflowException

    return MlflowException, OSError  # those of `requests` are OSErrors


def connect(uri: str) -> Any:
    """An MlflowClient.

    Raises:
        OSError: another program keeps an SQLite database locked.
    """
    from mlflow import MlflowClient

    if not uri.startswith("sqlite:"):
        return MlflowClient(uri)
    path = database(uri)
    artifact_folder(path).mkdir(exist_ok=True)
    require_unlocked(path, sqlite.LOCK_SECONDS)
    with opened(path):
        return MlflowClient(as_sqlalchemy(uri))


def as_sqlalchemy(uri: str) -> str:
    """An SQLite address as SQLAlchemy reads it; whether it takes %3F for a question mark depends on its version.

    MLflow takes it for three letters, and would make a folder of that name: it does not look at this kind of address.
    """
    if "%" not in uri:
        return uri
    from sqlalchemy.engine import make_url

    url = make_url(uri).set(drivername="sqlite+pysqlite", database=str(database(uri)))
    return url.render_as_string()


def find_artifacts(uri: str, note: Callable[[str], None]) -> None:
    """Makes a database that was moved together with its artifacts look for them beside it, with a remark."""
    if not uri.startswith("sqlite:"):
        return
    path = database(uri)
    if path.exists() and artifact_folder(path).exists():
        with unlocked(path, sqlite.LOCK_SECONDS) as connection:
            gone = move_artifacts(connection, artifact_folder(path))
        if gone:
            note(
                f"note: {path} was moved; its artifacts are in {artifact_folder(path)}, no longer in {', '.join(gone)}"
            )


def is_outage(error: Exception) -> bool:
    """Whether an error, one of `outages`, means that MLflow is away and not that it refused a request."""
    return getattr(error, "error_code", "INTERNAL_ERROR") in OUTAGES


def wait(uri: str, note: Callable[[str], None]) -> None:
    """Waits until MLflow answers, however long it is away.

    Raises:
        TrackingError: MLflow answers with a refusal.
    """
    told = False
    while True:
        with user_errors(uri):
            try:
                connect(uri).search_experiments(max_results=1)
                return
            except outages() as error:
                if not is_outage(error):
                    raise
                if not told:
                    note(f"MLflow is away ({mask(str(error).splitlines()[0])}); waiting for it")
                    told = True
        time.sleep(RETRY_SECONDS)


def experiment_id(client: Any, uri: str, name: str) -> str:
    """The id of an experiment, which is created if it does not exist."""
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(name):
        require_active(name, found.experiment_id if found.lifecycle_stage == "deleted" else None, uri)
        for tag, value in KIND.items():
            if tag not in found.tags:
                client.set_experiment_tag(found.experiment_id, tag, value)
        return str(found.experiment_id)
    location = artifact_folder(database(uri)).as_uri() if uri.startswith("sqlite:") else None
    try:
        return str(client.create_experiment(name, artifact_location=location, tags=KIND))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(client.get_experiment_by_name(name).experiment_id)  # another process was first


def find_run_dir(uri: str, run_id: str) -> Path:
    """The run directory of an MLflow run.

    Raises:
        TrackingError: no such store or run, not a run of distmeta, or its directory is not on this machine.
    """
    check_store(uri)
    must_exist(uri)
    with user_errors(uri):
        tags = connect(uri).get_run(run_id).data.tags
    if RUN_DIR_TAG not in tags:
        raise TrackingError(f"MLflow run {run_id}", f"has no tag {RUN_DIR_TAG}", "give a run of distmeta")
    run_dir = Path(tags[RUN_DIR_TAG])
    if uri.startswith("sqlite:"):
        run_dir = moved(run_dir, database(uri).parents)
    if not run_dir.is_dir():
        raise TrackingError(f"MLflow run {run_id}", f"{run_dir} is not on this machine", "give its run directory")
    return run_dir


def must_exist(uri: str) -> None:
    """Refuses an SQLite store that does not exist: looking up a run must not create a database."""
    if uri.startswith("sqlite:") and not database(uri).exists():
        raise TrackingError(
            "tracking.uri", f"{database(uri)} does not exist", "name the run's store in MLFLOW_TRACKING_URI"
        )


def ui_command(uri: str, port: int) -> list[str]:
    """The command that shows an SQLite store at http://127.0.0.1:PORT.

    Raises:
        TrackingError: the store is a server, which has a UI of its own, or does not exist.
    """
    if uri.startswith(("http://", "https://")):
        raise TrackingError("tracking.uri", "is an MLflow server already", f"open {mask(uri)} in a browser")
    check_store(uri)
    must_exist(uri)
    _require_free(port)
    find_artifacts(uri, lambda remark: print(f"distmeta: {remark}", file=sys.stderr))
    options = [
        "--backend-store-uri",
        as_sqlalchemy(uri),
        "--artifacts-destination",
        artifact_folder(database(uri)).as_uri(),
    ]
    options += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [sys.executable, "-P", "-m", "mlflow", "ui", *options]  # -P: not a file mlflow.py in this folder


def serve(command: list[str]) -> int:
    """Runs the server of `ui_command` until it ends or this process is asked to; returns the exit code."""
    with subprocess.Popen(command, cwd="/") as server:  # it looks for modules in the working directory
        signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        try:
            code = server.wait()
        except KeyboardInterrupt:
            server.terminate()
            server.wait()
            return 128 + signal.SIGINT
    return 128 - code if code < 0 else code


def _require_free(port: int) -> None:
    """Raises a `TrackingError` if this process may not listen on a port, or if another one does."""
    with socket.socket() as listener, socket.socket() as other:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        other.bind(("127.0.0.1", 0))
        free = f"give another, such as --port {other.getsockname()[1]}"
        try:
            listener.bind(("127.0.0.1", port))
        except PermissionError as error:
            raise TrackingError("--port", f"{port} is for the system's own services", free) from error
        except OSError as error:
            raise TrackingError("--port", f"{port} is in use by another program", free) from error
