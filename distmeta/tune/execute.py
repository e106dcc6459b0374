"""Trials on Ray Tune: what each is given of the cluster, which comes next, and which is stopped early."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from distmeta import tracking
from distmeta.backends.ray import possible_resources, worker_gpus
from distmeta.config import ClusterConfig, RunConfig
from distmeta.errors import ClusterError
from distmeta.tune.records import Records, Trial
from distmeta.tune.trial import SCORE, STEP, run_trial
from distmeta.types import Score

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
        score: which scores are better.
        follow: is told of a trial whenever there is news of it.
    """

    def __init__(
        self, records: Records, config: RunConfig, parent: str, plan: Plan, score: Score, follow: Follow
    ) -> None:
        self.records, self.config, self.parent = records, config, parent
        self.plan, self.score, self.follow = plan, score, follow

    def run(
        self, names: Iterable[str], limit: int, settle: Callable[[Trial], None], early: bool, until: int | None = None
    ) -> None:
        """Runs the trials of these names, which are asked for one after another; each must be in the records by then.

        Args:
            names: of the trials.
            limit: of their number.
            settle: is told of each trial that is over.
            early: whether trials may be stopped early.
            until: the outer step to which they go; none: their last.
        """
        assert self.config.tune is not None
        # Ray Tune keeps files of its own, which are not read again.
        with tempfile.TemporaryDirectory(prefix="distmeta-tune-") as storage:
            os.environ.update(QUIET)
            common: dict[str, Any] = {
                "folder": self.records.folder,
                "config": self.config,
                "parent": self.parent,
                "until": until,
                "environment": tracking.environment(),  # a cluster's processes have one of their own
            }
            trainable = partial(run_trial, **common)
            searcher = _Names(self, iter(names), settle)
            tuner = tune.Tuner(
                tune.with_resources(trainable, tune.PlacementGroupFactory(self.plan.bundles)),
                tune_config=tune.TuneConfig(
                    metric=SCORE,
                    mode="max" if self.score.higher_is_better else "min",
                    search_alg=searcher,
                    scheduler=self._scheduler() if early else FIFOScheduler(),
                    num_samples=limit,
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

    def _scheduler(self) -> TrialScheduler:
        tuned = self.config.tune
        assert tuned is not None
        if tuned.scheduler != "asha":
            return FIFOScheduler()
        grace = tuned.grace_steps or self.config.quarter
        return AsyncHyperBandScheduler(
            time_attr=STEP,
            max_t=max(self.config.outer.steps, grace),
            grace_period=grace,
            reduction_factor=tuned.reduction_factor,
            stop_last_trials=False,  # a trial that has come to its end ends by itself
        )


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
    """Hands out trials by name, and settles what becomes of them."""

    def __init__(self, execution: Execution, names: Any, settle: Callable[[Trial], None]) -> None:
        super().__init__()
        self.execution, self.names, self.settle = execution, names, settle
        self.name_of: dict[str, str] = {}  # by Ray Tune's id

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        name = next(self.names, None)
        if name is None:
            return Searcher.FINISHED
        self.name_of[trial_id] = name
        return {"name": name}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if not error:  # else `failed` is called next, with the reason
            self._over(trial_id, "stopped", "")

    def failed(self, trial_id: str, reason: str) -> None:
        """A trial's process was lost too often, perhaps before it had begun."""
        self._over(trial_id, "failed", reason)

    def _over(self, trial_id: str, status: Literal["stopped", "failed"], reason: str) -> None:
        records = self.execution.records
        trial = records.read(self.name_of[trial_id])
        if trial.status == "running" or (status == "failed" and not trial.is_over):
            trial.status, trial.reason = status, reason
            records.write(trial)
        if trial.is_over:  # and not at the end of a round
            self.settle(trial)
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
