"""All undocumented parts of MLflow that distmeta uses. Tested with MLflow 3.17.2.

`pyproject.toml` allows no later minor version. `tests/tracking/test_private.py` names the parts that a new one lacks.

global_store    MLflow looks up a model of its own in the store of its global settings, not in the client's
link            without this tag the UI does not show under which name a model is registered
last_steps      public classes have a metric's last value without the step; its history would cost a request per metric
KIND            without this tag the UI opens an experiment on pages about language-model traces
look            looks into the database, which costs no import of MLflow
monitors        MLflow's own thread around them sends metrics by itself
move_artifacts  MLflow keeps absolute paths, with no way to change them
schemas         reads MLflow's migrations, which costs no import either
LOGGERS         these loggers report each migration of a database
ERRORS          this logger shows the traceback of an error that is raised too
"""

import contextlib
import json
import os
import re
import sqlite3
import urllib.parse
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from distmeta.config.places import exists

KIND = {"mlflow.experimentKind": "custom_model_development"}
LOGGERS = ("mlflow", "alembic")
ERRORS = "mlflow.store.db.utils"
_VERSIONS = "mlflow.modelVersions"
_REVISIONS = ("revision", "down_revision")
# Where the database keeps addresses of artifacts, besides those of its experiments.
_LOCATIONS = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


@contextlib.contextmanager
def global_store(uri: str) -> Iterator[None]:
    """Makes a store that of MLflow's global settings, for a while."""
    from mlflow.tracking._tracking_service.utils import _use_tracking_uri

    key = "MLFLOW_TRACKING_URI"  # it is changed too
    former = os.environ.get(key)
    try:
        with _use_tracking_uri(uri):
            yield
    finally:
        os.environ.pop(key, None)
        os.environ.update({key: former} if former is not None else {})


def link(client: Any, model_id: str, name: str, version: str) -> None:
    """Notes with a model, an `mlflow.entities.LoggedModel`, that it is a version of a registered one."""
    known = json.loads(client.get_logged_model(model_id).tags.get(_VERSIONS, "[]"))
    if (name, str(version)) not in [(each["name"], str(each["version"])) for each in known]:  # a server has done it
        entry = {"name": name, "version": version}
        client.set_logged_model_tags(model_id, {_VERSIONS: json.dumps([*known, entry])})


def last_steps(run: Any) -> dict[str, int]:
    """The last step of each metric, of an `mlflow.entities.Run`."""
    return {metric.key: metric.step for metric in run.to_proto().data.metrics}


def monitors() -> list[Any]:
    """What measures processors, memory, disk, network and, if there are any, GPUs."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    found = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(ImportError, RuntimeError):  # no nvidia-ml-py, or no NVIDIA driver
        found.append(GPUMonitor())
    return found


class Seen(NamedTuple):
    """What a look into an SQLite database found."""

    tables: frozenset[str]
    schema: str | None  # the version of MLflow's tables
    deleted_experiment: str | None  # the id, if it was deleted, which MLflow only marks
    run: str | None  # active or deleted; none: there is no such run


@contextlib.contextmanager
def writing(path: Path, wait_seconds: float) -> Iterator[sqlite3.Connection]:
    """A connection to a database that no other process may write to until it is closed. Writes need a `COMMIT`.

    Raises:
        sqlite3.DatabaseError: the file is damaged, or another process keeps it locked.
    """
    address = f"{path.as_uri()}?mode=rw"
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=wait_seconds, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield database


def look(path: Path, experiment: str | None, run_id: str | None, wait_seconds: float) -> Seen:
    """What a database holds, and what it holds of an experiment and a run.

    Raises:
        sqlite3.DatabaseError: the file is damaged, or another process keeps it locked.
    """
    with writing(path, wait_seconds) as database:

        def first(query: str, *values: str | None) -> str | None:
            row = database.execute(query, values).fetchone()
            return None if row is None else str(row[0])

        tables = frozenset(name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
        versioned, filled = "alembic_version" in tables, {"experiments", "runs"} <= tables
        named = "SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage = 'deleted'"
        return Seen(
            tables,
            first("SELECT version_num FROM alembic_version") if versioned else None,
            first(named, experiment) if filled else None,
            first("SELECT lifecycle_stage FROM runs WHERE run_uuid = ?", run_id) if filled else None,
        )


def move_artifacts(database: sqlite3.Connection, folder: Path) -> list[str]:
    """Experiments whose folder of artifacts is gone, since it was moved with the database, get the one beside it.

    Only folders of the same name count.

    Returns:
        The addresses that were replaced.
    """
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
        return []  # MLflow has not made its tables yet
    found = [place for (place,) in database.execute("SELECT DISTINCT artifact_location FROM experiments")]
    gone = [
        place
        for place in found
        if place and place.startswith("file:///") and place.endswith(f"/{folder.name}") and not exists(_path(place))
    ]
    for place in gone:
        new, rest = folder.as_uri(), len(place) + 1
        database.execute("UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?", (new, place))
        for table, column in _LOCATIONS:
            query = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?"
            database.execute(query, (new, rest, rest, f"{place}/"))
    database.execute("COMMIT")
    return gone


def _path(address: str) -> str:
    return urllib.parse.unquote(urllib.parse.urlsplit(address).path)


def schemas() -> tuple[str, frozenset[str]]:
    """The version of the installed MLflow's tables, and all versions that it can bring up to date."""
    found = find_spec("mlflow")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "store" / "db_migrations" / "versions"
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
    numbers = {name: set(re.findall(rf'^{name} = "(\w+)"', "\n".join(texts), re.M)) for name in _REVISIONS}
    (latest,) = numbers["revision"] - numbers["down_revision"]
    return latest, frozenset(numbers["revision"])
