"""All undocumented parts of MLflow that distmeta uses. Tested with MLflow 3.17.2.

`pyproject.toml` allows no later minor version. `tests/tracking/test_private.py` names the parts that a new one lacks.

last_steps   public classes have a metric's last value without the step; its history would cost a request per metric
KIND         without this tag the UI opens an experiment on pages about language-model traces
deleted      a look into the database, which costs no import of MLflow
LOGGERS      these loggers report each migration of a database
"""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

KIND = {"mlflow.experimentKind": "custom_model_development"}
LOGGERS = ("mlflow", "alembic")


def last_steps(run: Any) -> dict[str, int]:
    """The last step of each metric, of an `mlflow.entities.Run`."""
    return {metric.key: metric.step for metric in run.to_proto().data.metrics}


def deleted(path: Path, experiment: str, wait_seconds: float) -> bool:
    """Whether an experiment was deleted in an SQLite database, which MLflow only marks.

    Raises:
        sqlite3.DatabaseError: the file is damaged, or another process keeps it locked.
    """
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=wait_seconds)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
            return False  # MLflow has not made its tables yet
        query = "SELECT 1 FROM experiments WHERE name = ? AND lifecycle_stage = 'deleted'"
        return database.execute(query, (experiment,)).fetchone() is not None
