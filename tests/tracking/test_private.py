"""The parts of MLflow that `distmeta.tracking.private` needs: a new version that lacks one fails here, by name."""

import os
from pathlib import Path

import mlflow
import pytest
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


def test_the_store_of_the_global_settings_is_put_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for former in ("sqlite:///theirs.db", None):
        if former:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", former)
        else:
            monkeypatch.delenv("MLFLOW_TRACKING_URI")
        with private.global_store(f"sqlite:///{tmp_path}/mlflow.db"):
            assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
        assert os.environ.get("MLFLOW_TRACKING_URI") == former


def test_the_tag_of_registered_versions_has_its_name() -> None:
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

    assert private._VERSIONS == MLFLOW_MODEL_VERSIONS
