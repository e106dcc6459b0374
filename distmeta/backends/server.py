"""The server actor of a run on Ray, and its client in the driver.

The server, not the driver, dispatches units: a step then costs one hop to each worker and back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
import torch
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayTaskError

from distmeta.backends.nodes import reason
from distmeta.backends.shards import RayShards
from distmeta.backends.workers import RayPool, WorkerFactory
from distmeta.engine.interfaces import Evaluated, Evaluation
from distmeta.engine.shard import Shard
from distmeta.errors import ServerLostError, TrainingError
from distmeta.types import ServerState, StepReport

if TYPE_CHECKING:
    from distmeta.backends.base import Note
    from distmeta.engine.coordinator import Coordinator
    from distmeta.engine.evaluation import Progress

PROGRESS_SECONDS = 0.5  # between two progress requests during an evaluation
HALT_SECONDS = 4.0  # limit for a server to answer `halt`
MAX_SERVER_LOSSES = 10  # in a row, without progress between them; one more ends the run


class ServerActor:
    """The coordinator and the parameter server, in their own process."""

    def __init__(
        self, setup: list[Any], actors: dict[str, Any], make: WorkerFactory, shards: int, by_node: bool
    ) -> None:
        torch.set_num_threads(1)
        pool = RayPool(actors, setup, make, apart=by_node or shards > 1)
        make_parameters = partial(RayShards, shards, by_node) if shards > 1 else Shard
        self._coordinator: Coordinator = ray.get(setup[0]).make_coordinator(pool, make_parameters)

    def process_id(self) -> int:
        """The server's process ID."""
        return os.getpid()

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method of the coordinator."""
        return getattr(self._coordinator, method)(*arguments)


class RemoteCoordinator:
    """The coordinator in the server actor; if that dies, another replaces it.

    The new one restores the state that was last read or loaded, such as for a checkpoint, and repeats the outer steps
    since then. They are the same to the bit, and are not reported again. The state after each repeated step is kept,
    so even servers that die often make progress, unless a step itself kills them.

    Args:
        start: makes a server actor over the existing workers.
        note: called with a message when a server is lost.
    """

    def __init__(self, start: Callable[[], Any], note: Note) -> None:
        self._start, self._note = start, note
        self.actor: Any = start()
        self._kept: ServerState | None = None
        self._reported = 0  # outer steps that were reported
        self._losses = 0

    def _call(self, method: str, *arguments: Any, progress: Progress | None = None) -> Any:
        while True:
            try:
                if self.actor is None:
                    self._recover()
                answer = self._ask(method, *arguments, progress=progress)
                self._losses = 0
                return answer
            except (ActorDiedError, ActorUnavailableError, ServerLostError) as error:
                if self.actor is not None:
                    ray.kill(self.actor)  # which also ends its remaining shards
                self.actor, self._losses = None, self._losses + 1
                why = reason(error)
                if self._losses > MAX_SERVER_LOSSES:
                    raise TrainingError(f"the server was lost {self._losses} times in a row: {why}") from error
                self._note(f"the server was lost ({why}); another goes on from outer step {self._since}")

    @property
    def _since(self) -> int:
        """The outer step that a new server continues from."""
        return self._kept.counters["version"] if self._kept else 0

    def _recover(self) -> None:
        self.actor = self._start()
        if self._kept:
            self._ask("load", self._kept)
        while self._since < self._reported:
            self._ask("advance", 1)
            self._kept, self._losses = self._ask("state"), 0

    def _ask(self, method: str, *arguments: Any, progress: Progress | None = None) -> Any:
        try:
            answer = self.actor.call.remote(method, *arguments)
            is_done = progress is None
            while progress and not is_done:
                is_done = bool(ray.wait([answer], timeout=PROGRESS_SECONDS)[0])
                done, total = ray.get(self.actor.call.remote("progress"))
                if total:  # else the units are still being planned
                    progress(done, total)
            return ray.get(answer)
        except RayTaskError as error:
            # Users read a TrainingError, so it is raised as it is. Any other error keeps the actor's traceback.
            expected = isinstance(error.cause, TrainingError | ServerLostError)
            raise (error.cause if expected else error.as_instanceof_cause()) from None

    def advance(self, steps: int) -> list[StepReport]:
        """Runs outer steps."""
        reports: list[StepReport] = self._call("advance", steps)
        self._reported = reports[-1].outer_step if reports else self._reported
        return reports

    def evaluate(self, evaluations: Sequence[Evaluation], progress: Progress | None = None) -> list[Evaluated]:
        """Runs all evaluations together; asks the server for progress while it waits."""
        figures: list[Evaluated] = self._call("evaluate", evaluations, progress=progress)
        return figures

    def state(self) -> ServerState:
        """The server's state."""
        self._kept = self._call("state")
        return self._kept

    def halt(self) -> tuple[ServerState, list[StepReport]] | None:
        """State and step reports of an interrupted `advance`; None if no server answers in time."""
        if self.actor is None:
            return None
        try:
            halted: tuple[ServerState, list[StepReport]] | None = ray.get(
                self.actor.call.remote("halt"), timeout=HALT_SECONDS
            )
        except (ActorDiedError, ActorUnavailableError, GetTimeoutError):
            return None
        return halted

    def load(self, state: ServerState) -> None:
        """Restores a state."""
        self._call("load", state)
        self._kept, self._reported = state, state.counters["version"]
