"""All undocumented parts of MLflow that distmeta uses. Tested with MLflow 3.17.2.

`pyproject.toml` allows no later minor version. `tests/tracking/test_private.py` names the parts that a new one lacks.

last_steps   public classes have a metric's last value without the step; its history would cost a request per metric
KIND         without this tag the UI opens an experiment on pages about language-model traces
LOGGERS      these loggers report each migration of a database
"""

from typing import Any

KIND = {"mlflow.experimentKind": "custom_model_development"}
LOGGERS = ("mlflow", "alembic")


def last_steps(run: Any) -> dict[str, int]:
    """The last step of each metric, of an `mlflow.entities.Run`."""
    return {metric.key: metric.step for metric in run.to_proto().data.metrics}
