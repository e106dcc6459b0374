"""The pool of Ray actors, and the server actor that drives it. The driver only asks for outer steps and results.

The server, not the driver, dispatches units: a step then costs one hop to each worker and back.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
import subprocess
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

# Read by ray when it is imported: nothing is reported anywhere unless the user asks for it.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import ray
import torch
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distmeta.config import ClusterConfig
from distmeta.errors import ClusterError
from distmeta.types import Done, Lost, ServerState, StepReport, Unit, UnitResult, Work

if TYPE_CHECKING:
    from distmeta.backends import Setup

CONNECT_SECONDS, ANSWER_SECONDS = 3, 8  # for a cluster's port to open, and for it to say that it is healthy
PLACE_SECONDS = 180  # for all actors to start


class WorkerActor:
    """A worker in a process of its own."""

    def __init__(self, setup: Setup, name: str, device: str) -> None:
        torch.set_num_threads(1)
        self._worker = setup.make_worker(name, device)

    def ready(self) -> bool:
        """Answers once the worker is built."""
        return True

    def run(self, work: Work, unit: Unit, vector: np.ndarray) -> UnitResult:
        """Works on a unit."""
        return self._worker.run(work, unit, vector)


class RayPool:
    """Worker actors by name, as the server actor sees them. Ray restarts an actor that died."""

    def __init__(self, actors: dict[str, Any]) -> None:
        self.workers = tuple(actors)
        self._actors = actors
        self._running: dict[Any, str] = {}

    def publish(self, vector: np.ndarray) -> Any:
        """Puts the vector into the object store, once for all workers of a node."""
        return ray.put(vector)

    def submit(self, worker: str, work: Work, unit: Unit, handle: Any) -> None:
        """Calls the actor."""
        self._running[self._actors[worker].run.remote(work, unit, handle)] = worker

    def wait(self) -> list[Done | Lost]:
        """Blocks until at least one call has ended."""
        ready, _ = ray.wait(list(self._running), num_returns=1)
        events: list[Done | Lost] = []
        for reference in ready:
            worker = self._running.pop(reference)
            try:
                events.append(Done(worker, ray.get(reference)))
            except (ActorDiedError, ActorUnavailableError) as error:
                events.append(Lost(worker, str(error).splitlines()[0]))
        return events


class ServerActor:
    """The coordinator and the parameter server, in a process of their own."""

    def __init__(self, setup: Setup, actors: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        self._coordinator = setup.make_coordinator(RayPool(actors))

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls the coordinator."""
        return getattr(self._coordinator, method)(*arguments)


class RemoteCoordinator:
    """The coordinator in the server actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return ray.get(self._actor.call.remote(method, *arguments))
        except RayTaskError as error:
            # A TrainingError raised in the actor is one here too.
            raise error.as_instanceof_cause() from None

    def advance(self, steps: int) -> list[StepReport]:
        """Runs outer steps."""
        reports: list[StepReport] = self._call("advance", steps)
        return reports

    def evaluate(
        self, work: Work, first_index: int, count: int, per_unit: int, initial: bool = False
    ) -> dict[str, np.ndarray]:
        """Evaluates consecutive episodes of a stream."""
        metrics: dict[str, np.ndarray] = self._call("evaluate", work, first_index, count, per_unit, initial)
        return metrics

    def state(self) -> ServerState:
        """The server's state."""
        state: ServerState = self._call("state")
        return state

    def load(self, state: ServerState) -> None:
        """Goes back to a state."""
        self._call("load", state)


class RayBackend:
    """Connects to Ray on entry; on exit kills its actors and disconnects, or ends the private Ray that it started.

    A process that is connected already (a notebook, a test session) stays so.
    """

    def __init__(self, cluster: ClusterConfig) -> None:
        self.cluster = cluster
        self._actors: list[Any] = []
        self._owns_connection = False
        self._environment: dict[str, str | None] = {}

    def __enter__(self) -> Self:
        if not ray.is_initialized():
            self._owns_connection = True
            try:
                self._connect()
            except BaseException:
                self._disconnect()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for actor in self._actors:
            ray.kill(actor)
        if self._owns_connection:
            self._disconnect()

    def start(self, setup: Setup) -> RemoteCoordinator:
        """Builds the worker actors and the server actor, and waits until all are ready."""
        cluster = self.cluster
        resources = ray.cluster_resources()
        gpus = gpus_per_worker(cluster, resources.get("GPU", 0))
        require("cluster.workers", "CPU", cluster.workers * cluster.cpus_per_worker, resources.get("CPU", 0))
        shared = ray.put(setup)
        worker_class = ray.remote(WorkerActor).options(
            num_cpus=cluster.cpus_per_worker, num_gpus=gpus, max_restarts=-1, max_task_retries=0
        )
        device = "cuda" if gpus else "cpu"
        workers = {str(n): worker_class.remote(shared, str(n), device) for n in range(cluster.workers)}
        self._actors += workers.values()
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        server_class = ray.remote(ServerActor).options(num_cpus=0, scheduling_strategy=here)
        server = server_class.remote(shared, workers)
        self._actors.append(server)
        ready = [worker.ready.remote() for worker in workers.values()]
        done, late = ray.wait(ready, num_returns=len(ready), timeout=PLACE_SECONDS)
        if late:
            free = {name: round(value, 2) for name, value in ray.available_resources().items() if "U" in name}
            raise ClusterError(
                "cluster.workers",
                f"only {len(done)} of {len(ready)} workers started within {PLACE_SECONDS} s (free now: {free})",
                "ask for fewer workers, or free the cluster",
            )
        ray.get(done)
        return RemoteCoordinator(server)

    def _connect(self) -> None:
        if address := cluster_address(self.cluster):
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            return
        # Ray listens on all interfaces: a token that nobody else has keeps a private cluster private.
        self._set_environment("RAY_AUTH_MODE", "token")
        self._set_environment("RAY_AUTH_TOKEN", secrets.token_hex(32))
        cpus = max(os.cpu_count() or 1, math.ceil(self.cluster.workers * self.cluster.cpus_per_worker))
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )

    def _disconnect(self) -> None:
        ray.shutdown()
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def _set_environment(self, name: str, value: str) -> None:
        self._environment[name] = os.environ.get(name)
        os.environ[name] = value


def cluster_address(cluster: ClusterConfig) -> str | None:
    """The cluster to join: as configured, or the one that this process was submitted to. None for a private Ray."""
    return cluster.address or os.environ.get("RAY_ADDRESS") or None


def preflight(cluster: ClusterConfig) -> None:
    """Refuses an address where no Ray answers and, for a private Ray, more GPUs than this machine has."""
    if ray.is_initialized():
        return
    if address := cluster_address(cluster):
        require_answer(address)
    else:
        gpus_per_worker(cluster, torch.cuda.device_count())


def gpus_per_worker(cluster: ClusterConfig, available: float) -> float:
    """GPUs each worker gets: as configured, else an equal share of those there are, one at most.

    Raises:
        ClusterError: more are asked for than there are.
    """
    if cluster.gpus_per_worker is None:
        share = available / cluster.workers
        return 1.0 if share >= 1 else math.floor(share * 100) / 100
    require("cluster.gpus_per_worker", "GPU", cluster.workers * cluster.gpus_per_worker, available)
    return cluster.gpus_per_worker


def require(key: str, kind: str, wanted: float, available: float) -> None:
    """Raises a `ClusterError` where the cluster never has enough of a resource."""
    if wanted > available:
        raise ClusterError(
            key,
            f"the workers ask for {wanted:g} {kind}s together, the cluster has {available:g}",
            "ask for fewer",
        )


def require_answer(address: str) -> None:
    """Raises a `ClusterError` where no Ray answers at an address."""
    if "://" in address:
        raise ClusterError(
            "cluster.address",
            f"{address} is not host:port",
            "run on the cluster with `distmeta submit CONFIG --address http://head:8265`",
        )
    remedy = "start one with `ray start --head`, or leave the key out for a private Ray"
    silent = ClusterError("cluster.address", f"no Ray answers at {address}", remedy)
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    if address != "auto":
        command += ["--address", address]
        host, _, port = address.rpartition(":")
        if not port.isdigit():
            raise ClusterError("cluster.address", f"{address} is not host:port", "write for example 10.0.0.5:6379")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            raise silent from error
    try:
        # In a process of its own: ray's own attempts to connect cannot be interrupted.
        result = subprocess.run(command, timeout=ANSWER_SECONDS, capture_output=True, check=False)
    except subprocess.TimeoutExpired as error:
        raise silent from error
    if result.returncode:
        raise silent
