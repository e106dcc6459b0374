"""The pool of Ray actors, and the server actor that drives it. The driver only asks for outer steps and results.

The server, not the driver, dispatches units: a step then costs one hop to each worker and back.
"""

from __future__ import annotations

import math
import os
import secrets
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

# Read by ray when it is imported: nothing is reported anywhere unless the user asks for it.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import ray
import torch
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distmeta.backends.resources import cluster_address, gpus_per_worker, require
from distmeta.config import ClusterConfig
from distmeta.errors import ClusterError, TrainingError
from distmeta.types import Done, Lost, ServerState, StepReport, Unit, UnitResult, Work

if TYPE_CHECKING:
    from distmeta.backends import Note, Setup, UnitRunner
    from distmeta.coordinator import Coordinator

NOTE_SECONDS = 20  # between two words on workers that have not started


class WorkerActor:
    """A worker in a process of its own.

    Every call carries the setup, a list of one reference, so that an actor that Ray has restarted can build its worker
    again.
    """

    def __init__(self, name: str, device: str) -> None:
        torch.set_num_threads(1)
        self._name, self._device = name, device
        self._worker: UnitRunner | None = None

    def process_id(self, setup: list[Any]) -> int:
        """Answers once the worker is built."""
        self._build(setup)
        return os.getpid()

    def run(self, work: Work, unit: Unit, vector: np.ndarray, setup: list[Any]) -> UnitResult:
        """Works on a unit."""
        return self._build(setup).run(work, unit, vector)

    def _build(self, setup: list[Any]) -> UnitRunner:
        if self._worker is None:
            self._worker = ray.get(setup[0]).make_worker(self._name, self._device)
        return self._worker


class RayPool:
    """Worker actors by name, as the server actor sees them. Ray restarts an actor that died."""

    def __init__(self, actors: dict[str, Any], setup: list[Any]) -> None:
        self.workers = tuple(actors)
        self._actors, self._setup = actors, setup
        self._running: dict[Any, str] = {}

    def publish(self, vector: np.ndarray) -> Any:
        """Puts the vector into the object store, once for all workers of a node."""
        return ray.put(vector)

    def submit(self, worker: str, work: Work, unit: Unit, handle: Any) -> None:
        """Calls the actor."""
        self._running[self._actors[worker].run.remote(work, unit, handle, self._setup)] = worker

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

    def __init__(self, setup: list[Any], actors: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        self._coordinator: Coordinator = ray.get(setup[0]).make_coordinator(RayPool(actors, setup))

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
            # A TrainingError is for people to read: in its own words. Anything else comes with the actor's traceback.
            expected = isinstance(error.cause, TrainingError)
            raise (error.cause if expected else error.as_instanceof_cause()) from None

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
        """Builds the worker actors and the server actor, and waits until all are ready.

        Raises:
            ClusterError: the cluster has too little, or did not start the workers in time.
        """
        cluster = self.cluster
        present, possible = ray.cluster_resources(), _possible_resources()
        # Machines are started for GPUs that were asked for, not to find out whether there are any.
        gpus = gpus_per_worker(cluster, (present if cluster.gpus_per_worker is None else possible).get("GPU", 0))
        require("cluster.workers", "CPU", cluster.workers * cluster.cpus_per_worker, possible.get("CPU", 0))
        shared = [ray.put(setup)]  # in a list, or Ray would resolve the reference before the call
        worker_class = ray.remote(WorkerActor).options(
            num_cpus=cluster.cpus_per_worker, num_gpus=gpus, max_restarts=-1, max_task_retries=0
        )
        device = "cuda" if gpus else "cpu"
        workers = {str(n): worker_class.remote(str(n), device) for n in range(cluster.workers)}
        self._actors += workers.values()
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        server_class = ray.remote(ServerActor).options(num_cpus=0, scheduling_strategy=here)
        server = server_class.remote(shared, workers)
        self._actors.append(server)
        self._await([worker.process_id.remote(shared) for worker in workers.values()], note)
        return RemoteCoordinator(server)

    def _await(self, started: list[Any], note: Note) -> None:
        """Waits for all workers; a cluster may have to start machines for them."""
        waited = 0
        while True:
            done, late = ray.wait(started, num_returns=len(started), timeout=NOTE_SECONDS)
            ray.get(done)  # an actor that could not be built says why
            if not late:
                return
            waited += NOTE_SECONDS
            free = ray.available_resources()
            left = f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs are free"
            state = f"{len(done)} of {len(started)} workers have started in {waited} s, {left}"
            if waited >= self.cluster.start_timeout_seconds:
                raise ClusterError("cluster.workers", state, "ask for fewer, free the cluster, or wait longer")
            note(f"waiting: {state}")

    def _connect(self) -> None:
        if address := cluster_address(self.cluster):
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            return
        # Ray listens on all interfaces and, unless told otherwise, asks for a token: one that nobody else has keeps a
        # private cluster private. In the environment, or Ray would write it to a file that outlives the cluster.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        cpus = max(os.cpu_count() or 1, math.ceil(self.cluster.workers * self.cluster.cpus_per_worker))
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )


def _possible_resources() -> dict[str, float]:
    """What the cluster has or could have: one that scales itself starts machines when actors ask for them."""
    limits = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    present = ray.cluster_resources()
    return {name: max(present.get(name, 0), limits.get(name, 0)) for name in {*present, *limits}}
