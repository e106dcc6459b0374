"""The coordinator with fake workers: who does what, and what happens when one is lost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from arrays import f32
from simulation import WORK, Applied
from toy import evaluate, evaluated, toy_config

from distmeta.backends import open_backend
from distmeta.config import ClusterConfig, OuterConfig
from distmeta.engine import reduction
from distmeta.engine.coordinator import Coordinator
from distmeta.engine.dispatch import MAX_LOSSES
from distmeta.engine.interfaces import Evaluation, Work
from distmeta.errors import DivergedError, TrainingError
from distmeta.runs.experiment import build_experiment
from distmeta.types import Done, Leaf, Lost, Rejected, Unit, UnitResult


class FakePool:
    """Workers whose gradient is their unit's first index; `script` says in which order they finish or die."""

    can_race: ClassVar[bool] = True

    def __init__(self, workers: Sequence[str], script: Sequence[str] = (), diverging: Sequence[int] = ()) -> None:
        self.workers, self.script, self.diverging = workers, list(script), diverging
        self.running: dict[str, Unit] = {}
        self.done: list[tuple[str, Unit]] = []
        self.published: list[float] = []
        self.handles: list[float] = []

    def publish(self, value: np.ndarray) -> float:
        self.published.append(float(value[0]))
        return self.published[-1]

    def submit(self, worker: str, work: Work, unit: Unit, handle: Any, features: Any = None) -> None:
        assert worker not in self.running, "a busy worker was given a unit"
        assert handle in self.published
        self.handles.append(handle)
        self.running[worker] = unit

    def wait(self, seconds: float) -> list[Done | Lost]:
        event = self.script.pop(0) if self.script else next(iter(self.running))
        worker, dies = event.removesuffix("†"), event.endswith("†")
        unit = self.running.pop(worker)
        if dies:
            return [Lost(worker, "killed")]
        self.done.append((worker, unit))
        metrics = {"index": np.arange(unit.first_index, unit.first_index + unit.count, dtype=float)}
        indices = range(unit.first_index, unit.first_index + unit.count)
        rejected = tuple(Rejected(i, ("x", f"y{i}"), "it diverged") for i in indices if i in self.diverging)
        return [Done(worker, UnitResult(unit, f32(unit.first_index), metrics, rejected, worker, 0.0))]

    def add(self, leaves: Sequence[Leaf]) -> np.ndarray:
        return reduction.add(leaves)

    def replace(self, worker: str) -> None:
        raise NotImplementedError  # none is silent here


def coordinate(pool: Any, server: Applied, meta_batch_size: int, tasks_per_unit: int) -> Coordinator:
    return Coordinator(
        pool, server, WORK, OuterConfig(meta_batch_size=meta_batch_size), ClusterConfig(tasks_per_unit=tasks_per_unit)
    )


def test_units_are_consecutive_and_the_last_one_is_shorter() -> None:
    pool, server = FakePool(["a"]), Applied()
    coordinate(pool, server, 5, 2).advance(2)
    assert [unit for _, unit in pool.done] == [
        Unit(0, 0, 2), Unit(0, 2, 2), Unit(0, 4, 1), Unit(1, 5, 2), Unit(1, 7, 2), Unit(1, 9, 1),
    ]  # fmt: skip
    assert pool.published == [0.0, 1.0]  # θ once a version


@pytest.mark.parametrize("script", [["b", "a"], ["a", "a", "b"], ["b", "b", "b", "a"]])
def test_whoever_is_first_the_server_gets_index_order(script: list[str]) -> None:
    pool, server = FakePool(["a", "b"], script), Applied()
    coordinate(pool, server, 8, 2).advance(1)
    assert server.indices == [[0, 2, 4, 6]]


def test_a_lost_workers_unit_is_done_again_and_applied_once() -> None:
    pool, server = FakePool(["a", "b"], ["a†", "b", "b†"]), Applied()
    coordinate(pool, server, 8, 2).advance(1)
    assert server.indices == [[0, 2, 4, 6]]
    assert sorted(unit.first_index for _, unit in pool.done) == [0, 2, 4, 6]


def test_workers_that_keep_dying_end_the_run() -> None:
    pool = FakePool(["a"], ["a†"] * (MAX_LOSSES + 1))
    with pytest.raises(TrainingError, match="worker a was lost"):
        coordinate(pool, Applied(), 2, 2).advance(1)


def test_a_network_that_fails_costs_all_of_many_workers_and_not_the_run() -> None:
    """Each of six is lost four times, as on Ray when all hosts are cut off: with its unit, then as it starts again."""
    pool, server = FakePool("abcdef", [f"{worker}†" for worker in "abcdef"] * 4), Applied()
    cluster = ClusterConfig(workers=6, tasks_per_unit=1)
    Coordinator(pool, server, WORK, OuterConfig(meta_batch_size=6), cluster).advance(1)
    assert server.indices == [[0, 1, 2, 3, 4, 5]]


def test_evaluation_returns_metrics_in_index_order_and_leaves_the_version_alone() -> None:
    pool, server = FakePool(["a", "b"], ["b", "a", "b"]), Applied()
    coordinator = coordinate(pool, server, 2, 1)
    coordinator.advance(1)
    pool.script = ["b", "a", "b"]
    metrics = evaluate(coordinator, WORK, 7, 3, first=3)
    assert metrics["index"].tolist() == [3, 4, 5, 6, 7, 8, 9]
    assert (server.version, pool.handles[-1]) == (1, 1.0)
    evaluate(coordinator, WORK, 1, 1, initial=True)
    assert pool.handles[-1] == 0.0  # what θ started from
    evaluate(coordinator, WORK, 1, 1)
    evaluate(coordinator, WORK, 1, 1, initial=True)
    coordinator.advance(1)
    assert pool.published == [0.0, 1.0, 0.0]  # each version once, and the first θ


def test_an_evaluation_that_diverged_names_its_task() -> None:
    coordinator = coordinate(FakePool(["a", "b"], ["b", "a"], diverging=[2, 4]), Applied(), 2, 2)
    with pytest.raises(DivergedError) as caught:
        evaluate(coordinator, WORK, 6, 3)
    assert str(caught.value) == (
        "meta_train task 2 (x, y2) and 1 more: it diverged. A smaller inner.lr, or inner.clip_norm, may help"
    )
    with pytest.raises(
        DivergedError, match=r"^meta_train task 4 \(x, y4\): it diverged, under the meta-parameters that"
    ):
        evaluate(coordinator, WORK, 3, 3, first=3, initial=True)
    assert evaluate(coordinator, WORK, 3, 3, first=5)["index"].tolist() == [5, 6, 7]


def test_one_that_diverges_spoils_no_other() -> None:
    coordinator = coordinate(FakePool(["a", "b"], diverging=[12]), Applied(), 2, 2)
    first, second, third = coordinator.evaluate([Evaluation(WORK, n, 4, 2) for n in (0, 10, 20)])
    assert first.require()["index"].tolist() == [0, 1, 2, 3]
    assert third.require()["index"].tolist() == [20, 21, 22, 23]
    assert str(second.error).startswith("meta_train task 12 (x, y12): it diverged. ")
    assert second.statistics == {}
    with pytest.raises(DivergedError):
        second.require()


def test_a_run_that_diverges_says_so_in_one_line(tmp_path: Path) -> None:
    experiment = build_experiment(toy_config(tmp_path, inner__lr=1e30))
    with open_backend(experiment.config.cluster) as backend:
        coordination = backend.start(experiment.setup, print)
        work = experiment.work(experiment.learner, evaluated(experiment, "meta_test", 2), 4)
        with pytest.raises(DivergedError) as caught:
            evaluate(coordination, work, 4, 2)
        assert str(caught.value).startswith("meta_test task 0 (class ")
        assert "and 3 more: its inner loop diverged: the loss after adaptation is not finite" in str(caught.value)
        with pytest.raises(TrainingError, match=r"task 4 .* was rejected, its inner loop diverged") as rejected:
            coordination.advance(1)
        assert "\n" not in str(caught.value) + str(rejected.value)
