"""Trials on Ray Tune: their share of the cluster, and how their processes end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Set
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray import tune
from ray.tune.search import Searcher

from distmeta import tracking
from distmeta.backends.private import error_text
from distmeta.backends.ray import GIB, possible_resources, worker_gpus
from distmeta.config import RunConfig
from distmeta.errors import ClusterError
from distmeta.tune.records import Records, Trial
from distmeta.tune.trial import run_trial

Queue = Callable[[Set[str]], Iterator[str | None]]
Follow = Callable[[Trial], None]
QUIET = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


class Plan(NamedTuple):
    """A trial's share of the cluster: a bundle of resources for its own process and server, then one per worker."""

    bundles: list[dict[str, float]]
    at_once: int
    total: dict[str, float]  # what the cluster has or could start

    @classmethod
    def of(cls, config: RunConfig) -> Plan:
        """The plan on the cluster that this process is connected to.

        A trial's own process runs on this machine, where the trial's directory is. The workers run wherever there is
        room.

        Raises:
            ClusterError: a trial could never start.
        """
        assert config.tune is not None
        cluster, total = config.cluster, possible_resources()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if total != ray.cluster_resources():  # the cluster can start machines: only their sum is known
            nodes = [total]
        here = {f"node:{ray.util.get_node_ip_address()}": 0.001}
        amounts = {
            "CPU": cluster.cpus_per_worker,
            "GPU": worker_gpus(cluster),
            "memory": (cluster.memory_per_worker or 0) * GIB,
            **cluster.resources_per_worker,
        }
        worker = {name: float(amount) for name, amount in amounts.items() if amount}
        bundles, count = [here, *[worker] * cluster.range.max], cluster.range.max
        if cluster.backend == "inprocess":
            worker, count = worker | here, 1
            bundles = [worker]
        # A worker needs one machine: what is free on several machines does not add up.
        places = sum(min(int(node.get(name, 0) / amount + 1e-9) for name, amount in worker.items()) for node in nodes)
        if places < count:
            found = f"a trial has {count} workers, and the machines of the cluster have room for {places}"
            for name, amount in worker.items():
                if count * amount > total.get(name, 0):
                    found = f"a trial needs {count * amount:g} {name}, the cluster has {total.get(name, 0):g}"
                    break
            raise ClusterError("cluster.workers", found, "give a trial fewer workers, or each worker less")
        room = places // count
        return cls(bundles, min(room, config.tune.concurrent or room, config.tune.trials), total)


def run_trials(
    records: Records,
    config: RunConfig,
    parent: str,
    plan: Plan,
    queue: Queue,
    follow: Follow,
) -> None:
    """Runs trials until they pause or are over (see `Trial.until`).

    Args:
        records: the records of the trials.
        config: the study's configuration.
        parent: the id of the study's MLflow run.
        plan: a trial's share of the cluster.
        queue: takes the names of the running trials, and yields the names to run; each must be in the records by then.
            Yields None if the next name depends on a running trial; the next name is then requested again.
        follow: is called with a trial after each meta-validation and when the trial's process has ended.
    """
    assert config.tune is not None
    os.environ.update(QUIET)
    running = set[str]()
    trainable = partial(
        run_trial,
        folder=records.folder,
        config=config,
        parent=parent,
        environment=tracking.environment(),  # processes on a cluster have an environment of their own
    )
    # Ray Tune writes files of its own, which are not read again.
    with tempfile.TemporaryDirectory(prefix="distmeta-tune-") as storage:
        tune.Tuner(
            tune.with_resources(trainable, tune.PlacementGroupFactory(plan.bundles)),
            tune_config=tune.TuneConfig(
                search_alg=TrialQueue(queue(running), running),
                num_samples=-1,
                max_concurrent_trials=plan.at_once,
                reuse_actors=True,  # a new process takes seconds for imports
            ),
            run_config=tune.RunConfig(
                name="study",
                storage_path=storage,
                failure_config=tune.FailureConfig(max_failures=config.tune.retries),
                callbacks=[ResultCallback(records, running, follow)],
                verbose=0,
            ),
        ).fit()


class _Unsaved:
    """Ray Tune pickles its arguments into its own files, which are not read."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class TrialQueue(_Unsaved, Searcher):  # type: ignore[misc]
    """Gives Ray Tune the names of trials, as their settings."""

    def __init__(self, names: Iterator[str | None], running: set[str]) -> None:
        super().__init__()
        self.names, self.running = names, running

    def suggest(self, trial_id: str) -> Any:
        """The next trial's name; None if there is none yet."""
        name = next(self.names, Searcher.FINISHED)
        if name is None or name == Searcher.FINISHED:
            return name
        self.running.add(name)
        return {"name": name}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Does nothing: `ResultCallback` does this, since it also gets the reason of a failure."""

    def save(self, checkpoint_path: str) -> None:
        """Creates the file that Ray Tune expects."""
        Path(checkpoint_path).touch()


class ResultCallback(_Unsaved, tune.Callback):  # type: ignore[misc]
    """Passes on the results of trials. `trial` is a trial of Ray Tune."""

    def __init__(self, records: Records, running: set[str], follow: Follow) -> None:
        self.records, self.running, self.follow = records, running, follow

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Called when a meta-validation is in the trial's record."""
        self.follow(self.records.read(trial.config["name"]))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Called when a trial's process has ended."""
        self.running.discard(trial.config["name"])
        self.follow(self.records.read(trial.config["name"]))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Called when a trial's process was lost too often, perhaps before the trial began."""
        record = self.records.read(trial.config["name"])
        if not record.is_over:
            reason = error_text(trial).split("\n")[-1].strip()
            record.status, record.reason = "failed", reason or "its process was lost"
            self.records.write(record)
        self.on_trial_complete(iteration, trials, trial)
