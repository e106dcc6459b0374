"""The coordinator: who works on which unit, and what to do when a worker is lost.

It knows units and versions; what a gradient means is the aggregator's business, how a worker is reached the pool's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

import numpy as np

from distmeta.errors import DivergedError, TrainingError
from distmeta.protocols import Aggregator, Pool
from distmeta.types import Lost, ServerState, StepReport, Unit, UnitResult, Work

MAX_LOSSES = 20  # workers lost in one meta-batch or evaluation before the run is given up


class Coordinator:
    """Drives a pool of workers through meta-batches and evaluations.

    Args:
        pool: the workers.
        server: owner of θ.
        training: what each training unit is.
        meta_batch_size: episodes in an outer step.
        tasks_per_unit: episodes in a unit. It shapes the sums of floating-point numbers, so it is never derived from
            the number of workers.
    """

    def __init__(
        self, pool: Pool, server: Aggregator, training: Work, meta_batch_size: int, tasks_per_unit: int
    ) -> None:
        self.pool, self.server, self.training = pool, server, training
        self.meta_batch_size, self.tasks_per_unit = meta_batch_size, tasks_per_unit
        self._initial = server.meta_params

    def advance(self, steps: int) -> list[StepReport]:
        """Runs that many outer steps."""
        return [self._outer_step() for _ in range(steps)]

    def evaluate(
        self, work: Work, first_index: int, count: int, per_unit: int, initial: bool = False
    ) -> dict[str, np.ndarray]:
        """Metrics of consecutive episodes of a stream, (count,) each, under θ or (`initial`) what it started from.

        Raises:
            DivergedError: a task whose figures are not finite; no other value may stand in for it.
        """
        vector = self._initial if initial else self.server.meta_params
        results = self._run(work, _units(self.server.version, first_index, count, per_unit), vector)
        if rejected := [task for result in results for task in result.rejected]:
            first, others = rejected[0], len(rejected) - 1
            raise DivergedError(
                f"{work.stream.split} task {first.index} ({', '.join(first.names)})"
                f"{f' and {others} more' if others else ''}: {first.reason}"
                f"{', under the meta-parameters that training started from' if initial else ''}. "
                "A smaller inner.lr, or inner.clip_norm, may help"
            )
        return {name: np.concatenate([r.metrics[name] for r in results]) for name in results[0].metrics}

    def state(self) -> ServerState:
        """The server's state."""
        return self.server.state()

    def load(self, state: ServerState) -> None:
        """Goes back to a state."""
        self.server.load(state)

    def _outer_step(self) -> StepReport:
        started = time.perf_counter()
        version = self.server.version
        units = _units(version, version * self.meta_batch_size, self.meta_batch_size, self.tasks_per_unit)
        results = self._run(self.training, units, self.server.meta_params)
        report = self.server.apply(results)
        seconds = time.perf_counter() - started
        report.metrics["time/step_seconds"] = seconds
        report.metrics["time/worker_seconds"] = sum(result.seconds for result in results)
        report.metrics["time/tasks_per_second"] = self.meta_batch_size / seconds
        return report

    def _run(self, work: Work, units: Iterable[Unit], vector: np.ndarray) -> list[UnitResult]:
        """Has every unit done at least once and returns each once, in index order."""
        handle = self.pool.publish(vector)
        units = list(units)
        waiting = deque(units)
        running: dict[str, Unit] = {}
        results: dict[Unit, UnitResult] = {}
        losses = 0
        while len(results) < len(units):
            for worker in self.pool.workers:
                if waiting and worker not in running:
                    running[worker] = waiting.popleft()
                    self.pool.submit(worker, work, running[worker], handle)
            for event in self.pool.wait():
                unit = running.pop(event.worker)
                if isinstance(event, Lost):
                    waiting.appendleft(unit)
                    losses += 1
                    if losses > MAX_LOSSES:
                        raise TrainingError(
                            f"worker {event.worker} was lost, the {losses}th loss in one round: {event.reason}"
                        )
                else:
                    results[unit] = event.result
        return [results[unit] for unit in units]


def _units(version: int, first: int, count: int, size: int) -> list[Unit]:
    """Cuts `count` episodes from `first` into units of `size`, the last one shorter where it must be."""
    end = first + count
    return [Unit(version, start, min(size, end - start)) for start in range(first, end, size)]
