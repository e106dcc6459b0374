"""The coordinator with fake workers: who does what, and what happens when one is lost."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from arrays import f32

from distmeta.coordinator import MAX_LOSSES, Coordinator
from distmeta.errors import TrainingError
from distmeta.types import Done, Lost, ServerState, StepReport, Stream, Unit, UnitResult, Work

LEARNER: Any = None
WORK = Work(Stream("meta_train", 5, 1, 1, 0), LEARNER, training=True)


class FakePool:
    """Workers whose gradient is their unit's first index; `script` says in which order they finish or die."""

    def __init__(self, workers: Sequence[str], script: Sequence[str] = ()) -> None:
        self.workers, self.script = workers, list(script)
        self.running: dict[str, Unit] = {}
        self.done: list[tuple[str, Unit]] = []
        self.published: list[float] = []

    def publish(self, vector: np.ndarray) -> float:
        self.published.append(float(vector[0]))
        return self.published[-1]

    def submit(self, worker: str, work: Work, unit: Unit, handle: Any) -> None:
        assert worker not in self.running, "a busy worker was given a unit"
        assert handle == self.published[-1]
        self.running[worker] = unit

    def wait(self) -> list[Done | Lost]:
        event = self.script.pop(0) if self.script else next(iter(self.running))
        worker, dies = event.removesuffix("†"), event.endswith("†")
        unit = self.running.pop(worker)
        if dies:
            return [Lost(worker, "killed")]
        self.done.append((worker, unit))
        metrics = {"index": np.arange(unit.first_index, unit.first_index + unit.count, dtype=float)}
        return [Done(worker, UnitResult(unit, f32(unit.first_index), metrics, (), worker, 0.0))]


class FakeServer:
    """Keeps what it is given; θ is the version."""

    def __init__(self) -> None:
        self.version = 0
        self.applied: list[list[int]] = []

    @property
    def meta_params(self) -> np.ndarray:
        return f32(self.version)

    def apply(self, results: Sequence[UnitResult]) -> StepReport:
        self.applied.append([result.unit.first_index for result in results])
        assert all(result.unit.version == self.version for result in results)
        self.version += 1
        return StepReport(self.version, {})

    def state(self) -> ServerState:
        return ServerState({}, {"version": self.version})

    def load(self, state: ServerState) -> None:
        self.version = state.counters["version"]


def test_units_are_consecutive_and_the_last_one_is_shorter() -> None:
    pool, server = FakePool(["a"]), FakeServer()
    Coordinator(pool, server, WORK, meta_batch_size=5, tasks_per_unit=2).advance(2)
    assert [unit for _, unit in pool.done] == [
        Unit(0, 0, 2), Unit(0, 2, 2), Unit(0, 4, 1), Unit(1, 5, 2), Unit(1, 7, 2), Unit(1, 9, 1),
    ]  # fmt: skip
    assert pool.published == [0.0, 1.0]  # θ once a version


@pytest.mark.parametrize("script", [["b", "a"], ["a", "a", "b"], ["b", "b", "b", "a"]])
def test_whoever_is_first_the_server_gets_index_order(script: list[str]) -> None:
    pool, server = FakePool(["a", "b"], script), FakeServer()
    Coordinator(pool, server, WORK, 8, 2).advance(1)
    assert server.applied == [[0, 2, 4, 6]]


def test_a_lost_workers_unit_is_done_again_and_applied_once() -> None:
    pool, server = FakePool(["a", "b"], ["a†", "b", "b†"]), FakeServer()
    Coordinator(pool, server, WORK, 8, 2).advance(1)
    assert server.applied == [[0, 2, 4, 6]]
    assert sorted(unit.first_index for _, unit in pool.done) == [0, 2, 4, 6]


def test_workers_that_keep_dying_end_the_run() -> None:
    pool = FakePool(["a"], ["a†"] * (MAX_LOSSES + 1))
    with pytest.raises(TrainingError, match="worker a was lost"):
        Coordinator(pool, FakeServer(), WORK, 2, 2).advance(1)


def test_evaluation_returns_metrics_in_index_order_and_leaves_the_version_alone() -> None:
    pool, server = FakePool(["a", "b"], ["b", "a", "b"]), FakeServer()
    coordinator = Coordinator(pool, server, WORK, 2, 1)
    coordinator.advance(1)
    pool.script = ["b", "a", "b"]
    metrics = coordinator.evaluate(WORK, first_index=3, count=7, per_unit=3)
    assert metrics["index"].tolist() == [3, 4, 5, 6, 7, 8, 9]
    assert (server.version, pool.published[-1]) == (1, 1.0)
    coordinator.evaluate(WORK, 0, 1, 1, initial=True)
    assert pool.published[-1] == 0.0  # what θ started from
