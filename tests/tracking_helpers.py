"""What an MLflow store holds of a run."""

from typing import Any

from mlflow import MlflowClient

from distmeta.tracking import Tracker


def history(tracker: Tracker, key: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in tracker._client.get_metric_history(tracker.run_id, key)]


def run_of(tracker: Tracker) -> Any:
    return tracker._client.get_run(tracker.run_id)


def steps_in_mlflow(uri: str, run_id: str) -> list[int]:
    history = MlflowClient(uri).get_metric_history(run_id, "meta_train/loss")
    return sorted(metric.step for metric in history)
