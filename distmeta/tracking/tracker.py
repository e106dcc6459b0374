"""Logs a run. Entries are sent in batches, and wait while MLflow is away."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from distmeta.tracking import private
from distmeta.tracking.machine import Machine
from distmeta.tracking.models import Content
from distmeta.tracking.models import log as log_model
from distmeta.tracking.origin import Dataset, send_dataset
from distmeta.tracking.outbox import Outbox
from distmeta.tracking.sqlite import BUSY_SECONDS, require_unlocked
from distmeta.tracking.store import (
    RETRY_SECONDS,
    RUN_DIR_TAG,
    connect,
    experiment_id,
    find_artifacts,
    is_outage,
    outages,
    user_errors,
)
from distmeta.tracking.uri import database, mask

REASON_TAG, KEY_TAG = "distmeta.reason", "distmeta.key"
RESUMED_TAG = "distmeta.resumed."  # + parameter: the value since a resume; MLflow's parameters cannot change
PARAMS_PER_BATCH, METRICS_PER_BATCH, PARAM_LENGTH = 100, 1000, 6000  # MLflow's limits
FLUSH_METRICS, FLUSH_SECONDS = 500, 2.0
FINISH_SECONDS = 60.0  # how long the end of a run waits for an MLflow that is away
UNSENT = "unsent.jsonl"

Note = Callable[[str], None]
Ended = Literal["FINISHED", "FAILED", "KILLED"]


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
    """One MLflow run, made by `start`. Entries are sent in batches, and wait while MLflow is away."""

    def __init__(
        self, uri: str, client: Any, run_id: str, last_steps: dict[str, int], outbox: Outbox, note: Note
    ) -> None:
        self.run_id = run_id
        self._database = database(uri) if uri.startswith("sqlite:") else None
        self._client, self._last_steps, self._outbox, self._note = client, last_steps, outbox, note
        self._flushed, self._away_until = time.monotonic(), 0.0
        self._machine: Machine | None = None
        for entry in outbox.entries:
            if metric := entry.get("metric"):
                self._last_steps[metric[0]] = max(metric[3], self._last_steps.get(metric[0], -1))

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
        key: str | None = None,
        tags: Mapping[str, str] | None = None,
        origin: Callable[[], Mapping[str, str]] = dict,
        has_system_metrics: bool = False,
        note: Note = print,
    ) -> Tracker:
        """Creates a run, or continues one.

        Args:
            uri: a resolved and checked store.
            experiment: created if it does not exist.
            run_name: what the MLflow UI shows.
            config: nested; logged as parameters with dotted keys.
            run_dir: the run directory, stored as a tag for `find_run_dir`. Entries that cannot be sent wait there.
            run_id: the run to continue. Its parameters stay, changed values become tags
                ``distmeta.resumed.KEY``, and steps that it already has are not logged again.
            key: identifies a run whose id is unknown, because the process that created the run was killed before it
                could store the id. If a run with this key exists, it is continued.
            tags: further tags, such as ``mlflow.parentRunId``.
            origin: gives tags of a new run alone, such as ``mlflow.user``.
            has_system_metrics: also log what this machine does, while metrics are logged.
            note: is called with a message when MLflow goes away or comes back.

        Raises:
            TrackingError: MLflow refuses the store, the experiment or the run.
        """
        params = flatten(config)
        labels = {**(tags or {}), RUN_DIR_TAG: str(Path(run_dir).absolute()), **({KEY_TAG: key} if key else {})}
        with user_errors(uri):
            find_artifacts(uri, note)
            client = connect(uri)
            if run_id is None:
                group = experiment_id(client, uri, experiment)
                runs = client.search_runs([group], f"tags.`{KEY_TAG}` = '{key}'") if key else []
                run_id = runs[0].info.run_id if runs else None
            if run_id is None:
                run = client.create_run(group, tags={**origin(), **labels}, run_name=run_name)
                last_steps: dict[str, int] = {}
            else:
                run = client.get_run(run_id)
                client.update_run(run_id, status="RUNNING")
                logged = run.data.params
                changed = {key: value for key, value in params.items() if logged.get(key, value) != value}
                labels |= {RESUMED_TAG + key: value for key, value in changed.items()}
                for label, value in labels.items():
                    client.set_tag(run_id, label, value)
                params = {key: value for key, value in params.items() if key not in logged}
                last_steps = private.last_steps(run)
            outbox = Outbox(Path(run_dir) / UNSENT)
            # The run continues: an end that the last process could not send is out of date.
            outbox.drop("end")
            tracker = cls(uri, client, run.info.run_id, last_steps, outbox, note)
            tracker._log_params(params)
            tracker._machine = Machine() if has_system_metrics else None
        return tracker

    def log(self, step: int, metrics: Mapping[str, float], *, again: bool = False) -> None:
        """Adds metrics of a step. Metrics that the run already has are left out, unless they are logged `again`.

        The run has a metric up to the metric's last logged step, also from before the run was continued.
        """
        now = int(time.time() * 1000)
        for key, value in metrics.items():
            if again or step > self._last_steps.get(key, -1):
                self._outbox.entries.append({"metric": [key, float(value), now, step]})
                self._last_steps[key] = step
        if self._machine and (load := self._machine.look()):
            number = max((self.last_step(key) for key in load), default=-1) + 1
            for key, value in load.items():
                self._outbox.entries.append({"metric": [key, value, now, number]})
                self._last_steps[key] = number
        if len(self._outbox.entries) >= FLUSH_METRICS or time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def log_artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Copies a file to the run's artifacts, below `folder`."""
        self._outbox.entries.append({"artifact": [self._kept(path), folder]})
        self.flush()

    def log_dataset(self, dataset: Dataset) -> None:
        """Adds a split of the run's data."""
        self._outbox.entries.append({"dataset": dataset._asdict()})

    def log_model(self, model: Content) -> None:
        """Logs what the run has learned as a model, unless the run has it already."""
        self._outbox.entries.append({"model": model._replace(folder=self._kept(model.folder))._asdict()})
        self.flush()

    def describe(self, markdown: str) -> None:
        """Sets the description that the UI shows with the run."""
        self._outbox.entries.append({"tag": ["mlflow.note.content", markdown]})

    def last_step(self, key: str) -> int:
        """The last logged step of a metric; -1 before the first."""
        return self._last_steps.get(key, -1)

    def finish(self, status: Ended = "FINISHED", is_trial: bool = False) -> None:
        """Sends the remaining entries and ends the run; if it finished, waits a while for an MLflow that is away.

        A trial does not wait: its study sends the rest.
        """
        self._outbox.entries.append({"end": status})
        until = time.monotonic() + (FINISH_SECONDS if status == "FINISHED" and not is_trial else 0)
        self.flush(now=status == "FINISHED")
        while self._outbox.entries and time.monotonic() < until:
            time.sleep(1)
            self.flush(now=True)
        if self._outbox.entries:
            path = self._outbox.path
            self._note(
                f"MLflow did not come back: {path} has the unsent entries; `distmeta sync {path.parent}` sends them"
            )

    def flush(self, *, now: bool = False) -> None:
        """Sends the waiting entries. While MLflow is away, keeps them on disk and retries now and then, or `now`."""
        self._flushed = time.monotonic()
        if not self._outbox.entries:
            return
        if now or self._flushed >= self._away_until:
            try:
                if self._database:
                    require_unlocked(self._database, BUSY_SECONDS)
                while self._outbox.entries:
                    self._outbox.take(self._send())
            except outages() as error:
                if not is_outage(error):
                    raise
                if not self._away_until:
                    self._note(f"MLflow is away ({mask(str(error).splitlines()[0])}); metrics wait on disk")
                self._away_until = time.monotonic() + RETRY_SECONDS
            else:
                if self._away_until:
                    self._note("MLflow is back and has all entries that waited")
                self._away_until = 0.0
        self._outbox.keep()

    def _send(self) -> int:
        """Sends the first entries that fit into one request; returns their number."""
        from mlflow.entities import Metric

        ((kind, values),) = self._outbox.entries[0].items()
        match kind:
            case "metric":
                first = self._outbox.entries[:METRICS_PER_BATCH]
                metrics = list(itertools.takewhile(lambda entry: "metric" in entry, first))
                self._client.log_batch(self.run_id, metrics=[Metric(*entry["metric"]) for entry in metrics])
                return len(metrics)
            case "artifact":
                path = self._outbox.path.parent / values[0]
                if path.exists():
                    self._client.log_artifact(self.run_id, path, values[1])
                else:  # it would never be sent
                    self._note(f"{path} is no longer there; MLflow does not get it")
            case "dataset":
                send_dataset(self._client, self.run_id, Dataset(**values))
            case "model":
                folder = self._outbox.path.parent / values["folder"]
                if folder.exists():
                    group = self._client.get_run(self.run_id).info.experiment_id
                    model = Content(**values)._replace(folder=str(folder))
                    log_model(self._client, group, self.run_id, model)
                else:
                    self._note(f"{folder} is no longer there; MLflow does not get it")
            case "tag":
                self._client.set_tag(self.run_id, *values)
            case _:
                self._client.set_terminated(self.run_id, values)
        return 1

    def _kept(self, path: str | Path) -> str:
        """A path as entries hold it: relative if it is in the run's directory, which may be moved before it is sent."""
        full, run_dir = Path(path).absolute(), self._outbox.path.parent.absolute()
        return str(full.relative_to(run_dir) if full.is_relative_to(run_dir) else full)

    def _log_params(self, params: dict[str, str]) -> None:
        from mlflow.entities import Param

        entries = [Param(key, value) for key, value in params.items()]
        for start in range(0, len(entries), PARAMS_PER_BATCH):
            self._client.log_batch(self.run_id, params=entries[start : start + PARAMS_PER_BATCH])
