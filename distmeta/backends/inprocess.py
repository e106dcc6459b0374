"""The pool of one worker in this process: for tests, for debugging, and for machines without Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from distmeta.config import ClusterConfig
from distmeta.coordinator import Coordinator
from distmeta.types import Done, Lost, Unit, Work

if TYPE_CHECKING:
    from distmeta.backends import Note, Setup, UnitRunner


class InProcessPool:
    """Does a unit when it is waited for."""

    def __init__(self, worker: UnitRunner) -> None:
        self.workers = ("0",)
        self._worker = worker
        self._next: tuple[Work, Unit, np.ndarray] | None = None

    def publish(self, vector: np.ndarray) -> np.ndarray:
        """The vector is its own handle."""
        return vector

    def submit(self, worker: str, work: Work, unit: Unit, handle: Any) -> None:
        """Remembers the unit."""
        self._next = (work, unit, handle)

    def wait(self) -> list[Done | Lost]:
        """Does the unit."""
        if self._next is None:
            raise RuntimeError("nothing was submitted")
        work, unit, vector = self._next
        self._next = None
        return [Done("0", self._worker.run(work, unit, vector))]


class InProcessBackend:
    """Runs everything here."""

    def __init__(self, cluster: ClusterConfig) -> None:
        self.cluster = cluster

    def start(self, setup: Setup, note: Note) -> Coordinator:
        """Builds worker, server and coordinator."""
        # One thread, as in a worker actor: more would add in another order.
        torch.set_num_threads(1)
        device = "cpu" if self.cluster.gpus_per_worker == 0 or not torch.cuda.is_available() else "cuda"
        return setup.make_coordinator(InProcessPool(setup.make_worker("0", device)))
