"""Workers in this process: for tests, for debugging, and for machines without Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from distmeta.config import ClusterConfig
from distmeta.engine import reduction
from distmeta.engine.coordinator import Coordinator
from distmeta.engine.encode import Features
from distmeta.engine.interfaces import Work
from distmeta.types import Done, Leaf, Lost, Unit

if TYPE_CHECKING:
    from distmeta.backends.base import Note, Setup, UnitRunner


class InProcessPool:
    """Runs one unit in each `wait`, in the order in which units were submitted.

    Args:
        worker: runs the units.
        workers: how many workers it simulates. This changes only how far ahead an asynchronous run is: as if all
            workers were equally fast, so that the run can be repeated to the bit.
    """

    can_race: ClassVar[bool] = False  # workers take turns

    def __init__(self, worker: UnitRunner, workers: int = 1) -> None:
        self.workers = tuple(map(str, range(workers)))
        self._worker = worker
        self._waiting = deque[tuple[str, Work, Unit, np.ndarray, Features | None]]()

    def publish(self, value: Any) -> Any:
        """A value is its own handle; a vector becomes read-only."""
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
        return value

    def submit(self, worker: str, work: Work, unit: Unit, handle: Any, features: Any = None) -> None:
        """Queues the unit."""
        self._waiting.append((worker, work, unit, handle, features))

    def wait(self, seconds: float) -> list[Done | Lost]:
        """Runs a unit, however long it takes."""
        if not self._waiting:
            raise RuntimeError("nothing was submitted")
        worker, work, unit, vector, features = self._waiting.popleft()
        return [Done(worker, self._worker.run(work, unit, vector, features))]

    def add(self, leaves: Sequence[Leaf]) -> np.ndarray:
        """Adds the gradients in this process."""
        return reduction.add(leaves)

    def replace(self, worker: str) -> None:
        """Does nothing: a unit that has waited for long is not lost, its turn has not come yet."""


class InProcessBackend:
    """Runs everything in this process."""

    def __init__(self, cluster: ClusterConfig) -> None:
        self.cluster = cluster

    def start(self, setup: Setup, note: Note) -> Coordinator:
        """Builds worker, server and coordinator."""
        # One thread, as in a worker actor: more threads would add numbers in another order.
        torch.set_num_threads(1)
        device = "cpu" if self.cluster.gpus_per_worker == 0 or not torch.cuda.is_available() else "cuda"
        workers = self.cluster.range.max if self.cluster.max_staleness else 1
        return setup.make_coordinator(InProcessPool(setup.make_worker("0", device), workers))
