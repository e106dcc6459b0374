"""Connects to a Ray cluster or starts a private one, and places a run's actors on it."""

from __future__ import annotations

import math
import os
import secrets
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distmeta.backends.machine import raise_limits, ray_folder, store_bytes, store_folder
from distmeta.backends.private import job_config, private_processes, resource_limits
from distmeta.backends.resources import cluster_address, gpus_per_worker, require, usable_cpus
from distmeta.backends.server import RemoteCoordinator, ServerActor
from distmeta.backends.workers import WorkerFactory, ask_place
from distmeta.config import ClusterConfig
from distmeta.errors import ClusterError

if TYPE_CHECKING:
    from distmeta.backends.base import Note, Setup

GIB = 2**30
NOTE_SECONDS = 20  # between two notes on workers that have not started


class RayBackend:
    """Connects to Ray on entry; on exit kills its actors and disconnects, or ends the private Ray that it started.

    A process that was connected already (a notebook, a test session) stays connected.
    """

    def __init__(self, cluster: ClusterConfig) -> None:
        self.cluster = cluster
        self._actors: list[Any] = []
        self._owns_connection = False
        self._remark = ""  # on how it was started

    def __enter__(self) -> Self:
        if not ray.is_initialized():
            self._owns_connection = True
            try:
                self._connect()
            except BaseException:
                ray.shutdown()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for actor in self._actors:
            ray.kill(actor)
        if self._owns_connection:
            ray.shutdown()

    def start(self, setup: Setup, note: Note) -> RemoteCoordinator:
        """Builds the worker actors and the server actor, and waits until the minimum number of workers is ready.

        Raises:
            ClusterError: the cluster lacks resources, or did not start the workers in time.
        """
        cluster = self.cluster
        if self._remark:
            note(self._remark)
        possible, gpus = possible_resources(), worker_gpus(cluster)
        fewest = cluster.range.min
        memory, custom = cluster.memory_per_worker or 0, cluster.resources_per_worker
        require("cluster.workers", "CPUs", fewest * cluster.cpus_per_worker, possible.get("CPU", 0))
        require("cluster.memory_per_worker", "GiB", fewest * memory, possible.get("memory", 0) / GIB)
        for name, amount in custom.items():
            require(f"cluster.resources_per_worker.{name}", name, fewest * amount, possible.get(name, 0))
        shared = [ray.put(setup)]  # in a list, else Ray would resolve the reference before the call
        options = {
            "num_cpus": cluster.cpus_per_worker,
            "num_gpus": gpus,
            "memory": int(memory * GIB) or None,
            "resources": custom,
        }
        make_worker = WorkerFactory(options, "cuda" if gpus else "cpu")
        workers = {name: make_worker(name) for name in map(str, range(cluster.range.max))}
        self._actors += workers.values()
        # On the driver's node only: elsewhere it could be lost with a worker's machine. It ends with the driver anyway.
        strategy = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        by_node = cluster.reduce == "node"
        # Two calls at once, so that it can report progress during a call.
        server_class = ray.remote(ServerActor).options(num_cpus=0, scheduling_strategy=strategy, max_concurrency=2)

        def start_server() -> Any:
            self._actors.append(server_class.remote(shared, workers, make_worker, cluster.server_shards, by_node))
            return self._actors[-1]

        coordinator = RemoteCoordinator(start_server, note)
        self._await(list(workers.values()), shared, note)
        return coordinator

    def _await(self, workers: list[Any], shared: list[Any], note: Note) -> None:
        """Waits for the minimum number of workers; a cluster may have to start machines for them."""
        fewest, waited = self.cluster.range.min, 0
        places = [ask_place(worker, shared) for worker in workers]
        while True:
            ready, _ = ray.wait(places, num_returns=fewest, timeout=NOTE_SECONDS)
            ray.get(ready)  # raises the error of an actor that could not be built
            if len(ready) >= fewest:
                return
            waited += NOTE_SECONDS
            free = ray.available_resources()
            left = f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs are free"
            state = f"{len(ready)} of {fewest} workers have started in {waited} s, {left}"
            if waited >= self.cluster.start_timeout_seconds:
                raise ClusterError("cluster.workers", state, "ask for fewer, free the cluster, or wait longer")
            note(f"waiting: {state}")

    def _connect(self) -> None:
        if address := cluster_address(self.cluster):
            ray.init(address=address, job_config=job_config(), log_to_driver=False, logging_level="ERROR")
            return
        # By default Ray asks for a token: a secret one keeps a private cluster private. It is in the environment, else
        # Ray would write it to a file that outlives the cluster.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        raise_limits()
        folder, self._remark = ray_folder()
        if folder:
            self._remark += f": Ray's sockets and logs are in {folder}"
        cpus = max(usable_cpus(), math.ceil(self.cluster.range.min * self.cluster.cpus_per_worker))
        try:
            with private_processes():
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    job_config=job_config(),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    object_store_memory=store_bytes(),
                    _plasma_directory=store_folder(),
                    _temp_dir=str(folder) if folder else None,
                )
        except Exception as error:  # of many classes, such as Exception itself
            found = f"Ray did not start on this machine ({str(error).strip().splitlines()[0]})"
            remedy = "raise the limits that `ulimit -a` shows, free memory, or set cluster.backend=inprocess"
            raise ClusterError("cluster.backend", found, remedy) from error


def worker_gpus(cluster: ClusterConfig) -> float:
    """The share of a GPU that each worker gets on the connected cluster."""
    # GPUs of machines that are not started yet count only if the configuration asks for GPUs.
    resources = ray.cluster_resources() if cluster.gpus_per_worker is None else possible_resources()
    return gpus_per_worker(cluster, resources.get("GPU", 0))


def possible_resources() -> dict[str, float]:
    """What the cluster has or could have: an autoscaling one starts machines when actors ask for them."""
    limits, present = resource_limits(), ray.cluster_resources()
    return {name: max(present.get(name, 0), limits.get(name, 0)) for name in {*present, *limits}}
