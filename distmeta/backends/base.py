"""The interfaces between the driver and a backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from distmeta.engine.coordinator import Coordinator
from distmeta.engine.encode import Features
from distmeta.engine.evaluation import Progress
from distmeta.engine.interfaces import Evaluated, Evaluation, MakeParameters, Pool, Work
from distmeta.engine.shard import Shard
from distmeta.types import ServerState, StepReport, Unit, UnitResult

Note = Callable[[str], None]


class UnitRunner(Protocol):
    """A worker."""

    def run(self, work: Work, unit: Unit, vector: np.ndarray, features: Features | None = None) -> UnitResult:
        """Runs a unit."""


class Setup(Protocol):
    """All that a backend must know about a run. It is pickled and sent to where workers and server are built."""

    def make_worker(self, name: str, device: str) -> UnitRunner:
        """Builds a worker, in the process where it runs."""

    def make_coordinator(self, pool: Pool, make_parameters: MakeParameters = Shard) -> Coordinator:
        """Builds the server and its coordinator over a pool."""


class Coordination(Protocol):
    """The coordinator as the driver sees it, here or in an actor."""

    def advance(self, steps: int) -> list[StepReport]:
        """Runs outer steps."""

    def evaluate(self, evaluations: Sequence[Evaluation], progress: Progress | None = None) -> list[Evaluated]:
        """Runs all evaluations together; results are in the order given. `progress` is called now and then."""

    def state(self) -> ServerState:
        """The server's state."""

    def halt(self) -> tuple[ServerState, list[StepReport]] | None:
        """State and step reports of an interrupted `advance`; None if they are unavailable or inconsistent."""

    def load(self, state: ServerState) -> None:
        """Restores a state."""


class Backend(Protocol):
    """A connected backend."""

    def start(self, setup: Setup, note: Note) -> Coordination:
        """Builds server and workers; calls `note` with a message if that takes long."""
