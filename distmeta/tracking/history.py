"""What a run that has ended left in MLflow, and what is added to it later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from distmeta.tracking.store import connect, find_artifacts, must_exist, user_errors
from distmeta.tracking.uri import check_store

History = list[tuple[int, float]]  # steps, ascending, and values


def histories(uri: str, run_id: str, prefixes: Sequence[str]) -> dict[str, History]:
    """The values of all metrics of a run whose names begin with one of `prefixes`.

    Raises:
        TrackingError: MLflow cannot be read, or has no such run.
    """
    check_store(uri, run_id=run_id)
    must_exist(uri)
    with user_errors(uri):
        client = connect(uri)
        names = [name for name in client.get_run(run_id).data.metrics if name.startswith(tuple(prefixes))]
        found = {}
        for name in sorted(names):
            points = sorted(client.get_metric_history(run_id, name), key=lambda point: (point.step, point.timestamp))
            found[name] = list({point.step: (point.step, point.value) for point in points}.values())
        return found


def attach(uri: str, run_id: str, path: Path, note: Callable[[str], None]) -> None:
    """Copies a file to the artifacts of a run that has ended.

    Raises:
        TrackingError: MLflow does not take it.
    """
    check_store(uri, run_id=run_id)
    must_exist(uri)
    with user_errors(uri):
        find_artifacts(uri, note)
        connect(uri).log_artifact(run_id, path)
