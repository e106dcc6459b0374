"""Trials on Ray Tune: what each is given of the cluster, and how it ends."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray import tune
from ray.tune.search import Searcher

from distmeta import tracking
from distmeta.backends.ray import possible_resources, worker_gpus
from distmeta.config import ClusterConfig, RunConfig
from distmeta.errors import ClusterError
from distmeta.tune.records import Records, Trial
from distmeta.tune.trial import run_trial

GIB = 2**30
Follow = Callable[[Trial], None]


class Plan(NamedTuple):
    """What a trial is given: one bundle of resources for its own process and server, then one for each worker."""

    bundles: list[dict[str, float]]
    at_once: int
    total: dict[str, float]  # what the cluster has or could have

    @classmethod
    def of(cls, config: RunConfig) -> Plan:
        """The plan on the cluster that this process is connected to.

        A trial's own process is on this machine, where its directory is; its workers are wherever there is room.

        Raises:
            ClusterError: a trial that could never start.
        """
        assert config.tune is not None
        cluster, total = config.cluster, possible_resources()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if total != ray.cluster_resources():  # it would start machines, of which only the sum is known
            nodes = [total]
        here = {f"node:{ray.util.get_node_ip_address()}": 0.001}
        bundles = _bundles(cluster, here)
        worker, count = bundles[-1], max(1, len(bundles) - 1)
        # A worker lies on one machine: what is left over on several does not add up to room for another.
        places = sum(min(int(node.get(name, 0) / amount + 1e-9) for name, amount in worker.items()) for node in nodes)
        if places < count:
            lacks = [name for name, amount in worker.items() if count * amount > total.get(name, 0)]
            found = f"a trial has {count} workers, on the machines of the cluster there is room for {places}"
            if lacks:
                found = f"a trial needs {count * worker[lacks[0]]:g} {lacks[0]}, "
                found += f"the cluster has {total.get(lacks[0], 0):g}"
            raise ClusterError("cluster.workers", found, "give a trial fewer workers, or each of them less")
        room = places // count
        return cls(bundles, min(room, config.tune.concurrent or room, config.tune.trials), total)


def _bundles(cluster: ClusterConfig, here: dict[str, float]) -> list[dict[str, float]]:
    worker = {
        "CPU": cluster.cpus_per_worker,
        "GPU": worker_gpus(cluster),
        "memory": (cluster.memory_per_worker or 0) * GIB,
    }
    worker = {name: float(amount) for name, amount in {**worker, **cluster.resources_per_worker}.items() if amount}
    if cluster.backend == "inprocess":
        return [{**worker, **here}]
    return [here, *[worker] * cluster.range.max]


class Execution:
    """Runs trials, and keeps their records.

    Args:
        records: where.
        config: the study's.
        parent: its MLflow run.
        plan: of a trial.
        follow: is told of a trial whenever there is news of it.
    """

    def __init__(self, records: Records, config: RunConfig, parent: str, plan: Plan, follow: Follow) -> None:
        self.records, self.config, self.parent = records, config, parent
        self.plan, self.follow = plan, follow

    def run(self, names: Iterable[str | None], ended: Follow) -> None:
        """Runs trials as far as they go for now (see `Trial.until`).

        Args:
            names: of the trials, asked for one after another; each must be in the records by then. None where the next
                cannot be told yet: it is asked for again.
            ended: is told of each trial whose process is done with it.
        """
        assert self.config.tune is not None
        # Ray Tune keeps files of its own, which are not read again.
        with tempfile.TemporaryDirectory(prefix="distmeta-tune-") as storage:
            os.environ.update(QUIET)
            common: dict[str, Any] = {
                "folder": self.records.folder,
                "config": self.config,
                "parent": self.parent,
                "environment": tracking.environment(),  # a cluster's processes have one of their own
            }
            trainable = partial(run_trial, **common)
            searcher = _Names(self, iter(names), ended)
            tuner = tune.Tuner(
                tune.with_resources(trainable, tune.PlacementGroupFactory(self.plan.bundles)),
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    num_samples=-1,
                    max_concurrent_trials=self.plan.at_once,
                    reuse_actors=True,  # what a process has imported takes seconds
                ),
                run_config=tune.RunConfig(
                    name="study",
                    storage_path=storage,
                    failure_config=tune.FailureConfig(max_failures=self.config.tune.retries),
                    callbacks=[_News(searcher)],
                    verbose=0,
                ),
            )
            tuner.fit()


QUIET = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


class _Unsaved:
    """Ray Tune pickles what it is given into its own files; nobody reads those."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Names(_Unsaved, Searcher):  # type: ignore[misc]
    """Hands out trials by name, and notes what becomes of them."""

    def __init__(self, execution: Execution, names: Iterator[str | None], ended: Follow) -> None:
        super().__init__()
        self.execution, self.names, self.ended = execution, names, ended
        self.name_of: dict[str, str] = {}  # by Ray Tune's id

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        name = next(self.names, Searcher.FINISHED)
        if name is None or name == Searcher.FINISHED:
            return name
        self.name_of[trial_id] = name
        return {"name": name}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if not error:  # else `failed` is called next, with the reason
            self._ended(self.execution.records.read(self.name_of[trial_id]))

    def failed(self, trial_id: str, reason: str) -> None:
        """A trial's process was lost too often, perhaps before it had begun."""
        records = self.execution.records
        trial = records.read(self.name_of[trial_id])
        if not trial.is_over:
            trial.status, trial.reason = "failed", reason
            records.write(trial)
        self._ended(trial)

    def _ended(self, trial: Trial) -> None:
        self.ended(trial)
        self.execution.follow(trial)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()


class _News(_Unsaved, tune.Callback):  # type: ignore[misc]
    """Passes on what is new of a trial."""

    def __init__(self, searcher: _Names) -> None:
        self.searcher = searcher

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        execution = self.searcher.execution
        execution.follow(execution.records.read(self.searcher.name_of[trial.trial_id]))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        # Here, and only later where Ray Tune would read it.
        path = trial.error_file and Path(trial.error_file)
        lines = path.read_text(encoding="utf-8").split("\n") if path and path.exists() else []
        said = [line.strip() for line in lines if line.strip()]
        self.searcher.failed(trial.trial_id, said[-1] if said else "its process was lost")
