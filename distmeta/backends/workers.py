"""The worker actors of a run on Ray, and the pool of them as the server sees it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import ray
import torch
from ray.exceptions import ActorDiedError, ActorUnavailableError, ObjectLostError, RayError
from ray.util.scheduling_strategies import NodeLabelSchedulingStrategy, NotIn

from distmeta import reduction
from distmeta.backends.nodes import Remote, add_by_node
from distmeta.types import Done, Leaf, Lost, Unit, UnitResult, Work

if TYPE_CHECKING:
    from distmeta.backends import UnitRunner

NODE_LABEL = "ray.io/node-id"  # Ray's own
MOVE_AFTER = 3  # losses in a row on one node, until a worker is started on another


class WorkerActor:
    """A worker in a process of its own.

    Every call carries the setup, a list of one reference, so that an actor that Ray has restarted can build its worker
    again.
    """

    def __init__(self, name: str, device: str) -> None:
        torch.set_num_threads(1)
        self._name, self._device = name, device
        self._worker: UnitRunner | None = None

    def place(self, setup: list[Any]) -> tuple[str, int]:
        """Its node and process; answers once the worker is built."""
        self._build(setup)
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def run(self, work: Work, unit: Unit, vector: np.ndarray, setup: list[Any]) -> UnitResult:
        """Works on a unit."""
        return self._build(setup).run(work, unit, vector)

    def run_apart(self, work: Work, unit: Unit, vector: np.ndarray, setup: list[Any]) -> tuple[UnitResult, np.ndarray]:
        """Works on a unit; returns its gradient as an object of its own, which stays here until it is asked for."""
        result = self.run(work, unit, vector, setup)
        return replace(result, gradient=None), result.gradient

    def _build(self, setup: list[Any]) -> UnitRunner:
        if self._worker is None:
            self._worker = ray.get(setup[0]).make_worker(self._name, self._device)
        return self._worker


def reason(error: RayError) -> str:
    """Why an actor is lost, in a line; one that could not be built is no loss but an error to be seen."""
    if "creation task" in str(error):
        raise error
    return str(error).splitlines()[0]


class WorkerFactory:
    """Makes worker actors. Ray restarts one that dies, where there is room.

    Args:
        options: what Ray is to set aside for each.
        device: that they compute on.
    """

    def __init__(self, options: dict[str, Any], device: str) -> None:
        self.options = {**options, "max_restarts": -1, "max_task_retries": 0}
        self.device = device

    def __call__(self, name: str, avoid: str | None = None) -> Any:
        """An actor, not on the node `avoid` if there is another."""
        options = dict(self.options)
        if avoid is not None:
            options["scheduling_strategy"] = NodeLabelSchedulingStrategy({}, soft={NODE_LABEL: NotIn(avoid)})
        return ray.remote(WorkerActor).options(**options).remote(name, self.device)


def ask_place(actor: Any, setup: list[Any]) -> Any:
    """Reference of its `place`, which Ray asks for again whenever the actor dies meanwhile."""
    return actor.place.options(max_task_retries=-1).remote(setup)


class RayPool:
    """Worker actors by name, as the server actor sees them; those are workers that have been built and answer.

    One that is lost comes back when Ray has restarted it; after several losses in a row on one node, on another.

    Args:
        actors: by name.
        setup: what they build their worker from.
        make: makes another one.
        by_node: whether gradients are added on their nodes.
    """

    can_race: ClassVar[bool] = True

    def __init__(self, actors: dict[str, Any], setup: list[Any], make: WorkerFactory, by_node: bool) -> None:
        self._actors, self._setup, self._make, self._by_node = dict(actors), setup, make, by_node
        self._gradients: dict[Any, Any] = {}  # by the reference of the rest of the result
        self._places: dict[str, tuple[str, int]] = {}
        self._losses: Counter[tuple[str, str]] = Counter()  # in a row, by worker and node
        self._running: dict[Any, str] = {}
        self._starting: dict[Any, str] = {}
        for worker in actors:
            self._start(worker)

    @property
    def workers(self) -> tuple[str, ...]:
        """Those that have answered and were not lost since."""
        return tuple(self._places)

    def publish(self, vector: np.ndarray) -> Any:
        """Puts the vector into the object store, once for all workers of a node."""
        return ray.put(vector)

    def submit(self, worker: str, work: Work, unit: Unit, handle: Any) -> None:
        """Calls the actor."""
        actor = self._actors[worker]
        if self._by_node and work.training:
            result, gradient = actor.run_apart.options(num_returns=2).remote(work, unit, handle, self._setup)
            self._gradients[result] = gradient
        else:
            result = actor.run.remote(work, unit, handle, self._setup)
        self._running[result] = worker

    def wait(self, seconds: float) -> list[Done | Lost]:
        """Blocks until at least one call has ended or a worker has joined, or for so long."""
        ready, _ = ray.wait([*self._running, *self._starting], num_returns=1, timeout=seconds)
        if ready:  # and all others that have ended meanwhile
            every = [*self._running, *self._starting]
            ready, _ = ray.wait(every, num_returns=len(every), timeout=0)
        events: list[Done | Lost] = []
        for reference in ready:
            joins = reference in self._starting
            worker = (self._starting if joins else self._running).pop(reference)
            gradient = self._gradients.pop(reference, None)
            try:
                answer = ray.get(reference)
            # The last: it answered, but its machine was lost with a result that had not arrived.
            except (ActorDiedError, ActorUnavailableError, ObjectLostError) as error:
                events.append(Lost(worker, reason(error)))
                self._again(worker, error)
                continue
            if joins:
                self._places[worker] = answer
            else:
                node = self._places[worker][0]
                answer = answer if gradient is None else replace(answer, gradient=Remote(node, gradient))
                events.append(Done(worker, answer))
                self._losses[worker, node] = 0
        return events

    def add(self, leaves: Sequence[Leaf]) -> np.ndarray:
        """Adds them here, or first on the nodes where they are."""
        return add_by_node(leaves) if self._by_node else reduction.add(leaves)

    def replace(self, worker: str) -> None:
        """Kills the actor, also one that is stopped; Ray starts it again."""
        ray.kill(self._actors[worker], no_restart=False)

    def _start(self, worker: str) -> None:
        self._starting[ask_place(self._actors[worker], self._setup)] = worker

    def _again(self, worker: str, error: Exception) -> None:
        """Waits for a worker that was lost, or puts another in its place."""
        node, _ = self._places.pop(worker, ("", 0))
        self._losses[worker, node] += 1
        keeps_failing = self._losses[worker, node] >= MOVE_AFTER
        if keeps_failing or isinstance(error, ActorDiedError):  # the latter Ray does not restart any more
            ray.kill(self._actors[worker], no_restart=True)
            self._actors[worker] = self._make(worker, avoid=node if keeps_failing and node else None)
            self._losses[worker, node] = 0
        self._start(worker)
