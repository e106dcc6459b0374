"""The parts of MLflow that `distmeta.tracking.private` needs: a new version that lacks one fails here, by name."""

from pathlib import Path

import mlflow
from mlflow.entities import Metric, Run, RunData, RunInfo

from distmeta.tracking import private


def test_a_run_tells_the_last_steps_of_its_metrics() -> None:
    info = RunInfo("id", "0", "user", "FINISHED", 0, 1, "active")
    run = Run(info, RunData(metrics=[Metric("loss", 0.5, 0, 7), Metric("accuracy", 0.1, 0, 3)]))
    assert private.last_steps(run) == {"loss": 7, "accuracy": 3}


def test_the_page_of_the_ui_knows_the_kind_of_experiment() -> None:
    ((key, kind),) = private.KIND.items()
    pages = (Path(mlflow.__file__).parent / "server" / "js" / "build" / "static" / "js").glob("main.*.js")
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert key in text
    assert kind in text


def test_the_logger_of_migrations_has_its_name() -> None:
    import alembic
    from mlflow.store.db import utils

    assert alembic.__name__ in private.LOGGERS
    assert "alembic" in Path(utils.__file__).read_text(encoding="utf-8")
