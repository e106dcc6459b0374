"""The worker actors of a run on Ray, and the server's pool of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import ray
import torch
from ray.exceptions import ActorDiedError, ActorUnavailableError, ObjectLostError, RayTaskError
from ray.util.scheduling_strategies import NodeLabelSchedulingStrategy, NotIn

from distmeta.backends.nodes import Remote, add_here, reason
from distmeta.engine import reduction
from distmeta.engine.encode import Features
from distmeta.engine.interfaces import Work
from distmeta.errors import ServerLostError
from distmeta.types import Done, Leaf, Lost, Unit, UnitResult

if TYPE_CHECKING:
    from distmeta.backends.base import UnitRunner

NODE_LABEL = "ray.io/node-id"  # set by Ray
MOVE_AFTER = 3  # losses in a row on one node, after which a worker is started on another


class WorkerActor:
    """A worker in its own process.

    Every call carries the setup, a list of one reference, so that a restarted actor can build its worker again.
    """

    def __init__(self, name: str, device: str) -> None:
        torch.set_num_threads(1)
        self._name, self._device = name, device
        self._worker: UnitRunner | None = None

    def place(self, setup: list[Any]) -> tuple[str, int]:
        """The IDs of the worker's node and process; returns once the worker is built."""
        self._build(setup)
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def run(
        self, setup: list[Any], work: Work, unit: Unit, features: Features | None, *parts: np.ndarray
    ) -> UnitResult:
        """Runs a unit under a vector in one part or several."""
        vector = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return self._build(setup).run(work, unit, vector, features)

    def run_apart(
        self, setup: list[Any], work: Work, unit: Unit, features: Features | None, *parts: np.ndarray
    ) -> tuple[Any, ...]:
        """Runs a unit; returns the result without its gradient, then the parts of the gradient, cut like the vector.

        Each is an object of its own, which stays on this node until it is needed.
        """
        result = self.run(setup, work, unit, features, *parts)
        ends = np.cumsum([len(part) for part in parts])[:-1]
        return replace(result, gradient=None), *np.split(result.gradient, ends)

    def _build(self, setup: list[Any]) -> UnitRunner:
        if self._worker is None:
            self._worker = ray.get(setup[0]).make_worker(self._name, self._device)
        return self._worker


class WorkerFactory:
    """Makes worker actors. Ray restarts one that dies, if there is room.

    Args:
        options: the resources that Ray reserves for each.
        device: the device that they compute on.
    """

    def __init__(self, options: dict[str, Any], device: str) -> None:
        self.options = {**options, "max_restarts": -1, "max_task_retries": 0}
        self.device = device

    def __call__(self, name: str, avoid: str | None = None) -> Any:
        """Makes an actor, not on the node `avoid` if there is another."""
        options = dict(self.options)
        if avoid is not None:
            options["scheduling_strategy"] = NodeLabelSchedulingStrategy({}, soft={NODE_LABEL: NotIn(avoid)})
        return ray.remote(WorkerActor).options(**options).remote(name, self.device)


def ask_place(actor: Any, setup: list[Any]) -> Any:
    """A reference to the answer of `place`; Ray repeats the call if the actor dies."""
    return actor.place.options(max_task_retries=-1).remote(setup)


class RayPool:
    """The server's pool of worker actors, by name. `workers` are those that have been built and answer.

    A lost worker comes back when Ray has restarted it; after several losses in a row on one node, on another node.

    Args:
        actors: by name.
        setup: what an actor builds its worker from.
        make: makes a new actor.
        apart: whether gradients stay on their nodes until they are added.
    """

    can_race: ClassVar[bool] = True

    def __init__(self, actors: dict[str, Any], setup: list[Any], make: WorkerFactory, apart: bool) -> None:
        self._actors, self._setup, self._make, self._apart = dict(actors), setup, make, apart
        self._gradients: dict[Any, tuple[Any, ...]] = {}  # by the reference of the rest of the result
        self._places: dict[str, tuple[str, int]] = {}
        self._losses: Counter[tuple[str, str]] = Counter()  # in a row, by worker and node
        self._running: dict[Any, str] = {}
        self._starting: dict[Any, str] = {}
        for worker in actors:
            self._start(worker)

    @property
    def workers(self) -> tuple[str, ...]:
        """The workers that have answered and were not lost since."""
        return tuple(self._places)

    def publish(self, value: Any) -> tuple[Any, ...]:
        """Puts the value into the object store, once for all workers of a node, unless its parts are there already."""
        return value if isinstance(value, tuple) else (ray.put(value),)

    def submit(self, worker: str, work: Work, unit: Unit, handle: Any, features: Any = None) -> None:
        """Calls the worker's actor."""
        actor, (reference,) = self._actors[worker], features or (None,)
        if self._apart and work.training:
            run = actor.run_apart.options(num_returns=1 + len(handle))
            result, *gradient = run.remote(self._setup, work, unit, reference, *handle)
            self._gradients[result] = tuple(gradient)
        else:
            result = actor.run.remote(self._setup, work, unit, reference, *handle)
        self._running[result] = worker

    def wait(self, seconds: float) -> list[Done | Lost]:
        """Blocks until at least one call has ended or a worker has joined, for at most `seconds`."""
        ready, _ = ray.wait([*self._running, *self._starting], num_returns=1, timeout=seconds)
        if ready:  # add all others that have ended meanwhile
            references = [*self._running, *self._starting]
            ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
        events: list[Done | Lost] = []
        for reference in ready:
            joins = reference in self._starting
            worker = (self._starting if joins else self._running).pop(reference)
            gradient = self._gradients.pop(reference, None)
            try:
                answer = ray.get(reference)
            # ObjectLostError: the worker answered, but its machine was lost before the result arrived.
            except (ActorDiedError, ActorUnavailableError, ObjectLostError) as error:
                if isinstance(error, RayTaskError):  # the worker is fine, but its input was lost
                    raise ServerLostError("θ, or a part of it, was lost") from error
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
        """Adds the gradients here, or first on their own nodes."""
        return add_here(leaves) if self._apart else reduction.add(leaves)

    def replace(self, worker: str) -> None:
        """Kills the actor, even a stopped one; Ray starts it again."""
        ray.kill(self._actors[worker], no_restart=False)

    def _start(self, worker: str) -> None:
        self._starting[ask_place(self._actors[worker], self._setup)] = worker

    def _again(self, worker: str, error: Exception) -> None:
        """Waits for a lost worker to restart, or makes a new one in its place."""
        node, _ = self._places.pop(worker, ("", 0))
        self._losses[worker, node] += 1
        keeps_failing = self._losses[worker, node] >= MOVE_AFTER
        if keeps_failing or isinstance(error, ActorDiedError):  # Ray no longer restarts an actor that has died
            ray.kill(self._actors[worker], no_restart=True)
            self._actors[worker] = self._make(worker, avoid=node if keeps_failing and node else None)
            self._losses[worker, node] = 0
        self._start(worker)
