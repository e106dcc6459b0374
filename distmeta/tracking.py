"""MLflow: the only home of `import mlflow`, which takes seconds and so happens inside functions.

Everything goes through `MlflowClient`, with no global state: several trackers can live in one process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from distmeta.errors import TrackingError
from distmeta.tracking_uri import check_store, database, mask, resolve_uri

__all__ = ["Tracker", "check_store", "find_run_dir", "flatten", "mask", "resolve_uri", "ui_command"]

RUN_DIR_TAG = "distmeta.run_dir"
KIND = {"mlflow.experimentKind": "custom_model_development"}  # or the UI opens on pages about language-model traces
RESUMED_TAG = "distmeta.resumed."  # + parameter: its value since a resume, as MLflow lets none be changed
PARAMS_PER_BATCH, METRICS_PER_BATCH, PARAM_LENGTH = 100, 1000, 6000  # MLflow's limits
FLUSH_METRICS, FLUSH_SECONDS = 500, 2.0


def _quiet() -> None:
    """Keeps MLflow off the network and the terminal; to be called before it is imported."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    import mlflow  # noqa: F401 - sets the levels of its loggers

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextlib.contextmanager
def _user_errors(uri: str) -> Iterator[None]:
    """What MLflow refuses when a store is opened or a run looked up is the user's to mend."""
    _quiet()
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        found = mask(str(error).splitlines()[0])
        raise TrackingError(f"MLflow at {mask(uri)}", found, "check tracking.uri and the run") from error


def _connect(uri: str) -> Any:
    """An MlflowClient; one process at a time initialises a fresh SQLite database."""
    from mlflow import MlflowClient

    if not uri.startswith("sqlite:"):
        return MlflowClient(uri)
    artifacts = _artifact_folder(uri)
    artifacts.mkdir(exist_ok=True)
    # Processes that migrate the same fresh database at once die: MLflow itself takes no lock.
    with (artifacts / f".{database(uri).name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return MlflowClient(uri)


def _artifact_folder(uri: str) -> Path:
    """Beside the database; MLflow's own default would be the working directory of whoever creates it."""
    return database(uri).parent / "mlartifacts"


def _experiment(client: Any, uri: str, name: str) -> str:
    """The id of an experiment, created if need be."""
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    location = str(_artifact_folder(uri)) if uri.startswith("sqlite:") else None
    try:
        return str(client.create_experiment(name, artifact_location=location, tags=KIND))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(client.get_experiment_by_name(name).experiment_id)  # another process was first


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values by dotted key, as text within MLflow's length limit and without credentials."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            text = mask(value if isinstance(value, str) else json.dumps(value, default=str))
            flat[prefix + key] = text if len(text) <= PARAM_LENGTH else text[: PARAM_LENGTH - 1] + "…"
    return flat


class Tracker:
    """One MLflow run; metrics are buffered and sent in batches. Made by `start`."""

    def __init__(self, client: Any, run_id: str, last_steps: dict[str, int]) -> None:
        self.run_id = run_id
        self._client, self._last_steps = client, last_steps
        self._buffer: list[Any] = []
        self._flushed = time.monotonic()

    @classmethod
    def start(
        cls,
        uri: str,
        experiment: str,
        run_name: str,
        config: Mapping[str, Any],
        run_dir: str | Path,
        *,
        run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Tracker:
        """Creates a run, or continues one.

        Args:
            uri: a resolved and checked store.
            experiment: created if it does not exist.
            run_name: what the MLflow UI shows.
            config: nested; logged as parameters with dotted keys.
            run_dir: where the run's checkpoints are; kept as a tag for `find_run_dir`.
            run_id: the run to continue. Its parameters stay, values that changed become tags
                ``distmeta.resumed.KEY``, and steps it already holds are not logged again.
            tags: further tags, such as ``mlflow.parentRunId``.

        Raises:
            TrackingError: MLflow refuses the store, the experiment or the run.
        """
        params = flatten(config)
        labels = {**(tags or {}), RUN_DIR_TAG: str(Path(run_dir).absolute())}
        with _user_errors(uri):
            client = _connect(uri)
            if run_id is None:
                run = client.create_run(_experiment(client, uri, experiment), tags=labels, run_name=run_name)
                last_steps: dict[str, int] = {}
            else:
                run = client.get_run(run_id)
                client.update_run(run_id, status="RUNNING")
                logged = run.data.params
                changed = {key: value for key, value in params.items() if logged.get(key, value) != value}
                labels |= {RESUMED_TAG + key: value for key, value in changed.items()}
                for key, value in labels.items():
                    client.set_tag(run_id, key, value)
                params = {key: value for key, value in params.items() if key not in logged}
                last_steps = {metric.key: metric.step for metric in run.to_proto().data.metrics}
            tracker = cls(client, run.info.run_id, last_steps)
            tracker._log_params(params)
        return tracker

    def log(self, step: int, metrics: Mapping[str, float], *, again: bool = False) -> None:
        """Adds metrics of a step, leaving out those that a continued run held already, unless they are logged `again`.

        A key counts as held up to the last step that was stored of it.
        """
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for key, value in metrics.items():
            if again or step > self._last_steps.get(key, -1):
                self._buffer.append(Metric(key, float(value), now, step))
        if len(self._buffer) >= FLUSH_METRICS or time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Sends what is buffered."""
        while self._buffer:
            self._client.log_batch(self.run_id, metrics=self._buffer[:METRICS_PER_BATCH])
            del self._buffer[:METRICS_PER_BATCH]
        self._flushed = time.monotonic()

    def log_artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Copies a file to the run's artifacts, below `folder`."""
        self._client.log_artifact(self.run_id, str(path), folder)

    def describe(self, markdown: str) -> None:
        """Sets the description that the UI shows with the run."""
        self._client.set_tag(self.run_id, "mlflow.note.content", markdown)

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
        """Sends what is left and ends the run."""
        self.flush()
        self._client.set_terminated(self.run_id, status)

    def _log_params(self, params: dict[str, str]) -> None:
        from mlflow.entities import Param

        entries = [Param(key, value) for key, value in params.items()]
        for start in range(0, len(entries), PARAMS_PER_BATCH):
            self._client.log_batch(self.run_id, params=entries[start : start + PARAMS_PER_BATCH])


def find_run_dir(uri: str, run_id: str) -> Path:
    """The run directory of an MLflow run.

    Raises:
        TrackingError: no such store or run, not a run of distmeta, or its directory is not on this machine.
    """
    check_store(uri)
    _must_exist(uri)
    with _user_errors(uri):
        tags = _connect(uri).get_run(run_id).data.tags
    if RUN_DIR_TAG not in tags:
        raise TrackingError(f"MLflow run {run_id}", f"has no tag {RUN_DIR_TAG}", "give a run of distmeta")
    run_dir = Path(tags[RUN_DIR_TAG])
    if not run_dir.is_dir():
        raise TrackingError(f"MLflow run {run_id}", f"{run_dir} is not on this machine", "give its run directory")
    return run_dir


def _must_exist(uri: str) -> None:
    """Looking something up creates no database."""
    if uri.startswith("sqlite:") and not database(uri).exists():
        raise TrackingError("tracking.uri", f"{database(uri)} does not exist", "name the store of the run")


def ui_command(uri: str, port: int) -> list[str]:
    """The command that shows an SQLite store at http://127.0.0.1:PORT.

    Raises:
        TrackingError: the store is a server, which shows itself, or does not exist.
    """
    if uri.startswith(("http://", "https://")):
        raise TrackingError("tracking.uri", "is an MLflow server already", f"open {mask(uri)} in a browser")
    check_store(uri)
    _must_exist(uri)
    options = ["--backend-store-uri", uri, "--artifacts-destination", str(_artifact_folder(uri))]
    options += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "ui", *options]
