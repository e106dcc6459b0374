"""What the driver and a backend know of each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from distmeta.engine.coordinator import Coordinator
from distmeta.engine.encode import Features
from distmeta.engine.evaluation import Progress
from distmeta.engine.interfaces import Evaluated, Evaluation, MakeParameters, Pool
from distmeta.engine.shard import Shard
from distmeta.protocols import Work
from distmeta.types import ServerState, StepReport, Unit, UnitResult

Note = Callable[[str], None]


class UnitRunner(Protocol):
    """A worker."""

    def run(self, work: Work, unit: Unit, vector: np.ndarray, features: Features | None = None) -> UnitResult:
        """Works on a unit."""


class Setup(Protocol):
    """All that a backend must know of a run. It is pickled to where workers and server are built."""

    def make_worker(self, name: str, device: str) -> UnitRunner:
        """Builds a worker, where it is to run."""

    def make_coordinator(self, pool: Pool, make_parameters: MakeParameters = Shard) -> Coordinator:
        """Builds the server and its coordinator over a pool."""


class Coordination(Protocol):
    """The coordinator as the driver sees it, here or in an actor."""

    def advance(self, steps: int) -> list[StepReport]:
        """Runs outer steps."""

    def evaluate(self, evaluations: Sequence[Evaluation], progress: Progress | None = None) -> list[Evaluated]:
        """Evaluates, all at once; the statistics are in the order given. `progress` is told now and then."""

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
