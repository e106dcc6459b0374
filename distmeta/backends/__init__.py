"""Where workers run: in this process, or as Ray actors. Both give the driver the same coordinator."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from distmeta.config import ClusterConfig

if TYPE_CHECKING:  # who submits a job needs no torch
    import numpy as np

    from distmeta.engine.coordinator import Coordinator
    from distmeta.protocols import MakeParameters, Pool
    from distmeta.types import ServerState, StepReport, Unit, UnitResult, Work

# Read by ray when it is imported: nothing is reported anywhere unless the user asks for it.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

Note = Callable[[str], None]


class UnitRunner(Protocol):
    """A worker."""

    def run(self, work: Work, unit: Unit, vector: np.ndarray) -> UnitResult:
        """Works on a unit."""


class Setup(Protocol):
    """All that a backend must know of a run. It is pickled to where workers and server are built."""

    def make_worker(self, name: str, device: str) -> UnitRunner:
        """Builds a worker, where it is to run."""

    def make_coordinator(self, pool: Pool, make_parameters: MakeParameters = ...) -> Coordinator:
        """Builds the server and its coordinator over a pool; by default θ is in one shard."""


class Coordination(Protocol):
    """The coordinator as the driver sees it, here or in an actor."""

    def advance(self, steps: int) -> list[StepReport]:
        """Runs outer steps."""

    def evaluate(
        self, work: Work, first_index: int, count: int, per_unit: int, initial: bool = False
    ) -> dict[str, np.ndarray]:
        """Evaluates consecutive episodes of a stream."""

    def state(self) -> ServerState:
        """The server's state."""

    def halt(self) -> tuple[ServerState, list[StepReport]] | None:
        """What an interrupted `advance` has come to, if that can be told."""

    def load(self, state: ServerState) -> None:
        """Goes back to a state."""


class Backend(Protocol):
    """A connected backend."""

    def start(self, setup: Setup, note: Note) -> Coordination:
        """Builds server and workers; `note` is told where that takes long."""


@contextmanager
def open_backend(cluster: ClusterConfig) -> Iterator[Backend]:
    """Connects to where the workers will run, and cleans up behind them whatever happens."""
    if cluster.backend == "ray":
        from distmeta.backends.ray import RayBackend

        with RayBackend(cluster) as backend:
            yield backend
    else:
        from distmeta.backends.inprocess import InProcessBackend

        yield InProcessBackend(cluster)
