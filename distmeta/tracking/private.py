"""The parts of MLflow that its documentation does not promise, all that distmeta uses. Tested with MLflow 3.17.2.

`pyproject.toml` admits no later minor version; `tests/tracking/test_private.py` names a part that a new one lacks.

last_steps   public classes hold a metric's last value without its step; the history of each would be a request a metric
KIND         an experiment without this tag opens in the UI on pages about language-model traces
LOGGERS      report each migration of a database
"""

from typing import Any

KIND = {"mlflow.experimentKind": "custom_model_development"}
LOGGERS = ("mlflow", "alembic")


def last_steps(run: Any) -> dict[str, int]:
    """The last step of each metric, of an `mlflow.entities.Run`."""
    return {metric.key: metric.step for metric in run.to_proto().data.metrics}
